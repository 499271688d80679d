/* test_mutex.c - npush_mutex.h: between threads and processes, and when its owner dies. */
#include "check.h"
#include "npush_futex.h"
#include "npush_mutex.h"
#include "parties.h"
#include "shared_memory.h"
#include <pthread.h>
#include <signal.h>
#include <unistd.h>

typedef struct {
    npush_mutex_t mutex;
    uint32_t word;
    uint64_t count, twin;
} counted_t;

static void count(void *argument)
{
    counted_t *c = argument;

    for (int i = 0; i < N_TIMES; i++) {
        int rc = npush_mutex_lock(&c->mutex, 60000 * MS);

        EQUAL(rc, 0);
        c->count++; /* not atomic: the mutex is what makes it right */
        c->twin++;
        EQUAL(npush_mutex_unlock(&c->mutex), 0);
    }
}

static void *count_in_thread(void *argument)
{
    count(argument);
    return NULL;
}

static void *expect_busy(void *argument)
{
    counted_t *c = argument;
    double before = now();

    EQUAL(npush_mutex_try(&c->mutex), -EBUSY);
    EQUAL(npush_mutex_lock(&c->mutex, 0), -EBUSY);
    EQUAL(npush_mutex_lock(&c->mutex, 30 * MS), -EBUSY);
    CHECK(now() - before >= 0.029);
    CHECK(npush_mutex_holder(&c->mutex) != 0);
    CHECK(npush_mutex_holder(&c->mutex) != (uint32_t)gettid());
    EQUAL(npush_mutex_unlock(&c->mutex), -EPERM);
    return NULL;
}

static void *lock_and_end(void *argument)
{
    EQUAL(npush_mutex_lock(argument, 0), 0);
    return NULL;
}

static void lock_and_die(void *argument)
{
    counted_t *c = argument;
    int rc = npush_mutex_lock(&c->mutex, 60000 * MS);

    CHECK(rc >= 0);
    c->count++; /* and not its twin */
    kill(getpid(), SIGKILL);
}

static void lock_soon(void *argument)
{
    counted_t *c = argument;

    npush_futex_post(&c->word);
    EQUAL(npush_mutex_lock(&c->mutex, 60000 * MS), 0);
    c->count++;
    EQUAL(npush_mutex_unlock(&c->mutex), 0);
}

static void test_mutex(void)
{
    counted_t *c = shared(sizeof *c);
    pthread_t thread;
    pid_t child;

    EQUAL(npush_mutex_init(&c->mutex), 0);
    EQUAL(npush_mutex_holder(&c->mutex), 0);
    EQUAL(npush_mutex_try(&c->mutex), 0);
    EQUAL(npush_mutex_holder(&c->mutex), gettid());
    EQUAL(npush_mutex_try(&c->mutex), -EDEADLK);
    EQUAL(npush_mutex_lock(&c->mutex, 10 * MS), -EDEADLK);
    EQUAL(pthread_create(&thread, NULL, expect_busy, c), 0);
    EQUAL(pthread_join(thread, NULL), 0);
    EQUAL(npush_mutex_unlock(&c->mutex), 0);
    EQUAL(npush_mutex_unlock(&c->mutex), -EPERM);
    EQUAL(npush_mutex_holder(&c->mutex), 0);

    in_threads(count_in_thread, c);
    EQUAL(c->count, N_WORKERS * N_TIMES);
    in_processes(count, c);
    EQUAL(c->count, 2 * N_WORKERS * N_TIMES);
    EQUAL(c->twin, c->count);

    /* who waits gets it when it is unlocked */
    EQUAL(npush_mutex_lock(&c->mutex, 0), 0);
    child = spawn(lock_soon, c);
    while (npush_futex_load(&c->word) == 0)
        nap(MS);
    nap(20 * MS);
    EQUAL(c->count, c->twin);
    EQUAL(npush_mutex_unlock(&c->mutex), 0);
    EQUAL(reap(child), 0);
    EQUAL(c->count, ++c->twin);
    unshare_(c, sizeof *c);
}

static void test_mutex_whose_owner_dies(void)
{
    counted_t *c = shared(sizeof *c);
    pthread_t thread;

    EQUAL(npush_mutex_init(&c->mutex), 0);
    for (int i = 0; i < 20; i++) {
        EQUAL(reap(spawn(lock_and_die, c)), -SIGKILL);
        EQUAL(npush_mutex_holder(&c->mutex), 0);
        EQUAL(npush_mutex_lock(&c->mutex, 1000 * MS), NPUSH_OWNER_DIED);
        EQUAL(c->count, c->twin + 1);
        c->twin++; /* the repair */
        EQUAL(npush_mutex_unlock(&c->mutex), 0);
        EQUAL(npush_mutex_lock(&c->mutex, 0), 0);
        EQUAL(npush_mutex_unlock(&c->mutex), 0);
    }
    /* who was told and died before it unlocked: the next is told again */
    EQUAL(reap(spawn(lock_and_die, c)), -SIGKILL);
    EQUAL(reap(spawn(lock_and_die, c)), -SIGKILL);
    EQUAL(npush_mutex_lock(&c->mutex, 1000 * MS), NPUSH_OWNER_DIED);
    EQUAL(npush_mutex_unlock(&c->mutex), 0);
    /* a thread that ends without unlocking is an owner that died */
    EQUAL(pthread_create(&thread, NULL, lock_and_end, &c->mutex), 0);
    EQUAL(pthread_join(thread, NULL), 0);
    EQUAL(npush_mutex_lock(&c->mutex, 1000 * MS), NPUSH_OWNER_DIED);
    EQUAL(npush_mutex_unlock(&c->mutex), 0);
    unshare_(c, sizeof *c);
}

const test_t mutex_tests[] = {
    TEST(test_mutex),
    TEST(test_mutex_whose_owner_dies),
    {NULL, NULL},
};
