"""The plan: which kind of column each field of an Arrow schema becomes, and what the index is.

pyarrow itself is asked, by converting a table of no rows: so the labels, dtypes, index and attrs are
those that `table.to_pandas` gives under the pandas and pyarrow that are running.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from .. import _pandas
from ..layout.arrow_types import load_pyarrow
from ..layout.schema import Node
from ..layout.sketch import Sketch
from .columns import CategoricalColumn, Column, FixedColumn, WholeColumn
from .text import ArrowColumn, TextColumn, is_flat, is_text

__all__ = ["Plan", "types_mapper"]

Mapper = Callable[[Any], Any] | None


def types_mapper(dtype_backend: Any) -> Mapper:
    """Give the types_mapper that pandas' readers use for a dtype_backend.

    Raises
    ------
    ValueError : pandas has no such backend.
    """
    if dtype_backend in (None, pd.api.extensions.no_default, "numpy"):
        return None
    if dtype_backend == "pyarrow":
        return pd.ArrowDtype
    if dtype_backend != "numpy_nullable":
        raise ValueError(
            f"dtype_backend 'numpy_nullable' or 'pyarrow' wanted, {dtype_backend!r} found"
        )
    pa = load_pyarrow()
    names = ("Int8", "Int16", "Int32", "Int64", "UInt8", "UInt16", "UInt32", "UInt64")
    mapping: dict[Any, Any] = {
        getattr(pa, name.lower())(): pd.api.types.pandas_dtype(name) for name in names
    }
    mapping[pa.bool_()] = pd.BooleanDtype()
    mapping[pa.float32()], mapping[pa.float64()] = pd.Float32Dtype(), pd.Float64Dtype()
    mapping[pa.string()] = pd.StringDtype()
    if _pandas.VERSION >= (2, 3):
        mapping[pa.large_string()] = pd.StringDtype()
    return mapping.get


class Plan:
    """The columns of the frame to be, in the order of the schema's fields.

    Attributes
    ----------
    columns : list of Column
        One for each field; those of the index are `index`, by position.
    index : list of int
        Fields that the index is made of.
    """

    def __init__(self, schema: Any, mapper: Mapper) -> None:
        self.schema = schema
        self.mapper = mapper
        empty: pd.DataFrame = schema.empty_table().to_pandas(types_mapper=mapper)
        self.labels = empty.columns
        self.attrs = dict(empty.attrs)
        said = schema.pandas_metadata or {}
        self._levels = said.get("index_columns", [])
        found = [schema.get_field_index(each) for each in self._levels if type(each) is str]
        self.index = [each for each in found if each >= 0]
        self._empty_index = empty.index
        fields = [schema.field(i) for i in range(len(schema))]
        data = [i for i in range(len(fields)) if i not in self.index]
        dtypes: dict[int, Any] = dict(zip(data, empty.dtypes))
        labels: dict[int, Any] = dict(zip(data, empty.columns))
        if len(self.index) == 1:
            dtypes[self.index[0]] = empty.index.dtype
        self.positions = {field: position for position, field in enumerate(data)}
        self.columns = [
            self._choose(labels.get(i, f"the index {field.name!r}"), field, dtypes.get(i))
            for i, field in enumerate(fields)
        ]

    def _choose(self, label: Any, field: Any, dtype: Any) -> Column:
        types = load_pyarrow().types
        kind = field.type
        if dtype is None:  # a level of several
            return WholeColumn(label, field, dtype)
        if isinstance(dtype, np.dtype) and dtype.kind != "O":
            if types.is_primitive(kind):
                return FixedColumn(label, field, dtype)
        elif isinstance(dtype, pd.CategoricalDtype):
            if types.is_dictionary(kind):
                return CategoricalColumn(label, field, dtype)
        elif isinstance(dtype, pd.DatetimeTZDtype):
            if types.is_timestamp(kind):
                return FixedColumn(label, field, dtype)
        elif isinstance(dtype, pd.ArrowDtype):
            if is_flat(kind) and dtype.pyarrow_dtype == kind:
                return ArrowColumn(label, field, dtype)
        elif is_text(kind) and not types.is_binary(kind) and not types.is_large_binary(kind):
            if isinstance(dtype, pd.StringDtype) and dtype.storage != "python":
                return ArrowColumn(label, field, dtype)
            if isinstance(dtype, pd.StringDtype | np.dtype):
                return TextColumn(label, field, dtype)
        elif _is_masked(dtype) and types.is_primitive(kind):
            return FixedColumn(label, field, dtype)
        whole = WholeColumn(label, field, dtype)
        whole.use(self.mapper)
        return whole

    def settle(self) -> None:
        """Have each column decide what it is, after the survey."""
        for i, column in enumerate(self.columns):
            metadata = None if i in self.index else self.schema.metadata
            self.columns[i] = column.settle(metadata)

    @property
    def has_plain_index(self) -> bool:
        """Whether the index is one level that is written where it lies, or no column at all."""
        return len(self._levels) < 2 and not any(self.columns[i].is_whole for i in self.index)

    def make_index(self, n_rows: int, sketch: Sketch) -> pd.Index | Node:
        """Give the index, or the node of one that is to be written."""
        if not self.index:
            return self._make_range(n_rows)
        if self.has_plain_index:
            node = self.columns[self.index[0]].sketch(sketch, None)
            assert node is not None
            return sketch.index_node(node, self._empty_index.name)
        pa = load_pyarrow()
        parts: list[WholeColumn] = [
            column for i in self.index if isinstance(column := self.columns[i], WholeColumn)
        ]
        schema = pa.schema([self.schema.field(i) for i in self.index], self.schema.metadata)
        table = pa.Table.from_arrays([part.chunked() for part in parts], schema=schema)
        index: pd.Index = table.to_pandas(types_mapper=self.mapper).index
        return index

    def _make_range(self, n_rows: int) -> pd.Index:
        for level in self._levels:
            if isinstance(level, dict) and level.get("kind") == "range":
                index = pd.RangeIndex(
                    level["start"], level["stop"], step=level["step"], name=level["name"]
                )
                if len(index) == n_rows:
                    return index
        return pd.RangeIndex(n_rows)


def _is_masked(dtype: Any) -> bool:
    masked = pd.arrays.BooleanArray, pd.arrays.IntegerArray, pd.arrays.FloatingArray
    make = getattr(dtype, "construct_array_type", None)
    return make is not None and issubclass(make(), masked)
