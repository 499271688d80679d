"""Results of tasks are put into shared memory by the thread that made them.

Which is one copy, into memory that is mostly warm, and makes every transfer of the result to come one
of a handle. Without it, a result is copied into a segment each time that it is sent.

What is moved: arrays, DataFrames and Series of the very types of NumPy and pandas, also in the
dicts, lists and tuples that Dask's tasks return. They stay plain, and the worker's own. While it is copied a
result is there twice: where a worker's limit leaves no room for that, it stays where it is.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Any

import numpy as np
from distributed.threadpoolexecutor import ThreadPoolExecutor

from ... import plain, plain_pickles
from ...shm.private import locate
from .frames import address_of
from .memory import process_memory

__all__ = ["share_result", "unwrap", "wrap"]

#: Longer containers are not looked into: what Dask makes has an item for each partition.
_MOST_ITEMS = 10_000


def wrap(executors: dict[str, Executor], share_from: int, most: float = float("inf")) -> None:
    """Have the tasks that these run leave their results in shared memory.

    Results of *share_from* bytes or more, as long as the process would not use more than *most*.
    """
    for name, executor in executors.items():
        # Dask's own: those of other kinds may be processes, and "offload" runs no tasks.
        if isinstance(executor, ThreadPoolExecutor) and name not in ("offload", "actor"):
            submit = type(executor).submit.__get__(executor)
            executor.submit = _submitting(submit, share_from, most)


def unwrap(executors: dict[str, Executor]) -> None:
    for executor in executors.values():
        vars(executor).pop("submit", None)


def _submitting(submit: Callable[..., Any], share_from: int, most: float) -> Callable[..., Any]:
    def submit_sharing(fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        return submit(_run, share_from, most, fn, *args, **kwargs)

    return submit_sharing


def _run(share_from: int, most: float, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    message = fn(*args, **kwargs)
    if type(message) is dict and message.get("op") == "task-finished":
        with contextlib.suppress(Exception):  # it is the task's result, whatever we make of it
            message["result"] = share_result(message["result"], share_from, most)
    return message


def share_result(x: Any, share_from: int, most: float = float("inf")) -> Any:
    """Return *x* with what is big in it in shared memory, or *x* itself: there is nothing, or no room."""
    cls = type(x)
    if cls in plain.plain_types():
        return _share(x, share_from, most)
    if cls is dict and len(x) <= _MOST_ITEMS:
        shared = {key: share_result(value, share_from, most) for key, value in x.items()}
        return x if all(shared[key] is value for key, value in x.items()) else shared
    if cls in (list, tuple) and len(x) <= _MOST_ITEMS:
        items = [share_result(value, share_from, most) for value in x]
        return x if all(a is b for a, b in zip(items, x)) else cls(items)
    return x


def _share(x: Any, share_from: int, most: float) -> Any:
    if isinstance(x, np.ndarray):
        if x.nbytes < share_from or x.dtype.hasobject:
            return x
    elif x.size < share_from // 64 or _has_objects(x):
        return x
    if _is_shared(x, share_from) or process_memory() + _size(x) > most:
        return x
    parcel = plain.pack(x, share_from)
    return x if parcel is None else plain.unpack(*parcel.reduce()[1])


def _size(x: Any) -> int:
    """Return the bytes of an array's or frame's data; of texts in Python's own strings, their pointers."""
    return int(x.nbytes if isinstance(x, np.ndarray) else np.sum(x.memory_usage()))


def _has_objects(x: Any) -> bool:
    """Whether a pandas object has columns or labels of Python objects, which are pickled one by one."""
    dtypes = x.dtypes if x.ndim == 2 else [x.dtype]
    return any(getattr(dtype, "hasobject", False) for dtype in (*dtypes, x.index.dtype))


def _is_shared(x: Any, share_from: int) -> bool:
    """Whether *x* lies in segments, as it was when it came or was made, but for less than *share_from*."""
    rest, buffers = plain_pickles.dumps(x)
    n_private = len(rest)
    for buffer in buffers:
        if buffer.nbytes and locate(address_of(buffer), buffer.nbytes) is None:
            n_private += buffer.nbytes
    return n_private < share_from
