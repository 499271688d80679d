/* npush_mutex.h - a robust, process-shared mutex living inside a segment.
 *
 *    0  pthread_mutex_t   40 bytes on x86-64, 48 on aarch64; 64 are taken, a cache line
 *
 * Its first word is what the kernel knows of it: the holder's thread id in FUTEX_TID_MASK, zero when it is free (robust
 * mutexes of glibc and musl; tests/test_mutex.py looks).
 *
 * (1) The thread that locked it unlocks it: the kernel keeps held robust mutexes in a list per thread.
 * (2) A process does not unmap a mutex that it holds: the kernel could not report its death, and the next locker would
 *     wait for ever. The layer above pins the mapping while a lock is held.
 * (3) One mapping per process: the list links addresses, so a second mapping of the same mutex would break it.
 * After a crash: the next locker gets NPUSH_OWNER_DIED, the mutex is already consistent, the data is the locker's. */
#ifndef NPUSH_MUTEX_H
#define NPUSH_MUTEX_H
#include <pthread.h>
#include <stdint.h>

typedef struct {
    _Alignas(64) union {
        pthread_mutex_t m;
        unsigned char room[64]; /* offsets agree whatever the ABI */
    };
} npush_mutex_t;

_Static_assert(sizeof(npush_mutex_t) == 64, "layout 2");

/* cdef: begin */
#define NPUSH_OWNER_DIED 1
/* Initialise memory that nobody else uses yet. 0 or -errno. */
int npush_mutex_init(npush_mutex_t *m);
/* Lock, waiting for at most timeout_ns (0: try once). 0, or NPUSH_OWNER_DIED: locked, and the previous holder died with
 * it. -EBUSY: somebody else holds it still. -EDEADLK: this thread holds it. -ENOTRECOVERABLE: given up by an owner
 * that did not make it consistent (never by this code). */
int npush_mutex_lock(npush_mutex_t *m, int64_t timeout_ns);
/* The same with timeout_ns 0: the usual case, with one argument to convert. */
int npush_mutex_try(npush_mutex_t *m);
/* Unlock. -EPERM: this thread does not hold it. */
int npush_mutex_unlock(npush_mutex_t *m);
/* Thread id of the holder, in its pid namespace; 0: free. A hint. */
uint32_t npush_mutex_holder(const npush_mutex_t *m);
/* cdef: end */
#endif
