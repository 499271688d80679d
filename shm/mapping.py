"""The memory of a segment in this process: a mapping of its data in one mode, or of an extent of it.

What a mapping maps is its segment's to say (segment.py, extents.py); who has views of it is
the registry's,
which notes the token that they share.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from ..ffi import map as _map

if TYPE_CHECKING:
    from .segment import Segment

__all__ = ["MODES", "Keeper", "Mapping", "key_of"]

MODES = {"rw": _map.RW, "ro": _map.RO, "cow": _map.COW}


class Keeper(Protocol):
    """What is kept over a mapping without holding it: objects that are slow to make again."""

    def is_used(self) -> bool:
        """Whether anything beside the keeper refers to the mapping's memory."""

    def hold(self, token: object) -> None:
        """Have the memory that is used hold *token*, and keep it no longer."""


class Mapping:
    """The data of one segment in this process, in one mode; or that of an extent of it."""

    __slots__ = ("address", "is_hot", "keeper", "mode", "segment", "size", "start", "token")

    def __init__(
        self, segment: Segment, mode: str, address: int, size: int, start: int = 0
    ) -> None:
        self.segment = segment
        self.mode = mode
        self.address = address
        self.size = size
        self.start = start  #: where in the data it begins
        #: its page tables are filled, all of it was written through it; or few faults will do that
        self.is_hot = False
        #: weak reference to the buffer that the live views share; registry.py sets and clears it
        self.token: object | None = None
        #: goes before what it refers to: with the mapping, or when its segment becomes another
        self.keeper: Keeper | None = None

    def buffer(self) -> object:
        """Return its memory, as a buffer that keeps nothing: for the keeper."""
        return _map.buffer(self.address, self.size)

    @property
    def key(self) -> str:
        """What it is called in its segment's `mappings`."""
        return key_of(self.mode, self.start, self.size)

    def unmap(self) -> None:
        self.keeper = None
        _map.unmap(self.address, self.size)
        self.address = 0


def key_of(mode: str, start: int, size: int) -> str:
    return f"{mode}+{start}+{size}" if start else mode
