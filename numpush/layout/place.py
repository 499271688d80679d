"""Where the columns of a frame lie: positions of a block's rows, and of one column in its buffer.

A frame's columns of one dtype are one C-ordered (count, rows) block (block.py). Which columns they are
is its *place*: {"at": [start, step], "count": n} where the positions go up evenly, which they
nearly always do, else "at" is a reference to int64 positions (inline when few). So a schema does
not grow with the number of columns.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .buffer import MAX_INLINE, Buffer, Sink
from .dtype import decode_dtype
from .schema import Node, Schema, SchemaError, found, read_int, read_list, read_node
from .source import Source, check_size

Positions = NDArray[np.intp]

_POSITION = np.dtype("<i8")
#: What says that the items of a block are not just its dtype's: zoned datetimes, periods.
KINDS = ("zone", "freq")
#: Columns of a frame without rows, where no buffer's length bounds a claim.
MAX_EMPTY_COLUMNS = 1 << 22


class ColumnPlace(NamedTuple):
    """One fixed-width column in its buffer; `np.ndarray(shape, dtype, raw, offset, strides)`."""

    buffer: int
    offset: int
    shape: tuple[int]
    strides: tuple[int]
    dtype: np.dtype[Any]


def encode_place(positions: Positions, sink: Sink) -> Node:
    """Give "at" and "count" of ascending positions."""
    count = len(positions)
    start = int(positions[0])
    step = int(positions[1]) - start if count > 1 else 1
    if count < 3 or bool((np.diff(positions) == step).all()):
        return {"at": [start, step], "count": count}
    packed = positions.astype(_POSITION, copy=False)
    if packed.nbytes <= MAX_INLINE:
        return {"at": packed.tobytes(), "count": count}
    return {"at": sink.put(Buffer.of(packed)), "count": count}


def decode_place(node: Node, source: Source, n_columns: int) -> Positions:
    """Give the positions of a block's rows, each within the frame and above the one before.

    Allocates 8 bytes for each of "count", which the caller has checked against a buffer or
    against `MAX_EMPTY_COLUMNS`.
    """
    count = read_int(node, "count", 1, n_columns)
    at = node.get("at")
    if type(at) is list:
        start, step = _read_progression(at, count, n_columns)
        return np.arange(start, start + count * step, step, dtype=np.intp)
    positions = source.array(at, _POSITION, (count,), "'at'")
    if (
        positions[0] < 0
        or positions[-1] >= n_columns
        or (count > 1 and not bool((np.diff(positions) > 0).all()))
    ):
        raise SchemaError(f"schema 'at': ascending positions below {n_columns} wanted")
    # A copy: pandas keeps it, and what stands in shared memory may change after the check.
    return positions.astype(np.intp, copy=True)


def _read_progression(at: list[Any], count: int, n_columns: int) -> tuple[int, int]:
    if len(at) == 2:
        start, step = at
        if (
            type(start) is int
            and type(step) is int
            and start >= 0
            and 1 <= step <= n_columns
            and start + (count - 1) * step < n_columns
        ):
            return start, step
    raise SchemaError(f"schema 'at': [start, step] below {n_columns} wanted, {found(at)}")


def column_place(
    schema: Schema, buffers: list[NDArray[np.uint8]], position: int
) -> ColumnPlace | None:
    """Say where a frame's column lies, without building the frame.

    Parameters
    ----------
    schema, buffers : as for `rebuild`
    position : int
        Of the column, from 0.

    Returns
    -------
    ColumnPlace, or None for a column that is not of a fixed-width NumPy dtype: strings, extension
    arrays (also categorical: its codes mean nothing alone), datetimes with a zone. Naive ones count
    as their "M8" dtype.

    Raises
    ------
    SchemaError : not a frame's schema, or it does not fit the buffers.
    IndexError : there is no such column.
    """
    if schema.get("kind") != "frame":
        raise SchemaError(f"schema kind: 'frame' wanted, {found(schema.get('kind'))}")
    n_rows, n_columns = read_int(schema, "rows"), read_int(schema, "cols")
    if not 0 <= position < n_columns:
        raise IndexError(f"column {position} of a frame with {n_columns} columns")
    for block in read_list(schema, "blocks"):
        node = read_node(block, "'blocks'")
        if any(key in node for key in KINDS):
            continue
        row = _find_row(node, buffers, position, n_columns)
        if row is None:
            continue
        dtype = decode_dtype(node.get("dtype"))
        index = read_int(node, "data", 0, len(buffers) - 1)
        shape = (read_int(node, "count"), n_rows)
        check_size(shape, dtype, buffers[index].nbytes, "'data'")
        size = dtype.itemsize
        return ColumnPlace(index, row * n_rows * size, (n_rows,), (size,), dtype)
    return None


def _find_row(
    node: Node, buffers: list[NDArray[np.uint8]], position: int, n_columns: int
) -> int | None:
    count = read_int(node, "count", 1, n_columns)
    at = node.get("at")
    if type(at) is list:
        start, step = _read_progression(at, count, n_columns)
        row, odd = divmod(position - start, step)
        return row if odd == 0 and 0 <= row < count else None
    positions = Source(buffers, False).array(at, _POSITION, (count,), "'at'")
    row = int(np.searchsorted(positions, position))
    return row if row < count and int(positions[row]) == position else None
