"""Pool: the interface of multiprocessing.Pool, over workers that loky starts.

How tasks get to workers and back is in dispatch.py, what they take and give in payload.py, how workers
start and die in workers.py.
"""

from __future__ import annotations

import functools
import itertools
import os
import secrets
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import loky

from ..plain import SHARE_FROM, Parcel
from . import worker
from .calls import AsyncResult, Callback, ResultIterator, Sink
from .dispatch import Dispatcher
from .payload import Outbox
from .progress import make_bar
from .tasks import Call
from .workers import Workers

__all__ = ["Pool"]

#: What a fork took along of the parent's pools. Taking it apart might wait for a lock for ever.
_inherited: list[Any] = []


class Pool:
    """Processes that call functions: multiprocessing.Pool, without its hangs and copies.

    Big plain DataFrames, Series and ndarrays among arguments and results travel by shared memory
    and arrive as plain, private, writable objects, as if they had been pickled. Shared ones (SArray,
    SDataFrame) travel as handles and stay shared. Lambdas, closures and functions of notebooks work.

    Parameters
    ----------
    processes : int, optional
        How many; by default as many as this process may use cores.
    initializer, initargs : callable and tuple, optional
        Called in each worker before its first task. Its exception is that of every task.
    maxtasksperchild : int, optional
        Tasks (chunks, in a map) that a worker does before it is replaced.
    context : optional
        Accepted and not used: workers are fresh interpreters, whatever the start method.
    progress : bool
        Show a tqdm bar over the tasks of each map.
    threads : int, optional
        How many threads BLAS, OpenMP, numba and numexpr may start in each worker. None: as they like.
    env : dict, optional
        More variables for the workers' environment, and others than *threads* would set.
    share_from : int
        Bytes from which a plain object goes through shared memory.

    Notes
    -----
    The first task starts the workers. The main module is not imported in them, so a script needs no
    ``if __name__ == "__main__":`` for this pool; multiprocessing's own need one.

    A worker that dies ends the call with WorkerDied, which says how and at which task; so do all calls
    that are under way. The pool can be used again. Ctrl-C ends the call and the workers. An exception
    of a task ends a map at once: tasks that have not begun are dropped.

    Examples
    --------
    >>> import numpush
    >>> with numpush.Pool(2) as pool:
    ...     pool.map(lambda x: x * x, range(5))
    [0, 1, 4, 9, 16]
    """

    def __init__(
        self,
        processes: int | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: Iterable[Any] = (),
        maxtasksperchild: int | None = None,
        context: Any = None,
        *,
        progress: bool = False,
        threads: int | None = 1,
        env: Mapping[str, str] | None = None,
        share_from: int = SHARE_FROM,
    ) -> None:
        n = loky.cpu_count() if processes is None else processes
        if n < 1:
            raise ValueError(f"{n} processes: at least 1 wanted")
        if maxtasksperchild is not None and maxtasksperchild < 1:
            raise ValueError(f"maxtasksperchild {maxtasksperchild}: at least 1 wanted, or None")
        if initializer is not None and not callable(initializer):
            raise TypeError("initializer must be a callable")
        self._n = n
        self._progress = progress
        self._share_from = share_from
        outbox = Outbox(share_from)
        parcels: list[Parcel] = []
        pickled = None
        if initializer is not None:
            pickled, parcels, _ = outbox.dumps((initializer, tuple(initargs)))
        make_workers = functools.partial(
            Workers,
            n,
            threads=threads,
            env=dict(env or {}),
            share_from=share_from,
            # With 64 random bits more it looks as naming.random_name does.
            prefix=secrets.token_hex(8),
            max_tasks=maxtasksperchild,
            initializer=pickled,
            parcels=parcels,
        )
        self._make_dispatcher = functools.partial(Dispatcher, n, maxtasksperchild, make_workers)
        self._state = "running"
        self._dispatcher = self._make_dispatcher()

    # -- calls

    def apply(self, func: Callable[..., Any], args: Any = (), kwds: Mapping[str, Any] = {}) -> Any:
        """Call ``func(*args, **kwds)`` in a worker and return the result.

        *args* that are no tuple or list are one argument: ``pool.apply(f, sdf)`` is f(sdf).
        """
        with self._ending_if_interrupted():
            result = self.apply_async(func, args, kwds)
            result.wait()
        try:
            return result.get()
        finally:
            del (
                result
            )  # as in `get`: the exception's traceback refers to this frame, with our arguments

    def apply_async(
        self,
        func: Callable[..., Any],
        args: Any = (),
        kwds: Mapping[str, Any] = {},
        callback: Callback = None,
        error_callback: Callback = None,
    ) -> AsyncResult:
        """Call as `apply`, and return at once; callbacks run in a thread of this process."""
        if not isinstance(args, (tuple, list)):
            args = (args,)
        result = AsyncResult(1, callback, error_callback, is_single=True)
        call = self._call(func, worker.APPLY, result, False)
        call.end_after(1)
        self._dispatcher.send(call, 0, (0, (tuple(args), dict(kwds))), 1)
        return result

    def map(
        self,
        func: Callable[[Any], Any],
        iterable: Iterable[Any],
        chunksize: int | None = None,
        *,
        progress: bool | None = None,
    ) -> list[Any]:
        """Return ``[func(x) for x in iterable]``, computed by all workers."""
        return self._map_and_wait(func, iterable, worker.MAP, chunksize, progress)

    def starmap(
        self,
        func: Callable[..., Any],
        iterable: Iterable[Iterable[Any]],
        chunksize: int | None = None,
        *,
        progress: bool | None = None,
    ) -> list[Any]:
        """Return ``[func(*x) for x in iterable]``, computed by all workers."""
        return self._map_and_wait(func, iterable, worker.STAR, chunksize, progress)

    def map_async(
        self,
        func: Callable[[Any], Any],
        iterable: Iterable[Any],
        chunksize: int | None = None,
        callback: Callback = None,
        error_callback: Callback = None,
        *,
        progress: bool | None = None,
    ) -> AsyncResult:
        """Do as `map`, and return at once."""
        callbacks = callback, error_callback
        return self._map(func, iterable, worker.MAP, chunksize, progress, callbacks, waits=False)

    def starmap_async(
        self,
        func: Callable[..., Any],
        iterable: Iterable[Iterable[Any]],
        chunksize: int | None = None,
        callback: Callback = None,
        error_callback: Callback = None,
        *,
        progress: bool | None = None,
    ) -> AsyncResult:
        """Do as `starmap`, and return at once."""
        callbacks = callback, error_callback
        return self._map(func, iterable, worker.STAR, chunksize, progress, callbacks, waits=False)

    def imap(
        self,
        func: Callable[[Any], Any],
        iterable: Iterable[Any],
        chunksize: int = 1,
        *,
        progress: bool | None = None,
    ) -> ResultIterator:
        """Return an iterator over ``func(x)``, in the order of the iterable.

        It takes no more than a few chunks from *iterable* before their results are asked for, so
        that may be endless.
        """
        return self._imap(func, iterable, chunksize, progress, is_ordered=True)

    def imap_unordered(
        self,
        func: Callable[[Any], Any],
        iterable: Iterable[Any],
        chunksize: int = 1,
        *,
        progress: bool | None = None,
    ) -> ResultIterator:
        """Do as `imap`, each result as soon as it is there."""
        return self._imap(func, iterable, chunksize, progress, is_ordered=False)

    def _map_and_wait(
        self, func: Any, iterable: Any, how: int, size: Any, progress: Any
    ) -> list[Any]:
        with self._ending_if_interrupted():
            result = self._map(func, iterable, how, size, progress, (None, None), waits=True)
            result.wait()
        try:
            results: list[Any] = result.get()
            return results
        finally:
            del result  # see `apply`

    def _map(
        self,
        func: Any,
        iterable: Iterable[Any],
        how: int,
        size: int | None,
        progress: bool | None,
        callbacks: tuple[Callback, Callback],
        *,
        waits: bool,
    ) -> AsyncResult:
        self._check_running()
        items: Sequence[Any] = (
            iterable if isinstance(iterable, (list, tuple, range)) else [*iterable]
        )
        if size is None:  # as multiprocessing has it
            size = max(1, -(-len(items) // (4 * self._n)))
        elif size < 1:
            raise ValueError(f"chunksize {size}: at least 1 wanted")
        starts = range(0, len(items), size)
        result = AsyncResult(len(starts), *callbacks)
        call = self._call(func, how, result, progress, len(items))
        call.end_after(len(starts))
        chunks = ((start, list(items[start : start + size])) for start in starts)
        self._dispatcher.feed(call, enumerate(chunks), waits)
        return result

    def _imap(
        self, func: Any, iterable: Iterable[Any], size: int, progress: Any, *, is_ordered: bool
    ) -> ResultIterator:
        if size < 1:
            raise ValueError(f"chunksize {size}: at least 1 wanted")
        is_fixed = isinstance(iterable, (list, tuple, range))
        total = len(iterable) if is_fixed else None  # type: ignore[arg-type]  # it has a length then
        source = iter(iterable)
        most = 2 * self._n + 2
        feeding = threading.Lock()

        def feed(result: ResultIterator) -> None:
            with feeding, self._ending_if_interrupted():
                while not result.is_fed and result.n_ahead < most:
                    chunk, start = result.n_sent, result.n_sent * size
                    try:
                        items = list(itertools.islice(source, size))
                    except Exception as error:
                        result.is_fed = True
                        result.n_sent += 1
                        result.fail(chunk, error)
                        call.end_after(chunk)
                        return
                    if not items:
                        result.is_fed = True
                        call.end_after(chunk)
                        return
                    if not is_fixed:  # what makes the items may have changed the last one for it
                        call.outbox = Outbox(self._share_from)
                    result.n_sent += 1
                    self._dispatcher.send(call, chunk, (start, items), len(items))

        result = ResultIterator(feed, self._ending_if_interrupted, is_ordered)
        call = self._call(func, worker.MAP, result, progress, total)
        feed(result)
        return result

    # -- sending

    def _check_fork(self) -> None:
        if self._dispatcher.pid != os.getpid():  # the workers are our parent's, and so are results
            _inherited.append(self._dispatcher)
            self._dispatcher = self._make_dispatcher()

    def _check_running(self) -> None:
        self._check_fork()
        if self._state != "running":
            raise ValueError("Pool not running")

    def _call(
        self,
        func: Callable[..., Any],
        how: int,
        sink: Sink,
        progress: bool | None,
        total: int | None = None,
    ) -> Call:
        self._check_running()
        if not callable(func):
            raise TypeError(f"a function is wanted, not {func!r}")
        call = Call(func, how, sink, Outbox(self._share_from))
        if self._progress if progress is None else progress:
            call.bar = make_bar(call.name, total)
        return call

    # -- the end

    def close(self) -> None:
        """Take no more calls; the workers end when all is done."""
        self._check_fork()
        if self._state == "running":
            self._state = "closed"
            self._dispatcher.close()

    def terminate(self) -> None:
        """Kill the workers now; whoever waits for a result gets a RuntimeError."""
        self._check_fork()
        self._state = "terminated"
        self._dispatcher.stop(kill=True, for_good=True)

    def join(self) -> None:
        """Wait until all is done and the workers have ended. Closes the pool first if need be."""
        self.close()
        with self._ending_if_interrupted():
            self._dispatcher.join()

    def _ending_if_interrupted(self) -> _EndingIfInterrupted:
        return _EndingIfInterrupted(self._dispatcher)

    def __enter__(self) -> Pool:
        self._check_running()
        return self

    def __exit__(self, *_: object) -> None:
        self.terminate()

    def __reduce__(self) -> Any:
        raise NotImplementedError("pool objects cannot be passed between processes or pickled")

    def __repr__(self) -> str:
        return f"<numpush.Pool, {self._n} processes, {self._state}>"


class _EndingIfInterrupted:
    """Ctrl-C in here ends the workers, and goes on its way: the next call starts new ones."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher

    def __enter__(self) -> None:
        pass

    def __exit__(self, cls: type[BaseException] | None, *_: object) -> None:
        if cls is not None and not issubclass(cls, Exception):
            self._dispatcher.stop(kill=True)
