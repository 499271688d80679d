"""SArray, SDataFrame and SSeries in Dask: handles on one host, and the same types on another; `share`.

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

from ... import sharing
from ...attaching import attach
from ...handle import Handle
from ...sarray import SArray
from ...sdataframe import SDataFrame
from ...shm.errors import SegmentError
from ...sseries import SSeries
from .frames import note_received
from .links import link_of

__all__ = ["register", "share"]

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
    return sharing.share(deserialize(header["value"], frames))


def share(ddf: Any) -> Any:
    """Return a persisted Dask DataFrame or Series whose partitions are SDataFrames or SSeries.

    Each is made by the worker that has the partition, by one copy, and lies in that host's memory once
    however many of its workers use it: they get handles. Tasks see the shared object itself, with its
    locks, `numpush.SDataFrame.column` for kernels, and so on. What a task did not make it may write to only
    in place and under the lock; the others see it, and a partition that Dask computes again starts anew.

    Parameters
    ----------
    ddf : dask.dataframe.DataFrame or Series

    Raises
    ------
    TypeError : it is something else. Of a partition that cannot be shared (it has columns of Python
        objects) it comes when the collection is computed.
    """
    if not hasattr(ddf, "map_partitions") or not hasattr(ddf, "_meta"):
        raise TypeError(
            f"{type(ddf).__name__} cannot be shared by partitions; pass a dask.dataframe.DataFrame or "
            f"Series, or use numpush.share for what is in this process"
        )
    return ddf.map_partitions(sharing.share, meta=ddf._meta, enforce_metadata=False).persist()
