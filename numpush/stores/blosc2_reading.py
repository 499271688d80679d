"""Arrays out of frames of blosc2: chunks read, checked and decompressed by threads, each to its place.

(1) A chunk is decompressed to where it is to lie if all of it is wanted and its bytes follow each other
    there; else by way of a buffer of one chunk, of each thread's own.
(2) An error, or Ctrl-C, stops all threads at their next chunk; none is left when `run` returns.
"""

from __future__ import annotations

import os
import threading
import zlib
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .. import blosc2_chunks
from ..blosc2_chunks import HEADER, OVERHEAD, BadChunk
from ..layout import SchemaError, unpack
from .b2nd import Shape, decode_b2nd, item_type
from .cframe import CFrame, full_of, read_cframe
from .errors import StoreDamaged

__all__ = ["Frame", "Job", "n_threads_of", "run"]

Raw = NDArray[np.uint8]
_MOST_THREADS = 8
#: blosc2's own copies carry what we noted of the original along.
_CHANGED = "; if blosc2 changed or copied this array, delete its vlmetalayer 'numpush'"


class Job(NamedTuple):
    """A chunk, and what is to be done with its bytes: *place* takes all of them, *target* is filled."""

    frame: Frame
    chunk: int
    target: Raw | None
    place: Callable[[Raw], None] | None
    size: int


class Frame:
    """An array in a frame of blosc2 that takes *size* bytes of a file from *at* on.

    Attributes
    ----------
    shape : Shape
    dtype : what blosc2 calls it
    note : what numpush wrote, or {}
    nbytes : of the array

    Raises
    ------
    StoreDamaged : it is none, or of a kind that is not read.
    """

    def __init__(self, fd: int, at: int, size: int, what: str) -> None:
        self._fd, self.what = fd, what
        try:
            self._frame = frame = read_cframe(fd, at, size)
            if "b2nd" in frame.layers:
                shape, self.dtype = decode_b2nd(
                    frame.layers["b2nd"], frame.nbytes, frame.chunk_bytes, frame.itemsize
                )
            else:
                shape, self.dtype = _shape_of_super_chunk(frame)
            self.note = unpack(frame.vl_layers["numpush"]) if "numpush" in frame.vl_layers else {}
            self._sums = self._read_sums()
        except (ValueError, SchemaError) as error:
            raise StoreDamaged(f"{what}: {error}") from error
        self.shape, self.nbytes = shape, shape.nbytes

    def _read_sums(self) -> NDArray[np.uint32] | None:
        packed = self.note.get("chunks")
        if packed is None:
            return None
        if (
            type(packed) is not bytes
            or len(packed) != 4 * len(self._frame.offsets)
            or zlib.crc32(packed) != self.note.get("sums")
        ):
            raise ValueError("the checksums of the chunks are damaged" + _CHANGED)
        return np.frombuffer(packed, "<u4")

    def jobs(self, start: int, stop: int, target: Raw) -> Iterator[Job]:
        """Give what fills *target* with bytes *start* to *stop* of the array, rows if it is cut up."""
        if self.shape.axis is None:
            yield from self._jobs_of_any_shape(start, stop, target)
            return
        for chunk, skip, at, size in self.shape.parts(start, stop):
            place = target[at - start : at - start + size]
            if skip == 0 and size == self._holds(chunk):
                yield Job(self, chunk, place, None, size)
            else:
                yield Job(self, chunk, None, _Cut(skip, place), size)

    def _jobs_of_any_shape(self, start: int, stop: int, target: Raw) -> Iterator[Job]:
        shape = self.shape
        row = shape.nbytes // shape.shape[0]
        low, high = start // row, -(-stop // row)
        items = item_type(shape.itemsize)
        if (low * row, high * row) != (start, stop):
            raise TypeError(f"{self.what}: whole rows wanted, bytes {start} to {stop} found")
        whole = target.view(items).reshape(high - low, *shape.shape[1:])
        per_row = shape.n_chunks // shape.grid[0]
        first, last = low // shape.chunks[0], -(-high // shape.chunks[0])
        for chunk in range(first * per_row, last * per_row):
            found = shape.place(chunk, (low, high))
            if found is not None:
                theirs, ours = found
                yield Job(
                    self, chunk, None, _Scatter(shape, whole[theirs], ours), whole[theirs].nbytes
                )

    def _holds(self, chunk: int) -> int:
        """The bytes that a chunk decompresses to: the last one of a super-chunk is shorter."""
        frame = self._frame
        return min(frame.chunk_bytes, frame.nbytes - chunk * frame.chunk_bytes)

    def do(self, job: Job, buffers: _Buffers) -> None:
        """Decompress a chunk to its place.

        Raises
        ------
        StoreDamaged
        OSError
        """
        holds = self._holds(job.chunk)
        out = job.target if job.target is not None else buffers.plain(holds)
        offset = int(self._frame.offsets[job.chunk])
        if offset < 0:
            full_of((offset >> 56) & 0xFF, self._frame.itemsize, out)
        else:
            try:
                self._decompress(job.chunk, offset, out, buffers)
            except BadChunk as error:
                raise StoreDamaged(f"{self.what}: chunk {job.chunk}: {error}") from error
        if job.place is not None:
            job.place(out)

    def _decompress(self, chunk: int, offset: int, out: Raw, buffers: _Buffers) -> None:
        most = min(self._frame.end - offset, len(out) + OVERHEAD)
        guess = self._guess(chunk, offset, most)
        raw = buffers.packed(guess)
        self._read(raw, offset)
        length = int.from_bytes(raw[12:16], "little")
        if not HEADER <= length <= most:
            raise BadChunk(f"{length} bytes for {len(out)} bytes of data")
        if length > guess:
            raw = buffers.packed(length)
            self._read(raw, offset)
        raw = raw[:length]
        if self._sums is not None:
            found, wanted = zlib.crc32(raw), int(self._sums[chunk])
            if found != wanted:
                raise BadChunk(f"CRC-32 {wanted:#x} stored, {found:#x} found{_CHANGED}")
        blosc2_chunks.decompress(raw, out)

    def _guess(self, chunk: int, offset: int, most: int) -> int:
        """How long a chunk is, if the next one follows it: so that one read has all of it."""
        offsets = self._frame.offsets
        after = int(offsets[chunk + 1]) if chunk + 1 < len(offsets) else self._frame.end
        return after - offset if offset + HEADER <= after <= offset + most else min(most, HEADER)

    def _read(self, raw: memoryview, offset: int) -> None:
        left, at = raw, self._frame.start + offset
        while left:
            n = os.preadv(self._fd, [left], at)
            if not n:
                raise StoreDamaged(f"{self.what}: the file became shorter")
            left, at = left[n:], at + n


@dataclass(frozen=True)
class _Cut:
    """Puts bytes of a chunk from *skip* on to their place."""

    skip: int
    target: Raw

    def __call__(self, chunk: Raw) -> None:
        self.target[:] = chunk[self.skip : self.skip + len(self.target)]


@dataclass(frozen=True)
class _Scatter:
    """Puts items of a chunk of several dimensions to their places."""

    shape: Shape
    target: Any
    ours: tuple[slice, ...]

    def __call__(self, chunk: Raw) -> None:
        self.target[...] = self.shape.in_order(chunk)[self.ours]


def _shape_of_super_chunk(frame: CFrame) -> tuple[Shape, np.dtype[Any]]:
    """Return the shape of what is no array, but items of some size: unsigned, or bytes."""
    n, rest = divmod(frame.nbytes, frame.itemsize)
    if rest or (frame.nbytes and frame.chunk_bytes % frame.itemsize):
        raise ValueError(
            f"{frame.nbytes} bytes in chunks of {frame.chunk_bytes}, in items of {frame.itemsize}"
        )
    per_chunk = max(1, frame.chunk_bytes // frame.itemsize)
    return Shape((n,), (per_chunk,), (per_chunk,), frame.itemsize), item_type(frame.itemsize)


class _Buffers:
    """Memory of one thread: a chunk as it is stored, and what it holds; rule (1)."""

    def __init__(self) -> None:
        self._packed = memoryview(b"")
        self._plain = np.empty(0, np.uint8)

    def packed(self, size: int) -> memoryview:
        if len(self._packed) < size:
            self._packed = np.empty(size, np.uint8).data
        return self._packed[:size]

    def plain(self, size: int) -> Raw:
        if len(self._plain) < size:
            self._plain = np.empty(size, np.uint8)
        return self._plain[:size]


def n_threads_of(wanted: int | None) -> int:
    """Return how many threads to work with: as many as wanted, or one for each core, up to a number."""
    return wanted or min(_MOST_THREADS, len(os.sched_getaffinity(0)))


def run(jobs: list[Job], n_threads: int, progress: Callable[[int], None]) -> None:
    """Do all jobs, by the caller and threads of its own; rule (2).

    Raises
    ------
    StoreDamaged
    OSError
    """
    n = min(n_threads, len(jobs))
    with blosc2_chunks.without_gil():
        if n < 2:
            buffers = _Buffers()
            for job in jobs:
                job.frame.do(job, buffers)
                progress(job.size)
        else:
            _Crew(jobs).run(n, progress)


class _Crew:
    """Threads that take jobs until none is left."""

    def __init__(self, jobs: list[Job]) -> None:
        self._left = iter(jobs)
        self._done: deque[int] = deque()
        self._errors: list[BaseException] = []
        self._is_stopped = False

    def run(self, n: int, progress: Callable[[int], None]) -> None:
        threads = [threading.Thread(target=self._work, name="numpush-blosc2") for _ in range(n - 1)]
        try:
            for thread in threads:
                thread.start()
            self._work(progress)
        finally:
            self._is_stopped = self._is_stopped or bool(self._errors)
            for thread in threads:
                if thread.ident is not None:
                    self._join(thread)
        self._tell(progress)
        if self._errors:
            raise self._errors[0]

    def _join(self, thread: threading.Thread) -> None:
        try:
            thread.join()
        except BaseException:  # Ctrl-C: what it works on is the caller's, so it ends first
            self._is_stopped = True
            thread.join()
            raise

    def _work(self, progress: Callable[[int], None] | None = None) -> None:
        buffers = _Buffers()
        try:
            for job in self._left:  # an iterator over a list: each job goes to one thread
                if self._is_stopped:
                    return
                job.frame.do(job, buffers)
                self._done.append(job.size)
                if progress is not None:
                    self._tell(progress)
        except BaseException as error:
            self._is_stopped = True
            self._errors.append(error)

    def _tell(self, progress: Callable[[int], None]) -> None:
        while self._done:
            progress(self._done.popleft())
