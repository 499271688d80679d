"""What is derived from an SDataFrame: private, and unchanged by later writes."""

from __future__ import annotations

import copy
import gc
import warnings
from typing import Any

import numpy as np
import pandas as pd
import pytest

import numpush
from numpush import SDataFrame
from numpush.errors import SegmentNotFound
from shared_frames import PANDAS_3, equal, numeric

pytestmark = pytest.mark.usefixtures("copy_on_write")

DERIVED = {
    "column": lambda d: d["a"],
    "attribute": lambda d: d.a,
    "iloc rows": lambda d: d.iloc[2:20],
    "iloc column": lambda d: d.iloc[:, 0],
    "loc column": lambda d: d.loc[:, "a"],
    "columns": lambda d: d[["a", "b"]],
    "slice": lambda d: d[2:20],
    "rename": lambda d: d.rename(columns={"b": "B"}),
    "reset_index": lambda d: d.reset_index(drop=True),
    "set_axis": lambda d: d.set_axis(range(len(d))),
    "shallow copy": lambda d: d.copy(deep=False),
    "copy.copy": copy.copy,
    "DataFrame": lambda d: pd.DataFrame(d),
    "DataFrame of columns": lambda d: pd.DataFrame({"a": d["a"]}, copy=False),
    "Series": lambda d: pd.Series(d["a"]),
    "fillna": lambda d: d.fillna(0),
    "astype": lambda d: d.astype("f8", copy=False) if not PANDAS_3 else d.astype("f8"),
    "T": lambda d: d[["a", "b"]].T,
    "T.T": lambda d: d[["a", "b"]].T.T,
    "set_index": lambda d: d.set_index("i"),
    "assign": lambda d: d.assign(new=1),
    "head": lambda d: d.head(7),
    "concat": lambda d: pd.concat([d, d.rename(columns=str.upper)], axis=1),
    "items": lambda d: next(iter(d.items()))[1],
    "squeeze": lambda d: d[["a"]].squeeze(),
    "swapaxes": lambda d: d.transpose().transpose(),
    "xs": lambda d: d.xs("a", axis=1),
    "get": lambda d: d.get("a"),
    "pipe": lambda d: d.pipe(lambda x: x[["a"]]),
    "groupby": lambda d: next(iter(d.groupby(np.zeros(len(d), int))))[1],
    "index": lambda d: pd.Series(d.set_index("a").index),
    "to_frame": lambda d: d["a"].to_frame(),
    "partition": lambda d: d.partitions(2)[0]["a"],
    "filter": lambda d: d.filter(["a"]),
    "select_dtypes": lambda d: d.select_dtypes("f8"),
    "truncate": lambda d: d.truncate(before=12),
    "infer_objects": lambda d: d.infer_objects(),
    "convert_dtypes": lambda d: d.convert_dtypes(),
}


def write_to(derived: Any) -> None:
    if derived.ndim == 1:
        derived.iloc[0] = 99.0
        derived.iloc[1:3] = 98.0
    else:
        derived.iloc[0, 0] = 99.0
        derived.iloc[1:3] = derived.iloc[1:3] * 0 + 98
        derived.iloc[:, 0] = 97.0


@pytest.mark.parametrize("derive", DERIVED.values(), ids=DERIVED)
@pytest.mark.parametrize("owner", ["alive", "gone"])
def test_what_is_derived_never_writes_to_shared_memory(derive, owner):
    """Without an anchor, pandas takes the last frame over some memory for its sole owner."""
    sdf = SDataFrame(numeric())
    again = numpush.attach(sdf.handle)
    watch = sdf.column("a"), sdf.column("b"), sdf.column("i")
    before = [column.copy() for column in watch]
    derived = derive(sdf)
    if owner == "gone":
        del sdf, again
        gc.collect()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        write_to(derived)
    for column, was in zip(watch, before):
        np.testing.assert_array_equal(column, was)


@pytest.mark.parametrize("derive", DERIVED.values(), ids=DERIVED)
@pytest.mark.parametrize("through", ["frame", "partition", "attached again"])
def test_a_write_does_not_change_what_this_process_derived_before(derive, through):
    sdf = SDataFrame(numeric())
    derived = derive(sdf)
    before = derived.copy()
    if through == "partition":
        writer = sdf.partitions(2)[0]
    elif through == "attached again":
        handle, keep = sdf.handle, sdf.column("a")
        del sdf
        gc.collect()
        writer = numpush.attach(handle)
        del keep
    else:
        writer = sdf
    writer.loc[10:14, ["a", "i"]] = 77
    writer["b"] = -1.0
    writer["a"] += 1
    writer.iloc[0] = 5
    if derived.ndim == 1:
        pd.testing.assert_series_equal(derived, before)
    else:
        equal(derived, before)


@pytest.mark.parametrize("dtype", ["int64", "Int64"])
def test_nor_what_became_an_arrow_array_without_a_copy(dtype):
    pytest.importorskip("pyarrow", reason="arrow dtypes need pyarrow")
    sdf = SDataFrame(pd.DataFrame({"a": [1, 2, 3]}, dtype=dtype))
    frame, series = sdf.astype("int64[pyarrow]"), sdf["a"].astype("int64[pyarrow]")
    sdf.iloc[0, 0] = 100
    sdf["a"] += 1
    assert frame["a"].tolist() == series.tolist() == [1, 2, 3]
    assert sdf["a"].tolist() == [101, 3, 4]


def test_a_write_shows_in_other_frames_of_the_segment():
    sdf = SDataFrame(numeric())
    again, part = numpush.attach(sdf.handle), sdf.partitions(3)[1]
    sdf["a"] = 5.0
    assert (again["a"] == 5).all()
    assert (part["a"] == 5).all()
    part.loc[part.index[0], "i"] = -7
    assert (sdf["i"] == -7).sum() == 1
    assert (again["i"] == -7).sum() == 1


def test_rows_given_to_apply_are_private():
    sdf = SDataFrame(numeric()[["a", "b"]])
    before = sdf.to_pandas()

    def change(row):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            row.iloc[0] = -1.0
        return row

    sdf.apply(change, axis=1)
    equal(sdf.to_pandas(), before)


def test_a_plain_frame_of_it_is_not_written_through():
    sdf = SDataFrame(numeric())
    plain = pd.DataFrame(sdf)
    plain["a"] = 0.0
    plain.loc[10, "b"] = 99.0
    plain["new"] = 1
    equal(sdf.to_pandas(), numeric())


def test_the_rows_labels_are_private_too():
    sdf = SDataFrame(numeric().set_index("a"))
    labels = pd.Series(sdf.index)
    name = sdf.name
    del sdf
    gc.collect()
    labels.iloc[0] = 99.0
    with pytest.raises(SegmentNotFound):  # nobody has it any more: the write copied
        numpush.attach(name)


def test_no_references_pile_up():
    sdf = SDataFrame(numeric())
    for _ in range(300):
        sdf["a"]
        sdf.iloc[3:5]
        sdf.partitions(2)
        sdf.loc[10, "a"] = 1.0
    counters = sdf._window.store.history.references[0]
    assert all(len(counter.referenced_blocks) < 600 for counter in counters)
