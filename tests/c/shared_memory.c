/* shared_memory.c - see shared_memory.h. */
#include "shared_memory.h"
#include "check.h"
#include "npush_map.h"
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

char object_name[64];

void name_object(void)
{
    snprintf(object_name, sizeof object_name, "/npush-test-ffi.%d", (int)getpid());
}

void *shared(size_t size)
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

void unshare_(void *p, size_t size)
{
    EQUAL(npush_map_unmap((uintptr_t)p, size), 0);
}

npush_seg_t *new_segment(void)
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
