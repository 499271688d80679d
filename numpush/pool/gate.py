"""How much may be under way at once: so that a long map does not fill memory with its arguments."""

from __future__ import annotations

import threading

__all__ = ["Gate"]

_OVERHEAD = 1024  #: bytes that a task costs beside its arguments
_LIMIT = 64 << 20


class Gate:
    """Counts tasks that were sent and not answered, and bytes of their arguments.

    It is shut when there are so many bytes that more would help nobody: tasks for all workers, and
    one more each, may be under way whatever they weigh.
    """

    def __init__(self, n_workers: int) -> None:
        self._n_free = 2 * n_workers
        self._n_tasks = 0
        self._n_bytes = 0
        self._changed = threading.Condition()

    def is_shut(self) -> bool:
        return self._n_tasks >= self._n_free and self._n_bytes >= _LIMIT

    def wait(self) -> None:
        """Wait until it is open."""
        with self._changed:
            self._changed.wait_for(lambda: not self.is_shut())

    def enter(self, weight: int) -> None:
        with self._changed:
            self._n_tasks += 1
            self._n_bytes += weight + _OVERHEAD

    def leave(self, weight: int) -> None:
        with self._changed:
            self._n_tasks -= 1
            self._n_bytes -= weight + _OVERHEAD
            self._changed.notify_all()

    def is_empty(self) -> bool:
        return self._n_tasks == 0

    def wait_empty(self) -> None:
        """Wait until nothing is under way."""
        with self._changed:
            self._changed.wait_for(self.is_empty)
