"""map_partitions, parallel_apply: a shared frame's rows, columns or groups by all cores.

(1) A task gets a handle of the frame and says which part is its own; nothing of the frame is copied
    on the way, and what it returns comes back by numpush.Pool.
(2) Results are put together by pandas itself: the parts' results by `concat`, those of groups by the
    very `GroupBy.apply` that they stand in for, which is given each group's result as it asks for it.
(3) One pool per process and size is kept, since starting workers takes longer than most calls.
"""

from __future__ import annotations

import atexit
import functools
import itertools
import os
import sys
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from .pool import Pool
from .pool.tasks import name_of

__all__ = ["apply", "apply_groups", "map_partitions"]

_PARTS = 4  #: tasks per worker, so that one slow part does not keep the others waiting
_pools: dict[tuple[int, int], Pool] = {}
_lock = threading.Lock()


def _pool(processes: int | None) -> tuple[Pool, int]:
    n = processes or len(os.sched_getaffinity(0))
    if n < 1:
        raise ValueError(f"processes={processes}: at least 1 wanted")
    with _lock:
        key = os.getpid(), n
        pool = _pools.get(key)
        if pool is None:
            if not any(pid == key[0] for pid, _ in _pools):
                atexit.register(_close)
            pool = _pools[key] = Pool(n)
    return pool, n


def _close() -> None:
    for (pid, _), pool in list(_pools.items()):
        if pid == os.getpid():
            pool.terminate()
            pool.join()
    _pools.clear()


def map_partitions(
    frame: Any,
    function: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    n: int | None,
    processes: int | None,
    progress: bool,
) -> Any:
    """Call *function* on each of *n* parts of the rows; see SDataFrame.map_partitions."""
    pool, workers = _pool(processes)
    parts = frame.partitions(n or min(_PARTS * workers, max(1, len(frame))))
    call = _named(_call, function, args, kwargs)
    return _join(pool.map(call, parts, chunksize=1, progress=progress))


def _named(work: Any, function: Any, *args: Any) -> Any:
    """Bind arguments to *work*; in bars and messages it goes by the name of the user's *function*."""
    call: Any = functools.partial(work, function, *args)
    call.__qualname__ = name_of(function)
    return call


def _call(function: Any, args: Any, kwargs: Any, part: Any) -> Any:
    return function(part, *args, **kwargs)


def _join(results: list[Any], axis: int = 0) -> Any:
    """Put results together, if they are frames or series; else return them as they are."""
    if all(isinstance(each, pd.DataFrame) for each in results):
        return pd.concat(results, axis="columns" if axis else "index")
    if all(isinstance(each, pd.Series) for each in results):
        return pd.concat(results)
    return results


def apply(
    frame: Any,
    function: Callable[..., Any],
    axis: Any,
    kwargs: dict[str, Any],
    processes: int | None,
    progress: bool,
) -> Any:
    """Do ``frame.apply(function, axis, **kwargs)`` on all cores; see SDataFrame.parallel_apply."""
    by_rows = axis in (1, "columns")
    size = len(frame) if by_rows else frame.shape[1]
    pool, workers = _pool(processes)
    n = min(_PARTS * workers, size)
    if n < 2:
        return frame.apply(function, axis=axis, **kwargs)
    if by_rows:
        tasks = [(part, 0, part.shape[1]) for part in frame.partitions(n)]
    else:
        edges = np.linspace(0, size, n + 1).astype(int).tolist()
        tasks = [(frame, start, stop) for start, stop in itertools.pairwise(edges)]
    call = _named(_apply_to, function, axis, kwargs)
    results = pool.starmap(call, tasks, chunksize=1, progress=progress)
    return _join(results, axis=0 if by_rows else 1)


def _apply_to(
    function: Any, axis: Any, kwargs: dict[str, Any], part: Any, start: int, stop: int
) -> Any:
    if (start, stop) != (0, part.shape[1]):
        part = part.iloc[:, start:stop]
    return part.apply(function, axis=axis, **kwargs)


# Groups.


def apply_groups(
    groups: Any,
    frame: Any,
    function: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    processes: int | None,
    progress: bool,
) -> Any:
    """Do ``groups.apply(function, ..)`` on all cores, where *groups* are of the shared *frame*."""
    options = {"include_groups": kwargs.pop("include_groups")} if "include_groups" in kwargs else {}
    names: list[Any] = []
    wanted: list[Any] = []

    def look(group: Any) -> int:
        if not names and group.ndim == 2:
            wanted.extend(group.columns)
        names.append(group.name)
        return 0

    groups.apply(look, **options)
    if not names:
        return groups.apply(function, *args, **options, **kwargs)
    if not frame.columns.is_unique:
        raise ValueError("parallel_apply needs unique columns; relabel them before sharing")
    is_series = groups.ndim == 1
    labels = [groups.obj.name] if is_series else wanted
    positions = [frame.columns.get_loc(label) for label in labels]
    rows = _rows_of_groups(groups, len(names))
    pool, workers = _pool(processes)
    order = np.concatenate(rows)
    sizes = np.array([len(at) for at in rows])
    ends = np.cumsum(sizes)
    # As many rows in each task, more or less.
    limits = np.searchsorted(ends, np.linspace(0, ends[-1], _PARTS * workers + 1)[1:-1], "left") + 1
    edges = sorted({0, len(rows), *limits.clip(0, len(rows)).tolist()})
    call = _named(_apply_to_groups, function, args, kwargs, frame, positions, is_series)
    tasks = [
        (order[ends[a] - sizes[a] : ends[b - 1]], sizes[a:b], names[a:b])
        for a, b in itertools.pairwise(edges)
    ]
    results = iter(
        [
            each
            for part in pool.starmap(call, tasks, chunksize=1, progress=progress)
            for each in part
        ]
    )
    return groups.apply(lambda _: next(results), **options)


def _rows_of_groups(groups: Any, n: int) -> list[Any]:
    """Return the row numbers of each group, in the order in which `apply` goes."""
    numbers = groups.ngroup().fillna(-1).to_numpy(np.int64)  # NaN: a row of none
    order = _stable_order(numbers)
    edges = np.searchsorted(numbers[order], np.arange(n + 1))
    return [order[low:high] for low, high in itertools.pairwise(edges)]


def _stable_order(numbers: Any) -> Any:
    """Return ``argsort(numbers, kind="stable")`` of integers from -1 to 2**32 - 2.

    16 bits at a time: those NumPy sorts by radix, ten times as fast.
    """
    digits = (numbers + 1).astype(np.uint32).view(np.uint16).reshape(-1, 2)
    low, high = digits.T if sys.byteorder == "little" else digits.T[::-1]
    order = np.argsort(low, kind="stable")
    if high.any():
        order = order[np.argsort(high[order], kind="stable")]
    return order


def _apply_to_groups(
    function: Any,
    args: Any,
    kwargs: Any,
    frame: Any,
    positions: Any,
    is_series: bool,
    order: Any,
    sizes: Any,
    names: list[Any],
) -> list[Any]:
    first, last = positions[0], positions[-1]
    if is_series:
        columns: Any = first
    else:  # a slice copies nothing
        is_run = positions == list(range(first, last + 1))
        columns = slice(first, last + 1) if is_run else positions
    # As pandas does: all rows taken at once, of which each group is a slice.
    chosen = frame.iloc[:, columns].take(order)
    results, end = [], 0
    for n, name in zip(sizes, names):
        group = chosen.iloc[end : end + n]
        end += n
        object.__setattr__(group, "name", name)
        results.append(function(group, *args, **kwargs))
    return results
