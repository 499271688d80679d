"""Python calls for npush_seg.c: the header of a segment and the table of who uses it.

The calls that the layer above makes for every handle (`join`, `receive`, `lease`) are the C
functions themselves and return 0 or a negated errno.
"""

from __future__ import annotations

import errno

from . import Ref, check
from ._numpush import ffi, lib

LAYOUT: int = lib.NPUSH_LAYOUT
SLOTS_OFFSET: int = lib.NPUSH_SLOTS_OFFSET
SLOT_SIZE = 16
BUILDING: int = lib.NPUSH_BUILDING
LIVE: int = lib.NPUSH_LIVE
WARM: int = lib.NPUSH_WARM
DEAD: int = lib.NPUSH_DEAD

join = lib.npush_seg_join
receive = lib.npush_seg_receive
lease = lib.npush_seg_lease
state = lib.npush_seg_state
identity = lib.npush_seg_identity
joins = lib.npush_seg_joins
mark_unlisted = lib.npush_seg_mark_unlisted
has_unlisted = lib.npush_seg_has_unlisted
version = lib.npush_seg_version
advance = lib.npush_seg_advance
floor = lib.npush_seg_floor
publish = lib.npush_seg_publish
raise_floor = lib.npush_seg_raise_floor
structure_mutex = lib.npush_seg_structure_mutex
data_mutex = lib.npush_seg_data_mutex


def at(address: int) -> Ref:
    """Refer to the segment header mapped at *address*."""
    return ffi.cast("npush_seg_t *", address)


def generation(ref: Ref) -> int:
    """Return the generation, as a hint; what it says is read by `place`.

    A field, not a call: that would let go of the GIL, and each access to a frame asks for it.
    """
    return ref.generation  # type: ignore[no-any-return]  # a reference is opaque elsewhere


def init(ref: Ref, *, capacity: int, data_offset: int, n_slots: int, node: int, pid: int) -> None:
    check(lib.npush_seg_init(ref, capacity, data_offset, n_slots, node, pid))


def describe(
    ref: Ref, *, identity: int, data_size: int, desc_offset: int, desc_size: int, created_ns: int
) -> None:
    check(lib.npush_seg_describe(ref, identity, data_size, desc_offset, desc_size, created_ns))


def commit(ref: Ref) -> None:
    check(lib.npush_seg_commit(ref))


def leave(ref: Ref, n_slots: int, node: int, *, keep_warm: bool) -> bool:
    """True: nobody uses it any more, and the caller takes the file away."""
    return bool(check(lib.npush_seg_leave(ref, n_slots, node, keep_warm)))


def evict(ref: Ref, n_slots: int, node: int, *, keep_leases: bool) -> bool:
    """True: nobody uses it any more, and the caller takes the file away."""
    return bool(check(lib.npush_seg_evict(ref, n_slots, node, keep_leases)))


def claim(ref: Ref, n_slots: int, node: int, pid: int) -> bool:
    """True: a warm segment is now ours to build in. False: somebody was faster."""
    rc = lib.npush_seg_claim(ref, n_slots, node, pid)
    return rc != -errno.ENOENT and check(rc) == 0


def drop(ref: Ref, n_slots: int) -> bool:
    """True: a warm segment is dead now, and the caller unlinks it."""
    return bool(check(lib.npush_seg_drop(ref, n_slots)))


def holders(ref: Ref, n_slots: int, *, peek: bool = False) -> list[tuple[int, bool, int]]:
    """Return (node, attached, leases) of each slot in use; *peek*: a hint, without the lock."""
    out = ffi.new("uint64_t[]", 3 * n_slots)
    n = check((lib.npush_seg_peek if peek else lib.npush_seg_holders)(ref, n_slots, out))
    return [(int(out[3 * i]), bool(out[3 * i + 1]), int(out[3 * i + 2])) for i in range(n)]


def place(ref: Ref) -> tuple[int, int, int, int, int]:
    """Return (generation, offset and size of its description, end, floor), as they were together."""
    out = ffi.new("uint64_t[]", 5)
    lib.npush_seg_place(ref, out)
    generation, desc_offset, desc_size, end, floor = map(int, out)
    return generation, desc_offset, desc_size, end, floor


def wait(ref: Ref, seen: int, timeout_ns: int) -> bool:
    """Sleep until the version differs from *seen*; False when the time passed or a signal came."""
    rc = lib.npush_seg_wait(ref, seen, timeout_ns)
    return rc not in (-errno.ETIMEDOUT, -errno.EINTR) and check(rc) == 0
