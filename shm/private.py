"""Private copies of a segment's data that cost nothing until they are written to.

Attaching in `cow` mode gives one mapping per process, which all of its views share. Whoever receives
an object that is to be his own needs a mapping of his own: each call here makes one (MAP_PRIVATE).

(1) A page that was not written to is the segment's, so its memory must not be used for something
    else: the mapping holds the token by which this process is in the segment's table.
(2) The memory goes when the last view of it is gone, as with any mapping (see registry.py).
(3) What nobody has written to is still the segment's, byte for byte: `locate` says where it is there,
    so that it can be handed on without a copy.
"""

from __future__ import annotations

import bisect
import functools
import sys
import weakref
from typing import Any, NamedTuple

from ..ffi import map as _map
from . import process
from .header import PAGE
from .mapping import MODES
from .segment import Segment

__all__ = ["attach_private", "locate"]


class _Private(NamedTuple):
    ref: weakref.ref[Any]  # waits for the last view
    token: Any  # what that view keeps; rule (1)
    segment: Segment
    size: int


_private: dict[int, _Private] = {}  #: by address
_sorted: list[int] | None = None  #: the addresses; None: there are others by now

#: What /proc/self/pagemap may say, in the highest byte of an entry, of a page that is not private: it is
#: not there (0), or it is the file's (bit 61) and there (bit 63) or in swap (bit 62).
_NOT_PRIVATE = bytes(b for b in range(256) if b & 0x20 or not b & 0xC0)
_ENTRY = 8


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
        _private[address] = _Private(ref, token, segment, size)
        _forget_order()
    except BaseException:
        _map.unmap(address, size)
        raise
    return segment, buffer


def _unmap(address: int, size: int, _: object) -> None:
    # First the entry: once the address is free, another mapping may get it.
    entry = _private.pop(address)
    _forget_order()
    _map.unmap(address, size)
    del entry


def _forget_order() -> None:
    global _sorted
    _sorted = None


def locate(address: int, size: int) -> tuple[Segment, int] | None:
    """Return the segment whose data these bytes are, and where in it; None: they are nobody else's.

    The caller holds a view of them. A binary search, and 8 bytes read from the kernel for each page:
    one that was written to is no longer the segment's.
    """
    global _sorted
    addresses = _sorted
    if addresses is None:
        _sorted = addresses = sorted(list(_private))  # noqa: C414  # in one step, whoever changes it
    i = bisect.bisect(addresses, address) - 1
    if i < 0:
        return None
    start = addresses[i]
    entry = _private.get(start)
    if entry is None or address + size > start + entry.size or not _is_untouched(address, size):
        return None
    return entry.segment, address - start


def _is_untouched(address: int, size: int) -> bool:
    first = address // PAGE
    n = -(-(address + size) // PAGE) - first
    try:
        with open("/proc/self/pagemap", "rb", buffering=0) as file:
            file.seek(first * _ENTRY)
            entries = file.read(n * _ENTRY)
    except OSError:
        return False
    highest = entries[_ENTRY - 1 :: _ENTRY] if sys.byteorder == "little" else entries[::_ENTRY]
    return len(highest) == n and not highest.translate(None, _NOT_PRIVATE)
