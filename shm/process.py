"""What this process does with segments: create, attach, say that it is done.

What it has is the registry's; here is how a segment gets into it, and a view its token.
"""

from __future__ import annotations

from typing import Any

from . import descriptor, extents, life, naming, table, warm
from . import range as _range
from .errors import LockError, SegmentExists, SegmentNotFound
from .registry import bury, dead, forget, idle, leave_if_unused, lock, segments, token_locked
from .room import make_room
from .segment import Segment
from .sweep import sweep

__all__ = ["attach", "close", "create", "extend", "token_of_extent"]


def create(
    desc: bytes, data_size: int, *, name: str | None = None, reserve: bool = True
) -> tuple[Segment, Any]:
    """Make a segment for *data_size* bytes and return it with its token, BUILDING.

    Fill it, then `segment.commit()`. Warm memory is used where some fits (it holds old data); fresh
    memory is reserved, and zero.

    Raises
    ------
    SegmentExists : the name is taken.
    SegmentFull : there is no room, also after a sweep and without warm memory.
    """
    if dead:
        bury()
    me = life.node()
    file_name = naming.random_name() if name is None else name
    segment = None
    if reserve and data_size >= warm.SMALLEST:
        with lock:
            segment = warm.take(file_name, len(desc), data_size, me.id, idle)
    if segment is None:
        segment = _create_fresh(file_name, len(desc), data_size, me.id, reserve)
    with lock:
        segment.describe(desc, data_size)
        segments[file_name] = segment
        return segment, token_locked(segment.mappings["rw"])


def _create_fresh(name: str, desc_size: int, data_size: int, me: int, reserve: bool) -> Segment:
    while True:
        try:
            return make_room(
                lambda: Segment.create(name, desc_size, data_size, me, reserve=reserve),
                data_size if reserve else 0,
                name,
            )
        except SegmentExists:
            # Whoever made it may be dead, and nobody has looked yet.
            if not sweep(thorough=True).n_segments:
                raise


def extend(segment: Segment, size: int) -> int:
    """Reserve *size* bytes more in *segment*; return where in its data they start.

    The caller holds its structure mutex, and a token.

    Raises
    ------
    SegmentFull : there is no room, also after a sweep and without warm memory.
    """
    return make_room(lambda: extents.extend(segment, size), size, segment.name)


def attach(
    name: str, mode: str = "rw", *, identity: int | None = None, sender: int = 0
) -> tuple[Segment, Any]:
    """Attach to a segment and return it with the token of its mapping in *mode*.

    A dictionary look-up and a call into C when this process has it; else an open and two mmaps.
    With *identity* it must be that very object; with *sender* one of that node's leases is released.

    Raises
    ------
    SegmentNotFound, SegmentDamaged, LayoutMismatch
    """
    if dead:
        bury()
    with lock:
        segment = segments.get(name)
        if segment is not None:
            try:
                return segment, _attach_known(segment, mode, identity, sender)
            except SegmentNotFound:
                if segment.node:
                    raise
                forget(segment)  # what we knew is gone; the name may be in use again
        return _attach_new(name, mode, identity, sender)


def _attach_known(segment: Segment, mode: str, identity: int | None, sender: int) -> Any:
    if not segment.mappings:
        raise SegmentNotFound("its mappings serve another segment by now", segment.name)
    wanted = segment.identity if identity is None else identity
    if sender or not segment.node or wanted != segment.identity:
        was_idle = not segment.node
        table.join(segment, life.node().id, wanted, sender)
        if was_idle:
            idle.pop(segment.inode, None)
    segment.closed = False
    try:
        return token_locked(segment.map(mode))
    except BaseException:
        leave_if_unused(segment)
        raise


def _attach_new(name: str, mode: str, identity: int | None, sender: int) -> tuple[Segment, Any]:
    segment, fd = Segment.attach(name, life.node().id, identity, sender, idle)
    try:
        mapping = segment.map(mode, fd)
    except BaseException:
        table.leave(segment, keep_warm=False)
        segment.unmap()
        raise
    finally:
        descriptor.close(fd)
    segments[name] = segment
    return segment, token_locked(mapping)


def token_of_extent(segment: Segment, mode: str, start: int, size: int) -> Any:
    """Map an extent of a segment that the caller holds another token of; return its token.

    Raises SegmentDamaged, SegmentNotFound.
    """
    with lock:
        return token_locked(extents.map_extent(segment, mode, start, size))


def close(segment: Segment) -> None:
    """Say that this process is done with *segment*: it goes with the last view of it.

    Raises
    ------
    LockError : this process holds a lock of it.
    """
    if segment.holds_lock() or _range.holds(segment):
        raise LockError(
            f"segment {segment.name!r}: this process holds a lock of it; unlock before closing"
        )
    segment.closed = True
