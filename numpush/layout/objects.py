"""Object arrays: columns, Series and labels whose cells are Python objects.

Three nodes, the first that fits:

"text"     nothing but str and missing values (see strings.py).
"labels", "values"   {"rows", "data": reference}: msgpack of the cells (see scalar.py), each of which
           comes back with its exact type: numbers, dates, Decimal, tuples, NumPy's and pandas'
           scalars. "labels" are hashable; "values" may hold list and dict too.
"pickled"  {"rows", "data": reference}: a pickle of the list of cells. Only where both sides allow
           it, which they do within one host and user (the segment's owner and mode are checked
           before), and never on a wire or in a store: who reads a pickle runs what its author
           wants.

Python objects cannot be shared: each process that rebuilds them makes its own, O(n).
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import numpy as np

from .buffer import Array, Sink
from .registry import register_kind
from .scalar import decode_cells, decode_label, decode_value, encode_cells, encode_value
from .schema import Node, SchemaError, found, read_int
from .source import Source
from .strings import describe_text, find_foreign

_BYTE = np.dtype(np.uint8)


def describe_objects(values: Array, sink: Sink) -> Node:
    """Describe the cells of an object column or Series."""
    return _describe_cells("values", values.tolist(), sink)


def describe_object_labels(values: Array, sink: Sink) -> Node:
    """Describe the labels of an object index."""
    return _describe_cells("labels", values.tolist(), sink)


def _describe_cells(kind: str, cells: list[Any], sink: Sink) -> Node:
    if find_foreign(cells) is None:
        return describe_text(cells, sink)
    try:
        if kind == "labels":
            for cell in cells:
                _check_label(cell, sink)
        packed = encode_cells(cells, f"a {kind[:-1]} of {sink.where}")
    except (TypeError, ValueError) as error:  # ValueError: more cells than msgpack counts
        if sink.allow_pickle:
            kind, packed = "pickled", _pickle(cells, sink)
        elif kind == "labels":
            raise
        else:
            raise _refuse(cells, sink) from error
    data = sink.put_array(np.frombuffer(packed, _BYTE))
    return {"kind": kind, "rows": len(cells), "data": data}


def _check_label(label: Any, sink: Sink) -> None:
    try:
        hash(label)
    except TypeError as error:
        raise TypeError(f"a label of {sink.where} cannot be looked up: {error}") from error


def _refuse(cells: list[Any], sink: Sink) -> TypeError:
    """Name the first cell that has no code."""
    for row, cell in enumerate(cells):
        try:
            encode_value(cell, sink.where)
        except TypeError:
            name = sink.expression
            return sink.refuse(
                "object",
                f"holding {type(cell)} (in row {row})",
                f"{name} = {name}.astype('str') / 'category' / an ArrowDtype",
            )
    return sink.refuse("object", f"with {len(cells)} cells, too many")


def _pickle(cells: list[Any], sink: Sink) -> bytes:
    try:
        return pickle.dumps(cells, protocol=5)
    except MemoryError:
        raise
    except Exception as error:  # whatever a cell's __reduce__ raises
        raise sink.refuse(
            "object", f"holding what cannot be pickled ({type(error).__name__}: {error})"
        ) from error


def rebuild_cells(node: Node, source: Source) -> Array:
    """Decode the cells of "labels" or "values"; each process has its own."""
    decode: Callable[[Any], Any] = decode_label if node["kind"] == "labels" else decode_value
    cells = decode_cells(source.take(node.get("data"), "'data'").tobytes(), decode)
    return _object_array(cells, node)


def rebuild_pickled(node: Node, source: Source) -> Array:
    """Unpickle cells, if the caller of `rebuild` allows it."""
    if not source.allow_pickle:
        raise SchemaError("schema 'kind': 'pickled' objects are not read here (allow_pickle=False)")
    raw = source.take(node.get("data"), "'data'")
    try:
        cells = pickle.loads(raw.data)
    except MemoryError:
        raise
    except Exception as error:  # what the cells' classes raise, or their absence here
        raise SchemaError(
            f"schema 'data': objects that this process can unpickle wanted, found {error!r}"
        ) from error
    if type(cells) is not list:
        raise SchemaError(f"schema 'data': a pickled list wanted, {found(type(cells).__name__)}")
    return _object_array(cells, node)


def _object_array(cells: list[Any], node: Node) -> Array:
    if len(cells) != read_int(node, "rows"):
        raise SchemaError(f"schema 'rows': {found(node['rows'])}, {len(cells)} cells in the buffer")
    result = np.empty(len(cells), object)
    for row, cell in enumerate(cells):  # not [:]: tuples would be taken for rows
        result[row] = cell
    return result


register_kind("labels", "array", rebuild_cells)
register_kind("values", "array", rebuild_cells)
register_kind("pickled", "array", rebuild_pickled)
