"""What may go wrong in a worker, and how it is told in the parent."""

from __future__ import annotations

import multiprocessing
import signal
from concurrent.futures.process import BrokenProcessPool

from ..errors import NumpushError, WaitTimeout

__all__ = ["RemoteError", "RemoteTraceback", "ResultTimeout", "WorkerDied", "describe_exit"]


class WorkerDied(NumpushError, BrokenProcessPool):
    """A worker process ended in the middle of its work: killed, crashed, or by os._exit.

    A RuntimeError, and the BrokenProcessPool that concurrent.futures and loky raise. All tasks that
    were under way in the pool fail with it, since the other workers are stopped too; the pool starts
    new ones with the next call.

    Attributes
    ----------
    pid : int
        The worker; 0: not known.
    exitcode : int or None
        As of multiprocessing.Process: negative is the signal that killed it.
    task : str or None
        What it worked on: "task 3 of score"; None: on nothing.
    index : int or None
        The task's place in the iterable of its call.
    """

    def __init__(
        self,
        message: str,
        pid: int = 0,
        exitcode: int | None = None,
        task: str | None = None,
        index: int | None = None,
    ) -> None:
        super().__init__(message)
        self.pid = pid
        self.exitcode = exitcode
        self.task = task
        self.index = index

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (str(self), self.pid, self.exitcode, self.task, self.index)


class RemoteError(NumpushError, RuntimeError):
    """A task raised an exception that cannot be pickled, or not unpickled here.

    Its text is the traceback in the worker; ``type_name`` is the name of its class.
    """

    def __init__(self, message: str, type_name: str = "") -> None:
        super().__init__(message)
        self.type_name = type_name

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (str(self), self.type_name)


class ResultTimeout(WaitTimeout, multiprocessing.TimeoutError):
    """The result was not there before the deadline: multiprocessing's TimeoutError, and Python's."""


class RemoteTraceback(Exception):
    """The traceback in the worker, as the cause of an exception that came from there."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return f'\n"""\n{self.text}"""'


def describe_exit(exitcode: int | None) -> str:
    """Say how a process ended."""
    if exitcode is None:
        return "ended"
    if exitcode >= 0:
        return f"ended with exit code {exitcode}"
    try:
        name = signal.Signals(-exitcode).name
    except ValueError:
        name = f"signal {-exitcode}"
    return f"was killed by {name}"
