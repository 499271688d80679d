/* npush_map.c - see npush_map.h. */
#include "npush_map.h"
#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <sys/mman.h>

#ifndef MADV_POPULATE_READ /* Linux 5.14; older C libraries do not name them */
#define MADV_POPULATE_READ 22
#define MADV_POPULATE_WRITE 23
#endif

#define PIECE (INT64_C(64) << 20) /* a signal undoes the whole of a running fallocate on tmpfs: lose 64 MiB at most */

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

int npush_map_map(int fd, uint64_t offset, uint64_t size, int mode, uintptr_t *address)
{
    int prot = mode == NPUSH_MAP_RO ? PROT_READ : PROT_READ | PROT_WRITE;
    /* A private mapping reserves nothing: what a task changes is little, and what it maps may be larger than memory. */
    int flags = mode == NPUSH_MAP_COW ? MAP_PRIVATE | MAP_NORESERVE : MAP_SHARED;
    void *p = mmap(NULL, (size_t)size, prot, flags, fd, (off_t)offset);

    if (p == MAP_FAILED)
        return -errno;
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
