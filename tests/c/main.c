/* main.c - the tests of every C function of ffi/csrc, by itself, under the sanitizers (`make sanitize`).
 *
 * Memory is a real shared-memory object, other parties are real processes (fork, SIGKILL) and threads. A check that
 * does not hold prints its line and ends the program with 1; a wait that never ends is ended by alarm(2). */
#include "check.h"
#include "parties.h"
#include "shared_memory.h"
#include <stdio.h>
#include <unistd.h>

int main(void)
{
    static const test_t *const files[] = {map_tests,    mutex_tests, futex_tests,  seg_tests, range_tests,
                                          atomic_tests, step_tests,  stream_tests, team_tests};
    int n_passed = 0;

    name_object();
    for (size_t i = 0; i < sizeof files / sizeof *files; i++)
        for (const test_t *test = files[i]; test->name; test++) {
            double start = now();

            printf("%-45s", test->name);
            fflush(stdout);
            alarm(60);
            test->run();
            printf(" ok %5.2f s\n", now() - start);
            n_passed++;
        }
    printf("%d C tests passed\n", n_passed);
    return 0;
}
