"""A file that appears whole, in place of one that is there, or not at all.

It is written under another name, brought to the disk, and renamed. Its writer holds a lock (flock) on it
meanwhile, so that what a writer left that was killed can be told from what one is at, and be removed.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import io
import os
import re
import uuid
from collections.abc import Iterator

from ..ffi import map as _map

__all__ = ["replacing", "sweep"]

_PREALLOCATE = 1 << 20  #: below it is not worth a system call
_TEMPORARY = re.compile(r"\..*\.[0-9a-f]{32}\.writing")


@contextlib.contextmanager
def replacing(path: str, *, size: int = 0, sync: bool = True) -> Iterator[io.FileIO]:
    """Give a file to write to, unbuffered, which takes the place of *path* at the end.

    *size*: the bytes that will be written, all of them, where that is known. A disk finds room for them at
    once then, which writes twice as fast on ext4, and says it when there is none before any is written.
    With *sync* it is on the disk before that (fsync), and so is its name after: a put that has
    returned survives a crash of the machine. Without, it may be lost then. An error leaves what was
    there.
    """
    folder, file = os.path.split(path)
    out, temporary = _create(folder, file)
    try:
        with out:
            if size >= _PREALLOCATE:
                _preallocate(out.fileno(), size)
            yield out
            if sync:
                os.fsync(out.fileno())
            os.rename(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    if sync:
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def _create(folder: str, file: str) -> tuple[io.FileIO, str]:
    while True:
        name = f".{os.fsencode(file)[:100].decode(errors='ignore')}.{uuid.uuid4().hex}.writing"
        path = os.path.join(folder, name)
        out = io.FileIO(path, "x")
        with contextlib.suppress(OSError):  # a file system without locks: nobody can sweep there
            fcntl.flock(out, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(out.fileno()).st_nlink:
            return out, path
        out.close()  # swept, between its creation and its lock


def _preallocate(fd: int, size: int) -> None:
    code = -_map.preallocate(fd, size)
    if code in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        raise OSError(code, os.strerror(code))
    # Else the file system cannot (MooseFS), or a signal came: nothing depends on it.


def sweep(folder: str) -> None:
    """Remove what killed writers left in a directory."""
    for entry in os.scandir(folder):
        if not _TEMPORARY.fullmatch(entry.name):
            continue
        with contextlib.suppress(OSError):  # locked: it is being written. Gone: renamed just now
            fd = os.open(entry.path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.fstat(fd).st_ino == os.stat(entry.path).st_ino:
                    os.unlink(entry.path)
            finally:
                os.close(fd)
