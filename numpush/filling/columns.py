"""Columns: what each kind of column must know before its place is made, and how it is written.

A column goes through three steps. `survey` looks at each piece of it (an Arrow array) for what its
reader could not tell: missing values, dictionaries, the length of its strings. `sketch` then says
how much room it takes; `write` puts a piece there. A `Column` is of the kind that its dtype under
`table.to_pandas()` asks for: these here are the ones of fixed width and what becomes of Python
objects, text.py has those of Arrow buffers.

(1) Pieces are surveyed and written by several threads, each piece by one at a time, from its start.
    What is kept is kept per piece.
(2) A reader's claim (no missing values, so many bytes) is checked while writing; where it does not
    hold, `ClaimFailed` has the frame filled again, from a survey.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from .. import _pandas
from ..layout.arrow_types import load_pyarrow
from ..layout.schema import Node
from ..layout.sketch import Sketch, Slot
from .pages import Pages

__all__ = ["CategoricalColumn", "ClaimFailed", "Column", "FixedColumn", "WholeColumn"]

Array = NDArray[Any]


class ClaimFailed(Exception):
    """What a file says about itself is not so."""


class Column:
    """One column, or the one index level.

    Parameters
    ----------
    label : of the frame's column, for messages
    field : pyarrow.Field
    dtype : the pandas dtype that it gets, if nothing is missing in it
    """

    #: what `write` needs all of, instead of piece by piece
    is_whole = False

    def __init__(self, label: Any, field: Any, dtype: Any) -> None:
        self.label = label
        self.field = field
        self.dtype = dtype
        self.n_null: dict[int, int] = {}  #: missing values of each piece, where known
        self.n_bytes: dict[int, int] = {}  #: bytes of text of each piece, where known

    def is_known(self, piece: int) -> bool:
        """Whether a piece needs no survey."""
        return True

    def survey(self, piece: int, chunk: Any) -> None:
        """Note what a chunk of a piece tells."""
        self.n_null[piece] = self.n_null.get(piece, 0) + chunk.null_count

    def settle(self, metadata: Any) -> Column:
        """Return the column to write to, now that everything is surveyed: this one, or a whole."""
        return self

    def sketch(self, sketch: Sketch, position: int | None) -> Node | None:
        """Add the column at a position; or, for an index (None), return the node of its values."""
        raise NotImplementedError

    def place(self, slots: dict[int, dict[str, Slot]], position: int | None, pages: Pages) -> None:
        """Learn where it lies, and prepare that."""
        raise NotImplementedError

    def write(self, pages: Pages, piece: int, row: int, chunk: Any) -> None:
        """Store a chunk, whose first row is *row* of the frame."""
        raise NotImplementedError

    def finish_piece(self, piece: int) -> None:
        """Check that a piece was what it claimed to be."""


class FixedColumn(Column):
    """Numbers, bools, datetimes with and without a zone, masked arrays."""

    def __init__(self, label: Any, field: Any, dtype: Any) -> None:
        super().__init__(label, field, dtype)
        # Missing ints become floats, missing bools objects.
        self._asks_for_nulls = (
            isinstance(dtype, np.dtype) and dtype.kind in "biu" and field.nullable
        )
        self._slots: dict[str, Slot] = {}

    def is_known(self, piece: int) -> bool:
        return not self._asks_for_nulls or piece in self.n_null

    def settle(self, metadata: Any) -> Column:
        if not self._asks_for_nulls or not any(self.n_null.values()):
            return self
        pa = load_pyarrow()
        dtype = pa.chunked_array([pa.nulls(1, self.field.type)]).to_pandas().dtype
        if dtype.kind == "O":
            whole = WholeColumn(self.label, self.field, dtype)
            return whole.settle(metadata)
        self.dtype = dtype
        return self

    def sketch(self, sketch: Sketch, position: int | None) -> Node | None:
        if position is not None:
            sketch.add_fixed(position, self.dtype)
            return None
        node, self._slots = sketch.fixed_node(self.dtype)
        return node

    def place(self, slots: dict[int, dict[str, Slot]], position: int | None, pages: Pages) -> None:
        if position is not None:
            self._slots = slots[position]

    def write(self, pages: Pages, piece: int, row: int, chunk: Any) -> None:
        data = self._slots["data"]
        mask = self._slots.get("mask")
        if mask is not None:
            values, missing = _pandas.masked_parts(self.dtype.__from_arrow__(chunk))
            pages.put(mask.buffer, mask.offset + row, missing)
        else:
            if chunk.null_count and data.dtype.kind in "biu":
                raise ClaimFailed(f"column {self.label!r}: missing values, where none were to be")
            values = chunk.to_numpy(zero_copy_only=False)
        if values.dtype != data.dtype:
            values = values.astype(data.dtype)
        pages.put(data.buffer, data.offset + row * data.dtype.itemsize, values)


class CategoricalColumn(Column):
    """Dictionaries, which may differ from piece to piece, become one categorical."""

    def __init__(self, label: Any, field: Any, dtype: Any) -> None:
        super().__init__(label, field, dtype)
        self._dictionaries: dict[int, list[Any]] = {}
        self._all: Any = None
        self._slot: Slot
        self._maps: dict[int, tuple[Any, Array | None]] = {}

    def is_known(self, piece: int) -> bool:
        return piece in self._dictionaries

    def survey(self, piece: int, chunk: Any) -> None:
        known = self._dictionaries.setdefault(piece, [])
        if not known or not known[-1].equals(chunk.dictionary):
            known.append(chunk.dictionary)

    def settle(self, metadata: Any) -> Column:
        """Unify the dictionaries in the order of pieces, as to_pandas does of a whole table's."""
        pa = load_pyarrow()
        kind = self.field.type
        found: list[Any] = []
        for piece in sorted(self._dictionaries):
            for each in self._dictionaries[piece]:
                if not found or not found[-1].equals(each):
                    found.append(each)
        self._dictionaries = {piece: [] for piece in self._dictionaries}
        if not found:
            found = [pa.array([], kind.value_type)]
        none = pa.array([], pa.int32())
        empty = [pa.DictionaryArray.from_arrays(none, each, ordered=kind.ordered) for each in found]
        chunked = pa.chunked_array(empty).unify_dictionaries()
        self._all = chunked.chunk(0).dictionary
        field = self.field.with_type(chunked.type)
        table = pa.Table.from_arrays([chunked], schema=pa.schema([field], metadata))
        self.dtype = as_column(table).dtype
        return self

    def sketch(self, sketch: Sketch, position: int | None) -> Node | None:
        if position is not None:
            sketch.add_fixed(position, self.dtype)
            return None
        node, slots = sketch.fixed_node(self.dtype)
        self._slot = slots["data"]
        return node

    def place(self, slots: dict[int, dict[str, Slot]], position: int | None, pages: Pages) -> None:
        if position is not None:
            self._slot = slots[position]["data"]

    def write(self, pages: Pages, piece: int, row: int, chunk: Any) -> None:
        dtype = self._slot.dtype
        indices = chunk.indices
        mapping = self._mapping(piece, chunk.dictionary)
        codes = indices.fill_null(0).to_numpy(zero_copy_only=False)
        if len(codes) and int(codes.max()) >= max(1, len(chunk.dictionary)):
            raise ValueError(f"column {self.label!r}: indices beyond their dictionary")
        if mapping is None:
            codes = codes.astype(dtype)
        elif len(mapping):
            codes = mapping[codes]
        else:
            codes = np.full(len(codes), -1, dtype)
        if indices.null_count:
            codes[indices.is_null().to_numpy(zero_copy_only=False)] = -1
        pages.put(self._slot.buffer, row * dtype.itemsize, codes)

    def _mapping(self, piece: int, dictionary: Any) -> Array | None:
        """Give the code of each entry of a piece's dictionary; None: it is the first of all."""
        known = self._maps.get(piece)
        if known is not None and (known[0] is dictionary or known[0].equals(dictionary)):
            return known[1]
        pc = load_pyarrow().compute
        mapping = None
        if not self._all[: len(dictionary)].equals(dictionary):
            found = pc.index_in(dictionary, value_set=self._all)
            if found.null_count:
                raise ClaimFailed(f"column {self.label!r}: other categories than before")
            mapping = found.to_numpy().astype(self._slot.dtype)
        self._maps[piece] = dictionary, mapping
        return mapping

    def finish_piece(self, piece: int) -> None:
        self._maps.pop(piece, None)


class WholeColumn(Column):
    """What pandas keeps as Python objects, and all that has no other way: converted at once.

    The pieces are kept as Arrow has them until all are there.
    """

    is_whole = True

    def __init__(self, label: Any, field: Any, dtype: Any) -> None:
        super().__init__(label, field, dtype)
        self.chunks: dict[int, list[Any]] = {}
        self._metadata: Any = None
        self._mapper: Any = None

    def survey(self, piece: int, chunk: Any) -> None:
        self.chunks.setdefault(piece, []).append(chunk)

    def settle(self, metadata: Any) -> Column:
        self._metadata = metadata
        return self

    def use(self, mapper: Any) -> None:
        """Say which types_mapper table.to_pandas is to have."""
        self._mapper = mapper

    def chunked(self) -> Any:
        """Give all pieces as one ChunkedArray."""
        chunks = [chunk for piece in sorted(self.chunks) for chunk in self.chunks[piece]]
        return load_pyarrow().chunked_array(chunks, self.field.type)

    def sketch(self, sketch: Sketch, position: int | None) -> Node | None:
        assert position is not None
        pa = load_pyarrow()
        schema = pa.schema([self.field], self._metadata)
        table = pa.Table.from_arrays([self.chunked()], schema=schema)
        self.chunks = {}
        values = as_column(table, self._mapper).array
        del table
        try:
            sketch.add_values(position, values)
        except TypeError as error:
            raise TypeError(
                f"{error}; or read it as another dtype (dtype_backend='pyarrow' keeps it as Arrow has "
                f"it, {self.field.type}), or leave the column out"
            ) from None
        return None

    def place(self, slots: dict[int, dict[str, Slot]], position: int | None, pages: Pages) -> None:
        pass


def as_column(table: Any, mapper: Any = None) -> Any:
    """Convert a table of one column to a Series, as part of a frame is converted."""
    pa = load_pyarrow()
    field = table.schema.field(0)
    # Its metadata may take it for an index, or speak of others.
    metadata = without_index(field, table.schema.metadata)
    table = pa.Table.from_arrays(table.columns, schema=pa.schema([field], metadata))
    frame: pd.DataFrame = table.to_pandas(types_mapper=mapper)
    return frame.iloc[:, 0]


def without_index(field: Any, metadata: Any) -> Any:
    """Give pandas' metadata for one column of data only."""
    if not metadata or b"pandas" not in metadata:
        return metadata
    said = json.loads(metadata[b"pandas"])
    name = field.name
    said["index_columns"] = []
    said["column_indexes"] = []
    said["columns"] = [
        each for each in said.get("columns", []) if each.get("field_name", each["name"]) == name
    ]
    return {b"pandas": json.dumps(said).encode()}
