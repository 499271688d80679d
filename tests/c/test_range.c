/* test_range.c - npush_range.h: locks of ranges, and what their writers leave when they die. */
#include "check.h"
#include "npush_range.h"
#include "parties.h"
#include "shared_memory.h"
#include <unistd.h>

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

const test_t range_tests[] = {
    TEST(test_ranges),
    TEST(test_ranges_whose_writer_dies),
    TEST(test_ranges_under_contention),
    {NULL, NULL},
};
