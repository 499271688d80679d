"""A backend for joblib: ``import numpush.joblib`` registers it, under the name "numpush".

A Parallel call is a call of numpush.Pool, and joblib's batches are its chunks. So a big plain object
that goes with many tasks is put into shared memory once, known by its identity as long as a task that
has it is under way. Batches, order, generators, timeouts and what is nested are joblib's own.

(1) The workers are kept from call to call, and end with the backend: that of ``with parallel_config``
    when the block is left, that of ``Parallel(backend="numpush")`` with the Parallel.
(2) joblib calls ``submit`` with its lock held, from its own thread and from the one that answers come
    in; whatever goes wrong there is told to the callback, or the Parallel would wait for ever.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from typing import Any

try:
    from joblib import parallel_config, register_parallel_backend
    from joblib.parallel import (
        AutoBatchingMixin,
        FallbackToBackend,
        LokyBackend,
        ParallelBackendBase,
        SequentialBackend,
    )
except ImportError as error:
    raise ImportError(
        f'numpush.joblib needs joblib ({error}): pip install "numpush[joblib]"'
    ) from error

from .plain import SHARE_FROM
from .pool import Pool
from .pool.calls import Sink
from .pool.tasks import Call, name_of
from .pool.worker import STAR

__all__ = ["NumpushBackend"]

_NEVER = 1 << 62  #: bytes from which to share, for joblib's max_nbytes=None


class NumpushBackend(AutoBatchingMixin, ParallelBackendBase):  # type: ignore[misc]  # joblib has no types
    """Runs the tasks of joblib.Parallel in the workers of a numpush.Pool.

    As for joblib's own processes: *n_jobs*, *inner_max_num_threads* and the environment's caps of
    threads, *initializer* and *initargs*. *max_nbytes* is the size from which arrays, frames and
    Series go by shared memory; they arrive writable, and each batch has its own: *mmap_mode* and
    *temp_folder* have no meaning here.

    Examples
    --------
    >>> import numpush.joblib
    >>> from joblib import Parallel, delayed, parallel_config
    >>> with parallel_config(backend="numpush"):
    ...     Parallel(n_jobs=2)(delayed(pow)(i, 2) for i in range(5))
    [0, 1, 4, 9, 16]
    """

    supports_retrieve_callback = True
    supports_inner_max_num_threads = True

    #: joblib's rules, and its warnings, on who may start processes.
    effective_n_jobs = LokyBackend.effective_n_jobs

    def __init__(
        self,
        nesting_level: int | None = None,
        inner_max_num_threads: int | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
    ) -> None:
        super().__init__(nesting_level=nesting_level, inner_max_num_threads=inner_max_num_threads)
        self._start = initializer, initargs
        self._wanted: dict[str, Any] = {}  #: the arguments of our pool
        self._pool: _BatchPool
        self._batches = _Batches()
        self._call: Call | None = None  #: that of Parallel, from its first batch on
        self._n_sent = 0

    def configure(
        self,
        n_jobs: int = 1,
        parallel: Any = None,
        max_nbytes: int | None = SHARE_FROM,
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        **_: Any,
    ) -> int:
        """Get ready for a Parallel; a pool that is as it wants it is there already, but for the first."""
        n_jobs = self.effective_n_jobs(n_jobs)
        if n_jobs == 1:
            raise FallbackToBackend(SequentialBackend(nesting_level=self.nesting_level))
        self.parallel = parallel
        start = self._start if initializer is None else (initializer, initargs)
        wanted = {
            "processes": n_jobs,
            "initializer": start[0],
            "initargs": start[1],
            "threads": None,
            "env": self._prepare_worker_env(n_jobs=n_jobs),
            "share_from": _NEVER if max_nbytes is None else max_nbytes,
        }
        if wanted != self._wanted:
            if self._wanted:
                self._pool.close()
            self._pool, self._wanted = _BatchPool(**wanted), wanted
        return n_jobs

    def start_call(self) -> None:
        """Share anew what the last call has shared, which may have changed since."""
        self._call = None

    stop_call = start_call

    def submit(self, func: Any, callback: Callable[[Any], object]) -> None:
        """Send a batch; *callback* gets its results, or an exception."""
        tasks = func.items
        call = self._call
        if call is None:
            run: Any = functools.partial(_run, *self.get_nested_backend())
            run.__qualname__ = name_of(tasks[0][0])  # for messages
            call = self._call = self._pool.begin(run, self._batches)
            self._n_sent = 0
        start = self._n_sent
        self._n_sent += len(tasks)
        self._pool.send(call, self._batches.add(callback), start, tasks)

    apply_async = submit  #: its name before joblib 1.5

    def retrieve_result_callback(self, out: Any) -> list[Any]:
        """Return the results of a batch, or raise its exception."""
        if isinstance(out, BaseException):
            raise out
        results: list[Any] = out
        return results

    def abort_everything(self, ensure_ready: bool = True) -> None:
        """Kill the workers: what they do is no longer wanted. Others start with the next task."""
        self._pool.terminate()
        self._pool = _BatchPool(**self._wanted)

    def terminate(self) -> None:
        """Let go of a Parallel that is done, but not of the workers."""
        self.parallel = None  # which has us: we are to go with the last reference, not by the gc
        self.reset_batch_stats()


class _BatchPool(Pool):
    """A Pool that is given the chunks of a call one by one."""

    def begin(self, func: Callable[..., Any], sink: Sink) -> Call:
        return self._call(func, STAR, sink, progress=False)

    def send(self, call: Call, chunk: int, start: int, items: list[Any]) -> None:
        self._dispatcher.send(call, chunk, (start, items), len(items))


class _Batches(Sink):
    """The callbacks of batches that are under way."""

    def __init__(self) -> None:
        self._numbers = itertools.count()
        self._callbacks: dict[int, Callable[[Any], object]] = {}

    def add(self, callback: Callable[[Any], object]) -> int:
        number = next(self._numbers)
        self._callbacks[number] = callback
        return number

    def put(self, chunk: int, results: list[Any]) -> None:
        self._callbacks.pop(chunk)(results)

    def fail(self, chunk: int, error: BaseException) -> bool:
        self._callbacks.pop(chunk)(error)
        return False  # it is joblib that drops the rest


def _run(backend: Any, n_jobs: int | None, function: Any, args: Any, kwargs: Any) -> Any:
    """Do a task, in a worker: what is nested in it uses *backend*."""
    with parallel_config(backend=backend, n_jobs=n_jobs):
        return function(*args, **kwargs)


register_parallel_backend("numpush", NumpushBackend)
