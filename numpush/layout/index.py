"""pandas indexes: of rows, of columns, of categories.

"range": {"start", "stop", "step"}.
"index": {"values": array node}, with "freq" if it has one; its class follows from the dtype.
"multi": {"levels": [index nodes], "codes": [references], "types": [dtype codes], "rows"}.
Each index has its "name" unless it is None; a MultiIndex's names are its levels'.

Labels (of columns, categories and levels) are described with `Sink.inline` on: small ones stand in
the schema.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from .. import _pandas
from .buffer import Array, Sink
from .datetimes import check_unit, decode_freq, encode_freq
from .dtype import decode_dtype, encode_dtype
from .objects import describe_object_labels, describe_objects
from .registry import build, describe_node, register_kind, register_type
from .scalar import decode_label, encode_value
from .schema import Node, SchemaError, found, read_int, read_list, read_node, read_shape
from .source import Source

#: NumPy dtypes that pandas has indexes and columns of.
PANDAS_KINDS = "biufcmM"


def describe_values(values: Any, sink: Sink) -> Node:
    """Describe the values of a column, Series or index: an ndarray or an extension array."""
    if type(values) is pd.arrays.NumpyExtensionArray:
        values = np.asarray(values)  # to_numpy of 2.2 compares objects, which may refuse
    if not isinstance(values, np.ndarray):
        return describe_node(values, sink)
    if values.dtype == object:
        return describe_objects(values, sink)
    if values.dtype.kind not in PANDAS_KINDS:
        raise sink.refuse(values.dtype, "that has no layout")
    return describe_node(values, sink)


def build_values(value: object, source: Source, n_rows: int, what: str) -> Any:
    """Build what `describe_values` described: (n_rows,), of a dtype that pandas has."""
    values = build(value, source, ("array",), what)
    if isinstance(values, np.ndarray) and values.dtype != object:
        check_pandas_dtype(values.dtype)
    if values.ndim != 1 or len(values) != n_rows:
        raise SchemaError(f"schema {what}: {n_rows} values wanted, {values.shape} found")
    return values


def check_pandas_dtype(dtype: np.dtype[Any]) -> None:
    """Check that pandas has columns of a NumPy dtype."""
    if dtype.kind not in PANDAS_KINDS:
        raise SchemaError(f"schema dtype: one that pandas has wanted, {found(dtype.str)}")
    if dtype.kind in "mM":
        check_unit(dtype)
        if not dtype.isnative:
            raise SchemaError(f"schema dtype: native datetimes wanted, {found(dtype.str)}")


def describe_labels(index: pd.Index, sink: Sink) -> Node:
    """Describe an index of labels: small ones go into the schema."""
    outer, sink.inline = sink.inline, True
    node = describe_node(index, sink)
    sink.inline = outer
    return node


def build_index(value: object, source: Source, what: str) -> pd.Index:
    """Build an index from its node."""
    index: pd.Index = build(value, source, ("index",), what)
    return index


def check_labels(labels: pd.Index, codes: Array, what: str) -> None:
    """Check that a level or categories are flat, and no more than their codes can tell apart.

    pandas would otherwise widen the codes, a copy; and a RangeIndex needs no bytes to claim 2**62
    labels, which the first look at them would make real.
    """
    if isinstance(labels, pd.MultiIndex):
        raise SchemaError(f"schema {what}: a flat index wanted, a MultiIndex found")
    most = np.iinfo(codes.dtype).max + 1
    if len(labels) > most:
        raise SchemaError(f"schema {what}: at most {most} labels wanted, {len(labels)} found")


def _named(node: Node, index: pd.Index, sink: Sink) -> Node:
    if index.name is not None:
        node["name"] = encode_value(index.name, f"the name of {sink.where}")
    return node


def describe_range(index: pd.RangeIndex, sink: Sink) -> Node:
    """Describe a RangeIndex: three ints."""
    node = {"kind": "range", "start": index.start, "stop": index.stop, "step": index.step}
    return _named(node, index, sink)


def rebuild_range(node: Node, source: Source) -> pd.RangeIndex:
    """Build a RangeIndex."""
    start, stop, step = (read_int(node, key, low=-(2**63)) for key in ("start", "stop", "step"))
    if step == 0:
        raise SchemaError("schema 'step': not 0 wanted")
    len(range(start, stop, step))  # an OverflowError where pandas could not count it either
    return pd.RangeIndex(start, stop, step, name=decode_label(node.get("name")))


def describe_index(index: pd.Index, sink: Sink) -> Node:
    """Describe a flat index of any dtype."""
    if index.dtype == object:
        values = describe_object_labels(np.asarray(index), sink)
    else:
        values = describe_values(index.array, sink)
    node = {"kind": "index", "values": values}
    freq = getattr(index, "freq", None)
    if freq is not None and not isinstance(index, pd.PeriodIndex):  # there the dtype has it
        node["freq"] = encode_freq(freq, sink)
    return _named(node, index, sink)


def rebuild_index(node: Node, source: Source) -> pd.Index:
    """Build a flat index over its values; no copy."""
    inner = read_node(node.get("values"), "'values'")
    if inner.get("kind") == "values":
        raise SchemaError("schema 'values': hashable labels wanted, 'values' found")
    values = build(inner, source, ("array",), "'values'")
    if isinstance(values, np.ndarray) and values.dtype != object:
        check_pandas_dtype(values.dtype)
    if values.ndim != 1:
        raise SchemaError(f"schema 'values': 1-D values wanted, {values.shape} found")
    name = decode_label(node.get("name"))
    index: Any
    if isinstance(values, pd.arrays.IntervalArray):
        index = _pandas.make_interval_index(values, name)
    else:
        index = pd.Index(values, dtype=values.dtype, copy=False, name=name)
    if node.get("freq") is not None:
        _set_freq(index, node["freq"], source.validate)
    result: pd.Index = index
    return result


def _set_freq(index: Any, code: object, validate: bool) -> None:
    freq = decode_freq(code)
    if not isinstance(index, pd.DatetimeIndex | pd.TimedeltaIndex):
        raise SchemaError(f"schema 'freq': only of datetimes wanted, {found(code)}")
    if validate:
        index.freq = freq  # type: ignore[misc,unused-ignore]  # the stubs have it read-only
    else:
        _pandas.set_freq(index, freq)


def describe_multi(index: Any, sink: Sink) -> Node:
    """Describe a MultiIndex: its levels as labels, its codes as buffers."""
    codes = [np.asarray(code) for code in index.codes]
    node: Node = {
        "kind": "multi",
        "levels": [describe_labels(level, sink) for level in index.levels],
        "codes": [sink.put_array(code) for code in codes],
        "types": [encode_dtype(code.dtype) for code in codes],
        "rows": len(index),
    }
    if index.sortorder is not None:
        node["sortorder"] = int(index.sortorder)
    return node


def rebuild_multi(node: Node, source: Source) -> pd.MultiIndex:
    """Build a MultiIndex over its codes; no copy.

    The codes are checked only with `source.validate`, as those of a Categorical.
    """
    shape = read_shape([node.get("rows")], "'rows'")
    parts = [read_list(node, key) for key in ("levels", "codes", "types")]
    if not parts[0] or len({len(part) for part in parts}) != 1:
        raise SchemaError(f"schema 'levels': as many as codes and types wanted, {found(parts)}")
    levels, codes = [], []
    for level, reference, code in zip(*parts, strict=True):
        levels.append(build_index(level, source, "'levels'"))
        dtype = decode_dtype(code)
        if dtype.kind != "i" or not dtype.isnative:
            raise SchemaError(f"schema 'types': a native int wanted, {found(code)}")
        codes.append(source.array(reference, dtype, shape, "'codes'"))
        check_labels(levels[-1], codes[-1], "'levels'")
    order = node.get("sortorder")
    if order is not None:
        order = read_int(node, "sortorder", 0, len(levels))
    names = [level.name for level in levels]
    make: Any = pd.MultiIndex  # the stubs want lists of hashables
    result: pd.MultiIndex = make(
        levels, codes, sortorder=order, names=names, verify_integrity=source.validate
    )
    return result


register_type(pd.RangeIndex, describe_range)
register_type(pd.MultiIndex, describe_multi)
for _cls in (
    *(pd.Index, pd.DatetimeIndex, pd.TimedeltaIndex, pd.CategoricalIndex),
    *(pd.PeriodIndex, pd.IntervalIndex),
):
    register_type(_cls, describe_index)
register_kind("range", "index", rebuild_range)
register_kind("index", "index", rebuild_index)
register_kind("multi", "index", rebuild_multi)
