"""SArray, SDataFrame and SSeries in Dask: handles on one host, and the same types on another.

On a connection with a Link they go as their handle, and stay shared: one memory, written in place by
everybody. Otherwise (another host, the scheduler, a spill to disk) their values go, from where they
lie, and become a new shared object where they are unpacked: a copy of its own from then on.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from distributed.protocol.serialize import (
    dask_deserialize,
    dask_serialize,
    deserialize,
    serialize,
)
from distributed.sizeof import safe_sizeof

from ..attaching import attach
from ..handle import Handle
from ..sarray import SArray
from ..sdataframe import SDataFrame
from ..sharing import share
from ..shm.errors import SegmentError
from ..sseries import SSeries
from .dask_frames import note_received
from .dask_links import link_of

__all__ = ["register"]

_TYPES = (SArray, SDataFrame, SSeries)


def register() -> None:
    """Tell Dask how shared objects are serialized. Calling it again does nothing."""
    for cls in _TYPES:
        dask_serialize.register(cls)(_dump)
        dask_deserialize.register(cls)(_load)


def _dump(x: Any, context: dict[str, Any] | None = None) -> tuple[dict[str, Any], list[Any]]:
    link = link_of(context)
    if link is not None and link.is_answered:
        handle = _handle(x)
        if handle is not None:
            link.keep(x)
            return {"handle": handle.to_bytes()}, []
    header, frames = serialize(_plain(x), on_error="raise")
    return {"value": header}, frames


def _handle(x: Any) -> Handle | None:
    """Return its handle; None: it is private ('cow'), or no longer in a segment."""
    try:
        handle: Handle = x.handle
    except SegmentError:
        return None
    return None if handle.mode == "cow" else handle


def _plain(x: Any) -> Any:
    """Return a plain object over the same memory."""
    return x.view(np.ndarray) if isinstance(x, SArray) else x.copy(deep=False)


def _load(header: dict[str, Any], frames: list[Any]) -> Any:
    if "handle" in header:
        handle = Handle.from_bytes(header["handle"])[0]
        x = attach(handle)
        note_received(x, safe_sizeof(x), [handle.name])
        return x
    return share(deserialize(header["value"], frames))
