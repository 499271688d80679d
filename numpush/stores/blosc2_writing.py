"""Arrays into frames of blosc2: compressed by threads where they lie, written as they get ready.

(1) What is in memory at one time is a few chunks for each thread, never an array.
(2) Chunks stand in the file in their order, whoever was ready first: the same object gives the same file.
(3) The header comes first and is known last. Its place is kept, and it is written at the end.
"""

from __future__ import annotations

import os
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from itertools import islice
from typing import Any, NamedTuple

import numpy as np

from .. import blosc2_chunks
from ..layout import pack
from .b2nd import Shape, encode_b2nd
from .cframe import ZEROS, encode_header, encode_offsets, encode_trailer, is_zeros
from .crc32 import combine

__all__ = ["Codec", "Output", "Press", "pieces_of", "write_frame"]

_GATHER = 1 << 20
_MOST_PARTS = 1000  #: IOV_MAX is 1024
#: Bytes below which to hand a piece to a thread takes longer than to compress it.
_SMALL = 128 << 10


class Codec(NamedTuple):
    """How to compress: see `Blosc2Store`."""

    codec: str
    level: int
    filter: str | None
    chunk: int
    checksum: bool


class Output:
    """A file that is written from its start on, small pieces gathered; some of it once more."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._pending: list[bytes] = []
        self._n_pending = 0
        self.end = 0

    def write(self, data: bytes) -> None:
        self._pending.append(data)
        self._n_pending += len(data)
        self.end += len(data)
        if self._n_pending >= _GATHER:
            self.flush()

    def flush(self) -> None:
        _write(self._fd, self._pending, self.end - self._n_pending)
        self._pending, self._n_pending = [], 0

    def write_again(self, data: bytes, at: int) -> None:
        self.flush()
        _write(self._fd, [data], at)


def _write(fd: int, parts: list[bytes], at: int) -> None:
    """Write parts one behind the other; not joined before, which would be a copy of all."""
    for first in range(0, len(parts), _MOST_PARTS):
        some = parts[first : first + _MOST_PARTS]
        size = sum(map(len, some))
        n = os.pwritev(fd, some, at)
        if n < size:  # a disk that is almost full, or a part of 2 GiB
            left = memoryview(b"".join(some))[n:]
            while left:
                m = os.pwrite(fd, left, at + size - len(left))
                left = left[m:]
        at += size


class Press:
    """Threads that compress pieces of memory; a context manager."""

    def __init__(self, n_threads: int) -> None:
        self._n = n_threads
        self._executor: ThreadPoolExecutor | None = None
        self._left = ExitStack()

    def __enter__(self) -> Press:
        self._left.enter_context(blosc2_chunks.without_gil())
        return self

    def __exit__(self, *_: object) -> None:
        if self._executor is not None:
            self._executor.shutdown(wait=True, cancel_futures=True)
        self._left.close()

    def compress(
        self, pieces: Iterable[tuple[Any, dict[str, Any]]], checksum: bool
    ) -> Iterator[tuple[bytes, int]]:
        """Give the chunk of each piece and its CRC-32, or 0, in their order; rules (1) and (2).

        Each piece comes with the parameters of its own, so that those of many small arrays are
        compressed by all threads, too.
        """
        waiting: deque[Future[tuple[bytes, int]] | tuple[bytes, int]] = deque()
        for piece, params in pieces:
            if self._n == 1 or len(piece) < _SMALL:
                waiting.append(_compress(piece, params, checksum))
            else:
                if self._executor is None:
                    self._executor = ThreadPoolExecutor(self._n, "numpush-compress")
                waiting.append(self._executor.submit(_compress, piece, params, checksum))
            if len(waiting) > 2 * self._n:
                yield _result(waiting.popleft())
        while waiting:
            yield _result(waiting.popleft())


def _result(done: Future[tuple[bytes, int]] | tuple[bytes, int]) -> tuple[bytes, int]:
    return done if isinstance(done, tuple) else done.result()


def _compress(piece: Any, params: dict[str, Any], checksum: bool) -> tuple[bytes, int]:
    chunk = blosc2_chunks.compress(piece, params)
    return chunk, zlib.crc32(chunk) if checksum else 0


def pieces_of(
    parts: Iterator[Any], shape: Shape, codec: Codec, tell: Callable[[int], None]
) -> Iterator[tuple[Any, dict[str, Any]]]:
    """Cut what comes in parts into what each chunk holds, the ends filled up with zeros.

    Gives each with the parameters that it is to be compressed by.
    """
    if not shape.nbytes:
        return
    params = blosc2_chunks.parameters(
        codec.codec, shape.itemsize, level=codec.level, filter=codec.filter, block=shape.block_bytes
    )
    size = shape.chunk_bytes
    source = _Bytes(parts)
    for part in shape.parts(0, shape.nbytes):
        piece = source.take(part.size)
        if part.size < size:
            padded = np.zeros(size, np.uint8)
            padded[: part.size] = piece
            piece = padded
        yield piece, params
        tell(part.size)


def write_frame(
    out: Output,
    chunks: Iterator[tuple[bytes, int]],
    shape: Shape,
    text: str,
    codec: Codec,
    *,
    note: dict[str, Any] | None = None,
    is_member: bool = False,
) -> int:
    """Write an array, whose chunks come next; return the CRC-32 of its frame if it *is_member*.

    Parameters
    ----------
    text : its dtype, as blosc2 has it
    note : what else is to be in the vlmetalayer "numpush"

    Raises
    ------
    OSError
    """
    layers = {"b2nd": encode_b2nd(shape, text)}
    nbytes = shape.n_chunks * shape.chunk_bytes
    has_note = note is not None or codec.checksum

    def head_of(cbytes: int, rest: int) -> bytes:
        return encode_header(
            nbytes, cbytes, rest, layers, itemsize=shape.itemsize, block=shape.block_bytes,
            chunk=shape.chunk_bytes, has_vl_layers=has_note, codec=codec.codec, level=codec.level,
            filter=codec.filter,
        )  # fmt: skip

    start = out.end
    out.write(bytes(len(head_of(0, 0))))
    offsets: list[int] = []
    sums: list[int] = []
    at = crc = 0
    for chunk, checksum in islice(chunks, shape.n_chunks):
        _check_block(chunk, shape.block_bytes)
        sums.append(checksum)
        if is_zeros(chunk):
            offsets.append(ZEROS)
            continue
        offsets.append(at)
        out.write(chunk)
        if is_member:
            crc = combine(crc, checksum, len(chunk))
        at += len(chunk)
    note = dict(note or {})
    if codec.checksum:
        note["chunks"] = np.array(sums, "<u4").tobytes()
        note["sums"] = zlib.crc32(note["chunks"])
    rest = encode_offsets(offsets) + encode_trailer({"numpush": pack(note)} if has_note else {})
    out.write(rest)
    head = head_of(at, len(rest))
    out.write_again(head, start)
    return combine(zlib.crc32(head), zlib.crc32(rest, crc), at + len(rest)) if is_member else 0


class _Bytes:
    """Bytes that come in parts, taken in pieces of other sizes: views, but where two parts meet."""

    def __init__(self, parts: Iterator[Any]) -> None:
        self._parts = parts
        self._left = np.empty(0, np.uint8)

    def take(self, size: int) -> Any:
        if not len(self._left):
            self._left = next(self._parts)
        found = [self._left[:size]]
        missing = size - len(found[0])
        self._left = self._left[size:]
        while missing:
            part = next(self._parts)
            found.append(part[:missing])
            self._left = part[missing:]
            missing -= len(found[-1])
        return found[0] if len(found) == 1 else np.concatenate(found)


def _check_block(chunk: bytes, wanted: int) -> None:
    found = int.from_bytes(chunk[8:12], "little")
    if found != wanted:
        raise RuntimeError(f"blosc2 made blocks of {found} bytes, {wanted} wanted")
