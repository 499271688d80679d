"""pandas masked arrays: Int8 to UInt64, Float32, Float64, boolean.

Node: {"kind": "masked", "dtype", "rows", "data", "mask"}. The pandas dtype follows from the NumPy
one. Values under the mask travel as they are.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from .. import _pandas
from .array import describe_rows, read_rows
from .buffer import Sink
from .registry import register_kind, register_type
from .schema import Node, SchemaError, found
from .source import Source

_CLASSES = {
    "b": pd.arrays.BooleanArray,
    "i": pd.arrays.IntegerArray,
    "u": pd.arrays.IntegerArray,
    "f": pd.arrays.FloatingArray,
}
_BOOL = np.dtype(np.bool_)


def describe_masked(array: Any, sink: Sink) -> Node:
    """Describe a masked array."""
    values, mask = _pandas.masked_parts(array)
    return {
        "kind": "masked",
        **describe_rows(values, sink),
        "mask": sink.put_array(mask),
    }


def rebuild_masked(node: Node, source: Source) -> Any:
    """Build a masked array over its two buffers; no copy."""
    values = read_rows(node, source, "biuf", "'masked'")
    if values.dtype.kind == "f" and values.dtype.itemsize not in (4, 8):
        raise SchemaError(f"schema 'dtype': float32 or float64 wanted, {found(values.dtype.str)}")
    mask = source.array(node.get("mask"), _BOOL, values.shape, "'mask'")
    return _CLASSES[values.dtype.kind](values, mask, copy=False)


for _cls in (pd.arrays.BooleanArray, pd.arrays.IntegerArray, pd.arrays.FloatingArray):
    register_type(_cls, describe_masked)
register_kind("masked", "array", rebuild_masked)
