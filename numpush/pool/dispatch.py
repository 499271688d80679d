"""Giving tasks to workers, and taking their answers: what is under way in a pool.

(1) Tasks are pickled in the thread that calls, in the order of the call. Where a call has more than
    may be under way (gate.py), the caller waits, or for *_async a thread sends the rest.
(2) Every task that was sent is answered once, by `_finish`: that is where its shared memory goes.
(3) Workers that broke or are worn are replaced with the next task.
(4) No lock is held while loky is called, or anybody is told of an answer: both may call back.
"""

from __future__ import annotations

import functools
import itertools
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import BrokenExecutor, CancelledError, Future
from typing import Any

from loky.process_executor import ShutdownExecutorError

from . import answers, worker
from .gate import Gate
from .tasks import Call, Task
from .workers import Workers

__all__ = ["Chunk", "Dispatcher"]

Chunk = tuple[int, Sequence[Any]]  #: where in the iterable, and what
_TRIES = 5  #: to find workers that take a task: some may break just when they are given one


class Dispatcher:
    """The tasks and workers of a pool, in one process: a fork's child makes another.

    Parameters
    ----------
    n : int
        How many workers.
    max_tasks : int, optional
        How many tasks each may do.
    make_workers : callable
        Starts n of them, given the dictionary of tasks by number.
    """

    def __init__(self, n: int, max_tasks: int | None, make_workers: Callable[..., Workers]) -> None:
        self.pid = os.getpid()
        self._n = n
        self._max_tasks = max_tasks
        self._make_workers = make_workers
        self._lock = threading.RLock()
        self._workers: Workers | None = None
        self._old: list[Workers] = []  #: that were replaced, and may still be at work
        self._tasks: dict[int, Task] = {}
        self._numbers = itertools.count(1)
        self._gate = Gate(n)
        self._feeders: list[threading.Thread] = []
        self._is_closing = False
        self._is_over = False

    def feed(self, call: Call, chunks: Iterator[tuple[int, Chunk]], waits: bool) -> None:
        """Send chunks until all are sent or the call is over."""
        for chunk, part in chunks:
            if call.is_over:
                return
            if self._gate.is_shut():
                if not waits:
                    rest = itertools.chain([(chunk, part)], chunks)
                    thread = threading.Thread(
                        target=self.feed, args=(call, rest, True), name="numpush-feed", daemon=True
                    )
                    self._feeders = [each for each in self._feeders if each.is_alive()]
                    self._feeders.append(thread)
                    thread.start()
                    return
                self._gate.wait()
            self.send(call, chunk, part, len(part[1]))

    def send(self, call: Call, chunk: int, part: Chunk, n_items: int) -> None:
        """Pickle a chunk and give it to the workers; what goes wrong is its answer."""
        start, items = part
        task = Task(call, chunk, start, n_items)
        try:
            task.data, task.parcels, weight = call.outbox.dumps(items)
        except Exception as error:
            error.add_note(f"numpush.Pool: while pickling the arguments of {task.name(0)}")
            task.answer(answers.Answer(None, error))
            return
        task.weight = weight
        self._gate.enter(weight)
        number = next(self._numbers)
        self._tasks[number] = task
        call.tasks.add(task)
        self._submit(number, task)

    def _submit(self, number: int, task: Task) -> None:
        call = task.call
        for tries_left in reversed(range(_TRIES)):
            workers = None
            try:
                workers = self._find_workers()
                future = workers.submit(number, call.function, task.data, call.how)
            except Exception as error:
                if workers is not None:
                    self._replace(workers)
                if tries_left and workers is not None and isinstance(error, RuntimeError):
                    continue  # they broke, or ended, just now: BrokenExecutor is a RuntimeError
                self._finish(number, task, answers.Answer(None, error))
                return
            task.future = future
            future.add_done_callback(functools.partial(self._done, number, task, workers))
            return

    def _done(self, number: int, task: Task, workers: Workers, future: Future[bytes]) -> None:
        """Take a task's answer, in loky's thread."""
        try:
            error = CancelledError() if future.cancelled() else future.exception()
            if error is None:
                data = future.result()
                if data == worker.REFUSED:
                    workers.finish_one()
                    self._submit(number, task)
                    return
                answer = answers.read(data)
            else:
                if isinstance(error, BrokenExecutor):
                    error = workers.find_death()
                    self._replace(workers)
                elif isinstance(error, ShutdownExecutorError):
                    error = RuntimeError("the workers were stopped: the pool was terminated")
                answer = answers.Answer(None, error)
        except BaseException as error:  # or whoever waits for it would wait for ever
            error.add_note("numpush.Pool: while unpickling the results")
            answer = answers.Answer(None, error)
        workers.finish_one()
        self._finish(number, task, answer)

    def _finish(self, number: int, task: Task, answer: answers.Answer) -> None:
        self._tasks.pop(number, None)
        task.parcels = []
        task.data = b""
        task.future = None  # whose callback refers to the task
        try:
            task.answer(answer)
        finally:
            self._gate.leave(task.weight)
        if self._is_closing:
            self.close()

    # -- workers

    def _find_workers(self) -> Workers:
        with self._lock:
            if self._is_over:
                raise ValueError("Pool not running")
            workers = self._workers
            most = None if self._max_tasks is None else self._n * self._max_tasks
            if workers is not None and most is not None and workers.n_given >= most:
                self._replace(workers)
            if self._workers is None:
                self._workers = self._make_workers(tasks=self._tasks)
            return self._workers

    def _replace(self, workers: Workers) -> None:
        """Give these no more tasks; they end when they are done with what they have."""
        with self._lock:
            if self._workers is workers:
                self._workers = None
                self._old = [each for each in self._old if not each.is_gone()] + [workers]
        workers.retire()

    # -- the end

    def close(self) -> None:
        """End the workers as soon as nothing is under way."""
        self._is_closing = True
        with self._lock:
            is_idle = self._gate.is_empty() and not any(each.is_alive() for each in self._feeders)
            workers = self._workers if is_idle else None
        if workers is not None:
            workers.retire()

    def stop(self, *, kill: bool, for_good: bool = False) -> None:
        """End the workers and wait for that: when what they have is done or, *kill*, at once."""
        with self._lock:
            self._is_over |= for_good
            every = [*self._old, *([] if self._workers is None else [self._workers])]
            self._old, self._workers = [], None
        for workers in every:
            workers.stop(kill=kill, wait=True)

    def join(self) -> None:
        """Wait until all is done and the workers are gone."""
        for feeder in self._feeders:
            feeder.join()
        self._gate.wait_empty()
        self.stop(kill=False)
