"""Every error that numpush raises on purpose, each also the builtin that a caller would catch."""

from __future__ import annotations

__all__ = [
    "ChannelEmpty",
    "ChannelFull",
    "HandleClosed",
    "LayoutMismatch",
    "LockError",
    "LockTimeout",
    "NotRecoverable",
    "NumpushError",
    "SegmentDamaged",
    "SegmentError",
    "SegmentExists",
    "SegmentFull",
    "SegmentNotFound",
    "SharedStructureError",
    "WaitTimeout",
]


class NumpushError(Exception):
    """The base of all of them."""


class SegmentError(NumpushError):
    """Something about one segment; ``name`` says which."""

    def __init__(self, message: str, name: str | None = None) -> None:
        super().__init__(message)
        self.name = name

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (str(self), self.name)


class SegmentExists(SegmentError, FileExistsError):
    """The name is taken. Choose another, or ``withdraw`` / ``rm`` the old one."""


class SegmentNotFound(SegmentError, FileNotFoundError):
    """No such segment: never created, or its last user is gone.

    A handle that was sent keeps its segment alive; a bare ``.handle`` does not.
    """


class SegmentFull(SegmentError, MemoryError):
    """Shared memory has no room for it. The message says how much was wanted, how much there is,
    who holds the rest and how to raise the limit. Nothing was created."""


class SegmentDamaged(SegmentError, ValueError):
    """The file is not a segment that this user made, or its header contradicts itself. Nothing in
    it was used."""


class LayoutMismatch(SegmentError, ValueError):
    """Made by a build with another layout version: run the same numpush on both sides."""


class HandleClosed(SegmentError, ValueError):
    """*Your* code closed it. For a segment that others took away see `SegmentNotFound`."""


class SharedStructureError(NumpushError, TypeError):
    """The operation would change the structure (columns, dtypes, rows, labels or strings) where only
    values can be written: in a part of a shared frame, or in one attached with mode 'cow'. Nothing
    was changed; the message names the remedy."""


class LockError(NumpushError, RuntimeError):
    """A lock was used as it cannot be: locked twice by one thread, unlocked by another."""


class LockTimeout(LockError, TimeoutError):
    """The deadline passed; the message names the holder."""


class NotRecoverable(LockError):
    """An owner died, and its successor unlocked without making the mutex consistent. Code that
    locks through numpush never does that; make a new segment."""


class WaitTimeout(NumpushError, TimeoutError):
    """No news came before the deadline."""


class ChannelFull(NumpushError, TimeoutError):
    """The queue stayed full until the deadline. The message was not sent."""


class ChannelEmpty(NumpushError, TimeoutError):
    """No message came before the deadline."""
