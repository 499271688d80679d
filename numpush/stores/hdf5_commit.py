"""Changes of an HDF5 file that are there whole, or not at all, whenever the process is killed.

HDF5 itself promises nothing of a file whose writer died. But it changes little in place: new data goes to
the end of the file, and only what leads to it (superblock, groups) is written over. So:

(1) HDF5 writes through `Overlay`. What lies behind the end that the superblock knows goes to the file:
    nobody looks there. What lies before it is kept in memory.
(2) To commit: what is to be written over is saved in a journal beside the file, as it was; journal on the
    disk; the pages are written over; file on the disk; journal removed.
(3) Who opens the file and finds a whole journal puts back what is in it; a torn one is removed. Then the
    file is as it was before.
(4) One writes at a time (flock on FILE.lock, from the beginning of a put). Pages are written over, and
    put back, with flock on FILE itself, which HDF5's readers share: ours while they look where the
    data is, h5py's as long as they have it open.
(5) A reader looks where data is, and reads it when it has let others commit: what was deleted meanwhile
    may be written over then (HDF5 gives back what lies at the end). So each commit leaves another token
    in FILE.lock, and a reader who finds another than before reads again, with the file locked.
"""

from __future__ import annotations

import contextlib
import fcntl
import io
import os
import struct
import time
import zlib
from collections.abc import Iterator

from .errors import StoreDamaged, StoreUnavailable

__all__ = ["Overlay", "locked", "recover", "repaired", "token", "writing"]

_PAGE = 4096
_JOURNAL = ".journal"
_LOCK = ".lock"
_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_HEAD = struct.Struct("<8sQII")  # magic, length of the file before, number of pages, CRC-32
_MAGIC = b"npushj01"
_LOOK_EVERY = (
    0.001  #: seconds; who puts one object after the other leaves it free for less than that
)
_PATIENCE = 30.0  #: seconds that we wait for who has the file open


class Overlay(io.RawIOBase):
    """A file as HDF5 changes it; rule (1).

    HDF5 cannot close a file that it cannot write to. So an error of the disk is kept in `error`, and
    whatever is written from then on is dropped, and never committed. The same goes for a forked child
    of the writer, in which HDF5 writes what it has when the child ends.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._pid = os.getpid()
        self._pages: dict[int, bytearray] = {}
        self.error: OSError | None = None
        self._file = io.FileIO(path, "r+")
        try:
            self._end = _known_end(self._file.fileno(), path)  #: what lies before it is in use
        except BaseException:
            self._file.close()
            raise
        os.truncate(self._file.fileno(), self._end)  # what a killed writer left
        self._length = self._end
        self._at = 0

    # -- for HDF5

    def readinto(self, memory: object) -> int:
        view = memoryview(memory).cast("B")  # type: ignore[arg-type]  # a buffer, by its contract
        n = max(0, min(len(view), self._length - self._at))
        view = view[:n]
        done = 0
        while done < n:
            got = os.preadv(self._file.fileno(), [view[done:]], self._at + done)
            if not got:
                view[done:] = bytes(n - done)
                break
            done += got
        for page in range(self._at // _PAGE, -(-(self._at + n) // _PAGE)):
            if page in self._pages:
                low = max(page * _PAGE, self._at)
                high = min((page + 1) * _PAGE, self._at + n, self._end)
                if low >= high:
                    continue
                own = self._pages[page][low - page * _PAGE : high - page * _PAGE]
                view[low - self._at : high - self._at] = own
        self._at += n
        return n

    def write(self, data: object) -> int:
        view = memoryview(data).cast("B")  # type: ignore[arg-type]  # a buffer, by its contract
        left, at = view, self._at
        while left and at < self._end:
            page, start = divmod(at, _PAGE)
            n = min(len(left), _PAGE - start, self._end - at)
            self._page(page)[start : start + n] = left[:n]
            left, at = left[n:], at + n
        if left and self._may_write():
            try:
                _write_all(self._file.fileno(), left, at)
            except OSError as error:
                self.error = error
        self._at = at + len(left)
        self._length = max(self._length, self._at)
        return len(view)

    def _may_write(self) -> bool:
        return self.error is None and self._pid == os.getpid()

    def _page(self, page: int) -> bytearray:
        if page not in self._pages:
            found = os.pread(self._file.fileno(), _PAGE, page * _PAGE)
            self._pages[page] = bytearray(found.ljust(_PAGE, b"\0"))
        return self._pages[page]

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._at = (
            offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._length}[whence]
        )
        return self._at

    def tell(self) -> int:
        return self._at

    def truncate(self, size: int | None = None) -> int:
        size = self._at if size is None else size
        if self._may_write():
            try:
                os.truncate(self._file.fileno(), max(size, self._end))
            except OSError as error:
                self.error = error
        self._length = size
        return size

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    # -- for us

    def commit(self) -> None:
        """Make the changes those of the file; rule (2).

        Raises
        ------
        OSError : the disk is full, or broken.
        StoreUnavailable : others have it open, for too long.
        """
        if self.error is not None:
            raise self.error
        fd = self._file.fileno()
        os.fsync(fd)
        with locked(fd, fcntl.LOCK_EX, self._path):
            _write_journal(self._path, fd, self._end, sorted(self._pages))
            with open(self._path + _LOCK, "r+b") as lock:
                lock.write(os.urandom(16))
            for page, data in self._pages.items():
                start = page * _PAGE
                _write_all(fd, memoryview(data)[: self._end - start], start)
            os.fsync(fd)
            os.unlink(self._path + _JOURNAL)
            _sync_folder(self._path)  # or it might be there again after a crash of the machine
        self._pages = {}

    def close(self) -> None:
        if not self.closed and hasattr(
            self, "_file"
        ):  # Python closes what could not be opened, too
            if self._pages and self._pid == os.getpid():  # not committed: give the room back
                with contextlib.suppress(OSError):
                    os.truncate(self._file.fileno(), self._end)
            self._file.close()
        super().close()


def _known_end(fd: int, path: str) -> int:
    """Return the end of the file as its superblock has it: what is behind it is not in use.

    Source: HDF5 File Format Specification, II.A.
    """
    head = os.pread(fd, 64, 0)
    if not head.startswith(_SIGNATURE) or len(head) < 48:
        raise StoreDamaged(f"{path}: no HDF5 file: it begins with {head[:8]!r}")
    version = head[8]
    size, at = (head[13], 40) if version < 2 else (head[9], 28)
    if version > 3 or size != 8:
        raise StoreDamaged(
            f"{path}: a superblock of version {version}, with addresses of {size} bytes"
        )
    end = int.from_bytes(head[at : at + 8], "little")
    found = os.fstat(fd).st_size
    if not 48 <= end <= found:
        raise StoreDamaged(f"{path}: {end} bytes wanted, {found} found: the file is cut short")
    return end


def _write_all(fd: int, data: memoryview, at: int) -> None:
    while data:
        n = os.pwrite(fd, data, at)
        data, at = data[n:], at + n


def _write_journal(path: str, fd: int, end: int, pages: list[int]) -> None:
    body = bytearray()
    for page in pages:
        before = os.pread(fd, min(_PAGE, end - page * _PAGE), page * _PAGE)
        body += page.to_bytes(8, "little") + before.ljust(_PAGE, b"\0")
    with open(path + _JOURNAL, "wb") as out:
        out.write(_HEAD.pack(_MAGIC, end, len(pages), zlib.crc32(body)))
        out.write(body)
        out.flush()
        os.fsync(out.fileno())
    _sync_folder(path)


def _sync_folder(path: str) -> None:
    fd = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def recover(path: str) -> None:
    """Put back what a killed writer had begun to write over; rule (3). To be called with the lock.

    Raises
    ------
    StoreUnavailable : others have the file open, for too long.
    """
    try:
        with open(path + _JOURNAL, "rb") as file:
            journal = file.read()
    except FileNotFoundError:
        return
    body = journal[_HEAD.size :]
    if len(journal) >= _HEAD.size:
        magic, end, n_pages, crc = _HEAD.unpack_from(journal)
        is_whole = len(body) == n_pages * (8 + _PAGE) and zlib.crc32(body) == crc
        if magic == _MAGIC and is_whole:
            _put_back(path, body, end)
            return
    os.unlink(path + _JOURNAL)


def _put_back(path: str, body: bytes, end: int) -> None:
    with io.FileIO(path, "r+") as file, locked(file.fileno(), fcntl.LOCK_EX, path):
        fd = file.fileno()
        for at in range(0, len(body), 8 + _PAGE):
            start = int.from_bytes(body[at : at + 8], "little") * _PAGE
            before = body[at + 8 : at + 8 + min(_PAGE, end - start)]
            _write_all(fd, memoryview(before), start)
        os.truncate(fd, end)
        os.fsync(fd)
        os.unlink(path + _JOURNAL)
        _sync_folder(path)


@contextlib.contextmanager
def locked(fd: int, how: int, path: str) -> Iterator[None]:
    """Hold flock on an open file; wait for it at most 30 s, and so that Ctrl-C works.

    Raises
    ------
    StoreUnavailable : others held it all the time.
    """
    until = time.monotonic() + _PATIENCE
    while True:
        try:
            fcntl.flock(fd, how | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            if time.monotonic() > until:
                raise StoreUnavailable(
                    f"{path}: others had it open for {_PATIENCE:g} s; close it there"
                ) from None
        time.sleep(_LOOK_EVERY)
    try:
        yield
    finally:
        fcntl.flock(fd, fcntl.LOCK_UN)


@contextlib.contextmanager
def writing(path: str) -> Iterator[None]:
    """Be the one who writes; rule (4). The file is in good order then."""
    fd = os.open(path + _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        with locked(fd, fcntl.LOCK_EX, path):
            recover(path)
            yield
    finally:
        os.close(fd)


def token(path: str, fd: int) -> tuple[bytes, int, int]:
    """Return what tells whether anybody changed the file meanwhile; rule (5).

    Size and time are for those who are not numpush.
    """
    found = os.fstat(fd)
    with contextlib.suppress(FileNotFoundError), open(path + _LOCK, "rb") as file:
        return file.read(), found.st_size, found.st_mtime_ns
    return b"", found.st_size, found.st_mtime_ns


@contextlib.contextmanager
def repaired(path: str) -> Iterator[int]:
    """Open the file for looking where its data is, and give its descriptor; nobody commits meanwhile.

    Raises
    ------
    FileNotFoundError
    StoreUnavailable : others had it locked for too long.
    """
    while True:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            with locked(fd, fcntl.LOCK_SH, path):
                if not os.path.exists(path + _JOURNAL):
                    yield fd
                    return
        finally:
            os.close(fd)
        with writing(path):  # the journal of one who was killed
            pass
