"""The generations of a segment: another description of what it holds, and what data that adds.

The first description stands in the header, and its data is that which the segment was made with. A
later one is appended to the file, as an *extent*: what data it adds, then msgpack of

    {"schema": .., "blocks": [[offset, nbytes], ..], "extents": [[start, nbytes], ..]}

where offsets and starts count from the segment's data, blocks are where each buffer of the layout
codec lies, in the data or in one of the extents, and its own extent comes last. What a generation
does not name stays where it is, for whoever still looks at an earlier one.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .blocks import WRITE_FROM, place
from .copying import copy_all, write_all
from .layout import Buffer, Schema, SchemaError, pack, unpack
from .shm import process
from .shm.errors import SegmentDamaged
from .shm.extents import check_floor, publish, read_description
from .shm.header import PAGE
from .shm.segment import Segment

__all__ = ["Extent", "Part", "Place", "append", "read"]

#: Which generation, and where its description lies: (offset, bytes); () in the header.
Place = tuple[int, tuple[int, ...]]
#: Where an extent starts, and its bytes.
Extent = tuple[int, int]
#: Of a buffer: which mapping it lies in (0: the data, then the extents), where in it, its bytes.
Part = tuple[int, int, int]

_LARGEST = (1 << 63) - 1


def append(
    segment: Segment, schema: Schema, buffers: list[Extent | Buffer], extents: list[Extent]
) -> int:
    """Make *schema* the next generation. The caller holds the structure mutex, and a token.

    Parameters
    ----------
    buffers : list of (offset, nbytes) or Buffer
        Where in the data each buffer lies already, or what is to be copied there.
    extents : list of (start, nbytes)
        Those that the former lie in, among others.

    Returns
    -------
    int : where its own extent starts.

    Raises
    ------
    SegmentFull : nothing has changed.
    """
    new = [each for each in buffers if isinstance(each, Buffer)]
    fresh, data_size = place([buffer.nbytes for buffer in new])
    kept = [
        extent
        for extent in extents
        if any(
            not isinstance(each, Buffer) and extent[0] <= each[0] < sum(extent) for each in buffers
        )
    ]

    def describe(start: int, size: int) -> bytes:
        places = iter(fresh)
        blocks = [
            [start + next(places)[0], each.nbytes] if isinstance(each, Buffer) else list(each)
            for each in buffers
        ]
        return pack(
            {"schema": schema, "blocks": blocks, "extents": [*map(list, kept), [start, size]]}
        )

    # No number takes more room than the largest one.
    longest = len(describe(_LARGEST - data_size, _LARGEST))
    size = -(-(data_size + longest) // PAGE) * PAGE
    start = process.extend(segment, size)
    desc = describe(start, size)
    token = process.token_of_extent(segment, "rw", start, size)
    raw = np.frombuffer(token, np.uint8)
    pairs = [
        pair
        for buffer, (offset, n) in zip(new, fresh, strict=True)
        for pair in buffer.copies(raw[offset : offset + n])
    ]
    if data_size >= WRITE_FROM:
        address = raw.__array_interface__["data"][0]
        with segment.opened() as fd:
            write_all(fd, segment.data_offset + start, address, pairs)
    else:
        copy_all(pairs)
    raw[data_size : data_size + len(desc)] = np.frombuffer(desc, np.uint8)
    publish(segment, start + data_size, len(desc), start + size)
    return start


def read(segment: Segment, at: Place) -> tuple[Schema, list[Part], list[Extent]]:
    """Read the description of a generation: its schema, where its buffers lie, and its extents.

    Raises
    ------
    SegmentNotFound : `compact` has taken that generation away.
    SegmentDamaged : it is no description, or its places lie outside of the data.
    """
    generation, where = at
    if generation:
        offset, n = where
        raw = read_description(segment, offset, n)
    else:
        check_floor(segment, 0)
        raw = segment.desc
    try:
        desc = unpack(raw)
        extents = [_pair(each) for each in desc.get("extents", [])]
        spaces = [(0, segment.data_size), *extents]
        parts = [_find(_pair(each), spaces) for each in desc["blocks"]]
        schema: Any = desc["schema"]
        return schema, parts, extents
    except (SchemaError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise SegmentDamaged(
            f"segment {segment.name!r}: its description is damaged: {error}", segment.name
        ) from error


def _pair(item: Any) -> tuple[int, int]:
    first, second = item
    if type(first) is not int or type(second) is not int or first < 0 or second < 0:
        raise ValueError(f"a place {item!r}")
    return first, second


def _find(block: tuple[int, int], spaces: list[Extent]) -> Part:
    """Say where in which of *spaces* a block lies."""
    offset, n = block
    for which, (start, size) in enumerate(spaces):
        if start <= offset and offset + n <= start + size:
            return which, offset - start, n
    raise ValueError(f"a block of {n} bytes at {offset}")
