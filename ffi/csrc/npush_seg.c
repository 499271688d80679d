/* npush_seg.c - see npush_seg.h. */
#include "npush_seg.h"
#include "npush_futex.h"
#include "npush_step.h"
#include <errno.h>
#include <string.h>

#define TABLE_TIMEOUT_NS INT64_C(10000000000)

/* The table needs no repair after owner died: invariant (3). */
static int enter(npush_seg_t *seg)
{
    int rc = npush_mutex_lock(&seg->table, TABLE_TIMEOUT_NS);

    if (rc == -EBUSY)
        return -ETIMEDOUT;
    return rc < 0 ? rc : 0;
}

static int leave_with(npush_seg_t *seg, int rc)
{
    int unlocked = npush_mutex_unlock(&seg->table);

    return unlocked ? unlocked : rc;
}

static npush_slot_t *find(npush_seg_t *seg, uint32_t n_slots, uint64_t node)
{
    for (uint32_t i = 0; i < n_slots; i++)
        if (seg->slot[i].node == node)
            return &seg->slot[i];
    return NULL;
}

static int is_empty(const npush_seg_t *seg, uint32_t n_slots)
{
    for (uint32_t i = 0; i < n_slots; i++)
        if (seg->slot[i].node)
            return 0;
    return 1;
}

static void set_state(npush_seg_t *seg, uint32_t state)
{
    __atomic_store_n(&seg->state, state, __ATOMIC_RELEASE);
    NPUSH_STEP();
}

/* Take a slot for node, or find the one it has. */
static int take(npush_seg_t *seg, uint32_t n_slots, uint64_t node)
{
    npush_slot_t *slot = find(seg, n_slots, node);

    if (!slot) {
        slot = find(seg, n_slots, 0);
        if (!slot)
            return -ENOSPC;
        slot->leases = 0;
        NPUSH_STEP();
    }
    slot->attached = 1;
    NPUSH_STEP();
    __atomic_store_n(&slot->node, node, __ATOMIC_RELEASE);
    NPUSH_STEP();
    seg->n_joins++;
    return 0;
}

static void free_if_unused(npush_slot_t *slot)
{
    if (!slot->attached && !slot->leases) {
        NPUSH_STEP();
        __atomic_store_n(&slot->node, 0, __ATOMIC_RELEASE);
    }
    NPUSH_STEP();
}

static void fresh_locks(npush_seg_t *seg)
{
    npush_mutex_init(&seg->data);
    npush_mutex_init(&seg->ranges);
    npush_mutex_init(&seg->structure);
    seg->generation = 0;
    seg->floor = 0;
    memset(seg->place, 0, sizeof seg->place);
    memset(seg->range, 0, sizeof seg->range);
    seg->next_ticket = 0;
    seg->n_joins = 0;
    __atomic_store_n(&seg->version, 0, __ATOMIC_RELAXED);
}

int npush_seg_init(npush_seg_t *seg, uint64_t capacity, uint64_t data_offset, uint32_t n_slots, uint64_t node,
                   uint32_t pid)
{
    int rc = npush_mutex_init(&seg->table);

    if (rc)
        return rc;
    NPUSH_STEP();
    fresh_locks(seg);
    seg->layout = NPUSH_LAYOUT;
    seg->state = NPUSH_BUILDING;
    seg->capacity = capacity;
    seg->data_offset = data_offset;
    seg->n_slots = n_slots;
    seg->creator = node;
    seg->creator_pid = pid;
    seg->slot[0].attached = 1;
    seg->slot[0].leases = 0;
    seg->slot[0].node = node;
    NPUSH_STEP();
    __atomic_store_n(&seg->magic, NPUSH_MAGIC, __ATOMIC_RELEASE);
    NPUSH_STEP();
    return 0;
}

int npush_seg_describe(npush_seg_t *seg, uint64_t identity, uint64_t data_size, uint64_t desc_offset,
                       uint32_t desc_size, int64_t created_ns)
{
    if (npush_seg_state(seg) != NPUSH_BUILDING)
        return -EBUSY;
    seg->identity = identity;
    seg->data_size = data_size;
    seg->desc_offset = desc_offset;
    seg->desc_size = desc_size;
    seg->created_ns = created_ns;
    NPUSH_STEP();
    return 0;
}

int npush_seg_commit(npush_seg_t *seg)
{
    int rc = enter(seg);

    if (rc)
        return rc;
    if (seg->state != NPUSH_BUILDING)
        return leave_with(seg, -EBUSY);
    NPUSH_STEP();
    set_state(seg, NPUSH_LIVE);
    return leave_with(seg, 0);
}

static int join(npush_seg_t *seg, uint32_t n_slots, uint64_t identity, uint64_t node)
{
    if (seg->state != NPUSH_LIVE || seg->identity != identity)
        return -ENOENT;
    return take(seg, n_slots, node);
}

int npush_seg_join(npush_seg_t *seg, uint32_t n_slots, uint64_t identity, uint64_t node)
{
    int rc = enter(seg);

    if (rc)
        return rc;
    NPUSH_STEP();
    return leave_with(seg, join(seg, n_slots, identity, node));
}

int npush_seg_receive(npush_seg_t *seg, uint32_t n_slots, uint64_t identity, uint64_t node, uint64_t sender)
{
    npush_slot_t *slot;
    int rc = enter(seg);

    if (rc)
        return rc;
    rc = join(seg, n_slots, identity, node);
    slot = rc ? NULL : find(seg, n_slots, sender);
    if (slot && slot->leases) { /* none left when the same message is opened twice, or its grace has passed */
        slot->leases--;
        NPUSH_STEP();
        free_if_unused(slot);
    }
    return leave_with(seg, rc);
}

int npush_seg_lease(npush_seg_t *seg, uint32_t n_slots, uint64_t node)
{
    npush_slot_t *slot;
    int rc = enter(seg);

    if (rc)
        return rc;
    slot = find(seg, n_slots, node);
    if (!slot || !slot->attached)
        return leave_with(seg, -ENOENT);
    NPUSH_STEP();
    slot->leases++;
    NPUSH_STEP();
    return leave_with(seg, 0);
}

/* A slot stays as long as leases are out. */
static void detach(npush_seg_t *seg, uint32_t n_slots, uint64_t node, int keep_leases)
{
    npush_slot_t *slot = find(seg, n_slots, node);

    if (!slot)
        return;
    slot->attached = 0;
    NPUSH_STEP();
    if (!keep_leases)
        slot->leases = 0;
    NPUSH_STEP();
    free_if_unused(slot);
}

int npush_seg_leave(npush_seg_t *seg, uint32_t n_slots, uint64_t node, int keep_warm)
{
    int rc = enter(seg);

    if (rc)
        return rc;
    detach(seg, n_slots, node, 1);
    if (!is_empty(seg, n_slots) || seg->state == NPUSH_DEAD || seg->state == NPUSH_WARM)
        return leave_with(seg, 0);
    if (keep_warm && seg->state == NPUSH_LIVE) {
        seg->slot[0].attached = 0;
        seg->slot[0].leases = 0;
        seg->slot[0].node = node;
        NPUSH_STEP();
        set_state(seg, NPUSH_WARM);
    }
    else
        set_state(seg, NPUSH_DEAD);
    return leave_with(seg, NPUSH_LAST);
}

int npush_seg_evict(npush_seg_t *seg, uint32_t n_slots, uint64_t node, int keep_leases)
{
    int rc = enter(seg);

    if (rc)
        return rc;
    detach(seg, n_slots, node, keep_leases);
    if (!is_empty(seg, n_slots))
        return leave_with(seg, 0);
    set_state(seg, NPUSH_DEAD);
    return leave_with(seg, NPUSH_LAST);
}

int npush_seg_claim(npush_seg_t *seg, uint32_t n_slots, uint64_t node, uint32_t pid)
{
    int rc = enter(seg);

    if (rc)
        return rc;
    if (seg->state != NPUSH_WARM)
        return leave_with(seg, -ENOENT);
    NPUSH_STEP();
    /* From here on a sweep sees a segment that is being built; by whom, is stored first. */
    for (uint32_t i = 1; i < n_slots; i++)
        seg->slot[i].node = 0;
    seg->slot[0].attached = 1;
    seg->slot[0].leases = 0;
    seg->slot[0].node = node;
    NPUSH_STEP();
    set_state(seg, NPUSH_BUILDING);
    fresh_locks(seg);
    seg->creator = node;
    seg->creator_pid = pid;
    NPUSH_STEP();
    return leave_with(seg, 0);
}

int npush_seg_drop(npush_seg_t *seg, uint32_t n_slots)
{
    int rc = enter(seg);

    if (rc)
        return rc;
    if (seg->state != NPUSH_WARM)
        return leave_with(seg, 0);
    for (uint32_t i = 0; i < n_slots; i++)
        seg->slot[i].node = 0;
    NPUSH_STEP();
    set_state(seg, NPUSH_DEAD);
    return leave_with(seg, NPUSH_LAST);
}

int npush_seg_holders(npush_seg_t *seg, uint32_t n_slots, uint64_t *out)
{
    int n = 0;
    int rc = enter(seg);

    if (rc)
        return rc;
    for (uint32_t i = 0; i < n_slots; i++)
        if (seg->slot[i].node) {
            out[3 * n] = seg->slot[i].node;
            out[3 * n + 1] = seg->slot[i].attached;
            out[3 * n + 2] = seg->slot[i].leases;
            n++;
        }
    return leave_with(seg, n);
}

int npush_seg_peek(const npush_seg_t *seg, uint32_t n_slots, uint64_t *out)
{
    int n = 0;

    for (uint32_t i = 0; i < n_slots; i++) {
        uint64_t node = __atomic_load_n(&seg->slot[i].node, __ATOMIC_ACQUIRE);
        if (node) {
            out[3 * n] = node;
            out[3 * n + 1] = __atomic_load_n(&seg->slot[i].attached, __ATOMIC_RELAXED);
            out[3 * n + 2] = __atomic_load_n(&seg->slot[i].leases, __ATOMIC_RELAXED);
            n++;
        }
    }
    return n;
}

void npush_seg_mark_unlisted(npush_seg_t *seg) { __atomic_store_n(&seg->has_unlisted, 1, __ATOMIC_RELEASE); }

int npush_seg_has_unlisted(const npush_seg_t *seg)
{
    return (int)__atomic_load_n(&seg->has_unlisted, __ATOMIC_ACQUIRE);
}

uint32_t npush_seg_state(const npush_seg_t *seg) { return __atomic_load_n(&seg->state, __ATOMIC_ACQUIRE); }
uint64_t npush_seg_identity(const npush_seg_t *seg) { return __atomic_load_n(&seg->identity, __ATOMIC_ACQUIRE); }
uint32_t npush_seg_joins(const npush_seg_t *seg) { return __atomic_load_n(&seg->n_joins, __ATOMIC_RELAXED); }
uint64_t npush_seg_floor(const npush_seg_t *seg) { return __atomic_load_n(&seg->floor, __ATOMIC_ACQUIRE); }
npush_mutex_t *npush_seg_structure_mutex(npush_seg_t *seg) { return &seg->structure; }

uint64_t npush_seg_generation(const npush_seg_t *seg) { return __atomic_load_n(&seg->generation, __ATOMIC_ACQUIRE); }

void npush_seg_place(const npush_seg_t *seg, uint64_t *out)
{
    /* A place is written again only two generations later, so one is whole if the number has not moved: each
     * load here, and each store below, keeps its place among the others. */
    do {
        const npush_place_t *place;

        out[0] = npush_seg_generation(seg);
        place = &seg->place[out[0] & 1];
        out[1] = __atomic_load_n(&place->desc_offset, __ATOMIC_ACQUIRE);
        out[2] = __atomic_load_n(&place->desc_size, __ATOMIC_ACQUIRE);
        out[3] = __atomic_load_n(&place->end, __ATOMIC_ACQUIRE);
        out[4] = npush_seg_floor(seg);
    } while (npush_seg_generation(seg) != out[0]);
}

void npush_seg_publish(npush_seg_t *seg, uint64_t desc_offset, uint64_t desc_size, uint64_t end)
{
    uint64_t next = npush_seg_generation(seg) + 1;
    npush_place_t *place = &seg->place[next & 1];

    __atomic_store_n(&place->desc_offset, desc_offset, __ATOMIC_RELEASE);
    NPUSH_STEP();
    __atomic_store_n(&place->desc_size, desc_size, __ATOMIC_RELEASE);
    NPUSH_STEP();
    __atomic_store_n(&place->end, end, __ATOMIC_RELEASE);
    NPUSH_STEP();
    __atomic_store_n(&seg->generation, next, __ATOMIC_RELEASE);
    NPUSH_STEP();
}

void npush_seg_raise_floor(npush_seg_t *seg, uint64_t floor)
{
    __atomic_store_n(&seg->floor, floor, __ATOMIC_RELEASE);
    NPUSH_STEP();
}

npush_mutex_t *npush_seg_data_mutex(npush_seg_t *seg) { return &seg->data; }
uint64_t npush_seg_version(const npush_seg_t *seg) { return __atomic_load_n(&seg->version, __ATOMIC_ACQUIRE); }

uint64_t npush_seg_advance(npush_seg_t *seg, uint64_t n)
{
    uint64_t version = __atomic_add_fetch(&seg->version, n, __ATOMIC_ACQ_REL);

    npush_futex_post(&seg->news); /* pairs with the load of news in npush_seg_wait */
    return version;
}

int npush_seg_wait(npush_seg_t *seg, uint64_t seen, int64_t timeout_ns)
{
    uint32_t news = npush_futex_load(&seg->news); /* before version: what is posted after this load ends the wait */

    if (npush_seg_version(seg) != seen)
        return 0;
    return npush_futex_wait(&seg->news, news, timeout_ns);
}
