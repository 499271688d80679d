"""What a team's leader and its members say to each other: mail to a member, and its answers.

Mail is told of in the control block, so that a member that sleeps or works fetches it before it does
what needs it. Both sides keep the latest few of what was sent, by the same rule, so neither asks.
"""

from __future__ import annotations

import struct
from collections import OrderedDict
from typing import Any, NamedTuple

from ..handle import ArrayHandle

__all__ = [
    "FAILURE",
    "KEPT",
    "RESULT",
    "STOPPED",
    "CallMail",
    "DropMail",
    "PartialOf",
    "PlanMail",
    "Recent",
    "SharedMutex",
    "join_answer",
    "split_answer",
]

KEPT = 32  #: functions, and kernels, that a member keeps


class PlanMail(NamedTuple):
    """A kernel with arguments, to be known as plan *plan*."""

    plan: int
    key: str  #: of the variant
    variant: bytes | None  #: its pickle; None: it was sent before
    args: tuple[Any, ...]  #: handles, and values; see plans.py


class DropMail(NamedTuple):
    """Plans that will not be run again: their arrays may go."""

    plans: tuple[int, ...]


class CallMail(NamedTuple):
    """A Python function, for the jobs without a plan that follow."""

    key: bytes  #: of the function
    function: bytes | None  #: its pickle; None: it was sent before
    args: bytes  #: a pickle of its other arguments
    items: ArrayHandle | None  #: bytes: where each chunk's items start, then their pickles
    chunk: int  #: rows in one
    is_each: bool  #: every member does one chunk, and gets its rank and a barrier
    prefix: str  #: of the names of segments with results


class SharedMutex(NamedTuple):
    """The mutex of a segment."""

    name: str
    identity: int


class PartialOf(NamedTuple):
    """For each member its own row of the array: (member, bytes), seen as an array."""

    rows: ArrayHandle
    dtype: Any
    shape: tuple[int, ...]


class Recent(OrderedDict[Any, Any]):
    """The latest KEPT values by their keys, of all that went by."""

    def use(self, key: Any) -> bool:
        """Say that *key* is in use; return whether it is there."""
        if key not in self:
            return False
        self.move_to_end(key)
        return True

    def keep(self, key: Any, value: Any) -> None:
        self[key] = value
        self.move_to_end(key)
        while len(self) > KEPT:
            self.popitem(last=False)


# -- answers: (job, first row of the chunk, chunks taken back, what the rest of it is), the rest

RESULT, FAILURE, STOPPED = range(3)
_HEAD = struct.Struct("=IqIB")


def join_answer(number: int, begin: int, n_back: int, kind: int, data: bytes) -> bytes:
    return _HEAD.pack(number, begin, n_back, kind) + data


def split_answer(message: bytes) -> tuple[int, int, int, int, memoryview]:
    """Return what `join_answer` took."""
    number, begin, n_back, kind = _HEAD.unpack_from(message)
    return number, begin, n_back, kind, memoryview(message)[_HEAD.size :]
