"""A sketch: the schema of a frame whose values are yet to come, and the size of each buffer.

It says what `describe` would say of the finished frame. Buffers that `reserve` gave out are the
caller's to fill, with what the node says; those of labels, categories and columns that are there
already are filled by their own copies, as always.

(1) Columns of one dtype become one block, where they can, in the order of their positions; blocks
    stand in the order of their first column; everything else in the order of positions (frame.py).
(2) A node of fixed width is that of one missing value, made longer: so each family keeps its own
    format, and a family whose values are not one width each is refused.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from .block import block_node, split_kind
from .buffer import Buffer, Sink
from .datetimes import UNITS
from .dtype import encode_dtype
from .index import PANDAS_KINDS, describe_labels, describe_values
from .registry import describe_node
from .scalar import encode_value
from .schema import VERSION, Node, Schema
from .selection import has_fixed_width

__all__ = ["Sketch", "Slot"]

_BYTE = np.dtype(np.uint8)
#: What a node calls its buffers that have an item for each row.
_PARTS = ("data", "mask")


class Slot(NamedTuple):
    """Where the values of a column will lie: from *offset* bytes on in a buffer, as *dtype*."""

    buffer: int
    offset: int
    dtype: np.dtype[Any]


class Sketch:
    """The description of a frame, column by column; `finish` gives the schema.

    Attributes
    ----------
    sink : Sink
        Its buffers, and what is being described, for messages.
    slots : dict of position -> {"data": Slot, ..}
        Of the fixed-width columns. Those that lie in blocks are known after `finish`.
    """

    def __init__(self, n_rows: int) -> None:
        self.n_rows = n_rows
        self.sink = Sink()
        self.sink.allow_pickle = True  # a sketch is of a segment
        self.slots: dict[int, dict[str, Slot]] = {}
        self._groups: dict[Any, tuple[np.dtype[Any], Node, list[int]]] = {}
        self._arrays: list[list[Any]] = []

    def reserve(self, nbytes: int) -> int:
        """Add a buffer that the caller fills; gives its index for the schema."""
        return self.sink.put(Buffer((nbytes,), _BYTE, [], nbytes))

    def name(self, where: str, expression: str) -> None:
        """Say what is described next, for messages: "column 'x'", "df['x']"."""
        self.sink.where, self.sink.expression = where, expression

    def add_fixed(self, position: int, dtype: Any) -> None:
        """Add a column of fixed width.

        Raises
        ------
        TypeError : the dtype has no fixed width, or no layout.
        """
        if isinstance(dtype, np.dtype):
            if dtype.kind not in PANDAS_KINDS or (dtype.kind in "mM" and not has_unit(dtype)):
                raise self.sink.refuse(dtype, "that has no layout")
            self._add_to_block(position, dtype, {})
            return
        one = pd.array([dtype.na_value], dtype=dtype)
        if isinstance(one, pd.arrays.DatetimeArray | pd.arrays.PeriodArray):
            values, kind = split_kind(one, self.sink)
            self._add_to_block(position, values.dtype, kind)
            return
        node, self.slots[position] = self.fixed_node(dtype)
        self._arrays.append([position, node])

    def _add_to_block(self, position: int, dtype: np.dtype[Any], kind: Node) -> None:
        group = self._groups.setdefault((dtype, *kind.values()), (dtype, kind, []))
        group[2].append(position)

    def add_node(self, position: int, node: Node) -> None:
        """Add a column whose node the caller made, of buffers that it reserved."""
        self._arrays.append([position, node])

    def add_values(self, position: int, values: Any) -> None:
        """Add a column that is there already, to be copied."""
        self._arrays.append([position, describe_values(values, self.sink)])

    def fixed_node(self, dtype: Any) -> tuple[Node, dict[str, Slot]]:
        """Give an array node of fixed width, and where its parts will lie; rule (2)."""
        if isinstance(dtype, np.dtype):
            slot = Slot(self.reserve(self.n_rows * dtype.itemsize), 0, dtype)
            shape = [self.n_rows]
            code = encode_dtype(dtype)
            plain = {"kind": "ndarray", "dtype": code, "shape": shape, "order": "C"}
            return {**plain, "data": slot.buffer}, {"data": slot}
        one = pd.array([dtype.na_value], dtype=dtype)
        first = len(self.sink.buffers)
        node: Node = describe_values(one, self.sink)
        if not has_fixed_width(node):
            del self.sink.buffers[first:]
            raise self.sink.refuse(dtype, "whose values have no fixed width")
        slots = {}
        for part in _PARTS:
            if part in node:
                single = self.sink.buffers[node[part]]
                item = np.dtype(node["dtype"]) if part == "data" else np.dtype(np.bool_)
                nbytes = self.n_rows * single.nbytes
                self.sink.buffers[node[part]] = Buffer((nbytes,), _BYTE, [], nbytes)
                slots[part] = Slot(node[part], 0, item)
        node["rows"] = self.n_rows
        return node, slots

    def index_node(self, values: Node, name: Any) -> Node:
        """Give the node of an index whose values are described by *values*."""
        node: Node = {"kind": "index", "values": values}
        if name is not None:
            node["name"] = encode_value(name, "the name of the index")
        return node

    def finish(
        self, columns: pd.Index, index: pd.Index | Node, attrs: dict[Any, Any] | None = None
    ) -> Schema:
        """Give the schema; nothing is added afterwards."""
        node: Schema = {
            "kind": "frame",
            "v": VERSION,
            "rows": self.n_rows,
            "cols": len(columns),
            "blocks": [self._block(*group) for group in self._groups.values()],
            "arrays": sorted(self._arrays, key=lambda item: item[0]),
        }
        if isinstance(index, dict):
            node["index"] = index
        else:
            self.name("the index", "df.index")
            node["index"] = describe_node(index, self.sink)
        self.name("the column labels", "df.columns")
        node["columns"] = describe_labels(columns, self.sink)
        if attrs:
            node["attrs"] = encode_value(dict(attrs), "df.attrs")
        return node

    def _block(self, dtype: np.dtype[Any], kind: Node, positions: list[int]) -> Node:
        stride = self.n_rows * dtype.itemsize
        buffer = self.reserve(len(positions) * stride)
        for row, position in enumerate(positions):
            self.slots[position] = {"data": Slot(buffer, row * stride, dtype)}
        return block_node(dtype, kind, buffer, np.array(positions, np.intp), self.sink)


def has_unit(dtype: np.dtype[Any]) -> bool:
    """Whether pandas has the unit of a "M8" or "m8" dtype."""
    return np.datetime_data(dtype) in [(unit, 1) for unit in UNITS]
