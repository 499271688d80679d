"""Private copies of a segment's data that cost nothing until they are written to.

Attaching in `cow` mode gives one mapping per process, which all of its views share. Whoever receives
an object that is to be his own needs a mapping of his own: each call here makes one (MAP_PRIVATE).

(1) A page that was not written to is the segment's, so its memory must not be used for something
    else: the mapping holds the token by which this process is in the segment's table.
(2) The memory goes when the last view of it is gone, as with any mapping (see registry.py).
"""

from __future__ import annotations

import functools
import weakref
from typing import Any

from ..ffi import map as _map
from . import process
from .mapping import MODES

__all__ = ["attach_private"]

#: Address -> the weak reference that waits for the last view, and what that view keeps; rule (1).
_private: dict[int, tuple[weakref.ref[Any], Any]] = {}


def attach_private(name: str, identity: int, sender: int = 0) -> tuple[Any, Any]:
    """Return a segment, and a buffer over a private mapping of its data.

    Parameters as of `process.attach`. An open and an mmap.

    Raises
    ------
    SegmentNotFound, SegmentDamaged, LayoutMismatch
    """
    segment, token = process.attach(name, "ro", identity=identity, sender=sender)
    size = segment.capacity - segment.data_offset
    with segment.opened() as fd:
        address = _map.map(fd, segment.data_offset, size, MODES["cow"])
    try:
        buffer = _map.buffer(address, size)
        ref = weakref.ref(buffer, functools.partial(_unmap, address, size))
        _private[address] = ref, token
    except BaseException:
        _map.unmap(address, size)
        raise
    return segment, buffer


def _unmap(address: int, size: int, _: object) -> None:
    # First the entry: once the address is free, another mapping may get it.
    entry = _private.pop(address)
    _map.unmap(address, size)
    del entry
