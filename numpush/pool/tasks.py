"""A call on the pool, and its tasks: what is known of them in the parent while they are under way."""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from ..plain import Parcel
from .answers import Answer
from .calls import Sink
from .payload import Outbox, loads

__all__ = ["Call", "Task", "name_of"]


def name_of(func: Any) -> str:
    """Return what a function is called; of a partial, the function in it, unless it has a name."""
    while isinstance(func, functools.partial) and not hasattr(func, "__qualname__"):
        func = func.func
    return str(getattr(func, "__qualname__", type(func).__qualname__))


def _ignore(error: BaseException | None) -> None:
    pass


class Call:
    """One map, imap or apply."""

    def __init__(self, func: Callable[..., Any], how: int, sink: Sink, outbox: Outbox) -> None:
        self.name = name_of(func)
        self.how = how
        self.sink = sink
        self.outbox = outbox
        try:
            # Pickled once; what it holds stays until the last task is done.
            self.function, self._parcels, _ = outbox.dumps(func)
        except Exception as error:
            error.add_note(f"numpush.Pool: while pickling the function {self.name}")
            raise
        self.bar: Any = None
        self.tasks: set[Task] = set()
        self.is_over = False
        self._lock = threading.Lock()
        self._n_answered = 0
        self._n_chunks: int | None = None

    def end_after(self, n_chunks: int) -> None:
        """Say how many chunks there are in all."""
        with self._lock:
            self._n_chunks = n_chunks
            is_last = self._n_answered == n_chunks
        if is_last:
            self._end()

    def count(self, n_items: int) -> None:
        """Count a chunk that was answered, before its results are shown."""
        with self._lock:
            self._n_answered += 1
            if self.bar is not None:
                self.bar.update(n_items)
            is_last = self._n_answered == self._n_chunks
        if is_last:
            self._end()

    def drop_rest(self) -> None:
        """Take back the tasks that have not begun: the call is over."""
        if self.is_over:
            return
        self._end()
        for task in list(self.tasks):
            future, data = task.future, task.data
            if future is not None and future.cancel():
                # loky, when it kills its workers, tells the cancelled ones too, and breaks on that.
                future.set_exception = _ignore  # type: ignore[assignment,method-assign]  # meant so
                with contextlib.suppress(Exception):  # handles in it hold leases, until received
                    loads(data)

    def _end(self) -> None:
        self.is_over = True
        bar, self.bar = self.bar, None
        if bar is not None:
            bar.close()


class Task:
    """A chunk of a call: what is sent to a worker, and answered, as one."""

    __slots__ = ("call", "chunk", "data", "future", "n_items", "parcels", "start", "weight")

    def __init__(self, call: Call, chunk: int, start: int, n_items: int) -> None:
        self.call = call
        self.chunk = chunk
        self.start = start  #: place of its first item in the call's iterable
        self.n_items = n_items
        self.data = b""
        self.parcels: list[Parcel] = []
        self.weight = 0
        self.future: Future[bytes] | None = None

    def name(self, offset: int) -> str:
        """Say which task the item at *offset* is."""
        return f"task {self.start + offset} of {self.call.name}"

    def answer(self, answer: Answer) -> None:
        """Pass an answer on. To be called once."""
        call = self.call
        call.tasks.discard(self)
        call.count(self.n_items)
        if answer.results is not None:
            call.sink.put(self.chunk, answer.results)
        elif answer.error is not None:
            error = answer.error
            with contextlib.suppress(AttributeError):
                error.add_note(f"numpush.Pool: {self.name(answer.offset)}")
            if call.sink.fail(self.chunk, error):
                call.drop_rest()
