/* npush_range.h - robust reader/writer locks over byte ranges of one segment.
 *
 * An entry is FREE, WAITING (asked for, in line), HELD, or ORPHAN (its exclusive holder died: what it covers may be torn;
 * who locks it exclusively next is told so and takes it over).
 *
 * (1) Entries change under the segment's `ranges` mutex; `state` is stored last when an entry is taken, and alone when it
 *     is given up, so a process killed in between leaves the list right.
 * (2) First come, first served among those that overlap and do not both share: a waiting writer is not overtaken.
 * (3) Who finds itself blocked asks whether the blocker's node is alive and, if not, evicts it: nobody waits for the
 *     dead. A holder is a process and a thread; a thread that ends without unlocking still holds. */
#ifndef NPUSH_RANGE_H
#define NPUSH_RANGE_H
#include "npush_seg.h"

/* cdef: begin */
#define NPUSH_RANGE_ENTRIES 64
#define NPUSH_RANGE_FREE 0
#define NPUSH_RANGE_WAITING 1
#define NPUSH_RANGE_HELD 2
#define NPUSH_RANGE_ORPHAN 3
/* Stand in line for [start, stop), or, with an entry (>= 0) from an earlier call, look again. 0: held.
 * NPUSH_OWNER_DIED: held, and a writer died inside it. -EBUSY: `*blocker` (a node) is before us; `*news` is what to wait
 * on. -ENOSPC: all entries are in use. -EDEADLK: this thread itself holds what blocks it. */
int npush_range_lock(npush_seg_t *seg, uint64_t start, uint64_t stop, int shared, uint64_t node, uint32_t pid,
                     int *entry, uint64_t *blocker, uint32_t *news);
/* Give an entry up, held or waiting, and wake who waits. -EPERM: not this node's. */
int npush_range_unlock(npush_seg_t *seg, int entry, uint64_t node);
/* Drop what a dead node waits for and shares; what it held exclusively becomes ORPHAN. How many entries. */
int npush_range_evict(npush_seg_t *seg, uint64_t node);
/* Sleep until an entry is given up. 0, -ETIMEDOUT, -EINTR. */
int npush_range_wait(npush_seg_t *seg, uint32_t news, int64_t timeout_ns);
/* Copy the entries in use to out (7 words each: start, stop, node, pid, tid, state, shared); how many. */
int npush_range_list(npush_seg_t *seg, uint64_t *out);
/* cdef: end */
_Static_assert(NPUSH_RANGE_ENTRIES == NPUSH_N_RANGES, "layout 2");
#endif
