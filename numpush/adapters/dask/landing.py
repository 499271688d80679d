"""Frames that come by TCP after all, from another host, land in a segment: from there they go on as handles.

Dask reads a frame from its socket into memory that it allocates. Here that memory is a segment's,
committed when the frame is whole and mapped privately then, as all that plain objects lie in
(frames.py). No copy is added; it stays Dask's connection, with its TLS, order and time limits.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any

from distributed.comm import tcp as _tcp

from ... import blocks
from ...shm.errors import SegmentFull
from ...shm.private import attach_private

__all__ = ["is_wanted", "unwrap", "wrap"]

#: Whether what is being read is for this process, and not to be passed on.
is_wanted: ContextVar[bool] = ContextVar("numpush_dask_landing", default=False)
_AT_ONCE = 1 << 30  #: bytes asked of a stream at once; it counts in C ints

_before: Any = None
_share_from = 0


def wrap(share_from: int) -> None:
    """Have frames of at least *share_from* bytes land in segments."""
    global _before, _share_from
    _share_from = share_from
    if _before is None:
        _before = _tcp.read_bytes_rw
        _tcp.read_bytes_rw = _read_bytes


def unwrap() -> None:
    global _before
    if _before is not None:
        _tcp.read_bytes_rw = _before
        _before = None


async def _read_bytes(stream: Any, n: int) -> memoryview:
    before = _before or _tcp.read_bytes_rw
    if n < _share_from or not is_wanted.get():
        return await before(stream, n)  # type: ignore[no-any-return]  # Dask has no types
    try:
        segment, token, (raw,) = blocks.allocate({"kind": "message"}, [n])
    except SegmentFull:
        return await before(stream, n)  # type: ignore[no-any-return]  # Dask has no types
    view = memoryview(raw)  # type: ignore[arg-type]  # of Python 3.11 or later, which mypy may not know
    for start in range(0, n, _AT_ONCE):
        await stream.read_into(view[start : start + _AT_ONCE])
    segment.commit()
    _, buffer = attach_private(segment.name, segment.identity)
    del token
    return memoryview(buffer)[:n]
