/* test_ffi.c - every C function of ffi/csrc (a team's: test_team.c), by itself, under the sanitizers (`make sanitize`).
 *
 * Memory is a real shared-memory object, other parties are real processes (fork, SIGKILL) and threads. A check that does
 * not hold prints its line and ends the program with 1; a wait that never ends is ended by alarm(2). */
#include "check.h"
#include "npush_atomic.h"
#include "npush_futex.h"
#include "npush_map.h"
#include "npush_mutex.h"
#include "npush_range.h"
#include "npush_seg.h"
#include "npush_step.h"
#include "npush_stream.h"
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <math.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define MS INT64_C(1000000)
#define N_WORKERS 4
#define N_TIMES 5000

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

/* -- helpers */

static char object_name[64];

static void name_object(void)
{
    snprintf(object_name, sizeof object_name, "/npush-test-ffi.%d", (int)getpid());
}

/* Zeroed shared memory of `size` bytes, and no name left. */
static void *shared(size_t size)
{
    uintptr_t address = 0;
    int fd = npush_map_open(object_name, 1);

    CHECK(fd >= 0);
    EQUAL(shm_unlink(object_name), 0);
    EQUAL(npush_map_reserve(fd, 0, (int64_t)size), size);
    EQUAL(npush_map_map(fd, 0, size, NPUSH_MAP_RW, &address), 0);
    EQUAL(close(fd), 0);
    return (void *)address;
}

static void unshare_(void *p, size_t size)
{
    EQUAL(npush_map_unmap((uintptr_t)p, size), 0);
}

static void nap(int64_t ns)
{
    struct timespec t = {.tv_sec = (time_t)(ns / 1000000000), .tv_nsec = (long)(ns % 1000000000)};

    nanosleep(&t, NULL);
}

static double now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* The exit code of a child, or minus the signal that ended it. */
static int reap(pid_t child)
{
    int status = 0;

    EQUAL(waitpid(child, &status, 0), child);
    return WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status);
}

/* fork() for a child that runs to its _exit below and not on into the caller's tests. */
static pid_t spawn(void (*function)(void *), void *argument)
{
    pid_t child;

    fflush(NULL);
    child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        alarm(60);
        function(argument);
        _exit(0);
    }
    return child;
}

static void in_threads(void *(*function)(void *), void *argument)
{
    pthread_t threads[N_WORKERS];

    for (int i = 0; i < N_WORKERS; i++)
        EQUAL(pthread_create(&threads[i], NULL, function, argument), 0);
    for (int i = 0; i < N_WORKERS; i++)
        EQUAL(pthread_join(threads[i], NULL), 0);
}

static void in_processes(void (*function)(void *), void *argument)
{
    pid_t children[N_WORKERS];

    for (int i = 0; i < N_WORKERS; i++)
        children[i] = spawn(function, argument);
    for (int i = 0; i < N_WORKERS; i++)
        EQUAL(reap(children[i]), 0);
}

/* -- map */

static void write_to(void *p)
{
    signal(SIGSEGV, SIG_DFL); /* not the sanitizer's */
    *(volatile char *)p = 1;
}

static void test_map(void)
{
    const uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE), size = 16 * page;
    uintptr_t rw = 0, ro = 0, cow = 0, nothing = 0;
    struct stat st;
    int fd, rc;

    EQUAL(npush_map_open(object_name, 0), -ENOENT);
    fd = npush_map_open(object_name, 1);
    CHECK(fd >= 0);
    EQUAL(npush_map_open(object_name, 1), -EEXIST);
    EQUAL(fstat(fd, &st), 0);
    EQUAL(st.st_mode & 0777, 0600);
    CHECK(fcntl(fd, F_GETFD) & FD_CLOEXEC);

    EQUAL(npush_map_reserve(fd, 0, (int64_t)size), size);
    EQUAL(fstat(fd, &st), 0);
    EQUAL(st.st_size, size);
    CHECK((uint64_t)st.st_blocks * 512 >= size);
    EQUAL(npush_map_reserve(fd, (int64_t)size, (int64_t)size), size);
    EQUAL(npush_map_reserve(-1, 0, (int64_t)size), -EBADF);

    EQUAL(npush_map_map(fd, 0, size, NPUSH_MAP_RW, &rw), 0);
    EQUAL(npush_map_map(fd, 0, size, NPUSH_MAP_RO, &ro), 0);
    EQUAL(npush_map_map(fd, page, size - page, NPUSH_MAP_COW, &cow), 0);
    EQUAL(npush_map_map(fd, 0, 0, NPUSH_MAP_RW, &nothing), -EINVAL);
    EQUAL(npush_map_map(fd, 1, size, NPUSH_MAP_RW, &nothing), -EINVAL);
    EQUAL(nothing, 0);

    memset((void *)rw, 7, size);
    EQUAL(((char *)ro)[size - 1], 7);
    EQUAL(((char *)cow)[0], 7);
    ((char *)cow)[0] = 8;
    EQUAL(((char *)rw)[page], 7);
    EQUAL(reap(spawn(write_to, (void *)ro)), -SIGSEGV);

    rc = npush_map_populate(rw, size, 1);
    CHECK(rc == 0 || rc == -EINVAL); /* before Linux 5.14 */
    rc = npush_map_populate(ro, size, 0);
    CHECK(rc == 0 || rc == -EINVAL);
    CHECK(npush_map_populate(rw + 1, size, 1) < 0);
    rc = npush_map_huge(rw, size);
    CHECK(rc == 0 || rc == -EINVAL); /* a kernel without them */

    EQUAL(npush_map_punch(fd, page, 2 * page), 0);
    EQUAL(((char *)rw)[page - 1], 7);
    EQUAL(((char *)ro)[page], 0);
    EQUAL(((char *)ro)[3 * page - 1], 0);
    EQUAL(((char *)ro)[3 * page], 7);
    EQUAL(((char *)cow)[0], 8); /* private by now */
    EQUAL(fstat(fd, &st), 0);
    EQUAL(st.st_size, size);
    EQUAL(npush_map_punch(-1, 0, page), -EBADF);

    EQUAL(npush_map_unmap(rw, size), 0);
    EQUAL(npush_map_unmap(ro, size), 0);
    EQUAL(npush_map_unmap(cow, size - page), 0);
    EQUAL(npush_map_unmap(1, page), -EINVAL);
    EQUAL(close(fd), 0);
    EQUAL(shm_unlink(object_name), 0);
}

static void test_huge_pages(void)
{
    const uint64_t page = 4096;
    const int64_t huge = INT64_C(2) << 20, size = 20 * huge + (int64_t)page;
    uintptr_t address, other;
    struct stat st;
    int64_t reached;
    int fd = npush_map_open(object_name, 1);

    CHECK(fd >= 0);
    EQUAL(ftruncate(fd, size), 0);
    EQUAL(pwrite(fd, "x", 1, huge), 1); /* what is there stays, and is not in the way */
    reached = npush_map_collapse(fd, 1, size); /* as far as this kernel, and its memory now, would go */
    CHECK(reached >= huge && reached <= 20 * huge && reached % huge == 0);
    EQUAL(fstat(fd, &st), 0);
    CHECK((int64_t)st.st_blocks * 512 >= reached - huge);
    EQUAL(npush_map_reserve(fd, 0, size), size);

    /* Mappings lie as huge pages need it, whatever their offset, and are whole. */
    EQUAL(npush_map_map(fd, page, (uint64_t)size - page, NPUSH_MAP_RW, &address), 0);
    EQUAL(address % (uintptr_t)huge, page);
    EQUAL(npush_map_map(fd, (uint64_t)huge, (uint64_t)(3 * huge), NPUSH_MAP_COW, &other), 0);
    EQUAL(other % (uintptr_t)huge, 0);
    for (int64_t i = 0; i < size - (int64_t)page; i += (int64_t)page)
        EQUAL(((char *)address)[i], i == huge - (int64_t)page ? 'x' : 0);
    memset((char *)address, 1, (size_t)size - page);
    EQUAL(((char *)other)[3 * huge - 1], 1);
    EQUAL(npush_map_unmap(other, (uint64_t)(3 * huge)), 0);
    EQUAL(npush_map_unmap(address, (uint64_t)size - page), 0);

    EQUAL(npush_map_collapse(-1, 0, 4 * huge), 0);
    EQUAL(npush_map_collapse(fd, 0, huge - 1), 0); /* no whole one */
    EQUAL(close(fd), 0);
    EQUAL(shm_unlink(object_name), 0);
}

/* -- mutex */

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

/* -- futex */

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

/* -- segment */

#define N_SLOTS 8
#define CAPACITY 16384
#define DATA_OFFSET 8192
#define IDENTITY 77
#define ME 1000

static npush_seg_t *new_segment(void)
{
    npush_seg_t *seg = shared(CAPACITY);

    EQUAL(npush_seg_init(seg, CAPACITY, DATA_OFFSET, N_SLOTS, ME, (uint32_t)getpid()), 0);
    EQUAL(seg->magic, NPUSH_MAGIC);
    EQUAL(npush_seg_state(seg), NPUSH_BUILDING);
    EQUAL(npush_seg_join(seg, N_SLOTS, 0, 2), -ENOENT);
    EQUAL(npush_seg_describe(seg, IDENTITY, 100, NPUSH_SLOTS_OFFSET + N_SLOTS * sizeof(npush_slot_t), 10, 12345), 0);
    EQUAL(npush_seg_identity(seg), IDENTITY);
    EQUAL(npush_seg_commit(seg), 0);
    EQUAL(npush_seg_state(seg), NPUSH_LIVE);
    return seg;
}

/* attached and leases of node, or -1 when it is in no slot */
static int attached(npush_seg_t *seg, uint64_t node, int *leases)
{
    uint64_t out[3 * N_SLOTS];
    int n = npush_seg_holders(seg, N_SLOTS, out), found = -1;

    CHECK(n >= 0 && n <= N_SLOTS);
    for (int i = 0; i < n; i++)
        if (out[3 * i] == node) {
            EQUAL(found, -1); /* one slot each */
            found = (int)out[3 * i + 1];
            *leases = (int)out[3 * i + 2];
        }
    return found;
}

static int users(npush_seg_t *seg)
{
    uint64_t out[3 * N_SLOTS], peeked[3 * N_SLOTS];
    int n = npush_seg_holders(seg, N_SLOTS, out);

    EQUAL(npush_seg_peek(seg, N_SLOTS, peeked), n);
    EQUAL(memcmp(out, peeked, 3 * (size_t)n * sizeof *out), 0);
    return n;
}

static void test_segment_join_and_leave(void)
{
    npush_seg_t *seg = new_segment();
    int leases = -1;

    EQUAL(npush_seg_commit(seg), -EBUSY);
    EQUAL(npush_seg_describe(seg, 1, 1, 1, 1, 1), -EBUSY);
    EQUAL(users(seg), 1);
    EQUAL(npush_seg_join(seg, N_SLOTS, IDENTITY + 1, 2), -ENOENT);
    for (uint64_t node = 2; node <= N_SLOTS; node++)
        EQUAL(npush_seg_join(seg, N_SLOTS, IDENTITY, node), 0);
    EQUAL(npush_seg_joins(seg), N_SLOTS - 1);
    EQUAL(users(seg), N_SLOTS);
    EQUAL(npush_seg_join(seg, N_SLOTS, IDENTITY, 99), -ENOSPC);
    EQUAL(npush_seg_join(seg, N_SLOTS, IDENTITY, 2), 0); /* again: the slot it has */
    EQUAL(users(seg), N_SLOTS);
    for (uint64_t node = 2; node <= N_SLOTS; node++)
        EQUAL(npush_seg_leave(seg, N_SLOTS, node, 0), 0);
    EQUAL(attached(seg, ME, &leases), 1);
    EQUAL(leases, 0);
    EQUAL(npush_seg_leave(seg, N_SLOTS, ME, 0), NPUSH_LAST);
    EQUAL(npush_seg_state(seg), NPUSH_DEAD);
    EQUAL(npush_seg_leave(seg, N_SLOTS, ME, 0), 0); /* once */
    EQUAL(npush_seg_join(seg, N_SLOTS, IDENTITY, ME), -ENOENT);
    EQUAL(users(seg), 0);
    unshare_(seg, CAPACITY);
}

static void test_segment_leases(void)
{
    npush_seg_t *seg = new_segment();
    int leases = -1;

    EQUAL(npush_seg_lease(seg, N_SLOTS, 2), -ENOENT);
    EQUAL(npush_seg_lease(seg, N_SLOTS, ME), 0);
    EQUAL(npush_seg_lease(seg, N_SLOTS, ME), 0);
    EQUAL(npush_seg_leave(seg, N_SLOTS, ME, 0), 0); /* two handles are in flight */
    EQUAL(attached(seg, ME, &leases), 0);
    EQUAL(leases, 2);
    EQUAL(npush_seg_lease(seg, N_SLOTS, ME), -ENOENT); /* not attached any more */
    EQUAL(npush_seg_receive(seg, N_SLOTS, IDENTITY, 2, ME), 0);
    EQUAL(attached(seg, ME, &leases), 0);
    EQUAL(leases, 1);
    EQUAL(npush_seg_receive(seg, N_SLOTS, IDENTITY + 1, 3, ME), -ENOENT);
    EQUAL(npush_seg_receive(seg, N_SLOTS, IDENTITY, 3, ME), 0);
    EQUAL(attached(seg, ME, &leases), -1);
    EQUAL(npush_seg_receive(seg, N_SLOTS, IDENTITY, 3, ME), 0); /* the same message opened twice */
    EQUAL(users(seg), 2);

    EQUAL(npush_seg_lease(seg, N_SLOTS, 2), 0);
    EQUAL(npush_seg_leave(seg, N_SLOTS, 3, 0), 0);
    EQUAL(npush_seg_evict(seg, N_SLOTS, 2, 1), 0); /* dead, in its grace period */
    EQUAL(attached(seg, 2, &leases), 0);
    EQUAL(leases, 1);
    EQUAL(npush_seg_state(seg), NPUSH_LIVE);
    EQUAL(npush_seg_evict(seg, N_SLOTS, 2, 0), NPUSH_LAST);
    EQUAL(npush_seg_state(seg), NPUSH_DEAD);
    EQUAL(npush_seg_receive(seg, N_SLOTS, IDENTITY, 4, 2), -ENOENT);
    unshare_(seg, CAPACITY);
}

static void test_segment_kept_warm(void)
{
    npush_seg_t *seg = new_segment();
    int leases = -1;

    EQUAL(npush_seg_claim(seg, N_SLOTS, 2, 1), -ENOENT); /* in use */
    EQUAL(npush_seg_drop(seg, N_SLOTS), 0);
    EQUAL(npush_seg_advance(seg, 4), 4);
    EQUAL(npush_seg_leave(seg, N_SLOTS, ME, 1), NPUSH_LAST);
    EQUAL(npush_seg_state(seg), NPUSH_WARM);
    EQUAL(attached(seg, ME, &leases), 0);
    EQUAL(npush_seg_join(seg, N_SLOTS, IDENTITY, 2), -ENOENT);
    EQUAL(npush_seg_claim(seg, N_SLOTS, 2, 4711), 0);
    EQUAL(npush_seg_state(seg), NPUSH_BUILDING);
    EQUAL(npush_seg_claim(seg, N_SLOTS, 3, 4711), -ENOENT); /* somebody was faster */
    EQUAL(npush_seg_version(seg), 0);
    EQUAL(npush_seg_joins(seg), 0);
    EQUAL(attached(seg, 2, &leases), 1);
    EQUAL(attached(seg, ME, &leases), -1);
    EQUAL(npush_seg_describe(seg, IDENTITY + 1, 50, DATA_OFFSET - 8, 8, 1), 0);
    EQUAL(npush_seg_commit(seg), 0);
    EQUAL(npush_seg_join(seg, N_SLOTS, IDENTITY, 3), -ENOENT); /* what an old handle means is gone */
    EQUAL(npush_seg_join(seg, N_SLOTS, IDENTITY + 1, 3), 0);
    EQUAL(npush_seg_leave(seg, N_SLOTS, 2, 1), 0);
    EQUAL(npush_seg_leave(seg, N_SLOTS, 3, 1), NPUSH_LAST);
    EQUAL(npush_seg_drop(seg, N_SLOTS), NPUSH_LAST);
    EQUAL(npush_seg_state(seg), NPUSH_DEAD);
    EQUAL(npush_seg_drop(seg, N_SLOTS), 0);
    unshare_(seg, CAPACITY);
}

static void come_and_go(void *argument)
{
    npush_seg_t *seg = argument;
    uint64_t me = (uint64_t)gettid() + 10000;

    for (int i = 0; i < N_TIMES / 5; i++) {
        EQUAL(npush_seg_join(seg, N_SLOTS, IDENTITY, me), 0);
        EQUAL(npush_seg_lease(seg, N_SLOTS, me), 0);
        EQUAL(npush_seg_receive(seg, N_SLOTS, IDENTITY, me, me), 0);
        npush_seg_advance(seg, 2);
        EQUAL(npush_seg_leave(seg, N_SLOTS, me, 0), 0);
    }
}

static void *come_and_go_in_thread(void *argument)
{
    come_and_go(argument);
    return NULL;
}

static void test_segment_under_contention(void)
{
    npush_seg_t *seg = new_segment();

    in_threads(come_and_go_in_thread, seg);
    in_processes(come_and_go, seg);
    EQUAL(users(seg), 1);
    EQUAL(npush_seg_version(seg), 2 * 2 * N_WORKERS * (N_TIMES / 5));
    EQUAL(npush_seg_leave(seg, N_SLOTS, ME, 0), NPUSH_LAST);
    unshare_(seg, CAPACITY);
}

static npush_seg_t *step_segment;
static int step_number;

static void die_at_a_step(void *argument)
{
    npush_seg_t *seg = step_segment;
    int entry = -1;
    uint64_t blocker;
    uint32_t news;

    (void)argument;
    npush_step_countdown = step_number;
    npush_seg_join(seg, N_SLOTS, IDENTITY, 5);
    npush_seg_lease(seg, N_SLOTS, 5);
    npush_seg_receive(seg, N_SLOTS, IDENTITY, 6, 5);
    npush_seg_leave(seg, N_SLOTS, 6, 0);
    npush_range_lock(seg, 10, 20, 0, 5, (uint32_t)getpid(), &entry, &blocker, &news);
    npush_range_unlock(seg, entry, 5);
    npush_seg_leave(seg, N_SLOTS, 5, 0);
    _exit(npush_step_countdown > 0 ? 3 : 1); /* 3: there are fewer steps than that */
}

/* Killed between any two stores, a process leaves a table that eviction makes right: npush_seg.h, (3). */
static void test_segment_whose_user_dies_at_each_step(void)
{
    int code = -SIGKILL;

    for (step_number = 1; code == -SIGKILL; step_number++) {
        int entry = -1, rc;
        uint64_t blocker, list[7 * NPUSH_RANGE_ENTRIES];
        uint32_t news;

        step_segment = new_segment();
        code = reap(spawn(die_at_a_step, NULL));
        CHECK(code == -SIGKILL || code == 3);
        for (uint64_t node = 5; node <= 6; node++) {
            CHECK(npush_range_evict(step_segment, node) >= 0);
            EQUAL(npush_seg_evict(step_segment, N_SLOTS, node, 0), 0);
        }
        EQUAL(users(step_segment), 1);
        rc = npush_range_lock(step_segment, 0, 100, 0, ME, 1, &entry, &blocker, &news);
        CHECK(rc == 0 || rc == NPUSH_OWNER_DIED);
        EQUAL(npush_range_list(step_segment, list), 1);
        EQUAL(npush_range_unlock(step_segment, entry, ME), 0);
        EQUAL(npush_range_list(step_segment, list), 0);
        EQUAL(npush_seg_leave(step_segment, N_SLOTS, ME, 0), NPUSH_LAST);
        unshare_(step_segment, CAPACITY);
    }
    CHECK(step_number > 30); /* the steps are compiled in */
}

static void advance_soon(void *argument)
{
    nap(30 * MS);
    npush_seg_advance(argument, 3);
}

static void test_segment_version(void)
{
    npush_seg_t *seg = new_segment();
    pid_t child;
    int rc;

    EQUAL(npush_seg_version(seg), 0);
    EQUAL(npush_seg_wait(seg, 1, 10000 * MS), 0); /* it differs */
    EQUAL(npush_seg_wait(seg, 0, 20 * MS), -ETIMEDOUT);
    child = spawn(advance_soon, seg);
    while (npush_seg_version(seg) == 0) {
        rc = npush_seg_wait(seg, 0, 10000 * MS);
        CHECK(rc == 0 || rc == -EINTR);
    }
    EQUAL(npush_seg_version(seg), 3);
    EQUAL(reap(child), 0);
    EQUAL(npush_mutex_try(npush_seg_data_mutex(seg)), 0);
    EQUAL(npush_mutex_holder(npush_seg_data_mutex(seg)), gettid());
    EQUAL(npush_mutex_unlock(npush_seg_data_mutex(seg)), 0);
    unshare_(seg, CAPACITY);
}

static void publish_for_ever(void *argument)
{
    for (uint64_t n = 1;; n++)
        npush_seg_publish(argument, n, 2 * n, 3 * n);
}

static void die_publishing(void *argument)
{
    npush_step_countdown = step_number;
    npush_seg_publish(argument, 7, 14, 21);
    _exit(npush_step_countdown > 0 ? 3 : 1);
}

/* What a reader gets belongs together, whoever publishes, and whoever dies in it. */
static void test_segment_generations(void)
{
    npush_seg_t *seg = new_segment();
    uint64_t out[5];
    pid_t child;
    int code = -SIGKILL;

    npush_seg_place(seg, out);
    for (int i = 0; i < 5; i++)
        EQUAL(out[i], 0);
    for (step_number = 1; code == -SIGKILL; step_number++) {
        uint64_t before = npush_seg_generation(seg);

        code = reap(spawn(die_publishing, seg));
        CHECK(code == -SIGKILL || code == 3);
        npush_seg_place(seg, out);
        CHECK(out[0] == before || out[0] == before + 1);
        CHECK(out[0] == 0 || (out[1] == 7 && out[2] == 14 && out[3] == 21));
    }
    CHECK(step_number > 4);
    npush_seg_publish(seg, 1, 2, 3); /* both places are those of publish_for_ever now */
    npush_seg_publish(seg, 1, 2, 3);
    child = spawn(publish_for_ever, seg);
    for (int i = 0; i < 200000; i++) {
        npush_seg_place(seg, out);
        EQUAL(out[2], 2 * out[1]);
        EQUAL(out[3], 3 * out[1]);
    }
    kill(child, SIGKILL);
    EQUAL(reap(child), -SIGKILL);
    npush_seg_raise_floor(seg, 4096);
    EQUAL(npush_seg_floor(seg), 4096);
    EQUAL(npush_mutex_try(npush_seg_structure_mutex(seg)), 0);
    EQUAL(npush_mutex_unlock(npush_seg_structure_mutex(seg)), 0);
    unshare_(seg, CAPACITY);
}

/* -- ranges */

static uint64_t blocked_by;
static uint32_t range_news;

/* Lock by `node`; *entry is -1 or an entry that waits. */
static int lock_range(npush_seg_t *seg, uint64_t start, uint64_t stop, int is_shared, uint64_t node, int *entry)
{
    blocked_by = 0;
    return npush_range_lock(seg, start, stop, is_shared, node, (uint32_t)node, entry, &blocked_by, &range_news);
}

static int lock_new(npush_seg_t *seg, uint64_t start, uint64_t stop, int is_shared, uint64_t node, int *entry)
{
    *entry = -1;
    return lock_range(seg, start, stop, is_shared, node, entry);
}

static void test_ranges(void)
{
    npush_seg_t *seg = new_segment();
    uint64_t list[7 * NPUSH_RANGE_ENTRIES];
    int a, b, c, d, e;

    EQUAL(lock_new(seg, 0, 100, 0, 1, &a), 0);
    EQUAL(lock_new(seg, 100, 200, 0, 2, &b), 0); /* touches, does not overlap */
    EQUAL(lock_new(seg, 99, 101, 0, 3, &c), -EBUSY);
    CHECK(blocked_by == 1 || blocked_by == 2);
    EQUAL(npush_range_list(seg, list), 3);
    EQUAL(npush_range_unlock(seg, a, 2), -EPERM);
    EQUAL(npush_range_wait(seg, range_news, 20 * MS), -ETIMEDOUT);
    EQUAL(npush_range_unlock(seg, a, 1), 0);
    EQUAL(npush_range_wait(seg, range_news, 10000 * MS), 0); /* there was news */
    EQUAL(npush_range_unlock(seg, a, 1), -EPERM);
    EQUAL(lock_range(seg, 99, 101, 0, 3, &c), -EBUSY);
    EQUAL(blocked_by, 2);
    EQUAL(npush_range_unlock(seg, b, 2), 0);
    EQUAL(lock_range(seg, 99, 101, 0, 3, &c), 0);
    EQUAL(lock_new(seg, 0, 100, 0, 3, &a), -EDEADLK); /* this thread holds byte 99 */
    EQUAL(npush_range_unlock(seg, a, 3), 0);
    EQUAL(npush_range_unlock(seg, c, 3), 0);
    EQUAL(npush_range_list(seg, list), 0);

    /* readers share; a waiting writer is not overtaken by readers who come after it */
    EQUAL(lock_new(seg, 0, 100, 1, 1, &a), 0);
    EQUAL(lock_new(seg, 50, 150, 1, 2, &b), 0);
    EQUAL(lock_new(seg, 60, 70, 0, 3, &c), -EBUSY);
    EQUAL(lock_new(seg, 60, 70, 1, 4, &d), -EBUSY);
    EQUAL(blocked_by, 3);
    EQUAL(lock_new(seg, 80, 90, 1, 5, &e), 0); /* not in the writer's way */
    EQUAL(npush_range_unlock(seg, a, 1), 0);
    EQUAL(npush_range_unlock(seg, b, 2), 0);
    EQUAL(lock_range(seg, 60, 70, 1, 4, &d), -EBUSY);
    EQUAL(lock_range(seg, 60, 70, 0, 3, &c), 0);
    EQUAL(npush_range_unlock(seg, c, 3), 0);
    EQUAL(lock_range(seg, 60, 70, 1, 4, &d), 0);
    EQUAL(npush_range_unlock(seg, d, 4), 0);
    EQUAL(npush_range_unlock(seg, e, 5), 0);
    EQUAL(npush_range_list(seg, list), 0);

    for (uint64_t i = 0; i < NPUSH_RANGE_ENTRIES; i++)
        EQUAL(lock_new(seg, i, i + 1, 0, 1, &a), 0);
    EQUAL(lock_new(seg, 1000, 1001, 0, 1, &a), -ENOSPC);
    EQUAL(a, -1);
    EQUAL(npush_range_list(seg, list), NPUSH_RANGE_ENTRIES);
    for (int i = 0; i < NPUSH_RANGE_ENTRIES; i++)
        EQUAL(npush_range_unlock(seg, i, 1), 0);
    unshare_(seg, CAPACITY);
}

static int told(npush_seg_t *seg, uint64_t start, uint64_t stop, int is_shared)
{
    int entry, rc = lock_new(seg, start, stop, is_shared, 9, &entry);

    CHECK(rc >= 0);
    EQUAL(npush_range_unlock(seg, entry, 9), 0);
    return rc;
}

static void test_ranges_whose_writer_dies(void)
{
    npush_seg_t *seg = new_segment();
    uint64_t list[7 * NPUSH_RANGE_ENTRIES];
    int a, b, c;

    /* a dead reader and a dead waiter are forgotten */
    EQUAL(lock_new(seg, 0, 100, 1, 1, &a), 0);
    EQUAL(lock_new(seg, 0, 100, 0, 2, &b), -EBUSY);
    EQUAL(npush_range_evict(seg, 2), 1);
    EQUAL(npush_range_evict(seg, 1), 1);
    EQUAL(npush_range_evict(seg, 1), 0);
    EQUAL(npush_range_list(seg, list), 0);
    EQUAL(told(seg, 0, 100, 0), 0);

    /* a dead writer leaves an orphan: readers are told each time, a writer once, and it takes it over */
    EQUAL(lock_new(seg, 0, 100, 0, 1, &a), 0);
    EQUAL(npush_range_evict(seg, 1), 1);
    EQUAL(npush_range_list(seg, list), 1);
    EQUAL(list[5], NPUSH_RANGE_ORPHAN);
    EQUAL(told(seg, 10, 20, 1), NPUSH_OWNER_DIED);
    EQUAL(told(seg, 10, 20, 1), NPUSH_OWNER_DIED);
    EQUAL(told(seg, 40, 60, 0), NPUSH_OWNER_DIED); /* out of the middle: two are left */
    EQUAL(npush_range_list(seg, list), 2);
    EQUAL(told(seg, 40, 60, 0), 0);
    EQUAL(told(seg, 100, 200, 0), 0);
    EQUAL(told(seg, 0, 10, 0), NPUSH_OWNER_DIED); /* its left end */
    EQUAL(told(seg, 0, 10, 0), 0);
    EQUAL(told(seg, 90, 200, 0), NPUSH_OWNER_DIED); /* its right end */
    EQUAL(told(seg, 90, 200, 0), 0);
    EQUAL(told(seg, 35, 65, 0), NPUSH_OWNER_DIED); /* an end of each */
    EQUAL(told(seg, 35, 65, 0), 0);
    EQUAL(told(seg, 0, 200, 0), NPUSH_OWNER_DIED); /* the rest */
    EQUAL(npush_range_list(seg, list), 0);

    /* no entry is free for the right part: it stays marked, and is told once more */
    EQUAL(lock_new(seg, 0, 100, 0, 1, &a), 0);
    EQUAL(npush_range_evict(seg, 1), 1);
    for (uint64_t i = 0; i < NPUSH_RANGE_ENTRIES - 2; i++)
        EQUAL(lock_new(seg, 1000 + i, 1001 + i, 0, 2, &c), 0);
    EQUAL(told(seg, 40, 60, 0), NPUSH_OWNER_DIED);
    EQUAL(told(seg, 40, 60, 0), NPUSH_OWNER_DIED);
    CHECK(npush_range_evict(seg, 2) == NPUSH_RANGE_ENTRIES - 2);
    EQUAL(told(seg, 0, 2000, 0), NPUSH_OWNER_DIED);
    EQUAL(npush_range_list(seg, list), 0);
    unshare_(seg, CAPACITY);
}

typedef struct {
    npush_seg_t *seg;
    uint64_t *cells;
} cells_t;

/* Add one to ten neighbouring cells, locked as a range; every second process reads and finds them equal. */
static void work_on_cells(void *argument)
{
    cells_t *w = argument;
    uint64_t me = (uint64_t)gettid();

    for (int i = 0; i < N_TIMES / 10; i++) {
        int entry, is_shared = (int)(me % 2);
        uint64_t start = (uint64_t)(i % 2) * 10;

        if (lock_new(w->seg, start, start + 10, is_shared, me, &entry) == -EBUSY)
            while (lock_range(w->seg, start, start + 10, is_shared, me, &entry) == -EBUSY)
                npush_range_wait(w->seg, range_news, 10 * MS);
        for (uint64_t k = start; k < start + 10; k++)
            if (is_shared)
                EQUAL(w->cells[k], w->cells[start]);
            else
                w->cells[k]++;
        EQUAL(npush_range_unlock(w->seg, entry, me), 0);
    }
}

static void test_ranges_under_contention(void)
{
    cells_t w = {new_segment(), shared(20 * sizeof(uint64_t))};
    uint64_t list[7 * NPUSH_RANGE_ENTRIES];

    in_processes(work_on_cells, &w);
    for (int k = 1; k < 20; k++)
        EQUAL(w.cells[k], w.cells[0]);
    EQUAL(npush_range_list(w.seg, list), 0);
    unshare_(w.cells, 20 * sizeof(uint64_t));
    unshare_(w.seg, CAPACITY);
}

/* -- atomics */

static uint64_t from_double(double d)
{
    uint64_t bits;

    memcpy(&bits, &d, sizeof bits);
    return bits;
}

static double to_double(uint64_t bits)
{
    double d;

    memcpy(&d, &bits, sizeof d);
    return d;
}

/* `value` as an element of that size and kind would hold it. */
static uint64_t as_element(uint64_t value, int size, int kind)
{
    if (kind == NPUSH_FLOAT)
        return size == 8 ? value : from_double((double)(float)to_double(value));
    switch (size) {
    case 1: return kind == NPUSH_SIGNED ? (uint64_t)(int8_t)value : (uint8_t)value;
    case 2: return kind == NPUSH_SIGNED ? (uint64_t)(int16_t)value : (uint16_t)value;
    case 4: return kind == NPUSH_SIGNED ? (uint64_t)(int32_t)value : (uint32_t)value;
    default: return value;
    }
}

static uint64_t expected_int(int op, int kind, uint64_t a, uint64_t b)
{
    int less = kind == NPUSH_SIGNED ? (int64_t)a < (int64_t)b : a < b;

    switch (op) {
    case NPUSH_ATOMIC_ADD: return a + b;
    case NPUSH_ATOMIC_SUB: return a - b;
    case NPUSH_ATOMIC_MIN: return less ? a : b;
    case NPUSH_ATOMIC_MAX: return less ? b : a;
    case NPUSH_ATOMIC_AND: return a & b;
    case NPUSH_ATOMIC_OR: return a | b;
    default: return b;
    }
}

static double expected_float(int op, double a, double b)
{
    switch (op) {
    case NPUSH_ATOMIC_ADD: return a + b;
    case NPUSH_ATOMIC_SUB: return a - b;
    case NPUSH_ATOMIC_MIN: return isnan(a) || isnan(b) ? (double)NAN : fmin(a, b);
    case NPUSH_ATOMIC_MAX: return isnan(a) || isnan(b) ? (double)NAN : fmax(a, b);
    default: return b;
    }
}

static void check_same(uint64_t got, uint64_t wanted, int kind)
{
    if (kind == NPUSH_FLOAT && isnan(to_double(wanted)))
        CHECK(isnan(to_double(got)));
    else if (kind == NPUSH_FLOAT)
        CHECK(to_double(got) <= to_double(wanted) && to_double(got) >= to_double(wanted));
    else
        EQUAL(got, wanted);
}

static void test_atomics(void)
{
    static const uint64_t ints[] = {0, 1, 2, 127, 128, 255, 256, 32767, 65535, 0x7fffffff, 0xffffffff,
                                    INT64_MAX, UINT64_MAX, UINT64_MAX - 41, UINT64_C(1) << 63};
    const double floats[] = {0.0, 1.0, -1.5, 1e30, -1e-30, (double)INFINITY, (double)-INFINITY, (double)NAN};
    uint64_t *cells = shared(3 * sizeof *cells);
    uintptr_t address = (uintptr_t)&cells[1];

    for (int kind = NPUSH_UNSIGNED; kind <= NPUSH_FLOAT; kind++)
        for (int size = kind == NPUSH_FLOAT ? 4 : 1; size <= 8; size *= 2)
            for (int op = NPUSH_ATOMIC_ADD; op <= NPUSH_ATOMIC_EXCHANGE; op++) {
                int n = kind == NPUSH_FLOAT ? (int)(sizeof floats / sizeof *floats) : (int)(sizeof ints / sizeof *ints);

                if (kind == NPUSH_FLOAT && (op == NPUSH_ATOMIC_AND || op == NPUSH_ATOMIC_OR)) {
                    uint64_t old;

                    EQUAL(npush_atomic_update(address, size, kind, op, 0, &old), -EINVAL);
                    continue;
                }
                for (int i = 0; i < n * n; i++) {
                    uint64_t a = kind == NPUSH_FLOAT ? from_double(floats[i / n]) : ints[i / n];
                    uint64_t b = kind == NPUSH_FLOAT ? from_double(floats[i % n]) : ints[i % n];
                    uint64_t old = 1, now_ = 1, result;

                    a = as_element(a, size, kind);
                    b = as_element(b, size, kind);
                    result = kind == NPUSH_FLOAT ? from_double(expected_float(op, to_double(a), to_double(b)))
                                                 : expected_int(op, kind, a, b);
                    result = as_element(result, size, kind);
                    EQUAL(npush_atomic_store(address, size, kind, a), 0);
                    EQUAL(npush_atomic_update(address, size, kind, op, b, &old), 0);
                    EQUAL(npush_atomic_load(address, size, kind, &now_), 0);
                    check_same(old, a, kind);
                    check_same(now_, result, kind);
                    EQUAL(npush_atomic_compare_exchange(address, size, kind, now_, a, &old), 1);
                    check_same(old, result, kind);
                    EQUAL(npush_atomic_load(address, size, kind, &now_), 0);
                    check_same(now_, a, kind);
                }
                EQUAL(cells[0], 0); /* the neighbours */
                EQUAL(cells[2], 0);
            }
    unshare_(cells, 3 * sizeof *cells);
}

static void test_atomics_refuse(void)
{
    static const int sizes[] = {-1, 0, 3, 5, 16, 64, INT_MAX, INT_MIN};
    uint64_t cell[2] = {5, 0}, old = 0;
    uintptr_t address = (uintptr_t)cell;

    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        EQUAL(npush_atomic_update(address, sizes[i], NPUSH_SIGNED, NPUSH_ATOMIC_ADD, 1, &old), -EINVAL);
        EQUAL(npush_atomic_compare_exchange(address, sizes[i], NPUSH_SIGNED, 1, 2, &old), -EINVAL);
        EQUAL(npush_atomic_load(address, sizes[i], NPUSH_SIGNED, &old), -EINVAL);
        EQUAL(npush_atomic_store(address, sizes[i], NPUSH_SIGNED, 1), -EINVAL);
    }
    for (int size = 2; size <= 8; size *= 2) /* not aligned */
        EQUAL(npush_atomic_store(address + 1, size, NPUSH_SIGNED, 1), -EINVAL);
    EQUAL(npush_atomic_store(address, 2, NPUSH_FLOAT, 1), -EINVAL);
    EQUAL(npush_atomic_store(address, 8, 3, 1), -EINVAL);
    EQUAL(npush_atomic_store(address, 8, -1, 1), -EINVAL);
    EQUAL(npush_atomic_update(address, 8, 0, 7, 1, &old), -EINVAL);
    EQUAL(npush_atomic_update(address, 8, 0, -1, 1, &old), -EINVAL);
    EQUAL(npush_atomic_compare_exchange(address, 8, NPUSH_UNSIGNED, 4, 9, &old), 0);
    EQUAL(old, 5);
    EQUAL(cell[0], 5);
}

typedef struct {
    uintptr_t address;
    int size, kind;
} element_t;

static void add_often(void *argument)
{
    const element_t *e = argument;
    uint64_t one = e->kind == NPUSH_FLOAT ? from_double(1.0) : 1, old;

    for (int i = 0; i < N_TIMES; i++)
        EQUAL(npush_atomic_update(e->address, e->size, e->kind, NPUSH_ATOMIC_ADD, one, &old), 0);
}

static void *add_often_in_thread(void *argument)
{
    add_often(argument);
    return NULL;
}

static void test_atomics_under_contention(void)
{
    uint64_t *cell = shared(sizeof *cell);
    element_t e = {(uintptr_t)cell, 0, 0};

    for (e.kind = NPUSH_UNSIGNED; e.kind <= NPUSH_FLOAT; e.kind++)
        for (e.size = e.kind == NPUSH_FLOAT ? 4 : 1; e.size <= 8; e.size *= 2) {
            uint64_t value = 0, wanted = 2 * N_WORKERS * N_TIMES;

            EQUAL(npush_atomic_store(e.address, e.size, e.kind, 0), 0);
            in_threads(add_often_in_thread, &e);
            in_processes(add_often, &e);
            EQUAL(npush_atomic_load(e.address, e.size, e.kind, &value), 0);
            check_same(value, as_element(e.kind == NPUSH_FLOAT ? from_double((double)wanted) : wanted, e.size, e.kind),
                       e.kind);
        }
    unshare_(cell, sizeof *cell);
}

/* -- steps */

static void step_twice(void *argument)
{
    (void)argument;
    npush_step_countdown = 2;
    NPUSH_STEP();
    if (npush_step_countdown != 1)
        _exit(1);
    NPUSH_STEP();
}

static void die_now(void *argument)
{
    (void)argument;
    npush_step_die();
}

static void test_steps(void)
{
    EQUAL(npush_step_countdown, 0);
    NPUSH_STEP();
    EQUAL(reap(spawn(step_twice, NULL)), -SIGKILL);
    EQUAL(reap(spawn(die_now, NULL)), -SIGKILL);
}

#define TEST(name) {#name, name}

/* A connected pair of non-blocking sockets, and a shared-memory object with `size` bytes of a pattern. */
static void open_streams(int sock[2], int *fd, unsigned char **bytes, uint64_t size)
{
    uintptr_t address = 0;

    EQUAL(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, sock), 0);
    *fd = npush_map_open(object_name, 1);
    CHECK(*fd >= 0);
    EQUAL(npush_map_reserve(*fd, 0, (int64_t)size), size);
    EQUAL(npush_map_map(*fd, 0, size, NPUSH_MAP_RW, &address), 0);
    *bytes = (unsigned char *)address;
    for (uint64_t i = 0; i < size; i++)
        (*bytes)[i] = (unsigned char)(i * 7 + i / 251);
}

static void close_streams(int sock[2], int fd, unsigned char *bytes, uint64_t size)
{
    close(sock[0]);
    close(sock[1]);
    close(fd);
    EQUAL(npush_map_unmap((uintptr_t)bytes, size), 0);
    shm_unlink(object_name);
}

static void test_stream(void)
{
    enum { SIZE = 3333333, HALF = SIZE / 2 };
    int sock[2], fd, to, pipes[2], status;
    unsigned char *bytes, *received = calloc(1, SIZE);
    uint64_t done;

    open_streams(sock, &fd, &bytes, SIZE);
    EQUAL(pipe2(pipes, O_CLOEXEC), 0);
    to = memfd_create("to", MFD_CLOEXEC);
    EQUAL(ftruncate(to, SIZE), 0);
    for (int way = 0; way < 2; way++) {
        pid_t pid = fork();

        if (pid == 0) {
            done = 0;
            if (npush_stream_send(sock[1], (uintptr_t)bytes, HALF, 1, 10000 * MS, &done) || done != HALF)
                _exit(1);
            done = 0;
            _exit(npush_stream_sendfile(sock[1], fd, HALF, SIZE - HALF, 10000 * MS, &done) || done != SIZE - HALF);
        }
        done = 0;
        if (way == 0) {
            EQUAL(npush_stream_recv(sock[0], (uintptr_t)received, SIZE, 10000 * MS, &done), 0);
        } else {
            EQUAL(npush_stream_splice(sock[0], pipes[0], pipes[1], to, 0, SIZE, 10000 * MS, &done), 0);
            memset(received, 0, SIZE);
            EQUAL(pread(to, received, SIZE, 0), SIZE);
        }
        EQUAL(done, SIZE);
        CHECK(memcmp(bytes, received, SIZE) == 0);
        EQUAL(waitpid(pid, &status, 0), pid);
        EQUAL(status, 0);
    }
    free(received);
    close(pipes[0]);
    close(pipes[1]);
    close(to);
    close_streams(sock, fd, bytes, SIZE);
}

static void test_stream_stops(void)
{
    enum { SIZE = 1 << 20 };
    int sock[2], fd, pipes[2];
    unsigned char *bytes, received[16];
    uint64_t done = 0, sent;

    open_streams(sock, &fd, &bytes, SIZE);
    EQUAL(pipe2(pipes, O_CLOEXEC), 0);
    EQUAL(npush_stream_recv(sock[0], (uintptr_t)received, 16, 5 * MS, &done), -EAGAIN);
    EQUAL(npush_stream_splice(sock[0], pipes[0], pipes[1], fd, 0, 16, 5 * MS, &done), -EAGAIN);
    EQUAL(done, 0);
    /* Nobody reads: what fits is sent, and said. Then it is taken up where it stopped. */
    EQUAL(npush_stream_send(sock[1], (uintptr_t)bytes, SIZE, 0, 5 * MS, &done), -EAGAIN);
    CHECK(done > 0 && done < SIZE);
    sent = done;
    EQUAL(npush_stream_sendfile(sock[1], fd, 0, SIZE, 5 * MS, &done), -EAGAIN);
    done = 0;
    EQUAL(npush_stream_recv(sock[0], (uintptr_t)received, 4, 5 * MS, &done), 0);
    EQUAL(npush_stream_recv(sock[0], (uintptr_t)received, 16, 5 * MS, &done), 0);
    CHECK(memcmp(received, bytes, 16) == 0);
    /* The peer closes: what it sent is read, then the end is told; what is sent to it fails. */
    close(sock[1]);
    done = 16;
    EQUAL(npush_stream_splice(sock[0], pipes[0], pipes[1], fd, 0, 2 * SIZE, 5 * MS, &done), -ENODATA);
    CHECK(done >= sent);
    done = 0;
    EQUAL(npush_stream_recv(sock[0], (uintptr_t)received, 16, 5 * MS, &done), -ENODATA);
    EQUAL(npush_stream_send(sock[0], (uintptr_t)bytes, SIZE, 0, 5 * MS, &done), -EPIPE);
    EQUAL(npush_stream_recv(-1, (uintptr_t)received, 16, 5 * MS, &done), -EBADF);
    sock[1] = -1;
    close(pipes[0]);
    close(pipes[1]);
    close_streams(sock, fd, bytes, SIZE);
}

int main(void)
{
    static const struct {
        const char *name;
        void (*run)(void);
    } tests[] = {
        TEST(test_map),
        TEST(test_huge_pages),
        TEST(test_mutex),
        TEST(test_mutex_whose_owner_dies),
        TEST(test_futex),
        TEST(test_segment_join_and_leave),
        TEST(test_segment_leases),
        TEST(test_segment_kept_warm),
        TEST(test_segment_under_contention),
        TEST(test_segment_whose_user_dies_at_each_step),
        TEST(test_segment_version),
        TEST(test_segment_generations),
        TEST(test_ranges),
        TEST(test_ranges_whose_writer_dies),
        TEST(test_ranges_under_contention),
        TEST(test_atomics),
        TEST(test_atomics_refuse),
        TEST(test_atomics_under_contention),
        TEST(test_steps),
        TEST(test_stream),
        TEST(test_stream_stops),
        TEST(test_team_runs_each_chunk_once),
        TEST(test_team_whose_kernel_fails),
        TEST(test_team_mail_calls_and_patches),
        TEST(test_team_whose_member_dies_at_each_step),
        TEST(test_team_barrier),
    };

    name_object();
    for (size_t i = 0; i < sizeof tests / sizeof *tests; i++) {
        double start = now();

        printf("%-45s", tests[i].name);
        fflush(stdout);
        alarm(60);
        tests[i].run();
        printf(" ok %5.2f s\n", now() - start);
    }
    printf("%zu C tests passed\n", sizeof tests / sizeof *tests);
    return 0;
}
