"""Finding: what a check found; and what several checks look with."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from typing import NamedTuple

from ...ffi import map as _map
from ...shm import naming

__all__ = ["Finding", "read", "scratch"]


class Finding(NamedTuple):
    """What one check found."""

    status: str  #: "ok", "note", "warn" or "fail"
    found: str
    remedy: str = ""  #: what to type: lines of shell, which may be comments


@contextlib.contextmanager
def scratch(size: int) -> Iterator[int]:
    """Yield a descriptor of a file in /dev/shm that nobody else sees and that goes with it."""
    name = f"{naming.NAMESPACE}.doctor.{secrets.token_hex(8)}"
    fd = _map.open(name, create=True)
    try:
        os.unlink(naming.path(name))
        _map.reserve(fd, size)
        yield fd
    finally:
        os.close(fd)


def read(path: str) -> str:
    """Return what a file says, without the white space around it; nothing, if it cannot be read."""
    try:
        with open(path) as file:
            return file.read().strip()
    except OSError:
        return ""
