"""What others wrote to an HDF5 file.

a dataset of numbers, bytes, structured items   an array
a dataset of text of variable length            an array of str, read whole by h5py
a group of 1-D datasets of one length           a frame
pandas' HDFStore                                the frame or series: hdf5_pandas.py
"""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from ..layout import VERSION, SchemaError
from ..layout.buffer import Sink
from ..layout.dtype import encode_dtype
from ..record import Record
from .errors import StoreDamaged
from .hdf5_layout import RECORD
from .hdf5_pandas import read_pandas

__all__ = ["foreign_record", "kind_of", "read_whole"]

_NUMBERS = "biufc"  #: kinds of dtypes that columns of a frame have, read into place


def kind_of(item: Any) -> str:
    """Return what a dataset or group holds: 'array' or 'frame', whose data can be read into place;
    'text', 'text frame' or 'pandas', which are read whole; or '': a folder, or nothing of ours."""
    import h5py

    if isinstance(item, h5py.Dataset):
        if item.shape is None:
            return ""
        if item.dtype.hasobject:
            return "text" if h5py.check_string_dtype(item.dtype) is not None else ""
        return "array"
    if not isinstance(item, h5py.Group):
        return ""
    if RECORD in item:
        return "frame"
    if "pandas_type" in item.attrs:
        return "pandas"
    kinds = set()
    n_rows = None
    for name in item:
        each = item[name] if isinstance(item.get(name, getlink=True), h5py.HardLink) else None
        shape = getattr(each, "shape", None)
        if each is None or shape is None or len(shape) != 1 or n_rows not in (None, shape[0]):
            return ""
        n_rows = shape[0]
        if RECORD in each.attrs:
            return ""
        is_text = each.dtype.kind == "S" or h5py.check_string_dtype(each.dtype) is not None
        if not is_text and each.dtype.kind not in _NUMBERS:
            return ""
        kinds.add("text frame" if is_text else "frame")
    return max(kinds, default="")


def read_whole(item: Any, kind: str, what: str) -> Any:
    """Return what is read whole, as an object of this process.

    Raises
    ------
    StoreDamaged : it is in a form that we do not read; the message says who does.
    """
    if kind == "pandas":
        return read_pandas(item, what)
    if kind == "text":
        return _text_of(item, what)
    import pandas as pd

    columns = {
        name: each[()] if each.dtype.kind in _NUMBERS else _text_of(each, what)
        for name, each in item.items()
    }
    return pd.DataFrame(columns)


def _text_of(dataset: Any, what: str) -> Any:
    try:
        if dataset.dtype.kind == "S":
            return np.char.decode(dataset[()], "utf-8")
        return np.asarray(dataset.asstr()[()]).astype(np.str_)
    except UnicodeDecodeError as error:
        raise StoreDamaged(f"{what}: {dataset.name!r} is no UTF-8: {error}") from error


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
        if dtype.kind not in _NUMBERS:
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
