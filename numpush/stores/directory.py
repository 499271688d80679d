"""A directory of files that come and go whole: what file://, blosc2:// and local tables have in common.

(1) Names that begin with a dot are no files of the store's: temporary ones (replacing.py) are such.
(2) What killed writers left in a directory is removed by who writes there, at most once a minute: looking
    through many names costs more than a small file.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator

from .replacing import sweep

__all__ = ["Directory", "alone_in"]

_SWEEP_EACH = 60.0  #: seconds


class Directory:
    """The directory of a URL; it is made when it is not there.

    Raises
    ------
    ValueError : its path is not absolute.
    """

    def __init__(self, url: str) -> None:
        scheme, _, self.root = url.partition("://")
        if not os.path.isabs(self.root):
            raise ValueError(f"URL {url!r}: an absolute path wanted, as in {scheme}:///data")
        self._swept: dict[str, float] = {}  # folder -> when
        os.makedirs(self.root, exist_ok=True)

    def path(self, name: str) -> str:
        return os.path.join(self.root, name)

    def files(self) -> Iterator[str]:
        """Give the path of each file, from here; rule (1).

        Raises
        ------
        OSError : a directory cannot be read. One that was removed meanwhile has no files.
        """
        for folder, folders, files in os.walk(self.root, onerror=_raise_unless_gone):
            folders[:] = [each for each in folders if not each.startswith(".")]
            for file in files:
                if not file.startswith("."):
                    yield os.path.relpath(os.path.join(folder, file), self.root)

    def get_ready(self, path: str) -> None:
        """Make the folder of a file that is to be written, and clean it; rule (2)."""
        folder = os.path.dirname(path)
        os.makedirs(folder, exist_ok=True)
        now = time.monotonic()
        if now - self._swept.get(folder, -_SWEEP_EACH) >= _SWEEP_EACH:
            sweep(folder)
            self._swept[folder] = now


def _raise_unless_gone(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):
        raise error


@contextlib.contextmanager
def alone_in(folder: str) -> Iterator[None]:
    """Be the only one, of all processes, that makes a file visible there and removes others.

    Two that put an array and a frame by one key would remove each other's file else, and leave none.
    """
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        with contextlib.suppress(OSError):
            fcntl.flock(fd, fcntl.LOCK_UN)  # a child that was forked meanwhile has the fd, too
        os.close(fd)
