"""Descriptors that are open for a moment.

A fork in another thread copies them into the child, which knows nothing of them; and with the copy
goes the flock on its file: a dead process's node, locked by a sweep at that moment, would look alive
for as long as the child lives. So they are opened and closed here, and a child closes its copies
(closing a copy lets go of no lock).
"""

from __future__ import annotations

import os
import threading

from ..ffi import map as _map

__all__ = ["close", "keep", "open", "open_shm"]

_open: set[int] = set()
_lock = threading.RLock()  # re-entrant: a signal handler may come between


def open(path: str, flags: int) -> int:
    """Open *path*, not to be inherited: os.open."""
    with _lock:
        fd = os.open(path, flags | os.O_CLOEXEC)
        _open.add(fd)
        return fd


def open_shm(name: str, *, create: bool = False) -> int:
    """Open or make the shared-memory object *name*."""
    with _lock:
        fd = _map.open(name, create=create)
        _open.add(fd)
        return fd


def keep(fd: int) -> None:
    """*fd* stays open in forked children too; who keeps it closes it by os.close."""
    with _lock:
        _open.discard(fd)


def close(fd: int) -> None:
    with _lock:
        _open.discard(fd)
        os.close(fd)


def _after_fork_in_child() -> None:
    for fd in _open:
        os.close(fd)
    _open.clear()
    _lock.release()


os.register_at_fork(
    before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_after_fork_in_child
)
