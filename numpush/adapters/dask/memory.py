"""What a worker uses of the machine's memory, with each shared byte counted once.

Dask takes a process's resident memory, in which a shared page is counted by everybody who has touched it.
Here a worker uses what is private to it, and of each segment that it is in an equal part with the
others: over all processes that comes to what there is. Its limits (spill, pause), its dashboard
and the scheduler see that.

What is kept in the worker's `data` counts against its target for spilling by its size; an object that came
as a handle does not: the worker that made it counts it, and spilling here would free nothing.

The nanny looks from outside, at what the kernel says: shared pages in proportion (PSS).
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from typing import Any

import psutil
from distributed.sizeof import safe_sizeof

from ...ffi import seg as _seg
from ...shm import registry
from .frames import received_bytes

__all__ = [
    "process_memory",
    "share_of_segments",
    "unwrap_nanny",
    "unwrap_worker",
    "wrap_nanny",
    "wrap_worker",
]


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
                users = [used for _, used, _ in _seg.holders(segment.ref, segment.n_slots)]
                total += segment.capacity // max(1, sum(users))
    return total


def _status(pid: int | str) -> dict[str, int]:
    """Return the sizes in a process's status, in bytes. Raises OSError: it is gone."""
    sizes = {"VmRSS": 0, "RssShmem": 0}
    with open(f"/proc/{pid}/status") as file:
        for line in file:
            name, _, value = line.partition(":")
            if name in sizes:
                sizes[name] = int(value.split()[0]) << 10
    return sizes


def _proportional(pid: int) -> int:
    """Return what a process uses, of its shared pages in proportion. Raises OSError."""
    status = _status(pid)
    shared = status["RssShmem"]
    with contextlib.suppress(PermissionError), open(f"/proc/{pid}/smaps_rollup") as file:
        for line in file:
            if line.startswith("Pss_Shmem:"):
                shared = int(line.split()[1]) << 10
    return status["VmRSS"] - status["RssShmem"] + shared


def wrap_worker(worker: Any) -> None:
    worker.monitor.get_process_memory = process_memory
    fast: Any = getattr(worker.data, "fast", None)
    if hasattr(fast, "weight"):
        fast.weight = _weight


def unwrap_worker(worker: Any) -> None:
    vars(worker.monitor).pop("get_process_memory", None)
    fast: Any = getattr(worker.data, "fast", None)
    if getattr(fast, "weight", None) is _weight:
        fast.weight = _plain_weight


def _plain_weight(key: Any, value: Any) -> int:
    return int(safe_sizeof(value))


def _weight(key: Any, value: Any) -> int:
    return max(0, _plain_weight(key, value) - received_bytes(value))


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
            # Reading page tables takes milliseconds: only where resident memory is too much.
            if psutil.Process(pid).memory_info().rss <= most or _proportional(pid) <= most:
                return
    monitor()
