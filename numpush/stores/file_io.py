"""Ranges of a file to their place in memory, by several threads, in one of several ways.

    read              preadv into the mapping: the fastest into any memory, and the only one that makes
                      an error of what a network file system cannot deliver
    mmap              the file is mapped and copied; an error of the disk, or a file that is cut short
                      meanwhile, kills the process (SIGBUS)
    splice            by a pipe into the segment's file, without a mapping
    copy_file_range   the kernel copies from file to file; into tmpfs it does not, so far

(1) The caller waits at most `timeout` seconds for a piece, whatever hangs in the kernel. The thread that
    hangs goes on holding what it writes to, so that nobody else gets that memory.
(2) An error, or Ctrl-C, stops all threads at their next piece.

256 MiB, page cache warm, 2 cores, into a fresh segment: read by one thread 28 ms, by two 20, mmap 21,
splice and sendfile 40 (benchmarks/stores_file.py).
"""

from __future__ import annotations

import errno
import mmap as _mmap
import os
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .errors import StoreDamaged, StoreError, StoreUnavailable

if TYPE_CHECKING:
    from ..shm.segment import Segment

__all__ = ["IO", "Extent", "map_file", "read_extents"]

IO = ("auto", "read", "mmap", "splice", "copy_file_range")

Raw = NDArray[np.uint8]
Progress = Callable[[int], None]
_PIECE = 8 << 20  #: of 1, 4, 8 and 16 MiB the best but for noise, and soon enough for Ctrl-C
_MOST_THREADS = 4
_PIPE = 1 << 20
_FINISH = 1.0  #: seconds, after an error


class Extent(NamedTuple):
    """Bytes of a file from *offset* on, and where they are to lie."""

    offset: int
    target: Raw


def read_extents(
    fd: int,
    extents: list[Extent],
    segment: Segment | None,
    *,
    io: str,
    n_threads: int | None,
    timeout: float | None,
    what: str,
    progress: Progress,
) -> None:
    """Fill the targets. Those of 'splice' and 'copy_file_range' lie in *segment*; else they are read.

    Raises
    ------
    StoreDamaged : the file ends before.
    StoreUnavailable : nothing came for *timeout* seconds.
    StoreError : this file system does not do that.
    OSError
    """
    pieces = list(_cut(extents))
    if io in ("splice", "copy_file_range") and segment is not None and segment.mappings:
        _through_files(fd, pieces, segment, io, what, progress)
        return
    work: Callable[[int, Extent], None]
    if io == "mmap":
        source = map_file(fd, what)

        def work(fd: int, piece: Extent) -> None:
            offset, target = piece
            if offset + len(target) > len(source):
                raise _short(what)
            np.copyto(target, source[offset : offset + len(target)])
    else:

        def work(fd: int, piece: Extent) -> None:
            _read(fd, piece, what)

    # Of a mapping several threads wait for each other: its pages are entered under one lock.
    n = n_threads or (1 if io == "mmap" else min(_MOST_THREADS, os.cpu_count() or 1))
    if timeout is None and (n == 1 or len(pieces) < 2):
        for piece in pieces:
            work(fd, piece)
            progress(len(piece.target))
        return
    _Crew(pieces, work, fd, timeout, what).run(min(n, len(pieces)), progress)


def _cut(extents: list[Extent]) -> list[Extent]:
    return [
        Extent(offset + at, target[at : at + _PIECE])
        for offset, target in extents
        for at in range(0, len(target), _PIECE)
    ]


def _short(what: str) -> StoreDamaged:
    return StoreDamaged(f"{what}: the file is shorter than it says")


def _read(fd: int, piece: Extent, what: str) -> None:
    offset, left = piece.offset, piece.target.data
    while left:
        n = os.preadv(fd, [left], offset)
        if not n:
            raise _short(what)
        offset, left = offset + n, left[n:]


class _Crew:
    """Threads that take pieces until none is left; rules (1) and (2)."""

    def __init__(
        self,
        pieces: list[Extent],
        work: Callable[[int, Extent], None],
        fd: int,
        timeout: float | None,
        what: str,
    ) -> None:
        self._pieces = iter(pieces)
        self._work = work
        self._fd = os.dup(fd)  # a thread that hangs may come back when the caller's is closed
        self._timeout = timeout
        self._what = what
        self._changed = threading.Condition()
        self._n_done = self._n_told = self._n_alive = 0
        self._error: BaseException | None = None
        self._is_stopped = False

    def run(self, n_threads: int, progress: Progress) -> None:
        """Have all pieces done; without a timeout the caller's thread is one of those that do it."""
        is_own = self._timeout is None
        self._n_alive = n_threads  # before any of them may be done: the last one closes the file
        try:
            for _ in range(n_threads - is_own):
                threading.Thread(target=self._run, name="numpush-read", daemon=True).start()
            if is_own:
                self._run(progress)
            self._wait(progress)
        finally:
            self._stop()
            error, self._error = self._error, None
        if error is not None:
            raise error

    def _wait(self, progress: Progress) -> None:
        """Wait until all pieces are done, or one has failed; rule (1)."""
        since = time.monotonic()
        with self._changed:
            while self._n_alive and self._error is None:
                self._changed.wait(0.1 if self._timeout is None else min(0.1, self._timeout))
                if self._tell(progress):
                    since = time.monotonic()
                elif self._timeout is not None and time.monotonic() - since > self._timeout:
                    raise StoreUnavailable(
                        f"{self._what}: nothing came for {self._timeout:g} s (timeout=)"
                    )
            self._tell(progress)

    def _tell(self, progress: Progress) -> bool:
        n, self._n_told = self._n_done - self._n_told, self._n_done
        if n:
            progress(n)
        return n > 0

    def _stop(self) -> None:
        """Stop the threads, and give those that do not hang the time to finish their piece."""
        until = time.monotonic() + _FINISH
        with self._changed:
            self._is_stopped = True
            while self._n_alive and time.monotonic() < until:
                self._changed.wait(0.1)

    def _run(self, progress: Progress | None = None) -> None:
        error: BaseException | None = None
        try:
            while True:
                with self._changed:
                    piece = None if self._is_stopped else next(self._pieces, None)
                if piece is None:
                    break
                self._work(self._fd, piece)
                with self._changed:
                    self._n_done += len(piece.target)
                    self._changed.notify()
                if progress is not None:
                    self._tell(progress)
        except BaseException as caught:
            error = caught
        with self._changed:
            self._n_alive -= 1
            if self._error is None:
                self._error = error
            self._is_stopped = self._is_stopped or error is not None
            if not self._n_alive:
                os.close(self._fd)
            self._changed.notify()


def map_file(fd: int, what: str) -> Raw:
    """Map a whole file for reading, shared with all that have it mapped.

    Raises
    ------
    StoreError : its file system cannot.
    """
    size = os.fstat(fd).st_size
    if not size:
        return np.empty(0, np.uint8)
    try:
        mapping = _mmap.mmap(fd, size, flags=_mmap.MAP_SHARED, prot=_mmap.PROT_READ)
    except OSError as error:
        if error.errno not in (errno.ENODEV, errno.EINVAL, errno.EACCES):
            raise
        raise StoreError(
            f"{what}: its file system cannot share the pages of a file ({error.strerror}; a FUSE "
            "mount with direct_io cannot): leave out mode='mmap' or io='mmap', and it is read"
        ) from error
    return np.frombuffer(mapping, np.uint8)


def _through_files(
    fd: int, pieces: list[Extent], segment: Segment, io: str, what: str, progress: Progress
) -> None:
    """Have the kernel move the bytes to the segment's file."""
    base = segment.data_offset - segment.mappings["rw"].address
    with segment.opened() as out:
        if io == "copy_file_range":
            for offset, target in pieces:
                _copy_range(fd, offset, out, base + _address(target), len(target), what)
                progress(len(target))
            return
        pipe = os.pipe()
        try:
            for offset, target in pieces:
                _splice(fd, offset, pipe, out, base + _address(target), len(target), what)
                progress(len(target))
        finally:
            for end in pipe:
                os.close(end)


def _address(target: Raw) -> int:
    address: int = target.__array_interface__["data"][0]
    return address


def _copy_range(fd: int, offset: int, out: int, start: int, size: int, what: str) -> None:
    while size:
        try:
            n = os.copy_file_range(fd, out, size, offset, start)
        except OSError as error:
            if error.errno in (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):
                raise StoreError(
                    f"{what}: this kernel does not copy_file_range from there into shared memory "
                    f"({error.strerror}): leave out io=, or say io='read'"
                ) from error
            raise
        if not n:
            raise _short(what)
        offset, start, size = offset + n, start + n, size - n


def _splice(
    fd: int, offset: int, pipe: tuple[int, int], out: int, start: int, size: int, what: str
) -> None:
    source, sink = pipe
    while size:
        n = os.splice(fd, sink, min(size, _PIPE), offset_src=offset)
        if not n:
            raise _short(what)
        offset, size = offset + n, size - n
        while n:
            moved = os.splice(source, out, n, offset_dst=start)
            start, n = start + moved, n - moved
