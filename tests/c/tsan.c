/* tsan.c - what ThreadSanitizer does not know, said in what it knows. */
#include <pthread.h>
#include <time.h>

#ifdef __SANITIZE_THREAD__
/* GCC 12's ThreadSanitizer does not know pthread_mutex_clocklock(3) and would take what it locks for a race; it knows
 * pthread_mutex_timedlock(3). Misuse that is tested for is switched off in TSAN_OPTIONS: report_mutex_bugs=0. */
int pthread_mutex_clocklock(pthread_mutex_t *m, clockid_t clock, const struct timespec *until)
{
    struct timespec from, to;

    clock_gettime(clock, &from);
    clock_gettime(CLOCK_REALTIME, &to);
    to.tv_sec += until->tv_sec - from.tv_sec;
    to.tv_nsec += until->tv_nsec - from.tv_nsec;
    if (to.tv_nsec < 0) {
        to.tv_nsec += 1000000000;
        to.tv_sec -= 1;
    }
    else if (to.tv_nsec >= 1000000000) {
        to.tv_nsec -= 1000000000;
        to.tv_sec += 1;
    }
    return pthread_mutex_timedlock(m, &to);
}
#endif
