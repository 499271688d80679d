"""A shared frame of zeros, to be written in place: nothing but its labels is copied."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pandas as pd

from ..layout.sketch import Sketch
from .pages import Pages

if TYPE_CHECKING:
    from ..sdataframe import SDataFrame

__all__ = ["empty"]

_NAT = -(2**63)  #: NaT, as datetimes and periods keep it


def empty(
    n_rows: int,
    schema: Any,
    *,
    index: Any = None,
    name: str | None = None,
    reserve: bool = True,
) -> SDataFrame:
    """Make a shared frame whose values are zero; write to it with `.SDataFrame.column`, or as pandas does.

    Fresh pages are zero already, so this costs no pass over them; warm memory is cleared.

    Parameters
    ----------
    n_rows : int
    schema : mapping of label -> dtype, DataFrame, or Series of dtypes
        Dtypes of fixed width: NumPy's (datetimes among them), zoned datetimes, masked (Int64,
        boolean, ..), categorical with its categories, period. Of a DataFrame its labels, dtypes and
        attrs count, not its rows.
    index : Index or what makes one, optional
        Of *n_rows* labels. By default a RangeIndex.
    name, reserve : as for SDataFrame

    Returns
    -------
    SDataFrame
        Numbers are 0, bools False, datetimes 1970-01-01 UTC, timedeltas 0; masked values are 0, not
        missing; categoricals and periods are missing (code -1, NaT): their zero would be a value
        that nobody chose, or none at all.

    Raises
    ------
    TypeError : a dtype has no fixed width; the message names the column and the remedy.
    ValueError : *n_rows* is negative, or not the length of *index*.
    SegmentFull, SegmentExists
    """
    n_rows = int(n_rows.__index__())
    if n_rows < 0:
        raise ValueError(f"{n_rows} rows: at least 0 wanted")
    labels, dtypes, attrs = _read_schema(schema)
    if index is None:
        index = pd.RangeIndex(n_rows)
    elif not isinstance(index, pd.Index):
        index = pd.Index(index)
    if len(index) != n_rows:
        raise ValueError(f"an index of {n_rows} labels wanted, {len(index)} found")
    sketch = Sketch(n_rows)
    for position, dtype in enumerate(dtypes):
        sketch.name(f"column {labels[position]!r}", f"df[{labels[position]!r}]")
        _add(sketch, position, dtype, labels[position])
    described = sketch.finish(labels, index, attrs)
    pages = Pages(described, sketch.sink.buffers, name=name, reserve=reserve)
    done = set()
    for position, dtype in enumerate(dtypes):
        for part, slot in sketch.slots[position].items():
            if slot.buffer in done:
                continue
            done.add(slot.buffer)
            if isinstance(dtype, pd.CategoricalDtype):
                pages.clear(slot.buffer, 0xFF)
            elif isinstance(dtype, pd.PeriodDtype) and part == "data":
                pages.fill(slot.buffer, _NAT)
            else:
                pages.clear(slot.buffer)
    frame: SDataFrame = pages.finish()
    return frame


def _read_schema(schema: Any) -> tuple[pd.Index, list[Any], dict[Any, Any]]:
    """Give the labels, the dtypes and the attrs."""
    if isinstance(schema, pd.DataFrame):
        return schema.columns, list(schema.dtypes), schema.attrs
    if isinstance(schema, pd.Series):
        labels, given = schema.index, list(schema)
    elif isinstance(schema, Mapping):
        labels, given = _labels(list(schema)), list(schema.values())
    else:
        raise TypeError(
            f"a mapping of label -> dtype, a DataFrame or a Series of dtypes wanted, "
            f"{type(schema).__name__} found"
        )
    dtypes = []
    for label, dtype in zip(labels, given, strict=True):
        try:
            dtypes.append(pd.api.types.pandas_dtype(dtype))
        except TypeError as error:
            raise TypeError(f"column {label!r}: a dtype wanted, {dtype!r} found: {error}") from None
    return labels, dtypes, {}


def _labels(labels: list[Any]) -> pd.Index:
    # As pandas makes them of a dict's keys, without its dtypes' data.
    made: pd.Index = pd.DataFrame(columns=pd.Index(labels)).columns
    return made


def _add(sketch: Sketch, position: int, dtype: Any, label: Any) -> None:
    if isinstance(dtype, pd.CategoricalDtype) and dtype.categories is None:
        raise TypeError(
            f"column {label!r} has dtype 'category' without categories, which cannot be added later; "
            f"use pd.CategoricalDtype(['a', 'b'])"
        )
    try:
        sketch.add_fixed(position, dtype)
    except TypeError as error:
        raise TypeError(
            f"column {label!r} has dtype {dtype}, whose values have no fixed width to reserve; make "
            f"the frame with its values: SDataFrame(df) or SDataFrame.from_arrow(table), or give the "
            f"column a dtype of fixed width, e.g. 'float64', 'Int64' or a CategoricalDtype with "
            f"its categories"
        ) from error
