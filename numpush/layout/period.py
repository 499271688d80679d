"""pandas period arrays.

Node: {"kind": "period", "freq", "dtype", "rows", "data"}; the data is int64 ordinals, the freq the
period's own alias ("M", "Q-NOV", "25h"). The columns of a frame lie in its blocks instead (block.py).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from .array import describe_rows, read_rows
from .buffer import Array, Sink
from .registry import register_kind, register_type
from .scalar import decode_period_dtype, encode_period_dtype
from .schema import Node, SchemaError, found
from .source import Source

_ORDINAL = np.dtype(np.int64)


def describe_period(array: Any, sink: Sink) -> Node:
    """Describe a PeriodArray."""
    return {
        "kind": "period",
        "freq": encode_period_dtype(array.dtype),
        **describe_rows(array.asi8, sink),
    }


def rebuild_period(node: Node, source: Source) -> pd.arrays.PeriodArray:
    """Build a PeriodArray over its ordinals; no copy."""
    return make_period(read_rows(node, source, "i", "'period'"), node.get("freq"))


def make_period(ordinals: Array, code: object) -> pd.arrays.PeriodArray:
    """Build a PeriodArray of the freq of a code over an array of any shape; no copy."""
    dtype = decode_period_dtype(code)
    if ordinals.dtype != _ORDINAL:
        raise SchemaError(f"schema 'dtype': int64 ordinals wanted, {found(ordinals.dtype.str)}")
    return pd.arrays.PeriodArray(ordinals, dtype=dtype)


register_type(pd.arrays.PeriodArray, describe_period)
register_kind("period", "array", rebuild_period)
