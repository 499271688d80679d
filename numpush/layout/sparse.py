"""pandas sparse arrays: the values that are not the fill value, and where they stand.

Node: {"kind": "sparse", "rows", "points", "fill", "values": array node} and, for an index of kind
"integer", "positions" (int32, ascending); for "block", "blocks", "starts" and "lengths" (int32).

Starts and lengths are always checked, positions only with `Source.validate`: pandas' compiled
code reads out of bounds where they lie.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pandas as pd

from .. import _pandas
from .buffer import Array, Sink
from .index import build_values, describe_values
from .registry import register_kind, register_type
from .scalar import decode_label, encode_value
from .schema import Node, SchemaError, found, read_int
from .source import Source

_INT32 = np.dtype("<i4")
_MAX_ROWS = 2**31 - 1


def describe_sparse(array: Any, sink: Sink) -> Node:
    """Describe a SparseArray."""
    values, places = array.sp_values, array.sp_index
    if values.dtype != array.dtype.subtype:
        raise sink.refuse(array.dtype, f"over values of {values.dtype}")
    node: Node = {
        "kind": "sparse",
        "rows": len(array),
        "points": len(values),
        "fill": encode_value(array.fill_value, f"the fill value of {sink.where}"),
        "values": describe_values(values, sink),
    }
    if array.kind == "integer":
        node["positions"] = _put(places.indices, sink)
    else:
        node["blocks"] = len(places.blocs)
        node["starts"] = _put(places.blocs, sink)
        node["lengths"] = _put(places.blengths, sink)
    return node


def _put(positions: Array, sink: Sink) -> int | bytes:
    return sink.put_array(positions.astype(_INT32, copy=False))


def rebuild_sparse(node: Node, source: Source) -> Any:
    """Build a SparseArray over its values and places; no copy."""
    n_rows = read_int(node, "rows", 0, _MAX_ROWS)
    n_points = read_int(node, "points", 0, n_rows)
    values = build_values(node.get("values"), source, n_points, "'values'")
    if not isinstance(values, np.ndarray):
        raise SchemaError(f"schema 'values': a NumPy array wanted, {found(str(values.dtype))}")
    fill = decode_label(node.get("fill"))
    with warnings.catch_warnings():  # the describing side was told that a fill value is odd
        warnings.simplefilter("ignore", FutureWarning)
        dtype = pd.SparseDtype(values.dtype, fill)
    places: tuple[Array, ...]
    if "positions" in node:
        places = (source.array(node["positions"], _INT32, (n_points,), "'positions'"),)
    else:
        shape = (read_int(node, "blocks", 0, n_points),)
        starts = source.array(node.get("starts"), _INT32, shape, "'starts'")
        lengths = source.array(node.get("lengths"), _INT32, shape, "'lengths'")
        _check_blocks(starts, lengths, n_points, n_rows)
        places = (starts, lengths)
    return _pandas.make_sparse(values, dtype, n_rows, places, source.validate)


def _check_blocks(starts: Array, lengths: Array, n_points: int, n_rows: int) -> None:
    """Check that blocks stand one behind the other and hold n_points. pandas adds up in int32."""
    stops = starts.astype(np.int64) + lengths
    if (
        int(lengths.sum(dtype=np.int64)) != n_points
        or bool((starts < 0).any() or (lengths < 1).any() or (stops > n_rows).any())
        or bool((stops[:-1] > starts[1:]).any())
    ):
        raise SchemaError(
            f"schema 'starts', 'lengths': ascending blocks of {n_points} of {n_rows} rows wanted"
        )


register_type(pd.arrays.SparseArray, describe_sparse)
register_kind("sparse", "array", rebuild_sparse)
