"""A part of an object, from its schema alone: some columns, some rows.

What is selected is described by a schema of its own, whose buffers are made of ranges of the whole's
buffers: so a reader (of a file, a server) moves only what is wanted, straight to its place.

(1) A reference to a buffer is an int under one of `_REFERENCES`, wherever a node stands; nothing else
    has these keys. tests/test_layout_selection.py holds every family to it.
(2) Rows are cut out where each row has a fixed width in each buffer. Where not (text, nested Arrow,
    an index of such, Fortran order), the selection has all rows, and says so: `is_cut`.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .buffer import Buffer, Sink
from .dtype import decode_dtype
from .place import Positions, decode_place, encode_place
from .registry import load_families
from .schema import (
    VERSION,
    Node,
    Schema,
    SchemaError,
    found,
    read_int,
    read_list,
    read_node,
    read_shape,
)
from .source import Source, check_size

__all__ = [
    "Range",
    "Selection",
    "has_fixed_width",
    "label_buffers",
    "named_references",
    "places_of",
    "read_axes",
    "read_labels",
    "references",
    "select_array",
    "select_frame",
]

Raw = NDArray[np.uint8]

_BYTE = np.dtype(np.uint8)
_REFERENCES = {
    "at", "codes", "data", "ends", "lengths", "mask", "missing", "offsets", "positions", "starts",
    "validity",
}  # fmt: skip
#: Nodes of values that users gave, whose dicts are no nodes.
_VALUES = {"attrs", "name"}


class Range(NamedTuple):
    """Bytes *start* to *stop* of a buffer of the whole."""

    buffer: int
    start: int
    stop: int


class Selection(NamedTuple):
    """A part of an object.

    Attributes
    ----------
    schema : dict
    buffers : list of Buffer
        In the order of the schema; those in `ranges` hold what these say, others are copied.
    ranges : dict of position in buffers -> list of Range
    is_cut : bool
        Whether the rows were cut out; else the selection has all of them.
    """

    schema: Schema
    buffers: list[Buffer]
    ranges: dict[int, list[Range]]
    is_cut: bool


class _Taker:
    """Collects the buffers of a selection."""

    def __init__(self, sizes: list[int]) -> None:
        self.sizes = sizes
        self.sink = Sink()
        self.ranges: dict[int, list[Range]] = {}

    def take(self, ranges: list[Range]) -> int:
        for buffer, start, stop in ranges:
            if not 0 <= buffer < len(self.sizes) or not 0 <= start <= stop <= self.sizes[buffer]:
                raise SchemaError(f"schema: bytes {start} to {stop} of buffer {buffer}: not there")
        nbytes = sum(stop - start for _, start, stop in ranges)
        reference = self.sink.put(Buffer((nbytes,), _BYTE, [], nbytes))
        self.ranges[reference] = ranges
        return reference

    def take_all(self, reference: int) -> int:
        size = self.sizes[reference] if 0 <= reference < len(self.sizes) else 0
        return self.take([Range(reference, 0, size)])

    def renumber(self, value: Any) -> Any:
        """Return a copy of a node that refers to buffers of the selection."""
        if type(value) is list:
            return [self.renumber(each) for each in value]
        if type(value) is not dict:
            return value
        return {key: self.renumber_field(key, each) for key, each in value.items()}

    def renumber_field(self, key: str, value: Any) -> Any:
        """Return a copy of a field of a node, as `renumber` does."""
        if key in _VALUES:
            return copy.deepcopy(value)
        if key in _REFERENCES:
            if type(value) is int:
                return self.take_all(value)
            if key == "codes" and type(value) is list:
                return [self.take_all(each) if type(each) is int else each for each in value]
            if key == "at":
                return copy.copy(value)
        return self.renumber(value)


def references(node: Any) -> list[int]:
    """Give the buffers that a node, and what is in it, refers to; rule (1)."""
    return [reference for _, reference in named_references(node)]


def named_references(node: Any) -> list[tuple[str, int]]:
    """Give the buffers that a node, and what is in it, refers to, each with the key it has there."""
    into: list[tuple[str, int]] = []
    _collect(node, into)
    return into


def _collect(value: Any, into: list[tuple[str, int]]) -> None:
    if type(value) is list:
        for each in value:
            _collect(each, into)
    elif type(value) is dict:
        for key, each in value.items():
            if key in _VALUES:
                continue
            if key in _REFERENCES and type(each) is int:
                into.append((key, each))
            elif key == "codes" and type(each) is list:
                into += [(key, reference) for reference in each if type(reference) is int]
            elif key != "at":
                _collect(each, into)


def label_buffers(schema: Schema) -> list[int]:
    """Give the buffers that must be read before columns can be selected: labels and their places."""
    places = [
        at
        for block in read_list(schema, "blocks")
        if type(at := read_node(block, "'blocks'").get("at")) is int
    ]
    return sorted({*places, *references(schema.get("columns"))})


def read_labels(schema: Schema, known: Mapping[int, Raw]) -> Any:
    """Build the column labels, a pandas Index, from the buffers that `label_buffers` named."""
    labels = _build_labels(schema.get("columns"), known, "'columns'")
    if len(labels) != read_int(schema, "cols"):
        raise SchemaError(f"schema 'columns': {schema['cols']} labels wanted, {len(labels)} found")
    return labels


def read_axes(schema: Schema, raw: list[Raw]) -> tuple[Any, Any]:
    """Build a frame's index and column labels; only their buffers are looked at."""
    known = dict(enumerate(raw))
    return _build_labels(schema.get("index"), known, "'index'"), read_labels(schema, known)


def _build_labels(node: Any, known: Mapping[int, Raw], what: str) -> Any:
    from .index import build_index

    load_families()
    order = references(node)
    if any(each not in known for each in order):
        raise SchemaError(f"schema {what}: buffers {order}: not all are there")
    taker = _Taker([0] * (1 + max(order, default=0)))
    source = Source([known[each] for each in order], True)
    return build_index(taker.renumber(node), source, what)


def places_of(block: Node, raw: list[Raw], n_columns: int) -> list[int]:
    """Give the positions of a block's columns in the frame."""
    return [int(at) for at in _positions(block, dict(enumerate(raw)), n_columns)]


def _positions(block: Node, known: Mapping[int, Raw], n_columns: int) -> Positions:
    at = block.get("at")
    if type(at) is int:
        if at not in known:
            raise SchemaError(f"schema 'at': buffer {at} is not there")
        block = {**block, "at": known[at].tobytes()}
    return decode_place(block, Source([], True), n_columns)


def select_array(schema: Schema, sizes: list[int], start: int, stop: int) -> Selection:
    """Select rows *start* to *stop* of an ndarray; rule (2)."""
    taker = _Taker(sizes)
    shape = read_shape(schema.get("shape"), "'shape'")
    data = schema.get("data")
    is_cut = schema.get("order") == "C" and type(data) is int
    if not is_cut:
        return _finish(taker.renumber(schema), taker, False)
    assert type(data) is int
    dtype = decode_dtype(schema.get("dtype"))
    _check_buffer(sizes, data, shape, dtype)
    row = sizes[data] // shape[0] if shape[0] else 0
    part = {**schema, "shape": [stop - start, *shape[1:]]}
    part["data"] = taker.take([Range(data, start * row, stop * row)])
    return _finish(part, taker, True)


def select_frame(
    schema: Schema,
    sizes: list[int],
    known: Mapping[int, Raw],
    positions: list[int] | None,
    labels: Any,
    rows: tuple[int, int] | None,
) -> Selection:
    """Select columns and rows of a frame; rule (2).

    Parameters
    ----------
    known : the buffers that `label_buffers` named
    positions : of the columns wanted, in the order wanted; None: all
    labels : pandas.Index
        Their labels; not looked at for all.
    rows : (start, stop), or None: all
    """
    from .index import describe_labels

    n_rows, n_columns = read_int(schema, "rows"), read_int(schema, "cols")
    arrays = [_read_item(item, n_columns) for item in read_list(schema, "arrays")]
    index = read_node(schema.get("index"), "'index'")
    new_of = {
        at: new for new, at in enumerate(range(n_columns) if positions is None else positions)
    }
    arrays = [(new_of[at], node) for at, node in arrays if at in new_of]
    arrays.sort(key=lambda item: item[0])
    is_cut = (
        rows is not None
        and (_is_range(index) or _is_flat(index.get("values")))
        and all(_is_flat(node) for _, node in arrays)
    )
    start, stop = rows if is_cut and rows is not None else (0, n_rows)
    taker = _Taker(sizes)
    part: Schema = {"kind": "frame", "v": VERSION, "rows": stop - start, "cols": len(new_of)}
    blocks = [
        _select_block(
            read_node(block, "'blocks'"), taker, known, new_of, n_rows, n_columns, start, stop
        )
        for block in read_list(schema, "blocks")
    ]
    part["blocks"] = [block for block in blocks if block is not None]
    part["arrays"] = [
        [new, _cut_node(node, taker, n_rows, start, stop) if is_cut else taker.renumber(node)]
        for new, node in arrays
    ]
    part["index"] = (
        _cut_index(index, taker, n_rows, start, stop) if is_cut else taker.renumber(index)
    )
    if positions is None:
        part["columns"] = taker.renumber(schema.get("columns"))
    else:
        part["columns"] = describe_labels(labels, taker.sink)
    part |= {key: copy.deepcopy(schema[key]) for key in ("attrs", "unique_labels") if key in schema}
    return _finish(part, taker, is_cut)


def _read_item(item: Any, n_columns: int) -> tuple[int, Node]:
    if type(item) is not list or len(item) != 2 or type(item[0]) is not int:
        raise SchemaError(f"schema 'arrays': [position, array] wanted, {found(item)}")
    if not 0 <= item[0] < n_columns:
        raise SchemaError(f"schema 'arrays': positions below {n_columns} wanted, {found(item[0])}")
    return item[0], read_node(item[1], "'arrays'")


def _finish(schema: Schema, taker: _Taker, is_cut: bool) -> Selection:
    return Selection(schema, taker.sink.buffers, taker.ranges, is_cut)


def _check_buffer(
    sizes: list[int], reference: int, shape: tuple[int, ...], dtype: np.dtype[Any]
) -> None:
    if not 0 <= reference < len(sizes):
        raise SchemaError(f"schema 'data': a buffer below {len(sizes)} wanted, {reference} found")
    check_size(shape, dtype, sizes[reference], "'data'")


def _select_block(
    node: Node,
    taker: _Taker,
    known: Mapping[int, Raw],
    new_of: dict[int, int],
    n_rows: int,
    n_columns: int,
    start: int,
    stop: int,
) -> Node | None:
    count = read_int(node, "count", 1, n_columns)
    dtype = decode_dtype(node.get("dtype"))
    data = read_int(node, "data", 0, len(taker.sizes) - 1)
    _check_buffer(taker.sizes, data, (count, n_rows), dtype)
    olds = _positions(node, known, n_columns)
    wanted = sorted((new_of[int(old)], row) for row, old in enumerate(olds) if int(old) in new_of)
    if not wanted:
        return None
    ranges: list[Range] = []
    for _, row in wanted:
        first, last = ((row * n_rows + each) * dtype.itemsize for each in (start, stop))
        if ranges and ranges[-1].stop == first:
            ranges[-1] = ranges[-1]._replace(stop=last)
        else:
            ranges.append(Range(data, first, last))
    news = np.array([new for new, _ in wanted], np.intp)
    return {**node, "data": taker.take(ranges), **encode_place(news, taker.sink)}


def _is_range(index: Node) -> bool:
    return index.get("kind") == "range"


def _is_flat(node: Any) -> bool:
    """Whether a node is a dense array of one dimension, or has one row's width otherwise."""
    if type(node) is not dict:
        return False
    if node.get("kind") == "ndarray":
        return (
            node.get("order") == "C" and type(node.get("data")) is int and len(node["shape"]) == 1
        )
    return has_fixed_width(node)


def _cut_node(node: Node, taker: _Taker, n_rows: int, start: int, stop: int) -> Node:
    """Cut rows out of a node of fixed width."""
    part = dict(node)
    for key, value in node.items():
        if key in ("data", "mask"):
            size = taker.sizes[value] if 0 <= value < len(taker.sizes) else -1
            width, rest = divmod(size, n_rows) if n_rows else (0, size)
            if rest:
                raise SchemaError(f"schema {key!r}: {n_rows} rows do not fill {size} bytes")
            part[key] = taker.take([Range(value, start * width, stop * width)])
        elif key == "shape":
            part[key] = [stop - start]
        elif key == "rows":
            part[key] = stop - start
        else:
            part[key] = taker.renumber_field(key, value)
    return part


def _cut_index(index: Node, taker: _Taker, n_rows: int, start: int, stop: int) -> Node:
    if _is_range(index):
        first, step = read_int(index, "start", -(2**63)), read_int(index, "step", -(2**63))
        return {**index, "start": first + start * step, "stop": first + stop * step}
    part = {key: taker.renumber_field(key, each) for key, each in index.items() if key != "values"}
    return {**part, "values": _cut_node(index["values"], taker, n_rows, start, stop)}


def has_fixed_width(node: Node) -> bool:
    """Whether an array node has one item of known width for each row, in buffers of its own."""
    keys = set(node)
    flat = {"kind", "dtype", "rows", "data"} <= keys and type(node["data"]) is int
    return flat and not keys & {"offsets", "validity", "arrow", "text", "index", "type"}
