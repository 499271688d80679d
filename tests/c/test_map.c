/* test_map.c - npush_map.h: objects by name, reserved, mapped in each way, punched; huge pages. */
#include "check.h"
#include "npush_map.h"
#include "parties.h"
#include "shared_memory.h"
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

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

const test_t map_tests[] = {
    TEST(test_map),
    TEST(test_huge_pages),
    {NULL, NULL},
};
