"""What a call on the pool gives back: a result to wait for, or an iterator over results.

Both are told by `put` and `fail`, from whatever thread the answer came in.
"""

from __future__ import annotations

import threading
import traceback
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from .failures import ResultTimeout

__all__ = ["AsyncResult", "ResultIterator", "Sink"]

Callback = Callable[[Any], object] | None


class Sink:
    """Where the answers to a call's chunks go."""

    def put(self, chunk: int, results: list[Any]) -> None:
        """Take the results of a chunk."""
        raise NotImplementedError

    def fail(self, chunk: int, error: BaseException) -> bool:
        """Take the exception of a chunk. True: the call is over, and the rest may be dropped."""
        raise NotImplementedError


class AsyncResult(Sink):
    """A result that will come: multiprocessing.pool.AsyncResult.

    The first exception settles it: tasks of the call that have not begun are dropped.
    """

    def __init__(
        self,
        n_chunks: int,
        callback: Callback = None,
        error_callback: Callback = None,
        *,
        is_single: bool = False,
    ) -> None:
        self._event = threading.Event()
        self._lock = threading.Lock()
        self._parts: list[list[Any]] = [[]] * n_chunks
        self._n_left = n_chunks
        self._is_single = is_single
        self._callback = callback
        self._error_callback = error_callback
        self._is_settled = False
        self._error: BaseException | None = None
        self._value: Any = None
        if not n_chunks:
            self._settle()

    def ready(self) -> bool:
        """Whether it is there, be it an exception."""
        return self._event.is_set()

    def successful(self) -> bool:
        """Whether the call ended without an exception. Raises ValueError: it has not ended."""
        if not self.ready():
            raise ValueError(f"{self!r} not ready")
        return self._error is None

    def wait(self, timeout: float | None = None) -> None:
        """Wait until it is there, or for *timeout* seconds."""
        self._event.wait(timeout)

    def get(self, timeout: float | None = None) -> Any:
        """Return the result, or raise the exception that the call ended with.

        Raises
        ------
        ResultTimeout : not there after *timeout* seconds (multiprocessing.TimeoutError).
        WorkerDied, RemoteError, or what the function raised
        """
        self.wait(timeout)
        if not self.ready():
            raise ResultTimeout(f"no result within {timeout} s")
        if self._error is not None:
            try:
                raise self._error
            finally:
                del self  # no cycle of the exception, its traceback and this frame
        return self._value

    def put(self, chunk: int, results: list[Any]) -> None:
        with self._lock:
            if self._is_settled:
                return
            self._parts[chunk] = results
            self._n_left -= 1
            if self._n_left:
                return
            self._is_settled = True
        self._settle()

    def fail(self, chunk: int, error: BaseException) -> bool:
        with self._lock:
            if self._is_settled:
                return True
            self._is_settled = True
        self._settle(error)
        return True

    def _settle(self, error: BaseException | None = None) -> None:
        parts, self._parts = self._parts, []
        self._error = error
        if error is None:
            self._value = parts[0][0] if self._is_single else [x for part in parts for x in part]
        callback = self._callback if error is None else self._error_callback
        try:
            if callback is not None:
                callback(self._value if error is None else error)
        except Exception:
            traceback.print_exc()  # in a thread of ours: nobody else would ever hear of it
        finally:
            self._callback = self._error_callback = None
            self._event.set()


class ResultIterator(Sink):
    """Results as they come, for imap: in the order of the tasks, or of their ends.

    Parameters
    ----------
    feed : callable
        Sends more tasks, as many as may be ahead; called before each result is waited for.
    waiting : callable
        Makes a context to wait in, which deals with Ctrl-C.
    """

    def __init__(
        self,
        feed: Callable[[ResultIterator], None],
        waiting: Callable[[], AbstractContextManager[None]],
        is_ordered: bool,
    ) -> None:
        self._feed = feed
        self._waiting = waiting
        self._is_ordered = is_ordered
        self._changed = threading.Condition()
        self._answers: dict[int, list[Any] | BaseException] = {}
        self._items: deque[Any] = deque()
        self._n_taken = 0
        self.n_sent = 0
        self.is_fed = False  #: there are no more tasks to send

    @property
    def n_ahead(self) -> int:
        """Chunks that were sent and whose results nobody has asked for."""
        return self.n_sent - self._n_taken

    def __iter__(self) -> ResultIterator:
        return self

    def __next__(self) -> Any:
        return self.next()

    def next(self, timeout: float | None = None) -> Any:
        """Return the next result, or raise its exception; what comes after it stays available.

        Raises
        ------
        StopIteration : there are no more.
        ResultTimeout : not there after *timeout* seconds.
        """
        while not self._items:
            self._feed(self)
            with self._waiting():
                answer = self._take(timeout)
            if isinstance(answer, BaseException):
                raise answer
            self._items.extend(answer)
        return self._items.popleft()

    def _take(self, timeout: float | None) -> list[Any] | BaseException:
        with self._changed:
            if self.is_fed and not self.n_ahead:
                raise StopIteration
            if not self._changed.wait_for(self._has_next, timeout):
                raise ResultTimeout(f"no result within {timeout} s")
            key = self._n_taken if self._is_ordered else next(iter(self._answers))
            self._n_taken += 1
            return self._answers.pop(key)

    def _has_next(self) -> bool:
        return self._n_taken in self._answers if self._is_ordered else bool(self._answers)

    def put(self, chunk: int, results: list[Any]) -> None:
        self._answer(chunk, results)

    def fail(self, chunk: int, error: BaseException) -> bool:
        self._answer(chunk, error)
        return False

    def _answer(self, chunk: int, answer: list[Any] | BaseException) -> None:
        with self._changed:
            self._answers[chunk] = answer
            self._changed.notify_all()
