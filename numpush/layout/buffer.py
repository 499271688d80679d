"""A buffer: one range of bytes that `describe` wants filled, and the sink that collects them.

(1) A `Buffer` holds references to the caller's arrays and copies nothing itself. Whoever allocated
    the bytes calls `copies` and runs np.copyto over the pairs, in threads if it likes: no pair
    overlaps another's destination and none holds Python objects.
(2) Each byte that is not padding is written by exactly one pair, so the data is copied once, also
    when 1000 separate columns are gathered into one block.
(3) Structured items are copied as raw bytes, padding included: np.copyto of a structured dtype goes
    field by field, which is slow and would leave stale bytes in the holes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
#: A place in the target array (`...` or a slice of its first axis) and what goes there.
Piece = tuple[Any, Array]

#: Where each buffer must start. 64 = a cache line, and what Arrow asks of its buffers.
ALIGNMENT = 64
#: Labels up to this many bytes stand in the schema; a buffer would cost as much in alignment.
MAX_INLINE = 256

_BYTE = np.dtype(np.uint8)


class Buffer:
    """One contiguous range of `nbytes`, aligned to `ALIGNMENT`, and what it is to be filled with.

    Parameters
    ----------
    shape, dtype : of the array that the range holds, in memory order (slowest axis first)
    pieces : list of (index, source)
        `target[index]` has the shape of `source`, where target is the range as that array.
    """

    __slots__ = ("_dtype", "_pieces", "_shape", "nbytes")

    def __init__(
        self, shape: tuple[int, ...], dtype: np.dtype[Any], pieces: list[Piece], nbytes: int
    ) -> None:
        self.nbytes = nbytes
        self._shape = shape
        self._dtype = dtype
        self._pieces = pieces

    @classmethod
    def of(cls, source: Array) -> Buffer:
        """Make a buffer that holds one array in C order."""
        return cls(source.shape, source.dtype, [(..., source)], source.nbytes)

    @property
    def itemsize(self) -> int:
        """Bytes of one item, for codecs that sort bytes by their place in an item."""
        return self._dtype.itemsize

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the items that it is filled with; what they mean is the schema's."""
        return self._dtype

    def source(self) -> Array | None:
        """Give the one dense array that holds just what the range is to hold, if there is one."""
        if len(self._pieces) != 1:
            return None
        _, source = self._pieces[0]
        is_all = source.nbytes == self.nbytes and source.flags.c_contiguous
        return source if is_all else None

    def parts(self, at_most: int) -> Iterator[NDArray[np.uint8]]:
        """Give the bytes of the range one part after the other, for who sends or writes them.

        A part is a view of a source where that is dense, and a copy of at most *at_most* bytes
        (but one item at the least) where it is not.
        """
        pieces = self._in_order()
        if pieces is None:  # not one behind the other: nothing but a copy of all gives their order
            whole = np.zeros(self.nbytes, np.uint8)
            for target, source in self.copies(whole):
                np.copyto(target, source)
            yield whole
            return
        for source in pieces:
            yield from _dense_parts(source, at_most)

    def _in_order(self) -> list[Array] | None:
        """Give the sources as they follow each other in the range; None: they leave gaps."""
        found, end = [], 0
        for index, source in sorted(self._pieces, key=_start):
            if _start((index, source)) != end:
                return None
            end += 1 if source.ndim == 0 else len(source)
            found.append(source)
        return found if sum(source.nbytes for source in found) == self.nbytes else None

    def copies(self, dest: NDArray[np.uint8]) -> list[tuple[Array, Array]]:
        """Pair each piece with its place in `dest`; copies nothing.

        Parameters
        ----------
        dest : (nbytes,) uint8, C-contiguous, writable

        Returns
        -------
        list of (destination, source)
            Of equal shape and dtype, for np.copyto. The destinations are views of `dest`.

        Raises
        ------
        ValueError : `dest` is of another size, shape or dtype.
        """
        if dest.dtype != _BYTE or dest.ndim != 1 or dest.size != self.nbytes:
            raise ValueError(
                f"buffer: a ({self.nbytes},) uint8 array wanted, {dest.shape} {dest.dtype} found"
            )
        if not self.nbytes:
            return []
        dtype = self._dtype
        target: Array
        if dtype.names is not None:  # (3)
            dtype = np.dtype((np.void, dtype.itemsize))
            target = np.ndarray(self._shape, dtype, dest)
            return [(target[index], source.view(dtype)) for index, source in self._pieces]
        target = np.ndarray(self._shape, dtype, dest)
        return [(target[index], source) for index, source in self._pieces]

    def __repr__(self) -> str:
        return f"<Buffer of {self.nbytes} bytes, {len(self._pieces)} pieces>"


def _start(piece: Piece) -> int:
    return 0 if piece[0] is ... else int(piece[0].start)


def _dense_parts(source: Array, at_most: int) -> Iterator[NDArray[np.uint8]]:
    if not source.flags.c_contiguous and source.nbytes > at_most and source.ndim:
        step = max(1, len(source) * at_most // source.nbytes)
        for i in range(0, len(source), step):
            yield from _dense_parts(source[i : i + step] if step > 1 else source[i], at_most)
    elif source.nbytes:
        dense = np.ascontiguousarray(source)
        yield np.ndarray((dense.nbytes,), _BYTE, dense)


class Sink:
    """Where a family's `describe` puts its bulk data, and what it is to be called in errors.

    Attributes
    ----------
    buffers : list of Buffer, in the order of the indexes given out
    where : str
        What is being described, for messages: "column 'x'".
    expression : str
        How a user would write that: "df['x']".
    keep_blocks : bool
        Describe the blocks of a frame as they are, instead of one for each dtype.
    inline : bool
        True while labels are described: what is small then goes into the schema.
    allow_pickle : bool
        Whether objects that have no other layout may be pickled.
    """

    __slots__ = ("allow_pickle", "buffers", "expression", "inline", "keep_blocks", "where")

    def __init__(self) -> None:
        self.buffers: list[Buffer] = []
        self.where = "the object"
        self.expression = "obj"
        self.inline = False
        self.allow_pickle = False
        self.keep_blocks = False

    def put(self, buffer: Buffer) -> int:
        """Add a buffer; gives its index for the schema."""
        self.buffers.append(buffer)
        return len(self.buffers) - 1

    def put_array(self, source: Array) -> int | bytes:
        """Add an array in C order; gives its index, or for small labels its bytes."""
        if self.inline and source.nbytes <= MAX_INLINE:
            return source.tobytes()
        return self.put(Buffer.of(source))

    def refuse(self, dtype: object, why: str, remedy: str | None = None) -> TypeError:
        """Make the TypeError for something that cannot travel, with what to do about it."""
        name = self.expression
        if remedy is None:
            remedy = f"{name} = {name}.astype('str') / 'category'"
        return TypeError(
            f"{self.where} has dtype {dtype} {why}; convert it, e.g. {remedy}, or drop it"
        )
