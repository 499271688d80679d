/* npush_mutex.c - see npush_mutex.h. */
#include "npush_mutex.h"
#include "npush_step.h"
#include <errno.h>
#include <linux/futex.h>
#include <time.h>

#define SPINS 100 /* about 4 us */

int npush_mutex_init(npush_mutex_t *m)
{
    pthread_mutexattr_t attr;
    int rc = pthread_mutexattr_init(&attr);

    if (rc)
        return -rc;
    rc = pthread_mutexattr_setpshared(&attr, PTHREAD_PROCESS_SHARED);
    if (!rc)
        rc = pthread_mutexattr_setrobust(&attr, PTHREAD_MUTEX_ROBUST);
    if (!rc) /* a second lock by the same thread is an error, not a hang */
        rc = pthread_mutexattr_settype(&attr, PTHREAD_MUTEX_ERRORCHECK);
    if (!rc)
        rc = pthread_mutex_init(&m->m, &attr);
    pthread_mutexattr_destroy(&attr);
    return -rc;
}

static void relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ __volatile__("isb");
#endif
}

/* Most are held for less than it takes to sleep and be woken. */
static int spin_lock(pthread_mutex_t *m)
{
    int rc = EBUSY;

    for (int i = 0; i < SPINS && rc == EBUSY; i++) {
        relax();
        if (!(__atomic_load_n((const uint32_t *)m, __ATOMIC_RELAXED) & FUTEX_TID_MASK))
            rc = pthread_mutex_trylock(m);
    }
    return rc;
}

static int wait_lock(pthread_mutex_t *m, int64_t timeout_ns)
{
    struct timespec until;
    int rc;

    /* CLOCK_MONOTONIC where the C library has it (glibc 2.30): a clock set back must not make a deadline later. */
#if defined(__GLIBC__) && __GLIBC_PREREQ(2, 30)
    clock_gettime(CLOCK_MONOTONIC, &until);
#else
    clock_gettime(CLOCK_REALTIME, &until);
#endif
    until.tv_sec += (time_t)(timeout_ns / 1000000000);
    until.tv_nsec += (long)(timeout_ns % 1000000000);
    if (until.tv_nsec >= 1000000000) {
        until.tv_nsec -= 1000000000;
        until.tv_sec += 1;
    }
#if defined(__GLIBC__) && __GLIBC_PREREQ(2, 30)
    rc = pthread_mutex_clocklock(m, CLOCK_MONOTONIC, &until);
#else
    rc = pthread_mutex_timedlock(m, &until);
#endif
    return rc == ETIMEDOUT ? EBUSY : rc;
}

int npush_mutex_lock(npush_mutex_t *m, int64_t timeout_ns)
{
    int rc = pthread_mutex_trylock(&m->m);

    if (rc == EBUSY && timeout_ns > 0)
        rc = spin_lock(&m->m);
    if (rc == EBUSY && timeout_ns > 0)
        rc = wait_lock(&m->m, timeout_ns);
    if (rc == EOWNERDEAD) {
        NPUSH_STEP();
        pthread_mutex_consistent(&m->m);
        NPUSH_STEP();
        return NPUSH_OWNER_DIED;
    }
    NPUSH_STEP();
    return -rc;
}

int npush_mutex_try(npush_mutex_t *m)
{
    return npush_mutex_lock(m, 0);
}

int npush_mutex_unlock(npush_mutex_t *m)
{
    NPUSH_STEP();
    return -pthread_mutex_unlock(&m->m);
}

uint32_t npush_mutex_holder(const npush_mutex_t *m)
{
    return __atomic_load_n((const uint32_t *)&m->m, __ATOMIC_RELAXED) & FUTEX_TID_MASK;
}
