"""The robust mutex of a segment.

(1) A mutex belongs to the thread that locked it; the same thread locking again is an error at once.
(2) When a holder dies, the kernel hands the mutex on and says so: `owner_died` is true for the next
    holder, once, and what the dead one was changing may be half-changed. It is the next holder's to
    repair, and if that one dies too, it is told again to the one after.
(3) A held mutex stays mapped (npush_mutex.h, (2)), also when everything that refers to it is gone:
    Segment.unmap looks.
(4) Waiting is done in slices, so Ctrl-C works.
"""

from __future__ import annotations

import errno
import time
from typing import Any

from ..ffi import check
from ..ffi import mutex as _mutex
from ..ffi import seg as _seg
from . import node as _node
from .errors import LockError, LockTimeout, NotRecoverable
from .segment import Segment

__all__ = ["Guard", "Mutex"]

_SLICE = 0.05  #: seconds between two looks at signals
_try_lock = _mutex.try_lock
_unlock = _mutex.unlock


class Guard:
    """A lock that is held, until `unlock` or the end of the ``with`` block."""

    __slots__ = ("_mutex", "owner_died")

    def __init__(self, mutex: Mutex) -> None:
        self._mutex = mutex
        self.owner_died = mutex.owner_died

    def unlock(self) -> None:
        """Unlock. Raises LockError when this thread does not hold it."""
        self._mutex.unlock()

    def __enter__(self) -> Guard:
        return self

    def __exit__(self, *_: object) -> None:
        self._mutex.unlock()


class Mutex:
    """A lock in shared memory that survives the death of its holder.

    Use it as a context manager, or call `lock`, or call it. Uncontended it costs two calls into C.

    Attributes
    ----------
    owner_died : bool
        Of the latest lock by this process: the holder before died with it, look after the data.
    """

    __slots__ = ("__weakref__", "_ref", "owner_died", "segment", "token")

    def __init__(self, segment: Segment, token: Any) -> None:
        self.segment = segment
        self.token = token  # keeps the segment attached and mapped
        self._ref = _seg.data_mutex(segment.ref)
        self.owner_died = False

    @classmethod
    def of_structure(cls, segment: Segment, token: Any) -> Mutex:
        """Make the one under which the structure of what a segment holds is replaced."""
        self = cls(segment, token)
        self._ref = _seg.structure_mutex(segment.ref)
        return self

    def __enter__(self) -> Mutex:
        rc = _try_lock(self._ref)
        self.owner_died = self._wait(rc, None) if rc else False
        return self

    def __exit__(self, kind: object, value: object, tb: object) -> None:
        if _unlock(self._ref):
            raise self._not_held()

    def lock(self, timeout: float | None = None) -> Guard:
        """Lock, waiting at most *timeout* seconds (0: do not wait; None: for ever).

        Raises
        ------
        LockTimeout : somebody else holds it; the message names the process and thread.
        LockError : this thread holds it already.
        """
        rc = _try_lock(self._ref)
        self.owner_died = self._wait(rc, timeout) if rc else False
        return Guard(self)

    __call__ = lock

    def unlock(self) -> None:
        """Unlock. Raises LockError when this thread does not hold it."""
        if _unlock(self._ref):
            raise self._not_held()

    def holder(self) -> tuple[int, int] | None:
        """Return (pid, thread id) of who holds it now, or None. A hint: it may change at once."""
        tid = _mutex.holder(self._ref)
        return (_node.pid_of_thread(tid), tid) if tid else None

    def _not_held(self) -> LockError:
        return LockError(f"segment {self.segment.name!r}: this thread does not hold its lock")

    def _wait(self, rc: int, timeout: float | None) -> bool:
        """Wait until locked; return whether the owner died."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while rc == -errno.EBUSY:
            left = _SLICE if deadline is None else deadline - time.monotonic()
            if left <= 0:
                raise LockTimeout(self._busy(timeout))
            rc = _mutex.lock(self._ref, int(min(left, _SLICE) * 1e9))
        if rc == -errno.EDEADLK:
            raise LockError(
                f"segment {self.segment.name!r}: this thread holds its lock already; "
                "a mutex is not re-entrant"
            )
        if rc == -errno.ENOTRECOVERABLE:
            raise NotRecoverable(
                f"segment {self.segment.name!r}: its lock was given up by an owner that left it "
                "inconsistent; make a new segment"
            )
        return check(rc) == _mutex.OWNER_DIED

    def _busy(self, timeout: float | None) -> str:
        holder = self.holder()
        who = f"process {holder[0]}, thread {holder[1]}" if holder else "somebody just now"
        return f"segment {self.segment.name!r}: not free within {timeout} s, held by {who}"

    def __repr__(self) -> str:
        holder = self.holder()
        state = f"held by process {holder[0]}, thread {holder[1]}" if holder else "free"
        return f"<Mutex of segment {self.segment.name!r}, {state}>"
