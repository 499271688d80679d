/* npush_map.c - see npush_map.h. */
#include "npush_map.h"
#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#ifndef MADV_POPULATE_READ /* Linux 5.14 and 6.1; older C libraries do not name them */
#define MADV_POPULATE_READ 22
#define MADV_POPULATE_WRITE 23
#endif
#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif

#define PIECE (INT64_C(64) << 20) /* a signal undoes the whole of a running fallocate on tmpfs: lose 64 MiB at most */
#define HUGE_PAGE (INT64_C(2) << 20) /* where a page has 4 KiB; with others we leave them alone */
#define HUGE_PIECE (INT64_C(16) << 20)
#define HUGE_PATIENCE 100 /* ms for a piece; it takes 3 unless the kernel must move much other memory out of the way first */

int npush_map_open(const char *name, int create)
{
    int fd = shm_open(name, O_RDWR | O_CLOEXEC | O_NOFOLLOW | (create ? O_CREAT | O_EXCL : 0), 0600);

    return fd < 0 ? -errno : fd;
}

int64_t npush_map_reserve(int fd, int64_t from, int64_t to)
{
    while (from < to) {
        int64_t n = to - from < PIECE ? to - from : PIECE;
        int rc = posix_fallocate(fd, (off_t)from, (off_t)n);

        if (rc == EINTR)
            return from;
        if (rc)
            return -rc;
        from += n;
    }
    return to;
}

static int64_t now_ms(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* Where `size` bytes from `offset` of a file are to be mapped so that its huge pages can be mapped as such; NULL: anywhere.
 * What it returns is mapped already, without access, and is to be replaced. */
static char *find_place(uint64_t offset, uint64_t size)
{
    const uintptr_t huge = (uintptr_t)HUGE_PAGE;
    size_t page = (size_t)sysconf(_SC_PAGESIZE), length = ((size_t)size + page - 1) / page * page;
    size_t before, after;
    char *p;

    if (length < huge || length > SIZE_MAX - huge || offset % page)
        return NULL;
    p = mmap(NULL, length + huge, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED)
        return NULL;
    before = (size_t)(((uintptr_t)offset - (uintptr_t)p) % huge);
    after = huge - before;
    if (before > 0)
        munmap(p, before);
    munmap(p + before + length, after);
    return p + before;
}

int64_t npush_map_collapse(int fd, int64_t from, int64_t to)
{
    from = (from + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE;
    if (sysconf(_SC_PAGESIZE) != 4096)
        return from;
    while (to - from >= HUGE_PAGE) {
        int64_t n = (to - from < HUGE_PIECE ? to - from : HUGE_PIECE) / HUGE_PAGE * HUGE_PAGE;
        int64_t start = now_ms(), at;
        uintptr_t address;
        int rc = 0;

        /* The kernel collapses what is there already: one small page in each is enough. */
        for (at = from; at < from + n && rc == 0; at += HUGE_PAGE)
            rc = posix_fallocate(fd, (off_t)at, 4096);
        if (rc || npush_map_map(fd, (uint64_t)from, (uint64_t)n, NPUSH_MAP_RW, &address))
            break;
        rc = madvise((void *)address, (size_t)n, MADV_COLLAPSE);
        npush_map_unmap(address, (uint64_t)n);
        if (rc)
            break;
        from += n;
        if (now_ms() - start > HUGE_PATIENCE)
            break;
    }
    return from;
}

int npush_map_map(int fd, uint64_t offset, uint64_t size, int mode, uintptr_t *address)
{
    int prot = mode == NPUSH_MAP_RO ? PROT_READ : PROT_READ | PROT_WRITE;
    /* A private mapping reserves nothing: what a task changes is little, and what it maps may be larger than memory. */
    int flags = mode == NPUSH_MAP_COW ? MAP_PRIVATE | MAP_NORESERVE : MAP_SHARED;
    char *place = find_place(offset, size);
    void *p = mmap(place, (size_t)size, prot, flags | (place != NULL ? MAP_FIXED : 0), fd, (off_t)offset);

    if (p == MAP_FAILED) {
        int rc = -errno;

        if (place != NULL)
            munmap(place, (size_t)size);
        return rc;
    }
    *address = (uintptr_t)p;
    return 0;
}

int npush_map_unmap(uintptr_t address, uint64_t size)
{
    return munmap((void *)address, (size_t)size) ? -errno : 0;
}

int npush_map_populate(uintptr_t address, uint64_t size, int write)
{
    int advice = write ? MADV_POPULATE_WRITE : MADV_POPULATE_READ;

    return madvise((void *)address, (size_t)size, advice) ? -errno : 0;
}

int npush_map_huge(uintptr_t address, uint64_t size)
{
    return madvise((void *)address, (size_t)size, MADV_HUGEPAGE) ? -errno : 0;
}

int npush_map_punch(int fd, uint64_t offset, uint64_t size)
{
    return fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)offset, (off_t)size) ? -errno : 0;
}

int npush_map_preallocate(int fd, uint64_t size)
{
    return fallocate(fd, 0, 0, (off_t)size) ? -errno : 0;
}
