"""The table of a segment: which processes use it, and how many handles to it are under way.

It lies in the header, a slot for each node (npush_seg.h); each call here changes it under the
table's own mutex, in one step. Who was killed stays in it until somebody looks: `evict_dead`, when
a slot is wanted or the last living user has left, or a sweep.
"""

from __future__ import annotations

import errno
import os
import time
from typing import TYPE_CHECKING

from ..ffi import seg as _seg
from . import node as _node
from .errors import LockTimeout, SegmentError, SegmentNotFound

if TYPE_CHECKING:
    from .segment import Segment

__all__ = ["enter", "evict_dead", "has", "join", "keep", "lease", "leave", "peek", "release_kept"]

_SEEN_FOR = 1.0  #: seconds that a look at another node's life is good for


def join(segment: Segment, node: int, identity: int, sender: int = 0) -> None:
    """Enter the table and, with a *sender*, give one of its leases back."""
    rc = enter(segment, node, identity, sender)
    if rc:
        raise _error(segment, rc)
    segment.node = node
    segment.identity = identity


def enter(segment: Segment, node: int, identity: int, sender: int = 0) -> int:
    """Put *node*, ours or a child's to be, into the table. 0 or a negated errno."""
    for is_last_try in (False, True):
        if sender:
            rc = _seg.receive(segment.ref, segment.n_slots, identity, node, sender)
        else:
            rc = _seg.join(segment.ref, segment.n_slots, identity, node)
        if rc != -errno.ENOSPC or is_last_try:
            break
        evict_dead(segment)
    return rc


def evict_dead(segment: Segment) -> bool:
    """Take killed processes out of the table; True: nobody is left, and the segment is DEAD."""
    segment.looked_at = time.monotonic()
    return any(
        attached
        and not _node.is_alive(id, max_age=_SEEN_FOR)
        and _seg.evict(segment.ref, segment.n_slots, id, keep_leases=True)
        for id, attached, _ in _seg.holders(segment.ref, segment.n_slots)
    )


def peek(segment: Segment) -> list[tuple[int, bool, int]]:
    """Return (node, attached, leases) of each user, without the lock: a hint that never waits."""
    return _seg.holders(segment.ref, segment.n_slots, peek=True)


def lease(segment: Segment) -> None:
    """Keep the segment for somebody that a handle is being sent to."""
    rc = _seg.lease(segment.ref, segment.n_slots, segment.node)
    if rc:
        raise _error(segment, rc)


def leave(segment: Segment, *, keep_warm: bool) -> bool:
    """Leave the table. True: we were the last, and it is DEAD (WARM if *keep_warm*)."""
    last = _seg.leave(segment.ref, segment.n_slots, segment.node, keep_warm=keep_warm)
    segment.node = 0
    return last


def keep(segment: Segment, kept: int) -> None:
    """Enter the "node" *kept* (node.kept) in its table: it needs no process to live."""
    rc = _seg.join(segment.ref, segment.n_slots, segment.identity, kept)
    if rc:
        raise OSError(-rc, os.strerror(-rc), segment.name)


def release_kept(segment: Segment, kept: int) -> None:
    """Undo `keep`. We are in the table ourselves, so nothing goes before we leave."""
    _seg.evict(segment.ref, segment.n_slots, kept, keep_leases=False)


def has(segment: Segment, node: int) -> bool:
    """Whether *node* is in the table."""
    return any(id == node for id, _, _ in _seg.holders(segment.ref, segment.n_slots))


def _error(segment: Segment, rc: int) -> Exception:
    if rc == -errno.ENOENT:
        return SegmentNotFound(f"segment {segment.name!r}: nobody uses it any more", segment.name)
    if rc == -errno.ENOSPC:
        return SegmentError(
            f"segment {segment.name!r}: {segment.n_slots} processes use it already, "
            "its table has no room for another",
            segment.name,
        )
    if rc == -errno.ETIMEDOUT:
        return LockTimeout(
            f"segment {segment.name!r}: its table stayed locked for 10 s: a process that uses it "
            "is stopped, or the header is damaged"
        )
    return OSError(-rc, os.strerror(-rc), segment.name)
