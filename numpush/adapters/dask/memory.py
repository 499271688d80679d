"""What a worker uses of the machine's memory, with each shared byte counted once.

Dask takes a process's resident memory, in which a shared page is counted by everybody who has touched it.
Here a worker uses what is private to it, and of each segment that it is in an equal part with the
others: over all processes that comes to what there is. Its limits (spill, pause), its dashboard
and the scheduler see that.

(1) What is kept in the worker's `data` counts against its target for spilling by its size; an object that
    came as a handle does not: the worker that made it counts it. While others are in its segment
    spilling it would free nothing, and bring it back as a copy: so it is what is spilled last.
(2) What a worker freed is kept warm (shm/warm.py) only as far as there is room below that target.
(3) The nanny looks from outside: at shared pages in proportion (PSS), which is quick; and if that is too
    much, at the tables of the segments. The kernel counts what is mapped, and we keep mappings of
    segments that we have left, and of warm memory: those are nobody's reason to end a worker.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from typing import Any

import psutil
from distributed.sizeof import safe_sizeof
from zict import LRU

from ...ffi import seg as _seg
from ...shm import registry, survey, warm
from ...shm.segment import Segment
from .frames import received_bytes, received_in

__all__ = [
    "most",
    "process_memory",
    "share_of_segments",
    "unwrap_nanny",
    "unwrap_worker",
    "wrap_nanny",
    "wrap_worker",
]


_PAUSE = 0.8  #: of its limit, Dask's own setting, for a worker that does not pause


def process_memory() -> int:
    """Return the bytes of memory that this process uses, its part of what it shares included."""
    status = _status("self")
    return status["VmRSS"] - status["RssShmem"] + share_of_segments()


def share_of_segments() -> int:
    """Return this process's part of the segments that it is in: size / number of processes."""
    total = 0
    with registry.lock:
        for segment in registry.segments.values():
            if segment.node:
                total += segment.capacity // _n_users(segment)
    return total


def _n_users(segment: Segment) -> int:
    return max(1, sum(used for _, used, _ in _seg.holders(segment.ref, segment.n_slots)))


def _status(pid: int | str) -> dict[str, int]:
    """Return the sizes in a process's status, in bytes. Raises OSError: it is gone."""
    sizes = {"VmRSS": 0, "RssShmem": 0}
    with open(f"/proc/{pid}/status") as file:
        for line in file:
            name, _, value = line.partition(":")
            if name in sizes:
                sizes[name] = int(value.split()[0]) << 10
    return sizes


def _resident(pid: int) -> int:
    return int(psutil.Process(pid).memory_info().rss)


def _proportional(pid: int) -> int:
    """Return what a process uses, of its shared pages in proportion. Raises OSError."""
    status = _status(pid)
    shared = status["RssShmem"]
    with contextlib.suppress(PermissionError), open(f"/proc/{pid}/smaps_rollup") as file:
        for line in file:
            if line.startswith("Pss_Shmem:"):
                shared = int(line.split()[1]) << 10
    return status["VmRSS"] - status["RssShmem"] + shared


def _as_it_counts(pid: int) -> int:
    """Return what `process_memory` does in another process. Raises OSError."""
    status = _status(pid)
    total = status["VmRSS"] - status["RssShmem"]
    for info in survey():
        users = [holder.pid for holder in info.holders if holder.attached]
        if pid in users:
            total += info.capacity // len(users)
    return total


def wrap_worker(worker: Any) -> None:
    worker.monitor.get_process_memory = functools.partial(_watch_memory, _target(worker))
    fast: Any = getattr(worker.data, "fast", None)
    if isinstance(fast, LRU):
        fast.weight = _weight
        fast.evict = functools.partial(_evict, fast)  # type: ignore[method-assign]  # of this one


def unwrap_worker(worker: Any) -> None:
    vars(worker.monitor).pop("get_process_memory", None)
    fast: Any = getattr(worker.data, "fast", None)
    if getattr(fast, "weight", None) is _weight:
        fast.weight = _plain_weight
        vars(fast).pop("evict", None)


def _target(worker: Any) -> float:
    """Return how much memory a worker may use before it spills."""
    manager = worker.memory_manager
    fraction = manager.memory_target_fraction or manager.memory_spill_fraction
    return float(manager.memory_limit * fraction if manager.memory_limit and fraction else "inf")


def most(worker: Any) -> float:
    """Return how much memory a worker may use before it pauses, and its nanny ends it."""
    manager = worker.memory_manager
    fraction = manager.memory_pause_fraction or _PAUSE
    return float(manager.memory_limit * fraction if manager.memory_limit else "inf")


def _watch_memory(target: float) -> int:
    """Return `process_memory`; have no memory warm that it leaves no room for."""
    used = process_memory()
    with registry.lock:
        if used + warm.mine() > target:
            warm.drop_mine()
    return used


def _plain_weight(key: Any, value: Any) -> int:
    return int(safe_sizeof(value))


def _weight(key: Any, value: Any) -> int:
    return max(0, _plain_weight(key, value) - received_bytes(value))


def _evict(fast: Any, *key: Any) -> Any:
    """Evict a key, or what was used least recently: what frees memory before what does not."""
    evict = type(fast).evict
    if not key and not fast.heavy:
        with fast.lock:
            first = next((k for k in fast.order if not _is_elsewhere(fast.d[k])), None)
        if first is not None:
            with contextlib.suppress(KeyError):  # it was deleted by another thread
                return evict(fast, first)
    return evict(fast, *key)


def _is_elsewhere(x: Any) -> bool:
    """Whether *x* was received, and others are in its segments still."""
    with registry.lock:
        found = [registry.segments.get(name) for name in received_in(x)]
        return any(_n_users(segment) > 1 for segment in found if segment and segment.node)


def wrap_nanny(nanny: Any) -> None:
    callback = nanny.periodic_callbacks.get("memory_monitor")
    if callback is not None and getattr(callback.callback, "func", None) is not _monitor:
        callback.callback = functools.partial(_monitor, nanny, callback.callback)


def unwrap_nanny(nanny: Any) -> None:
    callback = nanny.periodic_callbacks.get("memory_monitor")
    if callback is not None and getattr(callback.callback, "func", None) is _monitor:
        callback.callback = callback.callback.args[1]


def _monitor(nanny: Any, monitor: Callable[[], None]) -> None:
    """Have the nanny look at its worker's memory, unless it is fine as we count."""
    manager = nanny.memory_manager
    process = getattr(nanny.process, "process", None)
    pid = getattr(process, "pid", None)
    if pid is not None:
        most = manager.memory_limit * manager.memory_terminate_fraction
        with contextlib.suppress(OSError, psutil.Error):
            # Each takes longer than the one before: milliseconds for page tables.
            if any(count(pid) <= most for count in (_resident, _proportional, _as_it_counts)):
                return
    monitor()
