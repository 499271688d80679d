"""What generations need of a segment's file: room behind all data, and descriptions that lie there.

A generation is appended as an *extent*: its data, then its description, which `publish` makes the
latest. Who appends, or gives back what nobody uses any more, holds the structure mutex. What a
description says is not known here. Reasons: docs/segments.md.
"""

from __future__ import annotations

import os

from ..ffi import map as _map
from ..ffi import seg as _seg
from .errors import SegmentDamaged, SegmentNotFound
from .header import PAGE
from .mapping import MODES, Mapping, key_of
from .reserve import reserve
from .segment import Segment, round_up

__all__ = [
    "check_floor",
    "extend",
    "give_back",
    "is_extended",
    "map_extent",
    "publish",
    "read_description",
    "read_place",
]


def is_extended(segment: Segment) -> bool:
    """Whether the structure was ever replaced, so that the file may have grown."""
    return _seg.generation(segment.ref) != 0


def extend(segment: Segment, size: int) -> int:
    """Reserve *size* bytes after all data; return where they start. Under the structure mutex.

    They are nobody's until `publish`. Raises OSError (ENOSPC) when there is no room.
    """
    _, _, _, end, _ = _seg.place(segment.ref)
    start = round_up(max(end, segment.capacity - segment.data_offset))
    with segment.opened() as fd:
        try:
            reserve(fd, segment.data_offset + start + size, segment.data_offset + start)
        except BaseException:
            os.ftruncate(fd, segment.data_offset + start)
            raise
    return start


def publish(segment: Segment, desc_offset: int, desc_size: int, end: int) -> None:
    """Make what is described there the next generation. Under the structure mutex."""
    _seg.publish(segment.ref, desc_offset, desc_size, end)


def read_place(segment: Segment) -> tuple[int, tuple[int, int]]:
    """Return the generation, and where its description lies in the data: (offset, bytes)."""
    generation, offset, size, _, _ = _seg.place(segment.ref)
    return generation, (offset, size)


def read_description(segment: Segment, offset: int, size: int) -> bytes:
    """Read the description of a generation.

    Raises
    ------
    SegmentNotFound : it was of a generation that `compact` has taken away.
    SegmentDamaged : it does not lie in the file.
    """
    check_floor(segment, offset)
    with segment.opened() as fd:
        if not segment.capacity <= segment.data_offset + offset <= os.fstat(fd).st_size - size:
            raise SegmentDamaged(
                f"segment {segment.name!r}: a description of {size} bytes at {offset}", segment.name
            )
        return os.pread(fd, size, segment.data_offset + offset)


def check_floor(segment: Segment, offset: int) -> None:
    """Raise SegmentNotFound if the data at *offset* was given back."""
    if 0 <= offset < _seg.floor(segment.ref):
        raise SegmentNotFound(
            f"segment {segment.name!r}: what the handle means was replaced, and its memory given "
            "back by compact(); get a new handle",
            segment.name,
        )


def map_extent(segment: Segment, mode: str, start: int, size: int) -> Mapping:
    """Map *size* bytes of data from *start*, which lies behind those of `map`, once."""
    key = key_of(mode, start, size)
    found = segment.mappings.get(key)
    if found is not None:
        return found
    with segment.opened() as fd:
        end = os.fstat(fd).st_size - segment.data_offset
        if (
            start % PAGE
            or not segment.capacity - segment.data_offset <= start < start + size <= end
        ):
            raise SegmentDamaged(
                f"segment {segment.name!r}: an extent of {size} bytes at {start} of {end}",
                segment.name,
            )
        address = _map.map(fd, segment.data_offset + start, size, MODES[mode])
    mapping = segment.mappings[key] = Mapping(segment, mode, address, size, start)
    return mapping


def give_back(segment: Segment, floor: int) -> int:
    """Free the data below *floor*; return the bytes. Under the structure mutex.

    Nobody may use it any more. The pages go; the file keeps its length.
    """
    before = _seg.floor(segment.ref)
    if before >= floor:
        return 0
    with segment.opened() as fd:
        blocks = os.fstat(fd).st_blocks
        _seg.raise_floor(segment.ref, floor)
        _map.punch(fd, segment.data_offset + before, floor - before)
        return 512 * (blocks - os.fstat(fd).st_blocks)
