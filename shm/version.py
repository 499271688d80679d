"""The version of a segment: a counter that says that there is news, and whether a read was whole.

`advance` by two says: changed. Odd means that a change is going on (a seqlock): who read a version
before and after copying, and found it even and the same, has a copy that nobody tore.
"""

from __future__ import annotations

import time

from ..ffi import seg as _seg
from .errors import WaitTimeout
from .segment import Segment

__all__ = ["advance", "version", "wait"]

_SLICE = 0.05  #: seconds between two looks at signals


def version(segment: Segment) -> int:
    return _seg.version(segment.ref)


def advance(segment: Segment, n: int = 2) -> int:
    """Add *n*, wake who waits, return the new version."""
    return _seg.advance(segment.ref, n)


def wait(segment: Segment, seen: int, timeout: float | None = None) -> int:
    """Sleep until the version is not *seen*; return it. No polling: a futex.

    Raises
    ------
    WaitTimeout : no news within *timeout* seconds.
    """
    deadline = None if timeout is None else time.monotonic() + timeout
    while True:
        now = _seg.version(segment.ref)
        if now != seen:
            return now
        left = _SLICE if deadline is None else deadline - time.monotonic()
        if left <= 0:
            raise WaitTimeout(f"segment {segment.name!r}: still version {seen} after {timeout} s")
        _seg.wait(segment.ref, seen, int(min(left, _SLICE) * 1e9))
