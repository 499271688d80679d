/* check.h - what the C tests share: checks that print their line and end the program with 1; tests in files of their own. */
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

/* test_team.c */
void test_team_runs_each_chunk_once(void);
void test_team_whose_kernel_fails(void);
void test_team_mail_calls_and_patches(void);
void test_team_whose_member_dies_at_each_step(void);
void test_team_barrier(void);
#endif
