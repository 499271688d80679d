"""Strings: pandas' string arrays, and object arrays that hold nothing but strings.

Three nodes:

"text" is an object array of str and missing values: int64 "offsets" into UTF-8 "data", and, if
anything is missing, a byte of "missing" for each value (0 a str, or a position in `_MISSING` + 1).
Few short labels stand in the schema as "items" instead.

"string" with storage "pyarrow" wraps an "arrow" node (see arrow.py), and is rebuilt without a copy.

"string" with storage "python" wraps a "text" node. Python objects cannot be shared: each process
that rebuilds it decodes its own, O(n), as it does for object columns.

Lone surrogates, legal in a str and not in UTF-8, are kept ("surrogatepass").
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd

from .. import _pandas
from .arrow_describe import describe_arrow_array
from .arrow_rebuild import rebuild_arrow_array
from .arrow_types import load_pyarrow, pyarrow_here
from .buffer import MAX_INLINE, Array, Buffer, Sink
from .registry import register_kind, register_type
from .scalar import decode_value, encode_value
from .schema import Node, SchemaError, read_choice, read_int, read_list, read_node
from .source import Source

_OFFSET = np.dtype("<i8")
_BYTE = np.dtype(np.uint8)
_MISSING = (None, np.nan, pd.NA, pd.NaT)
#: Labels are inline up to these; a label costs a byte or two beside its text.
_MAX_ITEMS = 128


def find_missing(value: object) -> int:
    """Give the number of a missing value, or 0 for anything else."""
    if value is None:
        return 1
    if value is pd.NA:
        return 3
    if value is pd.NaT:
        return 4
    return 2 if type(value) is float and value != value else 0


def find_foreign(values: list[Any]) -> type | None:
    """Give a type among the values that is neither str nor missing, or None."""
    if set(map(type, values)) <= {str}:
        return None
    for value in values:
        if type(value) is not str and not find_missing(value):
            return type(value)
    return None


def describe_text(values: list[Any], sink: Sink) -> Node:
    """Describe str and missing values; `find_foreign` has found nothing else."""
    if sink.inline and _is_short(values):
        return {"kind": "text", "items": [encode_value(value, sink.where) for value in values]}
    node: Node = {"kind": "text", "rows": len(values)}
    offsets = np.zeros(len(values) + 1, _OFFSET)
    missing = None
    if not set(map(type, values)) <= {str}:
        missing = np.fromiter(map(find_missing, values), _BYTE, len(values))
        values = ["" if gap else value for value, gap in zip(values, missing.tolist(), strict=True)]
    text = "".join(values)
    if text.isascii():
        encoded = text.encode("ascii")
        lengths = map(len, values)
    else:
        parts = [value.encode("utf-8", "surrogatepass") for value in values]
        encoded = b"".join(parts)
        lengths = map(len, parts)
    np.cumsum(np.fromiter(lengths, _OFFSET, len(values)), out=offsets[1:])
    node["offsets"] = sink.put(Buffer.of(offsets))
    node["data"] = sink.put(Buffer.of(np.frombuffer(encoded, _BYTE)))
    if missing is not None:
        node["missing"] = sink.put(Buffer.of(missing))
    return node


def _is_short(values: list[Any]) -> bool:
    if len(values) > _MAX_ITEMS:
        return False
    size = sum(len(value) if type(value) is str else 1 for value in values)
    return len(values) + size <= 2 * MAX_INLINE


def rebuild_text(node: Node, source: Source) -> Array:
    """Decode an object array, private to this process. O(n), so everything is checked."""
    if "items" in node:
        return _object_array(_read_items(node))
    n_rows = read_int(node, "rows")
    offsets = source.array(node.get("offsets"), _OFFSET, (n_rows + 1,), "'offsets'").tolist()
    raw = source.take(node.get("data"), "'data'").tobytes()
    if offsets[0] != 0 or offsets[-1] != len(raw) or sorted(offsets) != offsets:
        raise SchemaError(f"schema 'offsets': ascending from 0 to {len(raw)} wanted")
    values = _cut(raw, offsets)
    if node.get("missing") is not None:
        gaps = source.array(node["missing"], _BYTE, (n_rows,), "'missing'")
        if n_rows and int(gaps.max()) > len(_MISSING):
            raise SchemaError(
                f"schema 'missing': at most {len(_MISSING)} wanted, {gaps.max()} found"
            )
        for row in np.flatnonzero(gaps):
            values[row] = _MISSING[gaps[row] - 1]
    return _object_array(values)


def _read_items(node: Node) -> list[Any]:
    items = read_list(node, "items")
    if set(map(type, items)) <= {str}:
        return items
    items = [decode_value(item) for item in items]
    foreign = find_foreign(items)
    if foreign is not None:
        raise SchemaError(f"schema 'items': strings wanted, {foreign} found")
    return items


def _cut(raw: bytes, offsets: list[int]) -> list[Any]:
    pairs = pairwise(offsets)
    try:
        text = raw.decode("utf-8", "surrogatepass")
        if len(text) == len(raw):  # ASCII: offsets in bytes are offsets in characters
            return [text[start:stop] for start, stop in pairs]
        return [raw[start:stop].decode("utf-8", "surrogatepass") for start, stop in pairs]
    except UnicodeDecodeError as error:
        raise SchemaError(f"schema 'data': UTF-8 wanted: {error}") from error


def _object_array(values: list[Any]) -> Array:
    result = np.empty(len(values), object)
    result[:] = values
    return result


def describe_strings(array: Any, sink: Sink) -> Node:
    """Describe a string array of any flavour."""
    storage, missing = _pandas.string_flavour(array.dtype)
    node: Node = {"kind": "string", "storage": storage, "missing": missing}
    if storage == "python":
        node["text"] = describe_text(np.asarray(array, dtype=object).tolist(), sink)
        return node
    values = array.__arrow_array__()
    if str(values.type) != "large_string":  # pandas 2.2 also takes dictionaries of it
        values = values.cast("large_string")
    if sink.inline and len(values) <= _MAX_ITEMS:
        labels = values.to_pylist()
        if _is_short(labels):
            node["text"] = {"kind": "text", "items": labels}
            return node
    node["arrow"] = describe_arrow_array(values, sink)
    return node


def rebuild_strings(node: Node, source: Source) -> Any:
    """Build a string array: over its buffers for pyarrow storage, decoded for python storage.

    Inline labels need no pyarrow: where it is missing they come in python storage, as pandas itself
    would have made them there.
    """
    storage = read_choice(node, "storage", ("python", "pyarrow"))
    missing = read_choice(node, "missing", ("NA", "nan"))
    if "text" not in node:
        arrow = rebuild_arrow_array(node.get("arrow"), source, strings=True)
        return _pandas.make_strings(arrow, storage, missing)
    text = read_node(node["text"], "'text'")
    if storage == "pyarrow" and pyarrow_here():
        pa = load_pyarrow()
        items = [item if type(item) is str else None for item in _read_items(text)]
        return _pandas.make_strings(pa.array(items, pa.large_string()), storage, missing)
    values = rebuild_text(text, source)
    gaps = [row for row, value in enumerate(values) if type(value) is not str]
    values[gaps] = pd.NA if missing == "NA" else np.nan
    return _pandas.make_strings(values, "python", missing)


for _cls in _pandas.string_classes():
    register_type(_cls, describe_strings)
register_kind("text", "array", rebuild_text)
register_kind("string", "array", rebuild_strings)
