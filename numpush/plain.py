"""Plain arrays, frames and Series that travel by shared memory and arrive as private copies.

The sender copies one into a segment; each receiver maps that privately and builds the object over
it: what pickling gives, without the copies. It is plain, it is the receiver's own, it is writable.

Only the very types ndarray, DataFrame and Series: a subclass is what its author says it is.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from . import blocks
from .layout import Buffer, Schema, SchemaError, describe, rebuild
from .shm.errors import SegmentDamaged, SegmentFull
from .shm.private import attach_private
from .shm.segment import Segment

__all__ = ["SHARE_FROM", "Parcel", "pack", "plain_types", "reduce_as_usual", "unpack"]

SHARE_FROM = 1 << 20  #: bytes; below, pickling is as fast as making and mapping a segment
#: Frames of fewer bytes per cell than this are not looked at closer: describing strings takes time.
_BYTES_PER_CELL = 64


class Parcel:
    """A plain object in a segment, kept there as long as this is."""

    __slots__ = ("__weakref__", "nbytes", "segment", "token")

    def __init__(self, segment: Segment, token: Any) -> None:
        self.segment = segment
        self.token = token
        self.nbytes: int = segment.data_size

    def reduce(self, sender: int = 0) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        """Return what pickle wants: how to receive it, giving back a lease of *sender*."""
        return unpack, (self.segment.name, self.segment.identity, sender)


def plain_types() -> tuple[type, ...]:
    """Return the types that travel so; those of pandas only where it is loaded."""
    pandas = sys.modules.get("pandas")
    found = (getattr(pandas, name, None) for name in ("DataFrame", "Series"))
    return np.ndarray, *(cls for cls in found if cls is not None)


def pack(obj: Any, share_from: int, name: str | None = None) -> Parcel | None:
    """Copy *obj* into a new segment; None: it is small, has no layout, or there is no room."""
    if isinstance(obj, np.ndarray):
        if obj.nbytes < share_from:
            return None
    elif obj.size * _BYTES_PER_CELL < share_from:
        return None
    try:
        schema, buffers = describe(obj)
        if _size(buffers) < share_from:
            return None
        segment, token, _ = blocks.store(schema, buffers, name=name)
    except (TypeError, ValueError, OverflowError, SegmentFull):
        return None
    return Parcel(segment, token)


def _size(buffers: list[Buffer]) -> int:
    return sum(buffer.nbytes for buffer in buffers)


def unpack(name: str, identity: int, sender: int = 0) -> Any:
    """Build the object of a parcel over a private mapping.

    Raises
    ------
    SegmentNotFound : it was not kept for us: its sender is gone, and the grace period over.
    """
    segment, buffer = attach_private(name, identity, sender)
    schema: Schema
    schema, raw = blocks.read(segment, buffer, "cow")
    try:
        return rebuild(schema, raw)
    except SchemaError as error:
        raise SegmentDamaged(f"segment {name!r}: {error}", name) from error


def reduce_as_usual(obj: Any, protocol: int) -> Any:
    """Reduce an object as pickle does without us."""
    return obj.__reduce_ex__(protocol)
