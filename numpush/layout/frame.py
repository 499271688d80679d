"""DataFrames and Series.

"frame": {"rows", "cols", "blocks", "arrays": [[position, array node], ..], "index", "columns"} and,
where they are not empty or not the default, "attrs" and "unique_labels"; see block.py for blocks.
"series": {"rows", "values": array node, "index"}, the same two, and "name".

(1) The columns of one NumPy dtype, zone of datetimes or freq of periods are one C-ordered (columns,
    rows) block, whatever blocks the frame described had, in the order of their positions; blocks
    stand in the order of their first column. So equal frames have equal schemas, which do not grow
    with the number of columns. With `keep_blocks` they are described as they are, or row by row
    where that saves a copy.
(2) The frame described is not touched: its blocks are gathered by the copies that fill the buffer.
(3) What is rebuilt is a plain pandas object, whatever subclass was described.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from .. import _pandas
from .block import Part, describe_block, join_positions, rebuild_block, split_kind
from .buffer import Array, Sink
from .index import (
    PANDAS_KINDS,
    build_index,
    build_values,
    describe_labels,
    describe_values,
)
from .place import Positions
from .registry import describe_node, register_kind, register_type
from .scalar import decode_label, decode_value, encode_value
from .schema import Node, SchemaError, found, read_bool, read_int, read_list, read_node
from .source import Source

#: A block with gaps of up to so many columns is described column by column, if blocks are kept.
MAX_SPLIT = 16


def describe_frame(frame: pd.DataFrame, sink: Sink) -> Node:
    """Describe a DataFrame; rules (1) and (2)."""
    n_rows, n_columns = frame.shape
    blocks, arrays = _pandas.read_blocks(frame)
    columns = frame.columns
    groups: dict[Any, tuple[Node, list[Part]]] = {}
    for whole, positions in blocks:
        if not isinstance(whole, np.ndarray):
            _name_column(columns, int(positions[0]), sink)
        values, kind = split_kind(whole, sink)
        if (
            values.dtype.kind in "mM" and not values.dtype.isnative
        ):  # pandas has them by accident only
            values = values.astype(values.dtype.newbyteorder("="))
        if values.dtype == object:
            arrays.extend((int(at), values[row]) for row, at in enumerate(positions))
        elif values.dtype.kind in PANDAS_KINDS:
            if not sink.keep_blocks:
                key = (values.dtype, *kind.values())
                groups.setdefault(key, (kind, []))[1].append((values, positions))
            elif values.flags.c_contiguous or len(values) > MAX_SPLIT:
                groups[len(groups)] = kind, [(values, positions)]
            else:  # every second row, say, of what was a block
                for row in range(len(values)):
                    part = values[row : row + 1], positions[row : row + 1]
                    groups[len(groups)] = kind, [part]
        else:
            _name_column(columns, int(positions[0]), sink)
            raise sink.refuse(values.dtype, "that has no layout")
    placed = sorted(groups.values(), key=lambda group: int(join_positions(group[1]).min()))
    node: Node = {
        "kind": "frame",
        "rows": n_rows,
        "cols": n_columns,
        "blocks": [describe_block(parts, kind, n_rows, sink) for kind, parts in placed],
    }
    arrays.sort(key=lambda item: item[0])
    described = []
    for position, values in arrays:
        _name_column(columns, position, sink)
        described.append([position, describe_values(values, sink)])
    node["arrays"] = described
    sink.where, sink.expression = "the index", "df.index"
    node["index"] = describe_node(frame.index, sink)
    sink.where, sink.expression = "the column labels", "df.columns"
    node["columns"] = describe_labels(columns, sink)
    _describe_extras(frame, node, "df")
    return node


def _name_column(columns: pd.Index, position: int, sink: Sink) -> None:
    label = _plain_label(columns[position])
    sink.where, sink.expression = f"column {label!r}", f"df[{label!r}]"


def _plain_label(label: Any) -> Any:
    """Give a label as a user would write it: 1, not np.int64(1)."""
    if isinstance(label, tuple):
        return tuple(map(_plain_label, label))
    return label.item() if isinstance(label, np.generic) else label


def _describe_extras(obj: Any, node: Node, name: str) -> None:
    if obj.attrs:
        node["attrs"] = encode_value(dict(obj.attrs), f"{name}.attrs")
    if not obj.flags.allows_duplicate_labels:
        node["unique_labels"] = True


def rebuild_frame(node: Node, source: Source) -> pd.DataFrame:
    """Build a DataFrame over its blocks; only object columns are copied (decoded)."""
    n_rows, n_columns = read_int(node, "rows"), read_int(node, "cols")
    index = build_index(node.get("index"), source, "'index'")
    columns = build_index(node.get("columns"), source, "'columns'")
    if len(index) != n_rows or len(columns) != n_columns:
        raise SchemaError(
            f"schema 'index', 'columns': {n_rows} and {n_columns} labels wanted, "
            f"{len(index)} and {len(columns)} found"
        )
    blocks = [
        rebuild_block(read_node(block, "'blocks'"), source, n_rows, n_columns)
        for block in read_list(node, "blocks")
    ]
    blocks += _rebuild_arrays(read_list(node, "arrays"), source, n_rows, n_columns)
    _check_complete([at for _, at in blocks], n_columns)
    frame = _pandas.make_frame(blocks, index, columns)
    _rebuild_extras(frame, node, source)
    return frame


def _rebuild_arrays(
    items: list[Any], source: Source, n_rows: int, n_columns: int
) -> list[tuple[Any, Positions]]:
    """Build extension arrays, each its own block, and object columns, in one block together."""
    blocks: list[tuple[Any, Positions]] = []
    objects: list[tuple[int, Array]] = []
    for item in items:
        if type(item) is not list or len(item) != 2:
            raise SchemaError(f"schema 'arrays': [position, array] wanted, {found(item)}")
        position, value = item
        if type(position) is not int or not 0 <= position < n_columns:
            raise SchemaError(
                f"schema 'arrays': positions below {n_columns} wanted, {found(position)}"
            )
        values = build_values(value, source, n_rows, "'arrays'")
        if not isinstance(values, np.ndarray):
            blocks.append((values, np.array([position], np.intp)))
        elif values.dtype == object:
            objects.append((position, values))
        else:
            blocks.append((values.reshape(1, n_rows), np.array([position], np.intp)))
    if objects:
        together = np.empty((len(objects), n_rows), object)
        for row, (_, values) in enumerate(objects):
            together[row] = values
        blocks.append((together, np.array([position for position, _ in objects], np.intp)))
    return blocks


def _check_complete(places: list[Positions], n_columns: int) -> None:
    """Check that each column has exactly one place: pandas reads wild memory otherwise."""
    if sum(map(len, places)) == n_columns:
        if not n_columns:
            return
        seen = np.zeros(n_columns, np.bool_)
        for at in places:
            seen[at] = True
        if bool(seen.all()):
            return
    raise SchemaError(f"schema 'blocks': each of {n_columns} columns in one place wanted")


def _rebuild_extras(obj: Any, node: Node, source: Source) -> None:
    if node.get("attrs") is not None:
        attrs = decode_value(node["attrs"])
        if type(attrs) is not dict:
            raise SchemaError(f"schema 'attrs': a dict wanted, {found(attrs)}")
        obj.attrs = attrs
    if read_bool(node, "unique_labels", False):
        if source.validate:
            obj.flags.allows_duplicate_labels = False
        else:
            _pandas.forbid_duplicate_labels(obj)


def describe_series(series: pd.Series, sink: Sink) -> Node:
    """Describe a Series."""
    sink.where, sink.expression = f"Series {series.name!r}", "s"
    node: Node = {
        "kind": "series",
        "rows": len(series),
        "values": describe_values(series.array, sink),
    }
    sink.where, sink.expression = "the index", "s.index"
    node["index"] = describe_node(series.index, sink)
    if series.name is not None:
        node["name"] = encode_value(series.name, "the name of the Series")
    _describe_extras(series, node, "s")
    return node


def rebuild_series(node: Node, source: Source) -> pd.Series:
    """Build a Series over its values; only object values are copied (decoded)."""
    n_rows = read_int(node, "rows")
    index = build_index(node.get("index"), source, "'index'")
    if len(index) != n_rows:
        raise SchemaError(f"schema 'index': {n_rows} labels wanted, {len(index)} found")
    values = build_values(node.get("values"), source, n_rows, "'values'")
    name = decode_label(node.get("name"))
    series: pd.Series = pd.Series(values, index=index, dtype=values.dtype, name=name, copy=False)
    _rebuild_extras(series, node, source)
    return series


register_type(pd.DataFrame, describe_frame, subclasses=True)
register_type(pd.Series, describe_series, subclasses=True)
register_kind("frame", "table", rebuild_frame)
register_kind("series", "table", rebuild_series)
