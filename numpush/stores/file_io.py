"""Ranges of a file to their place in memory, by several threads, in one of several ways.

    read              preadv into the mapping: the fastest into any memory, and the only one that makes
                      an error of what a network file system cannot deliver
    mmap              the file is mapped and copied; an error of the disk, or a file that is cut short
                      meanwhile, kills the process (SIGBUS)
    splice            by a pipe into the segment's file, without a mapping
    copy_file_range   the kernel copies from file to file; into tmpfs it does not, so far

(1) The caller waits at most `timeout` seconds for a piece, or for a file to be opened, whatever hangs in
    the kernel. The thread that hangs goes on holding what it writes to, and what it reads from: nobody
    else gets that memory or that descriptor before it returns.
(2) An error, or Ctrl-C, stops all threads at their next piece.

256 MiB, page cache warm, 2 cores (benchmarks/stores_file.py): into a fresh segment read and mmap 40 ms,
splice 67; into memory that is there read 21, splice 55, and mmap 17.5, which is not what 'auto' is because
of what it says above. Tried for read without gain: pieces of 1 to 128 MiB, 1 to 4 threads, preadv into a
small buffer and streaming stores from there.
"""

from __future__ import annotations

import errno
import mmap as _mmap
import os
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from .errors import StoreDamaged, StoreUnavailable, StoreUnsupported

if TYPE_CHECKING:
    from ..shm.segment import Segment

__all__ = ["IO", "Extent", "map_file", "read_extents", "within"]

IO = ("auto", "read", "mmap", "splice", "copy_file_range")

Raw = NDArray[np.uint8]
Progress = Callable[[int], None]
_PIECE = 8 << 20  #: of 1, 4, 8 and 16 MiB the best but for noise, and soon enough for Ctrl-C
#: From so much on glibc's memcpy goes over several pages at once, which shared memory likes: 256 MiB that
#: are there take 18 to 20 ms, up to 33 in smaller pieces. Into other memory it is slower. With a timeout
#: pieces are small.
_PIECE_MAPPED = 256 << 20
_MOST_THREADS = 4
_PIPE = 1 << 20
_FINISH = 1.0  #: seconds, after an error


class Extent(NamedTuple):
    """Bytes of a file from *offset* on, and where they are to lie."""

    offset: int
    target: Raw


Work = Callable[[int, Extent], None]  #: moves a piece of the file that is open as this descriptor
T = TypeVar("T")


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
    StoreUnsupported : this file system does not do that.
    OSError
    """
    pieces = _cut(extents, _PIECE_MAPPED if io == "mmap" and timeout is None else _PIECE)
    work = _way(fd, segment, io, what)
    # Of a mapping several threads wait for each other: its pages are entered under one lock.
    n = n_threads or (1 if io == "mmap" else min(_MOST_THREADS, os.cpu_count() or 1))
    n = min(n, len(pieces))
    if timeout is None and n <= 1:
        for piece in pieces:
            work(fd, piece)
            progress(len(piece.target))
        return
    if pieces:
        _Crew(pieces, work, fd, timeout, what).run(n, progress)


def within(
    timeout: float | None,
    call: Callable[[], T],
    what: str,
    *,
    give_up: Callable[[T], None] = lambda result: None,
) -> T:
    """Return what *call* returns, which is given up after *timeout* seconds; rule (1).

    It runs in a thread of its own then. What it returns when nobody waits any more goes to *give_up*,
    as a descriptor that is to be closed.

    Raises
    ------
    StoreUnavailable : it did not return.
    Exception : whatever *call* raises.
    """
    if timeout is None:
        return call()
    lock, done = threading.Lock(), threading.Event()
    results: list[T] = []
    errors: list[BaseException] = []
    is_given_up = False

    def run() -> None:
        try:
            result = call()
        except BaseException as error:
            errors.append(error)
        else:
            with lock:
                is_late = is_given_up
                if not is_late:
                    results.append(result)
            if is_late:
                give_up(result)
        done.set()

    threading.Thread(target=run, name="numpush-read", daemon=True).start()
    try:
        done.wait(timeout)
    except BaseException:  # Ctrl-C: what has come is nobody's
        with lock:
            is_given_up = True
        for result in results:
            give_up(result)
        raise
    with lock:
        is_given_up = True
    if errors:
        try:
            raise errors[0]
        finally:
            errors.clear()  # else the error and this frame hold each other
    if not results:
        raise _nothing_came(what, timeout)
    return results[0]


def _nothing_came(what: str, timeout: float) -> StoreUnavailable:
    return StoreUnavailable(f"{what}: nothing came for {timeout:g} s (timeout=)")


def _way(fd: int, segment: Segment | None, io: str, what: str) -> Work:
    """Return what moves a piece. Only what lies in a segment has a file to splice to."""
    if io == "mmap":
        return partial(_copy_mapped, map_file(fd, what), what)
    if io in ("splice", "copy_file_range") and segment is not None and segment.mappings:
        base = segment.data_offset - segment.mappings["rw"].address
        return partial(_splice if io == "splice" else _copy_range, segment, base, what)
    return partial(_read, what)


def _cut(extents: list[Extent], size: int) -> list[Extent]:
    return [
        Extent(offset + at, target[at : at + size])
        for offset, target in extents
        for at in range(0, len(target), size)
    ]


def _short(what: str) -> StoreDamaged:
    return StoreDamaged(f"{what}: the file is shorter than it says")


def _read(what: str, fd: int, piece: Extent) -> None:
    offset, left = piece.offset, piece.target.data
    while left:
        n = os.preadv(fd, [left], offset)
        if not n:
            raise _short(what)
        offset, left = offset + n, left[n:]


def _copy_mapped(source: Raw, what: str, fd: int, piece: Extent) -> None:
    offset, target = piece
    if offset + len(target) > len(source):
        raise _short(what)
    np.copyto(target, source[offset : offset + len(target)])


class _Crew:
    """Threads that take pieces until none is left; rules (1) and (2)."""

    def __init__(
        self,
        pieces: list[Extent],
        work: Work,
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
        n_left = n_threads
        # All are counted before the first starts: the last one to end closes the file, and the first
        # may have ended before the second starts.
        self._n_alive = n_threads
        try:
            for _ in range(n_threads - is_own):
                threading.Thread(target=self._run, name="numpush-read", daemon=True).start()
                n_left -= 1
            if is_own:
                n_left -= 1
                self._run(progress)
            self._wait(progress)
        finally:
            self._leave(n_left)  # those that could not be started
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
                    raise _nothing_came(self._what, self._timeout)
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
        self._leave(1, error)

    def _leave(self, n: int, error: BaseException | None = None) -> None:
        """Count *n* threads out; with the last of them the file is closed."""
        if not n:
            return
        with self._changed:
            self._n_alive -= n
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
    StoreUnsupported : its file system cannot.
    """
    size = os.fstat(fd).st_size
    if not size:
        return np.empty(0, np.uint8)
    try:
        mapping = _mmap.mmap(fd, size, flags=_mmap.MAP_SHARED, prot=_mmap.PROT_READ)
    except OSError as error:
        if error.errno not in (errno.ENODEV, errno.EINVAL, errno.EACCES):
            raise
        raise StoreUnsupported(
            error.errno,
            f"{what}: its file system cannot share the pages of a file ({error.strerror}; a FUSE "
            "mount with direct_io cannot): leave out mode='mmap' or io='mmap', and it is read",
        ) from error
    return np.frombuffer(mapping, np.uint8)


def _address(target: Raw) -> int:
    address: int = target.__array_interface__["data"][0]
    return address


def _copy_range(segment: Segment, base: int, what: str, fd: int, piece: Extent) -> None:
    offset, size = piece.offset, len(piece.target)
    start = base + _address(piece.target)
    with segment.opened() as out:
        while size:
            try:
                n = os.copy_file_range(fd, out, size, offset, start)
            except OSError as error:
                if error.errno in (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):
                    raise StoreUnsupported(
                        error.errno,
                        f"{what}: this kernel does not copy_file_range from there into shared memory "
                        f"({error.strerror}): leave out io=, or say io='read'",
                    ) from error
                raise
            if not n:
                raise _short(what)
            offset, start, size = offset + n, start + n, size - n


def _splice(segment: Segment, base: int, what: str, fd: int, piece: Extent) -> None:
    offset, size = piece.offset, len(piece.target)
    start = base + _address(piece.target)
    source, sink = os.pipe()  # of this piece alone: threads do not share one
    try:
        with segment.opened() as out:
            while size:
                n = os.splice(fd, sink, min(size, _PIPE), offset_src=offset)
                if not n:
                    raise _short(what)
                offset, size = offset + n, size - n
                while n:
                    moved = os.splice(source, out, n, offset_dst=start)
                    start, n = start + moved, n - moved
    finally:
        os.close(source)
        os.close(sink)
