"""Freed memory kept warm for the next segment.

The first touch of fresh shared memory is what costs: filling it runs several times slower than
filling pages that are there already. So the last user of a big segment does not unlink it but
renames it to numpush.warm.<bytes>.<random>, where any process of this user may claim it (C:
npush_seg_claim, under the segment's own mutex), and keeps its mapping, page tables and all.

(1) The directory is the only registry: names tell the sizes, and their sum is bounded.
(2) Warm memory belongs to the process that freed it: it goes with that process, by its exit or by
    a sweep. Nothing stays because of a pool when all processes are gone.
(3) It is of the same user, mode 0600; what it held is overwritten or, for `zeros`, cleared.
(4) It is the first to go when memory is short.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from ..ffi import map as _map
from ..ffi import seg as _seg
from . import descriptor, naming, space
from .errors import SegmentExists
from .extents import is_extended
from .header import PAGE
from .segment import Segment

__all__ = ["drop", "drop_mine", "forget_mine", "mine", "put", "take"]

SMALLEST = 1 << 20  #: below 1 MiB making a segment costs less than looking for one
_MOST = 1 << 30
_SHARE = 8  #: at most an eighth of /dev/shm

_limit: int | None = None
_mine: set[str] = set()  # files that this process made warm


def limit() -> int:
    """Return how many bytes may be kept warm: NUMPUSH_WARM_BYTES, or 1 GiB, or 1/8 of /dev/shm."""
    global _limit
    if _limit is None:
        given = os.environ.get("NUMPUSH_WARM_BYTES", "")
        if given and not given.isdigit():
            raise ValueError(f"NUMPUSH_WARM_BYTES={given!r}: wanted a number of bytes")
        _limit = int(given) if given else min(_MOST, space.room(0).total // _SHARE)
    return _limit


def _files() -> Iterator[tuple[int, str]]:
    """Yield (bytes, file) of all warm memory."""
    for rest in naming.listing(naming.WARM):
        capacity = rest.partition(".")[0]
        if capacity.isdigit():
            yield int(capacity), naming.WARM + rest


def is_worth_keeping(segment: Segment) -> bool:
    return (
        SMALLEST <= segment.capacity <= limit()
        and not _seg.has_unlisted(segment.ref)
        and not is_extended(segment)
        and _is_reserved(segment)
    )


def _is_reserved(segment: Segment) -> bool:
    """Whether its file has all its pages. One of `reserve=False` may not, and a store would be SIGBUS."""
    if segment.is_reserved is None:
        try:
            n_blocks = os.stat(naming.path(naming.segment_file(segment.name))).st_blocks
        except OSError:
            return False
        segment.is_reserved = 512 * n_blocks >= segment.capacity
    return segment.is_reserved


def put(segment: Segment) -> bool:
    """Keep a segment whose state is WARM; False: there was no room, and it is gone."""
    files = sorted(_files())
    kept = sum(capacity for capacity, _ in files)
    for capacity, old in files:  # what was freed last is what will be wanted next
        if kept + segment.capacity <= limit():
            break
        if drop(old):
            kept -= capacity
    file = naming.warm_file(segment.capacity)
    try:
        if kept + segment.capacity > limit():
            _seg.drop(segment.ref, segment.n_slots)
            segment.remove(segment.name)
            return False
        os.rename(naming.path(naming.segment_file(segment.name)), naming.path(file))
    except FileNotFoundError:  # somebody removed it by hand
        return False
    _mine.add(file)
    return True


def take(
    name: str, desc_size: int, data_size: int, node: int, idle: dict[int, Segment]
) -> Segment | None:
    """Claim warm memory for a new segment, at most a quarter larger than needed; None: no fit."""
    need = data_size + 1
    most = need + need // 4 + 64 * PAGE
    for capacity, file in sorted(_files()):
        if not need < capacity <= most:
            continue
        segment = Segment.open_warm(file, idle)
        if segment is None:
            continue
        slots_end = _seg.SLOTS_OFFSET + segment.n_slots * _seg.SLOT_SIZE
        fits = (
            slots_end + desc_size <= segment.data_offset
            and data_size < segment.capacity - segment.data_offset
        )
        try:
            if fits and segment.claim(name, file, node):
                _mine.discard(file)
                return segment
        except SegmentExists:  # its file is gone by now
            _mine.discard(file)
            segment.unmap()
            raise
        idle[segment.inode] = segment
    return None


def drop(file: str) -> bool:
    """Unlink warm memory; False: it is in use again."""
    idle: dict[int, Segment] = {}
    segment = Segment.open_warm(file, idle)
    if segment is None:
        return False
    try:
        if not _seg.drop(segment.ref, segment.n_slots):
            return False
        with contextlib.suppress(FileNotFoundError):
            fd = descriptor.open(naming.path(file), os.O_RDWR)
            try:
                os.unlink(naming.path(file))
                # Others may still map it as what it was once: the memory is to be free now.
                _map.punch(fd, segment.data_offset, segment.capacity - segment.data_offset)
            finally:
                descriptor.close(fd)
    finally:
        segment.unmap()
        _mine.discard(file)
    return True


def drop_all() -> int:
    """Unlink all warm memory of this user; return the bytes."""
    return sum(capacity for capacity, file in _files() if drop(file))


def mine() -> int:
    """Return the bytes that this process freed and that are kept; some may be in use again."""
    return sum(int(file.removeprefix(naming.WARM).partition(".")[0]) for file in _mine)


def drop_mine() -> None:
    """Unlink what this process freed and nobody has claimed."""
    for file in list(_mine):
        drop(file)
    _mine.clear()


def forget_mine() -> None:
    """In a forked child: it is the parent's."""
    _mine.clear()
