"""A file that appears whole, in place of one that is there, or not at all."""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Iterator
from typing import BinaryIO

__all__ = ["replacing"]


@contextlib.contextmanager
def replacing(path: str) -> Iterator[BinaryIO]:
    """Give a file to write to, which takes the place of *path* at the end.

    It is on the disk before that (fsync), and so is its name after. An error leaves what was there.
    """
    folder, file = os.path.split(path)
    temporary = os.path.join(folder, f".{file[:100]}.{uuid.uuid4().hex}")
    try:
        with open(temporary, "xb") as out:
            yield out
            out.flush()
            os.fsync(out.fileno())
        os.rename(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
