/* check.h - checks that print their line and end the program with 1; the tests, a table for each file. */
#ifndef CHECK_H
#define CHECK_H
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#define CHECK(what)                                                                                                    \
    do {                                                                                                               \
        if (!(what)) {                                                                                                 \
            fprintf(stderr, "%s:%d: not true: %s (errno %d)\n", __FILE__, __LINE__, #what, errno);                     \
            exit(1);                                                                                                   \
        }                                                                                                              \
    } while (0)

#define EQUAL(got, wanted)                                                                                             \
    do {                                                                                                               \
        long long got_ = (long long)(got), wanted_ = (long long)(wanted);                                              \
        if (got_ != wanted_) {                                                                                         \
            fprintf(stderr, "%s:%d: %s is %lld, wanted %lld\n", __FILE__, __LINE__, #got, got_, wanted_);              \
            exit(1);                                                                                                   \
        }                                                                                                              \
    } while (0)

/* A test, static in its file; each file has a table of them, with nulls at its end. */
typedef struct {
    const char *name;
    void (*run)(void);
} test_t;

#define TEST(name) {#name, name}

extern const test_t map_tests[], mutex_tests[], futex_tests[], seg_tests[], range_tests[], atomic_tests[], step_tests[],
    stream_tests[], team_tests[];
#endif
