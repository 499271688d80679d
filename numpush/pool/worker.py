"""What runs in a worker: it starts, and then a task at a time, for as long as its parent lives.

(1) Whatever a task does is answered: its results, its exception, or REFUSED. Nothing but the end of
    the process breaks the pool.
(2) Before a task, its number is written into our row of the board, in shared memory: when we are
    killed, the parent reads there what we were at.
(3) A worker holds nothing of a task when it has answered.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from multiprocessing import util
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import atomic, worker_start
from ..attaching import attach_handle
from ..handle import ArrayHandle
from ..shm.errors import SegmentError
from . import answers, payload

__all__ = [
    "APPLY",
    "BOARD_COLUMNS",
    "MAP",
    "NUMBER",
    "OFFSET",
    "PID",
    "REFUSED",
    "STAR",
    "Setup",
    "run",
    "start",
]

REFUSED = b""  #: the answer of a worker that has done its number of tasks
BOARD_COLUMNS = PID, NUMBER, OFFSET = range(3)  #: of a row of the board; row 0 counts the others
APPLY, MAP, STAR = range(3)  #: how a task's items become arguments: f(*args, **kwds), f(x), f(*x)


@dataclass(frozen=True, slots=True)
class Setup:
    """What a worker is told when it starts."""

    parent: int
    board: ArrayHandle | None
    threads: int | None
    share_from: int
    prefix: str
    max_tasks: int | None
    initializer: bytes | None


@dataclass(slots=True)
class _Worker:
    setup: Setup
    row: NDArray[np.int64]
    n_tasks: int = 0
    failure: bytes | None = None  #: that of the initializer, the answer to every task


_worker: _Worker | None = None


def start(setup: Setup) -> None:
    """Get ready: loky's initializer. Never raises, since that would end the worker."""
    global _worker
    worker_start.begin(setup.parent, setup.threads)
    util.Finalize(None, _end_joblib, exitpriority=100)  # before processes of ours are joined
    _worker = _Worker(setup, _own_row(setup.board))
    if setup.initializer is not None:
        try:
            initializer, initargs = payload.loads(setup.initializer)
            initializer(*initargs)
        except BaseException as error:
            _worker.failure = answers.failure(error, 0)


def _end_joblib() -> None:
    """End the processes that joblib keeps in ours, or we would wait until they have idled for long.

    loky's workers do so for what loky itself keeps.
    """
    executors = sys.modules.get("joblib.externals.loky.process_executor")
    end = getattr(executors, "_python_exit", None)
    if end is not None:
        end()


def _own_row(handle: ArrayHandle | None) -> NDArray[np.int64]:
    try:
        board = None if handle is None else np.asarray(attach_handle(handle))
    except SegmentError:  # the pool was terminated before we got here, and will kill us
        board = None
    if board is None:
        return np.zeros(len(BOARD_COLUMNS), np.int64)
    row: NDArray[np.int64] = board[1 + atomic.add(board, (0, 0), 1) % (len(board) - 1)]
    row[PID] = os.getpid()
    return row


def run(number: int, function: bytes, items: bytes, how: int) -> bytes:
    """Do a task: call a function once for each item. Return the answer, for `answers.read`."""
    worker = _worker
    assert worker is not None
    setup, row = worker.setup, worker.row
    if worker.failure is not None:
        return worker.failure
    if setup.max_tasks is not None:
        if worker.n_tasks >= setup.max_tasks:
            return REFUSED
        worker.n_tasks += 1
    row[OFFSET] = 0
    row[NUMBER] = number
    try:
        try:
            results = _call(payload.loads(function), payload.loads(items), how, row)
        except BaseException as error:
            return answers.failure(error, int(row[OFFSET]))
        return answers.success(results, setup.share_from, setup.prefix)
    finally:
        row[NUMBER] = 0


def _call(function: Any, items: Any, how: int, row: NDArray[np.int64]) -> list[Any]:
    if how == APPLY:
        args, kwds = items
        return [function(*args, **kwds)]
    results = []
    for item in items:
        results.append(function(*item) if how == STAR else function(item))
        row[OFFSET] += 1
    return results
