"""A block of a frame: its columns of one dtype, as one C-ordered (columns, rows) array.

Node: {"dtype", "data"} and its place (place.py). Where NumPy's dtype does not say all, so does one of
KINDS: "zone" of datetimes that have one (zone.py), "freq" of periods, whose items are ordinals.
pandas has no others that may lie in two dimensions; those are "arrays" of the frame.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd

from .. import _pandas
from .buffer import Array, Buffer, Piece, Sink
from .datetimes import encode_zone_of, make_zoned
from .dtype import decode_dtype, encode_dtype
from .index import check_pandas_dtype
from .period import make_period
from .place import KINDS, MAX_EMPTY_COLUMNS, Positions, decode_place, encode_place
from .scalar import encode_period_dtype
from .schema import Node, SchemaError, found, read_int
from .source import Source

#: Some columns of a block: an array of them, and their positions in the frame.
Part = tuple[Array, Positions]


def split_kind(values: Any, sink: Sink) -> tuple[Array, Node]:
    """Give the NumPy array of a block's values, and what its dtype does not say of them."""
    if isinstance(values, np.ndarray):
        return values, {}
    if isinstance(values.dtype, pd.PeriodDtype):
        return values.asi8, {"freq": encode_period_dtype(values.dtype)}
    return _pandas.datetime_values(values), {"zone": encode_zone_of(values, sink)}


def describe_block(parts: list[Part], kind: Node, n_rows: int, sink: Sink) -> Node:
    """Describe the columns of one dtype and kind as one block, in the order of their positions."""
    dtype = parts[0][0].dtype
    positions = join_positions(parts)
    ranks = np.empty(len(positions), np.intp)
    order = np.argsort(positions, kind="stable")
    ranks[order] = np.arange(len(positions))
    pieces: list[Piece] = []
    first = 0
    for values, at in parts:
        own = ranks[first : first + len(at)]
        first += len(at)
        if len(at) == 1:  # a thousand separate columns: 1 us each instead of 6
            pieces.append((slice(own[0], own[0] + 1), values))
            continue
        breaks = np.flatnonzero(np.diff(own) != 1) + 1
        edges = [0, *breaks.tolist(), len(own)]
        for start, stop in pairwise(edges):
            target = int(own[start])
            pieces.append((slice(target, target + stop - start), values[start:stop]))
    shape = (len(positions), n_rows)
    buffer = Buffer(shape, dtype, pieces, len(positions) * n_rows * dtype.itemsize)
    return block_node(dtype, kind, sink.put(buffer), positions[order], sink)


def block_node(
    dtype: np.dtype[Any], kind: Node, data: int, positions: Positions, sink: Sink
) -> Node:
    """Give the node of a block whose values lie in the buffer *data*."""
    return {"dtype": encode_dtype(dtype), **kind, "data": data, **encode_place(positions, sink)}


def join_positions(parts: list[Part]) -> Positions:
    """Give the positions of all columns, in the order of the parts."""
    return np.concatenate([at for _, at in parts]) if len(parts) > 1 else parts[0][1]


def rebuild_block(node: Node, source: Source, n_rows: int, n_columns: int) -> tuple[Any, Positions]:
    """Build a block's values over its buffer, and give the positions of its columns."""
    dtype = decode_dtype(node.get("dtype"))
    check_pandas_dtype(dtype)
    count = read_int(node, "count", 1, n_columns)
    if not n_rows and count > MAX_EMPTY_COLUMNS:  # no bytes to hold the claim against
        raise SchemaError(f"schema 'count': at most {MAX_EMPTY_COLUMNS} wanted, {found(count)}")
    if type(node.get("data")) is bytes:
        raise SchemaError("schema 'data': a block in a buffer wanted, bytes found")
    values = source.array(node.get("data"), dtype, (count, n_rows), "'data'")
    kinds = [key for key in KINDS if key in node]
    if len(kinds) > 1:
        raise SchemaError(f"schema 'blocks': one of {KINDS} wanted, {found(kinds)}")
    whole: Any = values
    if kinds == ["zone"]:
        whole = make_zoned(values, node["zone"])
    elif kinds == ["freq"]:
        whole = make_period(values, node["freq"])
    return whole, decode_place(node, source, n_columns)
