/* npush_seg.h - the header at byte 0 of every segment, and the table of the processes that use it.
 *
 *     0  magic          stored last by the creator (release), looked at first by everybody else
 *     8  layout         attach refuses any other value
 *    12  state          below; changes under `table`
 *    16  capacity       bytes of the file as it was made, constant; generations may have extended it
 *    24  data_offset    a page boundary, constant     32  data_size   bytes in use
 *    40  desc_offset    of the description (msgpack)  48  desc_size
 *    52  n_slots        of the table, constant
 *    56  identity       random; another one each time that the file is used for another object
 *    64  creator        node; 72 creator_pid; 76 n_joins: how many times anybody attached; 80 created_ns
 *    88  next_ticket    of the range locks
 *   128  table          mutex: guards state and slots          192  data     mutex: the user's
 *   256  ranges         mutex: guards the range locks          320  version, news, range_news
 *   336  has_unlisted   a process that is not in the table maps it: its memory must not be used for anything else
 *   344  generation     how often its structure was replaced; 352  floor: data below was given back
 *   360  place[2]       of the description of the generation, in the one of its parity
 *   448  structure      mutex: guards these, and the end of the file
 *   512  64 range-lock entries                                3584  n_slots slots, then the description
 *
 * A slot says that one process (node) uses the segment: `attached` (it has it mapped and views may live), `leases`
 * (handles it sent that nobody has received). It is free when node is 0.
 *
 *   BUILDING --commit--> LIVE --last leave--> DEAD (unlinked by who made it so)
 *       ^                  `----last leave--> WARM (kept for reuse by the node in slot) --drop--> DEAD
 *       `------------------claim---------------'
 *
 * (1) Before magic is stored only the creator may touch the file; it holds flock on it meanwhile.
 * (2) A process adds itself (join, receive) only while the segment is LIVE, and under `table`: so once the last slot is
 *     free and the state DEAD nobody can come back, and the file may be unlinked.
 * (3) Each change is one store that means something by itself, and a slot's node is stored last when it is taken: a
 *     process killed between any two stores leaves a table that is right, or that a sweep makes right by evicting it.
 * (4) What is used of the header's numbers was checked once by attach and is passed in (n_slots); it is not read again.
 * (5) Offsets, never addresses, are stored in shared memory.
 * (6) A generation is a new description, appended to the file with what data it adds, and never changed afterwards: it is
 *     there from the store of `generation` on. Who is killed before leaves the file longer, and nothing else. */
#ifndef NPUSH_SEG_H
#define NPUSH_SEG_H
#include "npush_mutex.h"
#include <stddef.h>
#include <stdint.h>

typedef struct {
    uint64_t node;
    uint32_t attached;
    uint32_t leases;
} npush_slot_t;

typedef struct { /* see npush_range.h */
    uint64_t start, stop;
    uint64_t node;
    uint64_t ticket;
    uint32_t pid, tid;
    uint32_t state;
    uint32_t shared;
} npush_range_t;

#define NPUSH_N_RANGES 64

typedef struct { /* of a generation: offsets into the data, and where the next one may begin */
    uint64_t desc_offset, desc_size;
    uint64_t end;
} npush_place_t;

typedef struct {
    uint64_t magic;
    uint32_t layout;
    uint32_t state;
    uint64_t capacity;
    uint64_t data_offset;
    uint64_t data_size;
    uint64_t desc_offset;
    uint32_t desc_size;
    uint32_t n_slots;
    uint64_t identity;
    uint64_t creator;
    uint32_t creator_pid;
    uint32_t n_joins;
    int64_t created_ns;
    uint64_t next_ticket;
    npush_mutex_t table;
    npush_mutex_t data;
    npush_mutex_t ranges;
    uint64_t version;
    uint32_t news;
    uint32_t range_news;
    uint32_t has_unlisted;
    uint64_t generation;
    uint64_t floor;
    npush_place_t place[2];
    unsigned char reserved[40];
    npush_mutex_t structure;
    npush_range_t range[NPUSH_N_RANGES];
    npush_slot_t slot[];
} npush_seg_t;

_Static_assert(offsetof(npush_seg_t, identity) == 56, "layout 2");
_Static_assert(offsetof(npush_seg_t, table) == 128, "layout 2");
_Static_assert(offsetof(npush_seg_t, version) == 320, "layout 2");
_Static_assert(offsetof(npush_seg_t, generation) == 344, "layout 2");
_Static_assert(offsetof(npush_seg_t, structure) == 448, "layout 2");
_Static_assert(offsetof(npush_seg_t, range) == 512, "layout 2");
_Static_assert(sizeof(npush_range_t) == 48, "layout 2");
_Static_assert(offsetof(npush_seg_t, slot) == 3584, "layout 2");

/* cdef: begin */
#define NPUSH_LAYOUT 2
#define NPUSH_SLOTS_OFFSET 3584
#define NPUSH_BUILDING 1
#define NPUSH_LIVE 2
#define NPUSH_WARM 3
#define NPUSH_DEAD 4
#define NPUSH_LAST 1
/* All of these return 0 or -errno unless said otherwise, and lock `table` for a moment; -ETIMEDOUT: nobody let go of it
 * for ten seconds (a stopped process, or a damaged header). */

/* Write the header of a new file that nobody else uses, with the creator's slot, and leave it BUILDING. */
int npush_seg_init(npush_seg_t *seg, uint64_t capacity, uint64_t data_offset, uint32_t n_slots, uint64_t node,
                   uint32_t pid);
/* Say what the segment holds; only the creator, while BUILDING. */
int npush_seg_describe(npush_seg_t *seg, uint64_t identity, uint64_t data_size, uint64_t desc_offset,
                       uint32_t desc_size, int64_t created_ns);
/* BUILDING -> LIVE. */
int npush_seg_commit(npush_seg_t *seg);
/* Mark `node` attached. -ENOENT: not LIVE, or another identity by now. -ENOSPC: every slot is taken. */
int npush_seg_join(npush_seg_t *seg, uint32_t n_slots, uint64_t identity, uint64_t node);
/* Join and give back one lease of `sender`, in one step. Errors of join. */
int npush_seg_receive(npush_seg_t *seg, uint32_t n_slots, uint64_t identity, uint64_t node, uint64_t sender);
/* Take a lease on behalf of `node`, which must be attached (-ENOENT). */
int npush_seg_lease(npush_seg_t *seg, uint32_t n_slots, uint64_t node);
/* `node` no longer uses it. NPUSH_LAST: nobody does; the state is now DEAD, or WARM with `node` in a slot if keep_warm,
 * and the caller unlinks (or renames) the file. */
int npush_seg_leave(npush_seg_t *seg, uint32_t n_slots, uint64_t node, int keep_warm);
/* Take a dead node out; its leases stay if keep_leases. NPUSH_LAST: the state is now DEAD, the caller unlinks. */
int npush_seg_evict(npush_seg_t *seg, uint32_t n_slots, uint64_t node, int keep_leases);
/* Unless it is WARM (or claimed already: -ENOENT), make it BUILDING for `node`, with fresh locks. */
int npush_seg_claim(npush_seg_t *seg, uint32_t n_slots, uint64_t node, uint32_t pid);
/* Make a WARM segment DEAD: NPUSH_LAST, the caller unlinks. 0: it is in use again. */
int npush_seg_drop(npush_seg_t *seg, uint32_t n_slots);
/* Copy the slots in use to out (3 x n_slots words: node, attached, leases); how many. */
int npush_seg_holders(npush_seg_t *seg, uint32_t n_slots, uint64_t *out);
/* The same without the lock, so that it never waits: a hint, whose lines may be of different moments. */
int npush_seg_peek(const npush_seg_t *seg, uint32_t n_slots, uint64_t *out);
/* Say, for good, that a process maps it that is not in the table (a child for which there was no slot). */
void npush_seg_mark_unlisted(npush_seg_t *seg);
int npush_seg_has_unlisted(const npush_seg_t *seg);
/* Without a lock, a hint: */
uint32_t npush_seg_state(const npush_seg_t *seg);
uint64_t npush_seg_identity(const npush_seg_t *seg);
uint32_t npush_seg_joins(const npush_seg_t *seg);
/* 0 for what the segment was made with. */
uint64_t npush_seg_generation(const npush_seg_t *seg);
uint64_t npush_seg_floor(const npush_seg_t *seg);
/* Copy generation, desc_offset, desc_size, end and floor to out, as they were together. */
void npush_seg_place(const npush_seg_t *seg, uint64_t *out);
/* Make it the next generation, described there; under `structure`. */
void npush_seg_publish(npush_seg_t *seg, uint64_t desc_offset, uint64_t desc_size, uint64_t end);
/* Say that data below `floor` is gone, before it goes; under `structure`. */
void npush_seg_raise_floor(npush_seg_t *seg, uint64_t floor);
npush_mutex_t *npush_seg_structure_mutex(npush_seg_t *seg);
/* The user's mutex. */
npush_mutex_t *npush_seg_data_mutex(npush_seg_t *seg);
/* version: load (acquire); add n (release) and wake who waits. */
uint64_t npush_seg_version(const npush_seg_t *seg);
uint64_t npush_seg_advance(npush_seg_t *seg, uint64_t n);
/* Sleep until version differs from `seen`, at most timeout_ns. 0, -ETIMEDOUT, -EINTR. */
int npush_seg_wait(npush_seg_t *seg, uint64_t seen, int64_t timeout_ns);
/* cdef: end */

#define NPUSH_MAGIC UINT64_C(0x6765736873757000) /* "\0pushseg" */
#endif
