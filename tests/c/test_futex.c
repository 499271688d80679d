/* test_futex.c - npush_futex.h: waiting, until a post, a deadline or a signal. */
#include "check.h"
#include "npush_futex.h"
#include "parties.h"
#include "shared_memory.h"
#include <limits.h>
#include <signal.h>
#include <sys/time.h>
#include <unistd.h>

static void wait_for_post(void *argument)
{
    uint32_t *word = argument;
    int rc;

    do
        rc = npush_futex_wait(word, 0, 60000 * MS);
    while (npush_futex_load(word) == 0);
    CHECK(rc == 0 || rc == -EINTR);
}

static void do_nothing(int signum) { (void)signum; }

static void test_futex(void)
{
    uint32_t *word = shared(sizeof *word);
    struct sigaction action = {.sa_handler = do_nothing}, before;
    struct itimerval often = {{.tv_usec = 20000}, {.tv_usec = 20000}}, never = {{0}, {0}};
    double start = now();
    pid_t children[N_WORKERS];

    EQUAL(npush_futex_wait(word, 1, 10000 * MS), 0); /* differs already */
    EQUAL(npush_futex_wait(word, 0, 30 * MS), -ETIMEDOUT);
    CHECK(now() - start >= 0.029);
    EQUAL(npush_futex_wake(word, INT_MAX), 0);

    alarm(0);
    sigaction(SIGALRM, &action, &before);
    setitimer(ITIMER_REAL, &often, NULL);
    EQUAL(npush_futex_wait(word, 0, 10000 * MS), -EINTR);
    setitimer(ITIMER_REAL, &never, NULL);
    sigaction(SIGALRM, &before, NULL);
    alarm(60);

    for (int i = 0; i < N_WORKERS; i++)
        children[i] = spawn(wait_for_post, word);
    nap(30 * MS);
    npush_futex_post(word);
    for (int i = 0; i < N_WORKERS; i++)
        EQUAL(reap(children[i]), 0);
    EQUAL(npush_futex_load(word), 1);
    unshare_(word, sizeof *word);
}

const test_t futex_tests[] = {
    TEST(test_futex),
    {NULL, NULL},
};
