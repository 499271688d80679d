/* test_seg.c - npush_seg.h: who uses a segment, its leases, version and generations; users that die at each step. */
#include "check.h"
#include "npush_mutex.h"
#include "npush_range.h"
#include "npush_seg.h"
#include "npush_step.h"
#include "parties.h"
#include "shared_memory.h"
#include <signal.h>
#include <string.h>
#include <unistd.h>

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

const test_t seg_tests[] = {
    TEST(test_segment_join_and_leave),
    TEST(test_segment_leases),
    TEST(test_segment_kept_warm),
    TEST(test_segment_under_contention),
    TEST(test_segment_whose_user_dies_at_each_step),
    TEST(test_segment_version),
    TEST(test_segment_generations),
    {NULL, NULL},
};
