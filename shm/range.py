"""Locks over a range of a segment, for one writer or several readers, and the read/write lock.

First come, first served among those that overlap. A reader or a waiter that dies is forgotten; when
a writer dies, whoever locks any of its range next is told (`owner_died`), until a writer has taken
it over. A read/write lock is the range lock over all of an array.
"""

from __future__ import annotations

import errno
import os
import time
from typing import Any

from ..ffi import range as _range
from . import life
from . import node as _node
from .errors import LockError, LockTimeout
from .segment import Segment

__all__ = ["RWLock", "RangeGuard", "holds", "lock_range"]

_SLICE = 0.05  #: seconds between two looks at signals, and at whether the blocker is alive

_held: set[RangeGuard] = set()  # what this process holds


class RangeGuard:
    """A range that is locked, until `unlock` or the end of the ``with`` block.

    Attributes
    ----------
    start, stop : int
        The bytes of the segment's data that it covers.
    owner_died : bool
        A writer died inside this range, and no writer has held it since.
    """

    __slots__ = ("_entry", "_node", "_token", "owner_died", "segment", "shared", "start", "stop")

    def __init__(
        self,
        segment: Segment,
        token: Any,
        start: int,
        stop: int,
        shared: bool,
        entry: int,
        node: int,
        owner_died: bool,
    ) -> None:
        self.segment = segment
        self.start = start
        self.stop = stop
        self.shared = shared
        self.owner_died = owner_died
        self._token = token
        self._entry = entry
        self._node = node
        _held.add(self)

    def unlock(self) -> None:
        """Unlock; once. Raises LockError when this process does not hold it (any more)."""
        try:
            if self._node != life.node().id or self not in _held:
                raise PermissionError
            _range.unlock(self.segment.ref, self._entry, self._node)
        except PermissionError:
            raise LockError(
                f"segment {self.segment.name!r}: bytes {self.start}:{self.stop} are not locked by "
                "this guard"
            ) from None
        _held.discard(self)

    def __enter__(self) -> RangeGuard:
        return self

    def __exit__(self, *_: object) -> None:
        self.unlock()


def lock_range(
    segment: Segment,
    token: Any,
    start: int,
    stop: int,
    *,
    shared: bool = False,
    timeout: float | None = None,
) -> RangeGuard:
    """Lock the bytes [start, stop) of the segment's data and return the guard.

    Raises
    ------
    LockTimeout : not free within *timeout* seconds; the message names who is in the way.
    LockError : this thread holds part of it already.
    """
    me = life.node().id
    deadline = None if timeout is None else time.monotonic() + timeout
    entry = -1
    is_held = False
    pause = 0.001
    try:
        while True:
            answer = _range.lock(
                segment.ref, start, stop, shared=shared, node=me, pid=os.getpid(), entry=entry
            )
            entry = answer.entry
            if answer.rc >= 0:
                is_held = True
                return RangeGuard(
                    segment, token, start, stop, shared, entry, me, owner_died=answer.rc == 1
                )
            if answer.rc == -errno.EDEADLK:
                raise LockError(
                    f"segment {segment.name!r}: this thread holds part of bytes {start}:{stop} "
                    "already; range locks are not re-entrant"
                )
            if answer.rc == -errno.EBUSY and not _node.is_alive(answer.blocker, max_age=_SLICE):
                _range.evict(segment.ref, answer.blocker)
                continue
            if answer.rc == -errno.ENOSPC and _evict_dead(segment):
                continue
            left = pause if deadline is None else deadline - time.monotonic()
            if left <= 0:
                raise LockTimeout(_busy(segment, start, stop, answer, timeout))
            _range.wait(segment.ref, answer.news, int(min(left, pause) * 1e9))
            pause = min(2 * pause, _SLICE)
    finally:
        if entry >= 0 and not is_held:
            _range.unlock(segment.ref, entry, me)


def holds(segment: Segment) -> bool:
    """Whether this process holds a range of *segment*."""
    return any(guard.segment is segment for guard in tuple(_held))


def _evict_dead(segment: Segment) -> int:
    """Take entries of dead processes away; how many. What they wrote in stays marked."""
    nodes = {e.node for e in _range.entries(segment.ref) if e.state != _range.ORPHAN}
    dead = [node for node in nodes if not _node.is_alive(node, max_age=_SLICE)]
    return sum(_range.evict(segment.ref, node) for node in dead)


def _busy(
    segment: Segment, start: int, stop: int, answer: _range.Answer, timeout: float | None
) -> str:
    if answer.rc == -errno.ENOSPC:
        why = f"all {_range.ENTRIES} range locks of the segment are in use"
    else:
        pid = _node.info(answer.blocker).pid
        why = f"process {pid or 'of another container'} is before us"
    return f"segment {segment.name!r}: bytes {start}:{stop} not free within {timeout} s: {why}"


class RWLock:
    """Many readers or one writer over the whole of an array; robust, fair, with deadlines.

    ``with a.rwlock.read(): ...`` and ``with a.rwlock.write(timeout=5) as guard: ...``
    """

    __slots__ = ("_range", "_token", "segment")

    def __init__(self, segment: Segment, token: Any, start: int, stop: int) -> None:
        self.segment = segment
        self._token = token
        self._range = start, stop

    def read(self, timeout: float | None = None) -> RangeGuard:
        """Lock for reading, with other readers. Raises as ``lock_range``."""
        return lock_range(self.segment, self._token, *self._range, shared=True, timeout=timeout)

    def write(self, timeout: float | None = None) -> RangeGuard:
        """Lock for writing, alone. Raises as ``lock_range``."""
        return lock_range(self.segment, self._token, *self._range, timeout=timeout)


os.register_at_fork(after_in_child=_held.clear)  # they are the parent's
