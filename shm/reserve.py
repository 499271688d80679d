"""Reserve memory of a segment's file: in huge pages where whole ones fit, the rest in small ones.

In huge pages fresh memory costs a third per byte to clear and to write for the first time, a process
that attaches takes one page fault where it would take 512 (or 32, reading), and reading far apart
finds its addresses translated. The kernel gives them to /dev/shm only where the mount says so; but
MADV_COLLAPSE (Linux 6.1) makes them on demand of what is mapped, whatever the mount says. Where it
cannot, or only by moving much other memory, small pages serve as well.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from ..ffi import map as _map

__all__ = ["HUGE_PAGE", "reserve"]

HUGE_PAGE = 2 << 20

_HUGE_FROM = 4 << 20  #: bytes; below, there is nothing to win
_SHARE = 16 << 20  #: bytes that a thread makes before it looks for more, and before Ctrl-C works
_N_THREADS = min(4, os.cpu_count() or 1)


def reserve(fd: int, end: int, start: int = 0) -> bool:
    """Extend the file to *end* and reserve its memory from *start*, so that no store can fail.

    True: it lies in huge pages, but for what is less than one at either side.

    Raises
    ------
    OSError : there is no room (ENOSPC); some of it may be reserved, and the file be longer.
    """
    is_huge = False
    if end - start >= _HUGE_FROM:
        os.ftruncate(fd, end)
        is_huge = _collapse(fd, start, end)
    _map.reserve(fd, end, start)
    return is_huge


def _collapse(fd: int, start: int, end: int) -> bool:
    shares = _split(start, end)
    first = next(shares)
    # One alone: where huge pages are not to be had, no other thread is to look for them.
    if not _is_whole(first, _map.collapse(fd, *first)):
        return False
    with ThreadPoolExecutor(_N_THREADS) as threads:
        try:
            made = threads.map(lambda share: _is_whole(share, _map.collapse(fd, *share)), shares)
            return all(made)
        finally:
            threads.shutdown(cancel_futures=True)


def _split(start: int, end: int) -> Iterator[tuple[int, int]]:
    while start < end:
        stop = min(end, (start + _SHARE) // HUGE_PAGE * HUGE_PAGE)
        yield start, stop
        start = stop


def _is_whole(share: tuple[int, int], reached: int) -> bool:
    return reached + HUGE_PAGE > share[1]
