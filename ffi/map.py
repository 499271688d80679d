"""Python calls for npush_map.c: one function per C function."""

from __future__ import annotations

from typing import Any

from . import check
from ._numpush import ffi, lib

RW: int = lib.NPUSH_MAP_RW
RO: int = lib.NPUSH_MAP_RO
COW: int = lib.NPUSH_MAP_COW


def open(name: str, *, create: bool = False) -> int:
    """Open, or make exclusively, the shared-memory object *name*; return its descriptor."""
    return check(lib.npush_map_open(name.encode(), create))


def reserve(fd: int, end: int, start: int = 0) -> None:
    """Reserve *fd* from *start* to *end*; signal handlers run in between, so Ctrl-C works."""
    while start < end:
        start = check(lib.npush_map_reserve(fd, start, end))


def collapse(fd: int, start: int, end: int) -> int:
    """Have the empty range of *fd* lie in huge pages; return where the first is that does not.

    Only whole ones that lie in it. Short of the last of them: more could not be had.
    """
    return lib.npush_map_collapse(fd, start, end)


def map(fd: int, offset: int, size: int, mode: int) -> int:
    """Map *size* bytes of *fd* from *offset*; return the address."""
    out = ffi.new("uintptr_t *")
    check(lib.npush_map_map(fd, offset, size, mode, out))
    return int(out[0])


def unmap(address: int, size: int) -> None:
    check(lib.npush_map_unmap(address, size))


def populate(address: int, size: int, *, write: bool) -> int:
    """Fault the range in at once; return 0 or a negated errno: it is never an error not to."""
    return lib.npush_map_populate(address, size, write)


def huge(address: int, size: int) -> int:
    """Ask for transparent huge pages; return 0 or a negated errno."""
    return lib.npush_map_huge(address, size)


def punch(fd: int, offset: int, size: int) -> None:
    """Give the pages of the range back; who still maps them reads zeros."""
    check(lib.npush_map_punch(fd, offset, size))


def preallocate(fd: int, size: int) -> int:
    """Give a new file its size and blocks; return 0 or a negated errno, such as of no room."""
    return lib.npush_map_preallocate(fd, size)


def buffer(address: int, size: int) -> Any:
    """Return a writable buffer over mapped memory.

    It can be weakly referenced, and every memoryview and array over it keeps it alive: that is
    how the layer above knows when the last view is gone.
    """
    return ffi.buffer(ffi.cast("char *", address), size)
