"""The worker processes of a pool: one executor of loky's, from its start to its end.

An executor whose worker dies is broken for good, so a pool has one Workers after the other. All that
is private to loky and used here: `_processes` (pid -> process), and the manager thread, which is to
be joined when all of it is to be gone.

A pool that is not closed is stopped at exit, as multiprocessing's is. loky's own exit hook would wait
for its tasks; ours comes before it.
"""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import threading
import weakref
from collections.abc import Mapping
from concurrent.futures import Future
from typing import Any

import loky
import numpy as np
from loky.backend.context import LokyContext

from ..plain import Parcel
from ..sarray import SArray
from ..shm.errors import SegmentFull
from ..worker_start import THREAD_VARIABLES, ctrl_c_blocked
from . import worker
from .failures import WorkerDied, describe_exit
from .payload import drop_lost
from .tasks import Task

__all__ = ["Workers"]

#: loky ends workers that grow by 300 MB, and counts shared memory.
_ENVIRONMENT = {"LOKY_MAX_MEMORY_LEAK_SIZE": "1e18"}

_live: weakref.WeakSet[Workers] = weakref.WeakSet()
_has_exit_hook = False
_lock = threading.Lock()


class Workers:
    """*n* processes that run tasks.

    Parameters
    ----------
    initializer : bytes, optional
        What each runs first, as `Outbox.dumps` made it; *parcels* are what it needs.
    tasks : dict
        Those under way, by number: to name the one at which a worker died.
    """

    def __init__(
        self,
        n: int,
        *,
        threads: int | None,
        env: Mapping[str, str],
        share_from: int,
        prefix: str,
        max_tasks: int | None,
        initializer: bytes | None,
        parcels: list[Parcel],
        tasks: dict[int, Task],
    ) -> None:
        self.pid = os.getpid()
        self.n_given = 0  #: tasks that were submitted
        self._prefix = prefix
        self._parcels = parcels
        self._tasks = tasks
        self._lock = threading.Lock()
        self._n_open = 0
        self._is_retired = False
        self._died: tuple[Any, ...] | None = None
        try:
            shape = 1 + n, len(worker.BOARD_COLUMNS)
            self._board: SArray | None = SArray.zeros(shape, "i8")
        except SegmentFull:  # then nobody can say at which task one died
            self._board = None
        environment = dict(_ENVIRONMENT)
        if threads is not None:
            environment |= dict.fromkeys(THREAD_VARIABLES, str(threads))
        environment |= env
        setup = worker.Setup(
            self.pid,
            None if self._board is None else self._board.handle,
            threads,
            share_from,
            prefix,
            max_tasks,
            initializer,
        )
        self._executor = loky.ProcessPoolExecutor(
            n,
            # By name it could be that of the loky in joblib (loky_apart.py).
            context=LokyContext(),
            initializer=worker.start,
            initargs=(setup,),
            env=environment,
        )
        self._manager: threading.Thread | None = None

    def submit(self, number: int, function: bytes, items: bytes, how: int) -> Future[bytes]:
        """Give a task to whoever is free; the first one starts the processes.

        Raises BrokenExecutor or RuntimeError when these workers take no more.
        """
        submit = functools.partial(self._executor.submit, worker.run, number, function, items, how)
        is_first = self._manager is None
        with ctrl_c_blocked() if is_first else contextlib.nullcontext():
            future: Future[bytes] = submit()
        with self._lock:
            self.n_given += 1
            self._n_open += 1
        if is_first:
            self._manager = getattr(self._executor, "_executor_manager_thread", None)
            _live.add(self)
            _stop_at_exit()
        return future

    def finish_one(self) -> None:
        """Count a task that was answered."""
        with self._lock:
            self._n_open -= 1
            is_done = self._is_retired and not self._n_open
        if is_done:
            self.stop(kill=False, wait=False)

    def retire(self) -> None:
        """Have them end as soon as all their tasks are done."""
        with self._lock:
            is_done = not self._is_retired and not self._n_open
            self._is_retired = True
        if is_done:
            self.stop(kill=False, wait=False)

    def is_gone(self) -> bool:
        return self._manager is None or not self._manager.is_alive()

    def find_death(self) -> WorkerDied:
        """Say who died, of what, at which task. To be called while loky reports it."""
        if self._died is None:
            self._died = self._look()
        return WorkerDied(*self._died)

    def _look(self) -> tuple[Any, ...]:
        rows = [] if self._board is None else np.asarray(self._board)[1:].tolist()
        tasks = {row[worker.PID]: row for row in rows}
        dead = {
            pid: process.exitcode
            for pid, process in list(getattr(self._executor, "_processes", {}).items())
            if process.exitcode is not None
        }
        # If several died, the one that was at work is the one to be named.
        for pid in sorted(dead, key=lambda pid: not tasks.get(pid, (0, 0, 0))[worker.NUMBER]):
            _, number, offset = tasks.get(pid, (0, 0, 0))
            task = self._tasks.get(number)
            how = f"worker {pid} {describe_exit(dead[pid])}"
            # The kernel picks the process that uses most when memory runs out, and says so there.
            hint = "; if memory ran out, `dmesg` says so" if dead[pid] == -signal.SIGKILL else ""
            if task is None:
                return f"{how}, before or between its tasks{hint}", pid, dead[pid]
            name = task.name(offset)
            return f"{how} at {name}{hint}", pid, dead[pid], name, task.start + offset
        return ("a worker ended, and it is not known which",)

    def stop(self, *, kill: bool, wait: bool) -> None:
        """End them: when what they have is done, or *kill*, at once.

        *wait* until they are gone; a call from loky's own thread does not.
        """
        if self.pid != os.getpid():
            return
        self._executor.shutdown(wait=False, kill_workers=kill)
        manager = self._manager
        if not wait or manager is threading.current_thread():
            return
        if manager is not None:
            manager.join()
        else:  # none, unless we were interrupted while they were being started
            for process in getattr(self._executor, "_processes", {}).values():
                process.kill()
                process.join()
        self._parcels = []
        self._board = None
        if kill or self._died is not None:
            drop_lost(self._prefix)


def _stop_at_exit() -> None:
    global _has_exit_hook
    with _lock:
        if not _has_exit_hook:
            # As concurrent.futures does; what is registered last runs first.
            threading._register_atexit(_stop_all)  # type: ignore[attr-defined]  # private
            _has_exit_hook = True


def _stop_all() -> None:
    for workers in list(_live):
        workers.stop(kill=True, wait=True)
