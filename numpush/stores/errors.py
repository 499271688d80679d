"""What may go wrong with a store, each also the builtin that a caller would catch."""

from __future__ import annotations

from ..errors import NumpushError

__all__ = [
    "KeyNotFound",
    "StoreClosed",
    "StoreDamaged",
    "StoreError",
    "StoreFull",
    "StoreUnavailable",
    "StoreUnsupported",
]


class StoreError(NumpushError):
    """The base of those below."""


class KeyNotFound(StoreError, KeyError):
    """Nothing is stored by that key: never put, deleted, expired or evicted."""

    def __str__(self) -> str:
        return str(self.args[0])  # KeyError's own has it in quotes


class StoreDamaged(StoreError, ValueError):
    """What is stored is not what its head says, is of another version, or is no format that we
    know. Nothing was built from it; it is left as it is."""


class StoreUnavailable(StoreError, ConnectionError):
    """The server, or the file system behind a mount, does not answer. Nothing half-written is
    visible; nothing half-read was returned. Try again, or look at the server."""


class StoreFull(StoreError, OSError):
    """There is no room for the object in the store; what was there before is as it was."""


class StoreUnsupported(StoreError, OSError):
    """The file system or the kernel cannot do what was asked for, such as ``mode="mmap"`` or
    ``io="copy_file_range"``; the message says what can be asked for instead. Nothing is wrong with
    what is stored."""


class StoreClosed(StoreError, ValueError):
    """*Your* code closed the store. For a server that ended see `StoreUnavailable`."""
