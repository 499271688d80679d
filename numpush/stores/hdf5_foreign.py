"""What others wrote to an HDF5 file: a dataset is an array, a group of columns is a frame."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from ..layout import VERSION, SchemaError
from ..layout.buffer import Sink
from ..layout.dtype import encode_dtype
from ..record import Record

__all__ = ["foreign_record"]


def foreign_record(item: Any, datasets: list[list[Any]]) -> Record:
    """Return the record that numpush would have written of a dataset, or of a group of columns.

    The columns of a group become one buffer each, in *datasets*' order.

    Raises
    ------
    SchemaError : numpush has no layout for it.
    """
    if hasattr(item, "shape"):
        schema = _array_schema(item.shape, item.dtype, 0)
        size = prod(item.shape) * item.dtype.itemsize
        return Record(schema, [size], size, None, "")
    columns = [each[0] for each in datasets]
    n_rows = len(columns[0])
    names = [column.name.rpartition("/")[2] for column in columns]
    import pandas as pd

    from ..layout.index import describe_labels

    sink = Sink()
    node: dict[str, Any] = {
        "kind": "frame",
        "v": VERSION,
        "rows": n_rows,
        "cols": len(columns),
        "blocks": [],
        "arrays": [],
        "index": {"kind": "range", "start": 0, "stop": n_rows, "step": 1},
    }
    for i, column in enumerate(columns):
        dtype = column.dtype
        if dtype.kind not in "biufc":
            raise SchemaError(
                f"column {names[i]!r} has dtype {dtype}, which pandas has no column of"
            )
        node["blocks"].append({"dtype": encode_dtype(dtype), "data": i, "at": [i, 1], "count": 1})
    sink.buffers = [None] * len(columns)  # type: ignore[list-item]  # only their number counts here
    node["columns"] = describe_labels(pd.Index(names), sink)
    if len(sink.buffers) > len(columns):
        raise SchemaError("the names of the columns are too long")
    sizes = [len(column) * column.dtype.itemsize for column in columns]
    return Record(node, sizes, sum(sizes), None, "")


def _array_schema(shape: tuple[int, ...], dtype: np.dtype[Any], data: int) -> dict[str, Any]:
    return {
        "kind": "ndarray",
        "v": VERSION,
        "dtype": encode_dtype(dtype),
        "shape": list(shape),
        "order": "C",
        "data": data,
    }
