"""pandas interval arrays: two arrays of one dtype.

Node: {"kind": "interval", "closed", "rows", "left": array node, "right": array node}.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from .. import _pandas
from .buffer import Sink
from .index import build_values, describe_values
from .registry import register_kind, register_type
from .schema import Node, SchemaError, found, read_choice, read_int, read_node
from .source import Source

_CLOSED = ("left", "right", "both", "neither")
#: Arrays that pandas has intervals of.
_KINDS = ("ndarray", "datetimes", "masked", "arrow")


def describe_interval(array: Any, sink: Sink) -> Node:
    """Describe an IntervalArray."""
    return {
        "kind": "interval",
        "closed": array.closed,
        "rows": len(array),
        "left": describe_values(array.left.array, sink),
        "right": describe_values(array.right.array, sink),
    }


def rebuild_interval(node: Node, source: Source) -> Any:
    """Build an IntervalArray over its two sides; no copy.

    That no left is greater than its right is checked only with `source.validate`, being O(n).
    """
    closed = read_choice(node, "closed", _CLOSED)
    n_rows = read_int(node, "rows")
    left, right = (_build_side(node, key, source, n_rows) for key in ("left", "right"))
    if type(left) is not type(right) or left.dtype != right.dtype:
        raise SchemaError(
            f"schema 'interval': sides of one dtype wanted, {left.dtype} and {right.dtype} found"
        )
    if source.validate:
        make: Any = pd.arrays.IntervalArray  # the stubs want one of many overloads
        make.from_arrays(left, right, closed)
    return _pandas.make_interval(left, right, closed)


def _build_side(node: Node, key: str, source: Source, n_rows: int) -> Any:
    side = read_node(node.get(key), f"{key!r}")
    if side.get("kind") not in _KINDS:
        raise SchemaError(f"schema {key!r}: one of {_KINDS} wanted, {found(side.get('kind'))}")
    values = build_values(side, source, n_rows, f"{key!r}")
    if isinstance(values, np.ndarray) and values.dtype.kind not in "iuf":
        raise SchemaError(f"schema {key!r}: numbers wanted, {found(values.dtype.str)}")
    return values


register_type(pd.arrays.IntervalArray, describe_interval)
register_kind("interval", "array", rebuild_interval)
