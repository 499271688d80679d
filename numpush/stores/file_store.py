"""file://: a file for each object, in a directory of any POSIX file system, MooseFS among them."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from ..blocks import place
from ..errors import NumpushError
from ..layout import SchemaError, rebuild
from ..record import body_parts
from .describing import stat_of
from .directory import Directory
from .errors import StoreDamaged, StoreUnavailable
from .fetching import Piece, fetch, row_bounds
from .file_io import IO, Extent, map_file, read_extents, within
from .npush_file import encode, read_head
from .replacing import replacing
from .store import Stat, Store

if TYPE_CHECKING:
    from ..shm.segment import Segment

__all__ = ["FileStore"]

_SUFFIX = ".npush"
_WRITE = 8 << 20  #: bytes written at one time, before Ctrl-C works


class FileStore(Store):
    """``file:///DIR``: a directory; it is made when it is not there.

    Parameters
    ----------
    url : str
        ``file:///DIR``, or a path.
    io : {'auto', 'read', 'mmap', 'splice', 'copy_file_range'}
        How files are read into segments; 'auto' is 'read', which was the fastest and the safest.
    threads : int, optional
        That read. By default one for each core, at most 4.
    timeout : float, optional
        Seconds after which a get, stat or keys is given up in which nothing came: for network file
        systems, which may hang for minutes when a server is gone. A thread that still hangs then may
        write to what was given as ``into=`` when it comes back.
    checksum : bool
        Write a CRC-32 of each buffer, which is checked when all of the buffer is read.
    sync : bool
        Whether what was put is on the disk when `.Store.put` returns.
    """

    def __init__(
        self,
        url: str,
        *,
        io: str = "auto",
        threads: int | None = None,
        timeout: float | None = None,
        checksum: bool = False,
        sync: bool = True,
    ) -> None:
        super().__init__(url, io=io, threads=threads, timeout=timeout, checksum=checksum, sync=sync)
        if io not in IO:
            raise ValueError(f"io {io!r}: wanted one of {', '.join(map(repr, IO))}")
        if threads is not None and threads < 1:
            raise ValueError(f"threads {threads}: at least 1 wanted")
        if timeout is not None and not 0 < timeout < float("inf"):
            raise ValueError(f"timeout {timeout!r}: a number of seconds above 0 wanted")
        self._reading = {"io": io, "n_threads": threads, "timeout": timeout}
        self._checksum, self._sync = checksum, sync
        self._timeout = timeout
        self._directory = Directory(url)

    def _path(self, key: str) -> str:
        return self._directory.path(key + _SUFFIX)

    def _put(self, key: str, obj: Any, tell: Callable[[int], None]) -> None:
        head, buffers, size = encode(obj, checksum=self._checksum)
        path = self._path(key)
        with self._naming_file_errors(key, is_put=True):
            self._directory.get_ready(path)
            with replacing(path, size=len(head) + size, sync=self._sync) as out:
                for part in [head, *body_parts(buffers)]:
                    data = memoryview(part).cast("B")
                    while data:
                        n = out.write(data[:_WRITE])
                        tell(n)
                        data = data[n:]

    def _get(
        self,
        key: str,
        into: Any,
        columns: list[Any] | None,
        rows: slice | None,
        name: str | None,
        tell: Callable[[int], None],
        mode: str = "read",
    ) -> Any:
        if mode not in ("read", "mmap"):
            raise ValueError(f"mode {mode!r}: 'read' or 'mmap' wanted")
        with contextlib.closing(self._open(key)) as stored, self._naming_file_errors(key):
            if mode == "mmap":
                if into is not None or columns is not None or name is not None:
                    raise TypeError(
                        "mode='mmap' makes no segment: leave out into=, columns=, name="
                    )
                return stored.map(rows)
            return fetch(stored, into=into, columns=columns, rows=rows, name=name, progress=tell)

    def _open(self, key: str) -> _StoredFile:
        def open_and_read_head() -> _StoredFile:
            fd = os.open(self._path(key), os.O_RDONLY | os.O_CLOEXEC)
            try:
                return _StoredFile(fd, self._what(key), self._reading)
            except BaseException:
                os.close(fd)
                raise

        with self._naming_file_errors(key):
            return within(
                self._timeout, open_and_read_head, self._what(key), give_up=_StoredFile.close
            )

    def _keys(self, prefix: str) -> list[str]:
        try:
            return within(self._timeout, lambda: self._list(prefix), self.url)
        except OSError as error:
            if isinstance(error, NumpushError):
                raise
            raise StoreUnavailable(f"{self.url}: {error}") from error

    def _list(self, prefix: str) -> list[str]:
        return [
            file.removesuffix(_SUFFIX)
            for file in self._directory.files()
            if file.endswith(_SUFFIX) and file.startswith(prefix, 0, -len(_SUFFIX))
        ]

    def _delete(self, key: str) -> None:
        with self._naming_file_errors(key):
            os.unlink(self._path(key))

    def _stat(self, key: str) -> Stat:
        with contextlib.closing(self._open(key)) as stored, self._naming_file_errors(key):
            more = within(
                self._timeout,
                partial(_tell_of_disk, os.dup(stored.fd), self._path(key)),
                stored.what,
            )
            return stat_of(key, stored, stored.size, "numpush", more)

    def _close(self) -> None:
        pass  # nothing stays open


def _tell_of_disk(fd: int, path: str) -> dict[str, Any]:
    """Return the room that the file system has; of MooseFS also the copies that it keeps ("goal").

    Closes *fd*, which is this call's own: it may hang when the caller's is closed.
    """
    try:
        disk = os.fstatvfs(fd)
    finally:
        os.close(fd)
    found: dict[str, Any] = {
        "free": disk.f_bavail * disk.f_frsize,
        "total": disk.f_blocks * disk.f_frsize,
    }
    tool = shutil.which("mfsgetgoal")
    if tool is not None and _is_moosefs(path):
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            done = subprocess.run(
                [tool, path], capture_output=True, text=True, timeout=5, check=True
            )
            found["goal"] = done.stdout.rpartition(": ")[2].strip()
    return found


def _is_moosefs(path: str) -> bool:
    """Whether the mount that *path* lies in is one of MooseFS."""
    device = os.stat(path).st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    with open("/proc/self/mountinfo") as lines:
        for line in lines:
            before, _, after = line.partition(" - ")
            if before.split()[2] == wanted:  # the source is "mfs#HOST:PORT", its '#' in octal
                return after.split()[1].startswith(("mfs#", "mfs\\043"))
    return False


class _StoredFile:
    """A file that is open for reading; a `Stored`."""

    def __init__(self, fd: int, what: str, reading: dict[str, Any]) -> None:
        self.what = what
        self.record, self._body = read_head(fd, what)
        self.size = os.fstat(fd).st_size
        self._starts = [start for start, _ in place(self.record.sizes)[0]]
        self._reading = reading
        self.fd = fd

    def read(
        self, pieces: list[Piece], segment: Segment | None, progress: Callable[[int], None]
    ) -> None:
        extents = [
            Extent(self._body + self._starts[buffer] + start, target)
            for buffer, start, _, target in pieces
        ]
        read_extents(self.fd, extents, segment, what=self.what, progress=progress, **self._reading)

    def map(self, rows: slice | None) -> Any:
        """Return the array over the file's own pages, read-only."""
        from ..sarray import SArray

        record = self.record
        if record.schema["kind"] != "ndarray":
            raise TypeError(f"{self.what} is no array: mode='mmap' is for arrays")
        whole = map_file(self.fd, self.what)
        raw = whole[self._body : self._body + record.sizes[0]] if record.sizes else whole[:0]
        try:
            array = rebuild(record.schema, [raw][: len(record.sizes)], validate=True)
        except SchemaError as error:
            raise StoreDamaged(f"{self.what}: {error}") from error
        window = ... if rows is None else slice(*row_bounds(rows, record.schema, self.what))
        return array[window].view(SArray)

    def close(self) -> None:
        os.close(self.fd)
