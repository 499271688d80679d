"""Handles: what travels instead of data.

A handle names a segment, the very object in it (`identity`), and a view of it. By itself it keeps
nothing alive; sending it takes a lease, which the receiver gives back.
"""

from __future__ import annotations

from dataclasses import dataclass
from multiprocessing import context as _mp_context
from multiprocessing import process as _mp_process
from typing import Any, ClassVar

import numpy as np

from .layout.dtype import decode_dtype, encode_dtype
from .layout.schema import SchemaError, pack, unpack
from .shm import leases
from .shm.mapping import MODES
from .shm.segment import Segment

__all__ = ["ArrayHandle", "FrameHandle", "Handle", "SeriesHandle", "lease"]


@dataclass(frozen=True, slots=True)
class Handle:
    """How to attach to an object in shared memory: ``numpush.attach(handle)``.

    A few hundred bytes when pickled, whatever the size of the data. It keeps nothing alive: when
    the last user of the segment is gone, attaching raises SegmentNotFound.
    """

    name: str
    identity: int
    mode: str

    kind: ClassVar[str] = ""

    def to_bytes(self, sender: int = 0) -> bytes:
        """Return it as msgpack, with the node whose lease the receiver gives back."""
        return pack({"kind": self.kind, "sender": sender, "fields": self.fields()})

    def fields(self) -> list[Any]:
        """Return what it is made of, in order, as msgpack can carry it."""
        return [getattr(self, name) for name in self.__match_args__]

    @staticmethod
    def from_bytes(data: bytes) -> tuple[Handle, int]:
        """Read what `to_bytes` wrote. Raises ValueError when it is something else."""
        try:
            message = unpack(data)
            cls = _KINDS[message["kind"]]
            handle = cls._from_fields(message["fields"])
            sender = message["sender"]
        except (SchemaError, KeyError, TypeError, IndexError) as error:
            raise ValueError(f"{len(data)} bytes that are no handle: {error}") from error
        ok = (
            type(handle.name) is str
            and type(handle.identity) is int
            and handle.mode in MODES
            and type(sender) is int
        )
        if not ok:
            raise ValueError(f"not a handle: {handle!r}")
        return handle, sender

    @classmethod
    def _from_fields(cls, fields: list[Any]) -> Handle:
        return cls(*fields)


@dataclass(frozen=True, slots=True)
class ArrayHandle(Handle):
    """A view of the bytes of a segment: offset into its data, shape, strides in bytes, dtype.

    Where a new generation of a frame has its own part of the file, `extent` is that part's start
    and size in bytes, and the offset counts from there.
    """

    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: np.dtype[Any]
    extent: tuple[int, ...] = ()

    kind: ClassVar[str] = "array"

    def fields(self) -> list[Any]:
        return [
            self.name,
            self.identity,
            self.mode,
            self.offset,
            list(self.shape),
            list(self.strides),
            encode_dtype(self.dtype),
            list(self.extent),
        ]

    @classmethod
    def _from_fields(cls, fields: list[Any]) -> Handle:
        name, identity, mode, offset, shape, strides, dtype, extent = fields
        if len(extent) not in (0, 2) or any(type(n) is not int for n in extent):
            raise ValueError(f"not an extent: {extent!r}")
        return cls(
            name,
            identity,
            mode,
            offset,
            tuple(shape),
            tuple(strides),
            decode_dtype(dtype),
            tuple(extent),
        )


@dataclass(frozen=True, slots=True)
class FrameHandle(Handle):
    """A shared frame, its latest generation (*stop* is -1), or the rows of one from start to stop.

    `place` is where the description of that generation lies, (offset, bytes); (): in the header.
    """

    start: int
    stop: int
    generation: int = 0
    place: tuple[int, ...] = ()

    kind: ClassVar[str] = "frame"

    @classmethod
    def _from_fields(cls, fields: list[Any]) -> Handle:
        name, identity, mode, start, stop, generation, place = fields
        if len(place) not in (0, 2) or any(type(n) is not int for n in place):
            raise ValueError(f"not a place: {place!r}")
        return cls(name, identity, mode, start, stop, generation, tuple(place))


@dataclass(frozen=True, slots=True)
class SeriesHandle(FrameHandle):
    """A shared series: a frame of one column."""

    kind: ClassVar[str] = "series"


_KINDS: dict[str, type[Handle]] = {
    cls.kind: cls for cls in (ArrayHandle, FrameHandle, SeriesHandle)
}


def lease(segment: Segment) -> int:
    """Take a lease for a handle that is being sent; return our node.

    Children of this process are joined before it leaves, so what they did not receive may be
    dropped then; a lease to anybody else lasts for the grace period.
    """
    # Private, but public active_children() would reap what ended, behind its owner's back.
    children = getattr(_mp_process, "_children", ())
    to_child = bool(children) or _mp_context.get_spawning_popen() is not None
    return leases.lease(segment, to_child=to_child)
