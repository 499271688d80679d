"""The shape of an array in chunks of blosc2 (the metalayer "b2nd"), and where its bytes are in them.

An array is cut into chunks of one shape and these into blocks of one shape, all in C order; what lies
past the array's end is zeros. `blosc2.NDArray` is such a frame (README_B2ND_METALAYER.rst of c-blosc2).

(1) An array of ours is cut along one axis only, so that a chunk's data is consecutive bytes of the array:
    `run`. It is decompressed to where it is to lie. Others' chunks, of any shape, come by way of a buffer
    of one chunk.
"""

from __future__ import annotations

import ast
import math
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from ..layout.dtype import has_layout

__all__ = ["MAX_DIMS", "Part", "Shape", "choose_shape", "decode_b2nd", "dtype_text", "encode_b2nd"]

MAX_DIMS = 8  #: that every version of blosc2 has; newer ones have some more
_MOST_DIMS = 15
_BLOCK = 128 << 10
_PLAIN = re.compile(r"[A-Za-z0-9|<>=\[\]]{1,40}", re.ASCII)
_MAX_TEXT = 1 << 16


class Part(NamedTuple):
    """What of a chunk is wanted: its bytes from *skip* on, for *size* bytes at *at* of the whole."""

    chunk: int
    skip: int
    at: int
    size: int


@dataclass(frozen=True)
class Shape:
    """Shapes of an array, of a chunk and of a block, in items of so many bytes."""

    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    blocks: tuple[int, ...]
    itemsize: int

    @cached_property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.itemsize

    @cached_property
    def padded(self) -> tuple[int, ...]:
        """The shape of a chunk as it is stored: a multiple of the block's."""
        return tuple(-(-c // b) * b if b else c for c, b in zip(self.chunks, self.blocks))

    @cached_property
    def chunk_bytes(self) -> int:
        return math.prod(self.padded) * self.itemsize

    @cached_property
    def block_bytes(self) -> int:
        return math.prod(self.blocks) * self.itemsize

    @cached_property
    def grid(self) -> tuple[int, ...]:
        return tuple(-(-n // c) if c else 0 for n, c in zip(self.shape, self.chunks))

    @property
    def n_chunks(self) -> int:
        return math.prod(self.grid) if self.nbytes else 0

    @cached_property
    def axis(self) -> int | None:
        """The only axis that the array is cut along; None: there are several."""
        for k in range(max(1, len(self.shape))):
            if self._is_cut_along(k):
                return k
        return None

    def _is_cut_along(self, k: int) -> bool:
        rest = self.shape[k + 1 :]
        return (
            all(n == 1 for n in self.chunks[:k])
            and all(n == 1 for n in self.blocks[:k])
            and self.chunks[k + 1 :] == self.blocks[k + 1 :] == rest
        )

    def parts(self, start: int, stop: int) -> Iterator[Part]:
        """Give the parts of chunks that bytes *start* to *stop* are, if there is one axis; rule (1)."""
        k = self.axis
        assert k is not None
        row = math.prod(self.shape[k + 1 :]) * self.itemsize
        whole = (self.shape[k] if self.shape else 1) * row
        run = (self.chunks[k] if self.chunks else 1) * row
        per_whole = -(-whole // run)
        at = start
        while at < stop:
            outer, rest = divmod(at, whole)
            n, skip = divmod(rest, run)
            size = min(run - skip, whole - rest, stop - at)
            yield Part(outer * per_whole + n, skip, at, size)
            at += size

    def place(
        self, chunk: int, rows: tuple[int, int]
    ) -> tuple[tuple[slice, ...], tuple[slice, ...]] | None:
        """Give where a chunk's items lie among *rows* of the array, and which of its own these are."""
        theirs, ours = [], []
        for axis, i in enumerate(np.unravel_index(chunk, self.grid)):
            first = int(i) * self.chunks[axis]
            low, high = rows if axis == 0 else (0, self.shape[axis])
            start, stop = max(first, low), min(first + self.chunks[axis], high)
            if start >= stop:
                return None
            theirs.append(slice(start - low, stop - low))
            ours.append(slice(start - first, stop - first))
        return tuple(theirs), tuple(ours)

    def in_order(self, raw: Any) -> Any:
        """Give the items of a chunk in C order, of its padded shape: a view that is not dense."""
        counts = [p // b for p, b in zip(self.padded, self.blocks)]
        n = len(counts)
        by_block = raw.view(item_type(self.itemsize)).reshape(*counts, *self.blocks)
        axes = [axis for i in range(n) for axis in (i, n + i)]
        return by_block.transpose(axes).reshape(self.padded)


def item_type(itemsize: int) -> np.dtype[Any]:
    """Return a dtype to copy items as: numbers are copied faster than void."""
    return np.dtype(f"u{itemsize}" if itemsize in (1, 2, 4, 8) else (np.void, itemsize))


def choose_shape(shape: tuple[int, ...], itemsize: int, chunk: int) -> Shape:
    """Cut an array into chunks of about *chunk* bytes along one axis; rule (1)."""
    if math.prod(shape) * itemsize == 0 or not shape:
        return Shape(shape, shape, shape, itemsize)
    row, k = itemsize, len(shape) - 1
    while k > 0 and row * shape[k] <= chunk:  # the axis of which not all fits
        row *= shape[k]
        k -= 1
    count = max(1, min(shape[k], chunk // row))
    per_block = max(1, min(count, _BLOCK // row))
    if count < shape[k]:
        count -= count % per_block
    before, after = (1,) * k, shape[k + 1 :]
    return Shape(shape, (*before, count, *after), (*before, per_block, *after), itemsize)


def dtype_text(dtype: np.dtype[Any]) -> str:
    """Return a dtype as blosc2 keeps it; as raw bytes where it has no words for it."""
    if dtype.names is None:
        return dtype.str
    text = str(np.dtype((np.void, dtype)))
    try:
        if np.dtype(ast.literal_eval(text)) == dtype and len(text) < _MAX_TEXT:
            return text
    except (ValueError, TypeError, SyntaxError):
        pass
    return f"|V{dtype.itemsize}"


def encode_b2nd(shape: Shape, text: str) -> bytes:
    """Return the metalayer of an array whose dtype is *text*."""
    n = len(shape.shape)
    packed = b"\x97\x00" + bytes([n])
    for mark, code, sizes in (
        (0xD3, "q", shape.shape),
        (0xD2, "i", shape.chunks),
        (0xD2, "i", shape.blocks),
    ):
        packed += bytes([0x90 | n]) + b"".join(struct.pack(f">B{code}", mark, m) for m in sizes)
    words = text.encode()
    return packed + b"\x00\xdb" + struct.pack(">I", len(words)) + words


def decode_b2nd(
    packed: bytes, nbytes: int, chunk: int, itemsize: int
) -> tuple[Shape, np.dtype[Any]]:
    """Read the metalayer of a frame of *nbytes*, in chunks of *chunk*, of items of *itemsize* bytes.

    Raises
    ------
    ValueError : it is none, or does not fit these; says why.
    """
    try:
        if packed[0] != 0x97 or packed[2] > _MOST_DIMS:
            raise ValueError(f"it begins with {packed[:3].hex()}")
        n, at = packed[2], 3
        sizes: list[tuple[int, ...]] = []
        for mark, code, width in ((0xD3, ">q", 9), (0xD2, ">i", 5), (0xD2, ">i", 5)):
            if packed[at] != 0x90 | n or any(packed[at + 1 + i * width] != mark for i in range(n)):
                raise ValueError(f"{n} sizes wanted, {packed[at : at + 10].hex()} found")
            sizes.append(
                tuple(struct.unpack_from(code, packed, at + 2 + i * width)[0] for i in range(n))
            )
            at += 1 + n * width
        if packed[at : at + 2] != b"\x00\xdb":
            raise ValueError("a dtype of NumPy's wanted")
        (width,) = struct.unpack_from(">I", packed, at + 2)
        if width > _MAX_TEXT or at + 6 + width > len(packed):
            raise ValueError(f"a dtype of {width} bytes")
        text = packed[at + 6 : at + 6 + width].decode()
    except (IndexError, struct.error) as error:
        raise ValueError(f"b2nd: it ends too early: {error}") from error
    except ValueError as error:
        raise ValueError(f"b2nd: {error}") from error
    shape = Shape(sizes[0], sizes[1], sizes[2], itemsize)
    dtype = _decode_dtype(text)
    if dtype.itemsize != itemsize or min((0, *shape.shape)) < 0:
        raise ValueError(f"b2nd: shape {shape.shape} of {dtype}, in items of {itemsize} bytes")
    if shape.nbytes:
        if any(not 1 <= b <= c for c, b in zip(shape.chunks, shape.blocks)):
            raise ValueError(f"b2nd: chunks {shape.chunks} in blocks {shape.blocks}")
        if (shape.chunk_bytes, shape.n_chunks * chunk) != (chunk, nbytes):
            raise ValueError(
                f"b2nd: {shape.n_chunks} chunks of {shape.chunk_bytes} bytes wanted, "
                f"{nbytes} bytes in chunks of {chunk} found"
            )
    return shape, dtype


def _decode_dtype(text: str) -> np.dtype[Any]:
    try:
        dtype = np.dtype(text if _PLAIN.fullmatch(text) else ast.literal_eval(text))
    except (ValueError, TypeError, SyntaxError, KeyError, MemoryError, RecursionError) as error:
        raise ValueError(f"b2nd: dtype {text[:60]!r}: {error}") from error
    if not has_layout(dtype) or not dtype.itemsize:
        raise ValueError(f"b2nd: dtype {text[:60]!r}, which is not read")
    return dtype
