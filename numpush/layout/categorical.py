"""Categorical arrays: codes in a buffer, categories as an index of their own.

Node: {"kind": "categorical", "dtype", "rows", "data", "categories": index node, "ordered"}; "dtype"
is that of the codes, the smallest signed int that fits, as pandas has it.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from .. import _pandas
from .array import describe_rows, read_rows
from .buffer import Array, Sink
from .index import build_index, check_labels, describe_labels
from .registry import register_kind, register_type
from .schema import Node, SchemaError, read_bool
from .source import Source


def describe_categorical(array: pd.Categorical, sink: Sink) -> Node:
    """Describe a Categorical."""
    node = {
        "kind": "categorical",
        **describe_rows(np.asarray(array.codes), sink),
        "ordered": bool(array.ordered),
    }
    where = sink.where
    sink.where = f"the categories of {where}"
    node["categories"] = describe_labels(array.categories, sink)
    sink.where = where
    return node


def rebuild_categorical(node: Node, source: Source) -> pd.Categorical:
    """Build a Categorical over its codes; no copy.

    The codes are checked only with `source.validate`, being O(n); pandas reads out of bounds where
    they are wrong.
    """
    codes = read_rows(node, source, "i", "'categorical'")
    categories = build_index(node.get("categories"), source, "'categories'")
    check_labels(categories, codes, "'categories'")
    ordered = read_bool(node, "ordered")
    if source.validate:
        check_codes(codes, len(categories), "'categorical'")
        dtype = pd.CategoricalDtype(categories, ordered)
    else:
        dtype = _pandas.categorical_dtype(categories, ordered)
    return pd.Categorical.from_codes(codes, dtype=dtype, validate=False)


def check_codes(codes: Array, n_labels: int, what: str) -> None:
    """Check that codes are labels' positions or -1. O(n)."""
    if codes.size and (int(codes.min()) < -1 or int(codes.max()) >= n_labels):
        raise SchemaError(
            f"schema {what}: codes in [-1, {n_labels}) wanted, [{codes.min()}, {codes.max()}] found"
        )


register_type(pd.Categorical, describe_categorical)
register_kind("categorical", "array", rebuild_categorical)
