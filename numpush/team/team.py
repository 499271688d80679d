"""Team: kernels and functions over shared arrays, by processes that wait for them.

What crosses is in plans.py and calling.py, the processes are in members.py; what comes in between while
a kernel runs is in running.py.
"""

from __future__ import annotations

import functools
import operator
import os
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import loky
import numpy as np

from ..ffi import team as _team
from ..pool.failures import WorkerDied
from ..pool.progress import make_bar
from .calling import Call
from .members import Members, context_of
from .plans import Plan, Plans
from .running import SLICE_NS, Run, stop

__all__ = ["Team"]

_LOOK_EVERY = 0.1  #: seconds between two looks for members that died while there was nothing to do
_TRIES = 3  #: of a reduction in which members die
_OVER = _team.OVER


class Team:
    """Processes that run kernels and functions over shared memory, all at once.

    They sleep until there is a job and draw its chunks from a counter in shared memory, so a job starts
    in microseconds, and who is faster does more.

    Parameters
    ----------
    workers : int, optional
        How many; by default as many as this process may use cores.
    start_method : {'fork', 'spawn', 'forkserver'}, optional
        As of multiprocessing, whose default it is; but for 'fork', a script needs an
        ``if __name__ == "__main__":``.

    Notes
    -----
    What is written to shared arrays before a call, the workers see; what they write, the caller sees when
    it returns. Calls of several threads wait for one another.

    A worker that dies in a chunk ends the call with WorkerDied, which says how and in which chunk, and
    another takes its place. ``on_death="retry"`` does the chunk again instead: only for work that may be
    done once and a half. Ctrl-C, or an exception in a chunk, lets the chunks under way end, and the team
    can be used again. A second Ctrl-C kills the workers.

    An idle team uses no CPU. It ends with `close`, with the Team object, or with its process.

    Examples
    --------
    >>> import os, numpy as np, numpush
    >>> squares = numpush.SArray(np.zeros(6))
    >>> def square(i, out):
    ...     out[i] = i * i
    ...     return os.getpid()
    >>> with numpush.Team(2, "fork") as team:
    ...     pids = team.map(square, 6, squares)
    >>> squares.tolist(), os.getpid() in pids
    ([0.0, 1.0, 4.0, 9.0, 16.0, 25.0], False)
    """

    def __init__(self, workers: int | None = None, start_method: str | None = None) -> None:
        n = loky.cpu_count() if workers is None else operator.index(workers)
        if n < 1:
            raise ValueError(f"{n} workers: at least 1 wanted")
        self._lock = threading.RLock()
        self._is_at_work = False
        self._looked_at = 0.0
        self._members = Members(n, context_of(start_method))
        self._plans = Plans(self._members, self._lock)
        self._end = self._members.close_with(self)

    @property
    def workers(self) -> int:
        """How many workers it has."""
        return len(self._members)

    # -- kernels

    def run(
        self,
        kernel: Any,
        n: int,
        *args: Any,
        chunk: int | None = None,
        progress: bool = False,
        on_death: str = "raise",
    ) -> None:
        """Do ``kernel(i0, i1, *args)`` for the rows 0 to *n*, chunk by chunk, by all workers.

        Parameters
        ----------
        kernel : Kernel
            See `numpush.kernels.kernel`.
        args
            SArrays (or any view of their memory), ``sdf.column(..)``, numbers, and for mutex arguments
            shared objects. A plain array is copied for the call if the kernel only reads it (its
            signature says const); else it is refused, since what is written would be lost.
        chunk : int, optional
            Rows in one; by default an eighth of a worker's share.
        progress : bool
            Show a bar over the chunks.
        on_death : {'raise', 'retry'}
            What becomes of the chunk in which a worker dies.

        Raises
        ------
        TypeError : the kernel does not take such arguments; the message says which.
        WorkerDied : a worker was killed, or crashed.
        Whatever the kernel raised, with the chunk, the worker, and file and line in its notes.
        """
        retry = _is_retry(on_death)
        n = _count(n)
        with self._lock_here():
            self._begin()
            plan = None
            try:
                plan = self._plans.find(kernel, args)
                if n:
                    self._run(plan, n, chunk, progress, retry)
            except BaseException:
                stop(self._members)
                raise
            finally:
                self._finish(plan)

    def _run(self, plan: Plan, n: int, chunk: int | None, progress: bool, retry: bool) -> None:
        if chunk is None:
            chunk = max(1, n // (8 * len(self._members)))
        job = plan.job(n, _size(chunk))
        if progress:
            bar = make_bar(plan.name, -(-n // chunk))
            try:
                run = Run(self._members, self._plans, plan, chunk, retry=retry, show=_showing(bar))
                run.finish(_team.start(self._members.ref, job), 0, n)
                bar.update(bar.total - bar.n)
            finally:
                bar.close()
            return
        outcome, number = _team.run(self._members.ref, job, SLICE_NS)
        if outcome != _OVER:
            Run(self._members, self._plans, plan, chunk, retry=retry).finish(number, outcome, n)

    def reduce(
        self,
        kernel: Any,
        n: int,
        *args: Any,
        out: np.ndarray[Any, Any],
        op: str | Callable[[Any, Any], Any] = "add",
        initial: Any = None,
        chunk: int | None = None,
        progress: bool = False,
        on_death: str = "raise",
    ) -> np.ndarray[Any, Any]:
        """Do ``kernel(i0, i1, *args, partial)`` for the rows 0 to *n*, and put the partials together.

        Each worker has its own *partial*, an array of the shape and dtype of *out* that is filled
        with *initial* before, and adds its chunks to it; no locks or atomics are needed. At the
        end they are combined in the order of the workers, and the result goes into *out*.

        Which worker does which chunk differs from run to run: sums of floats do in their last bits.

        Parameters
        ----------
        out : array
            Of any shape and dtype; what is in it is overwritten. It is returned.
        op : {'add', 'multiply', 'min', 'max'} or callable
            How two partials become one; a callable gets two arrays and returns one.
        initial : optional
            What partials start from: something that changes nothing, since a worker may have had no
            chunk. By default 0 for 'add', the greatest value for 'min', and so on; a callable needs it.
        kernel, args, chunk, progress, on_death
            As of `run`; but 'retry' does all of it again, since a partial may be half done.

        Raises
        ------
        As `run`.
        """
        retry = _is_retry(on_death)
        n = _count(n)
        combine, start = _operation(op, initial, out.dtype)
        for tries_left in reversed(range(_TRIES if retry else 1)):
            try:
                partials = self._run_apart(kernel, n, args, out, start, chunk, progress)
                break
            except WorkerDied:
                if not tries_left:
                    raise
        result = functools.reduce(combine, partials)
        out[...] = result
        return out

    def _run_apart(
        self,
        kernel: Any,
        n: int,
        args: tuple[Any, ...],
        out: Any,
        start: Any,
        chunk: int | None,
        progress: bool,
    ) -> list[Any]:
        """Run a kernel with an array for each worker like *out*; return copies of those."""
        with self._lock_here():
            self._begin()
            plan = None
            try:
                plan = self._plans.find(kernel, args, out)
                rows = plan.rows(out)
                for row in rows:
                    row[...] = start
                if n:
                    self._run(plan, n, chunk, progress, False)
                return [np.array(row) for row in rows]
            except BaseException:
                stop(self._members)
                raise
            finally:
                self._finish(plan)

    # -- Python's functions

    def map(
        self,
        func: Callable[..., Any],
        items: int | Sequence[Any],
        *args: Any,
        chunk: int | None = None,
        progress: bool = False,
        on_death: str = "raise",
    ) -> list[Any]:
        """Return ``[func(item, *args) for item in items]``, computed by all workers.

        The function is sent once, the other arguments once with each call, and each item to the
        worker that does it. Shared objects stay shared; big plain arrays and frames go by shared
        memory, in both directions. Workers keep the function, with what it refers to, for the next call.

        Parameters
        ----------
        items : int or sequence
            The partitions of a frame, say; a number n stands for ``range(n)``.
        chunk : int, optional
            Items in one; by default an eighth of a worker's share.
        progress, on_death
            As of `run`.

        Raises
        ------
        WorkerDied : a worker was killed, or crashed.
        Whatever *func* raised, with the item and the worker in its notes; the first, if several did.
        """
        retry = _is_retry(on_death)
        rows: Sequence[Any] | None = None
        if isinstance(items, (int, np.integer)):
            n = _count(items)
        else:
            rows = items if isinstance(items, (list, tuple, range)) else list(items)
            n = len(rows)
        if chunk is None:
            chunk = max(1, n // (8 * len(self._members)))
        chunk = _size(chunk)
        with self._lock_here():
            self._begin()
            bar = make_bar(getattr(func, "__name__", "map"), n) if progress else None
            try:
                call = Call(
                    self._members, func, rows, args, n, chunk, retry=retry, show=_showing(bar)
                )
                return call.run() if n else []
            except BaseException:
                stop(self._members)
                raise
            finally:
                self._finish(None)
                if bar is not None:
                    bar.close()

    def each(self, func: Callable[..., Any], *args: Any) -> list[Any]:
        """Call ``func(rank, barrier, *args)`` once in every worker, at the same time.

        Returns the results by rank, which is 0 to `workers` - 1; ``barrier.wait()`` waits until all
        are there (`numpush.team.Barrier`). For work in phases, or to set the workers up.

        Raises
        ------
        WorkerDied : a worker was killed, or crashed; those that wait at the barrier get a
            BrokenBarrierError.
        Whatever *func* raised, as for `map`.
        """
        with self._lock_here():
            self._begin()
            try:
                n = len(self._members)
                return Call(self._members, func, None, args, n, 1, is_each=True).run()
            except BaseException:
                stop(self._members)
                raise
            finally:
                self._finish(None)

    # -- from call to call

    def _lock_here(self) -> threading.RLock:
        """Return the lock, unless this is a fork, where a thread that is not here may hold it."""
        if self._members.pid != os.getpid():
            raise RuntimeError(
                f"this Team belongs to process {self._members.pid}, of which this is a fork: "
                "make a Team here"
            )
        return self._lock

    def _begin(self) -> None:
        """Check that a call may begin; the caller holds the lock, and says when it ends."""
        if self._members.is_closed:
            raise ValueError("this Team is closed")
        if self._is_at_work:
            raise RuntimeError("this Team is at work in this very thread: make another Team")
        self._plans.bury_locked()
        now = time.monotonic()
        if now - self._looked_at > _LOOK_EVERY:
            for worker in self._members.find_dead():
                self._members.replace(worker)
            self._looked_at = now
        self._is_at_work = True

    def _finish(self, plan: Plan | None) -> None:
        """Say that a call is over; with it goes what was shared for it."""
        if plan is not None and plan.copies:
            self._plans.end(plan)
        self._is_at_work = False

    def close(self) -> None:
        """End the workers, when the call under way has ended."""
        if self._members.pid == os.getpid():
            with self._lock:
                self._end()

    def __enter__(self) -> Team:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __reduce__(self) -> Any:
        raise TypeError("a Team cannot be sent to another process: make one there")

    def __repr__(self) -> str:
        state = "closed" if self._members.is_closed else "open"
        return f"<numpush.Team, {len(self._members)} workers, {state}>"


def _is_retry(on_death: str) -> bool:
    if on_death not in ("raise", "retry"):
        raise ValueError(f"on_death={on_death!r}: wanted 'raise' or 'retry'")
    return on_death == "retry"


def _count(n: Any) -> int:
    count = operator.index(n)
    if count < 0:
        raise ValueError(f"{count} rows: at least 0 wanted")
    return count


def _size(chunk: Any) -> int:
    size = operator.index(chunk)
    if size < 1:
        raise ValueError(f"chunk {size}: at least 1 wanted")
    return size


def _showing(bar: Any) -> Callable[[int], object] | None:
    return None if bar is None else lambda n_done: bar.update(n_done - bar.n)


#: Operation -> ufunc, and what changes nothing, for a dtype.
_OPERATIONS: dict[str, tuple[Any, Callable[[np.dtype[Any]], Any]]] = {
    "add": (np.add, lambda dtype: 0),
    "multiply": (np.multiply, lambda dtype: 1),
    "min": (np.minimum, lambda dtype: _extreme(dtype, "max")),
    "max": (np.maximum, lambda dtype: _extreme(dtype, "min")),
}


def _operation(op: Any, initial: Any, dtype: np.dtype[Any]) -> tuple[Callable[..., Any], Any]:
    """Return how partials are combined, and what they start from."""
    if callable(op):
        if initial is None:
            raise TypeError("a function for op needs initial=, what partials start from")
        return op, initial
    if op not in _OPERATIONS:
        raise ValueError(f"op={op!r}: wanted {', '.join(map(repr, _OPERATIONS))} or a function")
    combine, start = _OPERATIONS[op]
    return combine, start(dtype) if initial is None else initial


def _extreme(dtype: np.dtype[Any], which: str) -> Any:
    if dtype.kind == "f":
        return np.inf if which == "max" else -np.inf
    if dtype.kind == "b":
        return which == "max"
    if dtype.kind not in "iu":
        raise TypeError(f"op of dtype {dtype} needs initial=, what partials start from")
    return getattr(np.iinfo(dtype), which)
