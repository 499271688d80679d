/* test_team.c - npush_team.h: members are threads (so ThreadSanitizer sees all of them) or processes that die. */
#include "check.h"
#include "npush_step.h"
#include "npush_team.h"
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define N 4 /* members */
#define N_ROWS 1000
#define SECOND INT64_C(1000000000)

static npush_team_t *team;
static uint32_t *rows; /* how often each was done; shared */

static void make_team(void)
{
    size_t size = npush_team_size(N) + N_ROWS * sizeof *rows;
    char *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

    CHECK(memory != MAP_FAILED);
    team = (npush_team_t *)(void *)memory;
    rows = (uint32_t *)(void *)(memory + npush_team_size(N));
    EQUAL(npush_team_check(team, N), -EINVAL);
    npush_team_init(team, N);
    EQUAL(npush_team_check(team, N), 0);
    EQUAL(npush_team_check(team, N + 1), -EINVAL);
}

static void free_team(void)
{
    munmap(team, npush_team_size(N) + N_ROWS * sizeof *rows);
}

/* A kernel: count each row; the block says at which row to fail, and with what. */
static int32_t count_rows(const int64_t *block, int64_t i0, int64_t i1, void **excinfo)
{
    for (int64_t i = i0; i < i1; i++) {
        if (i == block[0]) {
            *excinfo = (void *)(uintptr_t)(i + 1);
            return (int32_t)block[1];
        }
        __atomic_add_fetch(&rows[i], 1, __ATOMIC_RELAXED);
    }
    return 0;
}

/* What a member met while it was at work. */
typedef struct {
    uint32_t index;
    npush_plan_t plans[NPUSH_TEAM_PLANS];
    int64_t block[2];
    uint32_t n_mail, n_calls, n_failed, n_chunks;
    uint64_t place;
} member_t;

static void init_member(member_t *m, uint32_t index)
{
    memset(m, 0, sizeof *m);
    m->index = index;
    m->block[0] = -1;
    m->block[1] = 7;
    m->plans[5 % NPUSH_TEAM_PLANS] = (npush_plan_t){5, count_rows, m->block};
}

static void *work(void *argument)
{
    member_t *m = argument;
    uint32_t seen = 0;

    for (;;) {
        uint32_t number = 0, plan = 0;
        int32_t rc = 0;
        int64_t part[2], chunk;
        void *excinfo = NULL;

        int event = npush_team_work(team, m->index, m->plans, m->n_mail, seen, 20000, &number, &plan, &rc, &excinfo);

        switch (event) {
        case NPUSH_TEAM_MAIL:
            __atomic_add_fetch(&m->n_mail, 1, __ATOMIC_RELAXED);
            break;
        case NPUSH_TEAM_CALL:
            m->n_calls++;
            seen = number;
            while (npush_team_take(team, m->index, number, part) >= 0) {
                m->n_chunks++;
                for (int64_t i = part[0]; i < part[1]; i++)
                    __atomic_add_fetch(&rows[i], 1, __ATOMIC_RELAXED);
            }
            break;
        case NPUSH_TEAM_UNKNOWN:
            EQUAL(plan, 6);
            seen = number;
            if ((chunk = npush_team_take(team, m->index, number, part)) >= 0)
                npush_team_fail(team, m->index, number, (uint32_t)chunk, 9);
            break;
        case NPUSH_TEAM_FAILED:
            EQUAL(plan, 5);
            EQUAL(rc, 7);
            m->place = (uint64_t)(uintptr_t)excinfo;
            m->n_failed++;
            break;
        default:
            EQUAL(event, NPUSH_TEAM_CLOSED);
            return NULL;
        }
    }
}

static void start_members(member_t *members, pthread_t *threads)
{
    for (uint32_t i = 0; i < N; i++) {
        init_member(&members[i], i);
        EQUAL(pthread_create(&threads[i], NULL, work, &members[i]), 0);
    }
}

static void join_members(pthread_t *threads)
{
    npush_team_close(team);
    for (int i = 0; i < N; i++)
        EQUAL(pthread_join(threads[i], NULL), 0);
}

static npush_job_t job_of(uint32_t plan, int64_t begin, int64_t end, int64_t chunk)
{
    npush_job_t job = {.plan = plan, .begin = begin, .end = end, .chunk = chunk};

    job.n_chunks = (uint32_t)((end - begin + chunk - 1) / chunk);
    return job;
}

static uint32_t run(const npush_job_t *job)
{
    uint32_t number = 0;
    int is_over = npush_team_run(team, job, SECOND / 100, &number);

    while (!is_over)
        is_over = npush_team_wait(team, SECOND / 100);
    EQUAL(npush_team_number(team), number);
    EQUAL(npush_team_done(team), job->n_chunks);
    EQUAL(npush_team_left(team), 0);
    return number;
}

static void test_team_runs_each_chunk_once(void)
{
    static member_t members[N];
    pthread_t threads[N];
    uint32_t n_jobs = 0;

    make_team();
    start_members(members, threads);
    for (uint32_t i = 0; i < 3000; i++) { /* with chunks fewer than members too: some wake up late */
        npush_job_t job = job_of(5, i % 11, (int64_t)(i % 11 + 1 + i * 7 % 500), 1 + i % 13);

        run(&job);
        n_jobs++;
        for (int64_t row = 0; row < N_ROWS; row++) {
            EQUAL(rows[row], row >= job.begin && row < job.end);
            rows[row] = 0;
        }
    }
    join_members(threads);
    EQUAL(n_jobs, 3000);
    free_team();
}

static void test_team_whose_kernel_fails(void)
{
    static member_t members[N];
    pthread_t threads[N];
    uint32_t n_failed = 0;

    make_team();
    start_members(members, threads);
    for (int64_t at = 0; at < 200; at++) {
        npush_job_t job = job_of(5, 0, 200, 3);
        npush_report_t report;
        uint32_t n = 0, number;

        job.n_patches = 1;
        job.place[0] = 0;
        job.value[0] = at;
        number = run(&job);
        for (uint32_t i = 0; i < N; i++) {
            npush_team_look(team, i, &report);
            if (report.job == number && report.rc) {
                EQUAL(report.failed, at / 3);
                EQUAL(report.rc, 7);
                n++;
            }
        }
        EQUAL(n, 1);
        CHECK(npush_team_is_aborted(team, number));
        EQUAL(rows[at], 0);
        for (int64_t row = 0; row < at / 3 * 3; row++) /* what was taken before was done */
            EQUAL(rows[row], 1);
        memset(rows, 0, N_ROWS * sizeof *rows);
    }
    join_members(threads);
    for (int i = 0; i < N; i++)
        n_failed += members[i].n_failed;
    EQUAL(n_failed, 200);
    free_team();
}

static void test_team_mail_calls_and_patches(void)
{
    static member_t members[N];
    pthread_t threads[N];
    npush_job_t job = job_of(0, 0, 100, 1);
    uint32_t n_calls = 0, n_chunks = 0, n_failed = 0, number;

    make_team();
    start_members(members, threads);
    for (int i = 0; i < 100; i++)
        npush_team_tell(team, 2);
    while (__atomic_load_n(&members[2].n_mail, __ATOMIC_RELAXED) < 100)
        usleep(100);
    number = npush_team_start(team, &job);
    while (npush_team_left(team))
        usleep(100);
    CHECK(!npush_team_is_aborted(team, number));
    EQUAL(npush_team_abort(team, number), 0);
    CHECK(npush_team_is_aborted(team, number));
    EQUAL(npush_team_abort(team, number - 1), 0);
    job = job_of(6, 0, 100, 50); /* a plan that nobody has */
    number = run(&job);
    CHECK(npush_team_is_aborted(team, number));
    npush_team_ring(team);
    join_members(threads);
    for (int i = 0; i < N; i++) {
        npush_report_t report;

        npush_team_look(team, (uint32_t)i, &report);
        EQUAL(report.claim_job, 0);
        EQUAL(report.state, NPUSH_TEAM_READY);
        EQUAL(report.rc, report.job == number ? 9 : 0);
        n_failed += report.job == number;
        n_calls += members[i].n_calls;
        n_chunks += members[i].n_chunks;
    }
    CHECK(n_failed >= 1 && n_failed <= 2); /* of the two chunks, both may have been taken at once */
    EQUAL(members[2].n_mail, 100);
    CHECK(n_calls >= 1 && n_calls <= N);
    EQUAL(n_chunks, 100);
    for (int i = 0; i < 100; i++)
        EQUAL(rows[i], 1);
    free_team();

    /* Nobody works: all chunks are taken back. */
    make_team();
    job = job_of(5, 0, 100, 1);
    EQUAL(npush_team_run(team, &job, 1000, &number), 0);
    EQUAL(npush_team_left(team), 100);
    EQUAL(npush_team_abort(team, number), 100);
    EQUAL(npush_team_wait(team, 1000), NPUSH_TEAM_ABORTED);
    free_team();
}

static pid_t fork_member(uint32_t index, int countdown)
{
    pid_t pid = fork();

    CHECK(pid >= 0);
    if (pid == 0) {
        static member_t m;

        init_member(&m, index);
        npush_step_countdown = countdown;
        work(&m);
        _exit(0);
    }
    return pid;
}

/* Member 0 dies at its step n while member 1 goes on: what is missing is in the claim of the dead one. */
static int dies_at(int n)
{
    pid_t pids[2];
    npush_job_t job = job_of(5, 0, 30, 3);
    npush_report_t dead, alive;
    uint32_t number = 0, n_missing;
    int status, is_over = 0;

    make_team();
    pids[0] = fork_member(0, n);
    do { /* the other one is to leave something to it */
        npush_team_look(team, 0, &dead);
    } while (dead.state != NPUSH_TEAM_READY);
    number = npush_team_start(team, &job);
    pids[1] = fork_member(1, 0);
    /* What the leader does: wait, and when one died, until the others hold nothing and nothing is left. */
    while (waitpid(pids[0], &status, WNOHANG) == 0)
        if ((is_over = npush_team_wait(team, SECOND / 1000)))
            break;
    if (is_over && waitpid(pids[0], &status, WNOHANG) == 0) {
        npush_team_close(team); /* it may still die on its way out */
        EQUAL(waitpid(pids[0], &status, 0), pids[0]);
    } else {
        do {
            npush_team_look(team, 1, &alive);
        } while (npush_team_left(team) || alive.claim_job || alive.state != NPUSH_TEAM_READY);
        npush_team_close(team);
    }
    EQUAL(waitpid(pids[1], NULL, 0), pids[1]);
    npush_team_look(team, 0, &dead);
    npush_team_look(team, 1, &alive);
    n_missing = job.n_chunks - (dead.job == number ? dead.done : 0) - (alive.job == number ? alive.done : 0);
    CHECK(n_missing <= 1);
    if (n_missing) {
        EQUAL(dead.claim_job, number);
        CHECK(dead.claim_chunk < job.n_chunks);
    }
    for (int64_t row = 0; row < 30; row++) {
        CHECK(rows[row] <= 1);
        CHECK(rows[row] == 1 || (n_missing && row / 3 == (int64_t)dead.claim_chunk));
    }
    npush_team_replace(team, 0);
    npush_team_look(team, 0, &dead);
    EQUAL(dead.claim_job + dead.job + dead.done + (uint32_t)dead.rc + dead.state, 0);
    free_team();
    return WIFSIGNALED(status);
}

static void test_team_whose_member_dies_at_each_step(void)
{
    int n_deaths = 0;

    for (int n = 1; n < 60; n++)
        n_deaths += dies_at(n);
    CHECK(n_deaths >= 8); /* alone it has 41 steps to do; the other one is quick sometimes */
}

static void *cross(void *argument)
{
    uint32_t *counts = argument; /* [0]: all arrivals */

    for (uint32_t i = 1; i <= 1000; i++) {
        uint32_t phase;

        __atomic_add_fetch(counts, 1, __ATOMIC_RELAXED);
        phase = npush_team_arrive(team, N);
        while (npush_team_await(team, phase, SECOND / 10) == 0)
            ;
        CHECK(__atomic_load_n(counts, __ATOMIC_RELAXED) >= i * N);
    }
    return NULL;
}

static void *wait_in_vain(void *argument)
{
    uint32_t phase = npush_team_arrive(team, N);
    int rc;

    (void)argument;
    while ((rc = npush_team_await(team, phase, SECOND / 100)) == 0)
        ;
    EQUAL(rc, -EPIPE);
    return NULL;
}

static void test_team_barrier(void)
{
    pthread_t threads[N];
    uint32_t counts = 0;

    make_team();
    npush_team_raise_barrier(team);
    for (int i = 0; i < N; i++)
        EQUAL(pthread_create(&threads[i], NULL, cross, &counts), 0);
    for (int i = 0; i < N; i++)
        EQUAL(pthread_join(threads[i], NULL), 0);
    EQUAL(counts, 1000 * N);
    for (int i = 0; i < N - 1; i++) /* one does not come */
        EQUAL(pthread_create(&threads[i], NULL, wait_in_vain, NULL), 0);
    usleep(1000);
    npush_team_break_barrier(team);
    for (int i = 0; i < N - 1; i++)
        EQUAL(pthread_join(threads[i], NULL), 0);
    npush_team_raise_barrier(team);
    CHECK(npush_team_await(team, npush_team_arrive(team, 1), 0) == 1);
    free_team();
}

const test_t team_tests[] = {
    TEST(test_team_runs_each_chunk_once),
    TEST(test_team_whose_kernel_fails),
    TEST(test_team_mail_calls_and_patches),
    TEST(test_team_whose_member_dies_at_each_step),
    TEST(test_team_barrier),
    {NULL, NULL},
};
