"""file://: a file for each object, in a directory of any POSIX file system."""

from __future__ import annotations

import contextlib
import errno
import os
import uuid
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from ..blocks import place
from ..record import body_parts
from .describing import stat_of
from .errors import StoreFull, StoreUnavailable
from .fetching import Piece, fetch
from .npush_file import encode, read_head
from .store import Stat, Store

if TYPE_CHECKING:
    from ..shm.segment import Segment

__all__ = ["FileStore"]

_SUFFIX = ".npush"
_FULL = (errno.ENOSPC, errno.EDQUOT)


class FileStore(Store):
    """A directory; it is made when it is not there.

    Parameters
    ----------
    url : str
        ``file:///DIR``
    checksum : bool
        Write a CRC-32 of each buffer, which is checked when all of the buffer is read.
    """

    def __init__(self, url: str, *, checksum: bool = False) -> None:
        super().__init__(url, checksum=checksum)
        self._dir = url.partition("://")[2]
        if not os.path.isabs(self._dir):
            raise ValueError(f"URL {url!r}: an absolute path wanted, as in file:///data")
        self._checksum = checksum
        os.makedirs(self._dir, exist_ok=True)

    def _path(self, key: str) -> str:
        return os.path.join(self._dir, key + _SUFFIX)

    def _put(self, key: str, obj: Any, tell: Callable[[int], None]) -> None:
        head, buffers, _ = encode(obj, checksum=self._checksum)
        path = self._path(key)
        folder, file = os.path.split(path)
        os.makedirs(folder, exist_ok=True)
        temporary = os.path.join(folder, f".{file[:100]}.{uuid.uuid4().hex}")
        try:
            with self._naming_errors(key), open(temporary, "xb", buffering=0) as out:
                for part in [head, *body_parts(buffers)]:
                    data = memoryview(part).cast("B")
                    while data:
                        n = out.write(data)
                        tell(n)
                        data = data[n:]
                os.fsync(out.fileno())
                os.rename(temporary, path)
            _sync(folder)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise

    def _get(
        self,
        key: str,
        into: Any,
        columns: list[Any] | None,
        rows: slice | None,
        name: str | None,
        tell: Callable[[int], None],
    ) -> Any:
        with contextlib.closing(self._open(key)) as stored:
            return fetch(stored, into=into, columns=columns, rows=rows, name=name, progress=tell)

    def _open(self, key: str) -> _StoredFile:
        with self._naming_errors(key):
            fd = os.open(self._path(key), os.O_RDONLY | os.O_CLOEXEC)
        try:
            with self._naming_errors(key):
                return _StoredFile(fd, self._what(key))
        except BaseException:
            os.close(fd)
            raise

    def _keys(self, prefix: str) -> list[str]:
        found = []
        for folder, folders, files in os.walk(self._dir):
            folders[:] = [each for each in folders if not each.startswith(".")]
            for file in files:
                if file.endswith(_SUFFIX) and not file.startswith("."):
                    path = os.path.join(folder, file)[: -len(_SUFFIX)]
                    key = os.path.relpath(path, self._dir)
                    if key.startswith(prefix):
                        found.append(key)
        return found

    def _delete(self, key: str) -> None:
        with self._naming_errors(key):
            os.unlink(self._path(key))

    def _stat(self, key: str) -> Stat:
        with contextlib.closing(self._open(key)) as stored:
            return stat_of(key, stored, os.fstat(stored.fd).st_size, "numpush")

    def _close(self) -> None:
        pass  # nothing stays open

    @contextlib.contextmanager
    def _naming_errors(self, key: str) -> Iterator[None]:
        try:
            yield
        except (FileNotFoundError, NotADirectoryError):
            raise self._missing(key) from None
        except OSError as error:
            if error.errno in _FULL:
                raise StoreFull(error.errno, f"{self._what(key)}: {error.strerror}") from error
            raise StoreUnavailable(f"{self._what(key)}: {error}") from error


def _sync(folder: str) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


class _StoredFile:
    """A file that is open for reading."""

    def __init__(self, fd: int, what: str) -> None:
        self.what = what
        self.record, self._body = read_head(fd, what)
        self._starts = [start for start, _ in place(self.record.sizes)[0]]
        self.fd = fd

    def read(
        self, pieces: list[Piece], segment: Segment | None, progress: Callable[[int], None]
    ) -> None:
        for buffer, start, _, target in pieces:
            at, left = self._body + self._starts[buffer] + start, target.data
            while left:
                n = os.preadv(self.fd, [left], at)
                if not n:
                    raise StoreUnavailable(f"{self.what}: the file became shorter")
                progress(n)
                at, left = at + n, left[n:]

    def close(self) -> None:
        os.close(self.fd)
