"""The source: how a family's `rebuild` gets at the buffers, and the checks that guard them.

(1) A buffer is handed out once. An index out of range or used twice, or a buffer that the schema
    never mentions, is refused.
(2) An array is made over a buffer only when product(shape) * itemsize is the buffer's length to
    the byte; so no schema can make it read outside, and none can make it allocate.
(3) What is made keeps the buffer alive through its base, and is writable if the buffer is.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .buffer import Array
from .schema import SchemaError, found

_BYTE = np.dtype(np.uint8)
_BOOL = np.dtype(np.bool_)


class Source:
    """The buffers of one `rebuild`, in the order of `describe`.

    Attributes
    ----------
    validate : bool
        Also check what takes O(n): codes, offsets, truth values, UTF-8.
    allow_pickle : bool
        Whether pickled objects may be read.
    depth : int
        Nodes inside nodes at this moment; registry.build keeps it bounded.
    """

    __slots__ = ("_buffers", "_used", "allow_pickle", "depth", "validate")

    def __init__(
        self, buffers: list[NDArray[np.uint8]], validate: bool, allow_pickle: bool = False
    ) -> None:
        for index, raw in enumerate(buffers):
            _check_buffer(raw, index)
        self._buffers = buffers
        self._used: set[int] = set()
        self.validate = validate
        self.allow_pickle = allow_pickle
        self.depth = 0

    def take(self, reference: object, what: str) -> NDArray[np.uint8]:
        """Give the bytes that a schema means by an index or has inline."""
        if type(reference) is bytes:
            return np.frombuffer(reference, np.uint8)
        if type(reference) is not int or not 0 <= reference < len(self._buffers):
            raise SchemaError(
                f"schema {what}: a buffer index below {len(self._buffers)} wanted, "
                f"{found(reference)}"
            )
        if reference in self._used:
            raise SchemaError(f"schema {what}: buffer {reference} is used twice")
        self._used.add(reference)
        return self._buffers[reference]

    def array(
        self, reference: object, dtype: np.dtype[Any], shape: tuple[int, ...], what: str
    ) -> Array:
        """Make a C-ordered array over the bytes meant; rule (2)."""
        raw = self.take(reference, what)
        check_size(shape, dtype, raw.nbytes, what)
        result: Array = np.ndarray(shape, dtype, raw)
        if self.validate and dtype == _BOOL:
            check_truth(result, what)
        return result

    def finish(self) -> None:
        """Check that every buffer was used; rule (1)."""
        if len(self._used) != len(self._buffers):
            raise SchemaError(
                f"schema: {len(self._used)} buffers wanted, {len(self._buffers)} found"
            )


def _check_buffer(raw: NDArray[np.uint8], index: int) -> None:
    """Check that the caller passed bytes. His mistake, not the schema's: a TypeError."""
    if (
        not isinstance(raw, np.ndarray)
        or raw.dtype != _BYTE
        or raw.ndim != 1
        or not raw.flags.c_contiguous
    ):
        raise TypeError(f"buffer {index}: a contiguous 1-D uint8 array wanted, {found(raw)}")


def check_size(shape: tuple[int, ...], dtype: np.dtype[Any], nbytes: int, what: str) -> None:
    """Check that an array of this shape fills a buffer exactly. Python ints: no overflow."""
    wanted = math.prod(shape) * dtype.itemsize
    if wanted != nbytes:
        raise SchemaError(
            f"schema {what}: shape {list(shape)} of {dtype} wants {wanted} bytes, {nbytes} found"
        )


def check_truth(array: Array, what: str) -> None:
    """Check that bools are 0 or 1; compiled code goes astray on others."""
    if array.size and int(array.view(np.uint8).max()) > 1:
        raise SchemaError(f"schema {what}: bools of 0 and 1 wanted, others found")
