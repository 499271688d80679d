/* npush_range.c - see npush_range.h. */
#include "npush_range.h"
#include "npush_futex.h"
#include "npush_step.h"
#include <errno.h>
#include <unistd.h>

#define RANGES_TIMEOUT_NS INT64_C(10000000000)

static int enter(npush_seg_t *seg)
{
    int rc = npush_mutex_lock(&seg->ranges, RANGES_TIMEOUT_NS);

    if (rc == -EBUSY)
        return -ETIMEDOUT;
    return rc < 0 ? rc : 0;
}

static int leave_with(npush_seg_t *seg, int rc)
{
    int unlocked = npush_mutex_unlock(&seg->ranges);

    return unlocked ? unlocked : rc;
}

static void set_state(npush_range_t *e, uint32_t state)
{
    __atomic_store_n(&e->state, state, __ATOMIC_RELEASE);
    NPUSH_STEP();
}

static int overlap(const npush_range_t *a, const npush_range_t *b)
{
    return a->start < b->stop && b->start < a->stop;
}

static npush_range_t *find_free(npush_seg_t *seg)
{
    for (int i = 0; i < NPUSH_N_RANGES; i++)
        if (seg->range[i].state == NPUSH_RANGE_FREE)
            return &seg->range[i];
    return NULL;
}

/* No entry is free: let one mark of the dead stand for two, the pair that lies closest, so that they cannot use up the
 * table. What lies between is marked too. */
static npush_range_t *merge_orphans(npush_seg_t *seg)
{
    npush_range_t *kept = NULL, *other = NULL;
    uint64_t least = UINT64_MAX;

    for (int i = 0; i < NPUSH_N_RANGES; i++)
        for (int k = i + 1; k < NPUSH_N_RANGES; k++) {
            npush_range_t *a = &seg->range[i], *b = &seg->range[k];
            uint64_t start = a->start < b->start ? a->start : b->start;
            uint64_t stop = a->stop > b->stop ? a->stop : b->stop;

            if (a->state == NPUSH_RANGE_ORPHAN && b->state == NPUSH_RANGE_ORPHAN && stop - start < least) {
                least = stop - start;
                kept = a;
                other = b;
            }
        }
    if (!kept)
        return NULL;
    if (other->start < kept->start)
        kept->start = other->start;
    NPUSH_STEP();
    if (other->stop > kept->stop)
        kept->stop = other->stop;
    NPUSH_STEP();
    set_state(other, NPUSH_RANGE_FREE);
    return other;
}

/* `mine` now covers part of what a dead writer left: keep the rest of it marked. */
static void take_over(npush_seg_t *seg, const npush_range_t *mine, npush_range_t *orphan)
{
    npush_range_t *right;

    if (mine->start <= orphan->start && mine->stop >= orphan->stop) {
        set_state(orphan, NPUSH_RANGE_FREE);
        return;
    }
    if (mine->start > orphan->start && mine->stop < orphan->stop) {
        right = find_free(seg);
        if (!right)
            return; /* no room to split: what is marked stays marked, and is told once more */
        *right = *orphan;
        right->state = NPUSH_RANGE_FREE;
        right->start = mine->stop;
        NPUSH_STEP();
        set_state(right, NPUSH_RANGE_ORPHAN);
    }
    if (mine->start > orphan->start)
        orphan->stop = mine->start;
    else
        orphan->start = mine->stop;
    NPUSH_STEP();
}

/* The entry in whose way `mine` has to wait, if any. */
static npush_range_t *find_blocker(npush_seg_t *seg, const npush_range_t *mine)
{
    for (int i = 0; i < NPUSH_N_RANGES; i++) {
        npush_range_t *e = &seg->range[i];

        if (e == mine || (e->shared && mine->shared) || !overlap(e, mine))
            continue;
        if (e->state == NPUSH_RANGE_HELD || (e->state == NPUSH_RANGE_WAITING && e->ticket < mine->ticket))
            return e;
    }
    return NULL;
}

static int hold(npush_seg_t *seg, npush_range_t *mine)
{
    int died = 0;

    set_state(mine, NPUSH_RANGE_HELD);
    for (int i = 0; i < NPUSH_N_RANGES; i++) {
        npush_range_t *e = &seg->range[i];

        if (e->state != NPUSH_RANGE_ORPHAN || !overlap(e, mine))
            continue;
        died = NPUSH_OWNER_DIED;
        if (!mine->shared) /* a reader is told too, but only a writer can repair */
            take_over(seg, mine, e);
    }
    return died;
}

int npush_range_lock(npush_seg_t *seg, uint64_t start, uint64_t stop, int shared, uint64_t node, uint32_t pid,
                     int *entry, uint64_t *blocker, uint32_t *news)
{
    npush_range_t *mine, *e;
    uint32_t tid = (uint32_t)gettid();
    int rc = enter(seg);

    if (rc)
        return rc;
    *news = npush_futex_load(&seg->range_news);
    if (*entry >= 0)
        mine = &seg->range[*entry];
    else {
        mine = find_free(seg);
        if (!mine)
            mine = merge_orphans(seg);
        if (!mine)
            return leave_with(seg, -ENOSPC);
        mine->start = start;
        mine->stop = stop;
        mine->node = node;
        mine->ticket = seg->next_ticket++;
        mine->pid = pid;
        mine->tid = tid;
        mine->shared = (uint32_t)shared;
        NPUSH_STEP();
        set_state(mine, NPUSH_RANGE_WAITING);
        *entry = (int)(mine - seg->range);
    }
    e = find_blocker(seg, mine);
    if (!e)
        return leave_with(seg, hold(seg, mine));
    *blocker = e->node;
    if (e->state == NPUSH_RANGE_HELD && e->node == node && e->pid == pid && e->tid == tid)
        return leave_with(seg, -EDEADLK);
    return leave_with(seg, -EBUSY);
}

int npush_range_unlock(npush_seg_t *seg, int entry, uint64_t node)
{
    npush_range_t *e = &seg->range[entry];
    int rc = enter(seg);

    if (rc)
        return rc;
    if (e->node != node || (e->state != NPUSH_RANGE_HELD && e->state != NPUSH_RANGE_WAITING))
        return leave_with(seg, -EPERM);
    NPUSH_STEP();
    set_state(e, NPUSH_RANGE_FREE);
    rc = leave_with(seg, 0);
    npush_futex_post(&seg->range_news); /* pairs with the load in npush_range_lock */
    return rc;
}

int npush_range_evict(npush_seg_t *seg, uint64_t node)
{
    int n = 0;
    int rc = enter(seg);

    if (rc)
        return rc;
    for (int i = 0; i < NPUSH_N_RANGES; i++) {
        npush_range_t *e = &seg->range[i];

        if (e->node != node || e->state == NPUSH_RANGE_FREE || e->state == NPUSH_RANGE_ORPHAN)
            continue;
        NPUSH_STEP();
        set_state(e, e->state == NPUSH_RANGE_HELD && !e->shared ? NPUSH_RANGE_ORPHAN : NPUSH_RANGE_FREE);
        n++;
    }
    rc = leave_with(seg, n);
    npush_futex_post(&seg->range_news);
    return rc;
}

int npush_range_wait(npush_seg_t *seg, uint32_t news, int64_t timeout_ns)
{
    return npush_futex_wait(&seg->range_news, news, timeout_ns);
}

int npush_range_list(npush_seg_t *seg, uint64_t *out)
{
    int n = 0;
    int rc = enter(seg);

    if (rc)
        return rc;
    for (int i = 0; i < NPUSH_N_RANGES; i++) {
        const npush_range_t *e = &seg->range[i];

        if (e->state == NPUSH_RANGE_FREE)
            continue;
        out[0] = e->start;
        out[1] = e->stop;
        out[2] = e->node;
        out[3] = e->pid;
        out[4] = e->tid;
        out[5] = e->state;
        out[6] = e->shared;
        out += 7;
        n++;
    }
    return leave_with(seg, n);
}
