"""From a schema and buffers to a segment, and back.

The description of a segment is msgpack of {"schema": .., "blocks": [[offset, nbytes], ..]}: where
in its data each buffer of the layout codec lies.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .copying import copy_all, write_all
from .layout import ALIGNMENT, Buffer, Schema, SchemaError, pack, unpack
from .shm import naming, process
from .shm.errors import SegmentDamaged
from .shm.segment import Segment

__all__ = ["WRITE_FROM", "allocate", "fill", "place", "read", "store", "view"]

Raw = NDArray[np.uint8]
WRITE_FROM = 1 << 20  #: smaller copies go through the mapping


def place(sizes: list[int]) -> tuple[list[list[int]], int]:
    """Return [offset, nbytes] of each of several buffers, one behind the other, and the end."""
    places, end = [], 0
    for n in sizes:
        end = -(-end // ALIGNMENT) * ALIGNMENT
        places.append([end, n])
        end += n
    return places, end


def allocate(
    schema: Schema, sizes: list[int], *, name: str | None = None, reserve: bool = True
) -> tuple[Segment, Any, list[Raw]]:
    """Make a segment for buffers of *sizes*; return it (not committed), its token and the buffers.

    Raises
    ------
    SegmentExists, SegmentFull
    ValueError : it cannot be a name.
    """
    if name is not None:
        naming.check_name(name)
    places, total = place(sizes)
    desc = pack({"schema": schema, "blocks": places})
    segment, token = process.create(desc, total, name=name, reserve=reserve)
    return segment, token, _cut(places, token)


def store(
    schema: Schema, buffers: list[Buffer], *, name: str | None = None, reserve: bool = True
) -> tuple[Segment, Any, list[Raw]]:
    """Make a segment, copy the data into it once, and let others attach.

    Not before it is whole: when the copy fails or is interrupted, nothing is left.
    """
    segment, token, raw = allocate(
        schema, [buffer.nbytes for buffer in buffers], name=name, reserve=reserve
    )
    fill(
        segment,
        [pair for buffer, dest in zip(buffers, raw, strict=True) for pair in buffer.copies(dest)],
    )
    segment.commit()
    return segment, token, raw


def fill(segment: Segment, pairs: list[tuple[Any, Any]]) -> None:
    """Copy to each target, in a segment that is not committed, its source: as `copying` does best."""
    mapping = segment.mappings["rw"]
    if segment.is_fresh and not mapping.is_hot and segment.data_size >= WRITE_FROM:
        with segment.opened() as fd:
            write_all(fd, segment.data_offset, mapping.address, pairs)
    else:
        copy_all(pairs, populate=not mapping.is_hot and segment.data_size >= WRITE_FROM)
        mapping.is_hot = True


def _cut(places: list[list[int]], buf: Any) -> list[Raw]:
    whole = np.frombuffer(buf, np.uint8)
    return [whole[offset : offset + n] for offset, n in places]


def view(token: Any, mode: str) -> Any:
    """Return the memory behind *token* as NumPy should see it: read-only when the pages are.

    An array over it cannot be made writeable then, so a store is a ValueError, never a crash: hence an
    array, since one over a memoryview has what is beneath that as its base, which is writable.
    """
    if mode == "ro":
        return np.frombuffer(memoryview(token).toreadonly(), np.uint8)
    return token


def read(segment: Segment, token: Any, mode: str) -> tuple[Schema, list[Raw]]:
    """Return the schema of an attached segment and its buffers.

    Raises
    ------
    SegmentDamaged : the description is not one, or its places lie outside of the data.
    """
    try:
        desc = unpack(segment.desc)
        places = desc["blocks"]
        for offset, n in places:
            if not (0 <= offset <= offset + n <= segment.data_size):
                raise ValueError(f"a block of {n} bytes at {offset}")
        return desc["schema"], _cut(places, view(token, mode))
    except (SchemaError, KeyError, TypeError, ValueError) as error:
        raise SegmentDamaged(
            f"segment {segment.name!r}: its description is damaged: {error}", segment.name
        ) from error
