"""SDataFrame: what it reads as, what may be derived from it, its parts, and how it travels."""

from __future__ import annotations

import copy
import gc
import multiprocessing
import os
import pickle
import threading
import warnings
import weakref
from multiprocessing.reduction import ForkingPickler
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import numpush
from numpush import SArray, SDataFrame, SharedStructureError
from numpush.errors import HandleClosed, LockError, SegmentDamaged, SegmentNotFound
from numpush.frame_spellings import WritesInPlace
from numpush.handle import FrameHandle
from numpush.sdataframe import attach_frame

PANDAS_3 = int(pd.__version__.split(".")[0]) >= 3
LIMIT = 60.0  #: seconds that anything here may take on a busy machine
equal = pd.testing.assert_frame_equal


@pytest.fixture(autouse=True)
def _copy_on_write():
    """pandas 2 promises what we test here only with copy-on-write; 3 always has it."""
    if PANDAS_3:
        yield
    else:
        with pd.option_context("mode.copy_on_write", True):
            yield


def make(n: int = 33) -> pd.DataFrame:
    """Build a frame with columns of many families; odd sizes on purpose."""
    random = np.random.default_rng(7)
    frame = pd.DataFrame(
        {
            "f": random.random(n),
            "i": np.arange(n),
            "g": random.random(n),
            "b": random.random(n) > 0.5,
            "small": np.arange(n, dtype="i2"),
            "t": pd.date_range("2020-01-01", periods=n, unit="ns"),
            "z": pd.date_range("2020-01-01", periods=n, tz="Europe/Paris", unit="us"),
            "d": pd.to_timedelta(np.arange(n), unit="s"),
            "k": pd.Categorical(list("xyz" * n)[:n]),
            "m": pd.array([None, *range(1, n)], dtype="Int64") if n else pd.array([], "Int64"),
            "s": pd.array([f"text {i}" for i in range(n)], dtype="string[pyarrow]"),
            "o": np.array([f"object {i}" for i in range(n)], dtype=object),
        }
    )
    frame.attrs["unit"] = "m"
    return frame


def numeric(n: int = 33) -> pd.DataFrame:
    return pd.DataFrame(
        {"a": np.arange(float(n)), "b": np.arange(n) * 0.5, "i": np.arange(n)},
        index=pd.RangeIndex(10, 10 + n),
    )


# -- reading


def test_it_reads_as_the_frame_it_was_made_from():
    frame = make()
    sdf = SDataFrame(frame)
    assert isinstance(sdf, pd.DataFrame)
    equal(sdf.to_pandas(), frame)
    equal(sdf.copy(), frame)
    equal(pd.DataFrame(sdf), frame)
    assert repr(sdf) == repr(frame)
    assert sdf._repr_html_() == frame._repr_html_()
    assert sdf.to_string() == frame.to_string()
    assert sdf.attrs == frame.attrs


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [
        ((), {}),
        (({"a": [1, 2]},), {}),
        ((np.arange(6).reshape(3, 2),), {"columns": ["x", "y"], "index": list("abc")}),
        (([[1, 2.5], [3, 4.5]],), {"dtype": "f4"}),
        (({"a": [1, 2], "b": [3, 4]}, [5, 6]), {"columns": ["b"]}),
        ((pd.Series([1, 2], name="s"),), {}),
        ((pd.DataFrame({"a": [1, 2]}),), {"dtype": "f8"}),
    ],
)
def test_it_takes_what_a_dataframe_takes(args, kwargs):
    sdf, frame = SDataFrame(*args, **kwargs), pd.DataFrame(*args, **kwargs)
    if frame.shape == (0, 0):
        assert sdf.shape == frame.shape
    else:
        equal(sdf.to_pandas(), frame)


def test_the_source_may_change_afterwards():
    frame = numeric()
    sdf = SDataFrame(frame)
    before = sdf.to_pandas()
    frame.loc[10, "a"] = 99
    equal(sdf.to_pandas(), before)
    sdf.loc[11, "a"] = 98
    assert frame.loc[11, "a"] == 1


def test_a_shared_frame_may_be_made_from_another():
    first = SDataFrame(make())
    second = SDataFrame(first)
    assert second.name != first.name
    second["f"] = 0.0
    equal(first.to_pandas(), make())


READS = {
    "column": lambda d: d["f"],
    "attribute": lambda d: d.f,
    "columns": lambda d: d[["f", "i", "s"]],
    "mask": lambda d: d[d["i"] > 5],
    "iloc": lambda d: d.iloc[3],
    "iloc slice": lambda d: d.iloc[3:9, 1:4],
    "loc": lambda d: d.loc[3:9, "g"],
    "head": lambda d: d.head(3),
    "sum": lambda d: d[["f", "i", "g"]].sum(),
    "describe": lambda d: d.describe(),
    "groupby": lambda d: d.groupby("k", observed=True)[["f", "i"]].mean(),
    "groupby apply": lambda d: d.groupby("k", observed=True)[["f", "i"]].apply(lambda g: g.sum()),
    "merge": lambda d: d.merge(d[["i", "g"]], on="i"),
    "merge right": lambda d: d[["i", "g"]].merge(d, on="i"),
    "concat": lambda d: pd.concat([d, d]),
    "concat wide": lambda d: pd.concat([d["f"].rename("u"), d], axis=1),
    "concat of a series and frame": lambda d: pd.concat([pd.Series([1], name="f"), d[["f"]]]),
    "join": lambda d: d.join(d[["f"]].rename(columns=str.upper)),
    "sort": lambda d: d.sort_values("f"),
    "query": lambda d: d.query("f > 0.5"),
    "query of a local": lambda d: _query_local(d),
    "eval": lambda d: d.eval("f + g"),
    "assign": lambda d: d.assign(new=d["f"] * 2),
    "arithmetic": lambda d: d[["f", "g"]] * 2 + d[["g", "f"]].values,
    "numpy": lambda d: np.sqrt(d[["f", "g"]]),
    "reset_index": lambda d: d.reset_index(),
    "set_index": lambda d: d.set_index("i"),
    "melt": lambda d: d[["f", "g", "i"]].melt("i"),
    "pivot": lambda d: d.pivot_table("f", "k", "b", observed=True),
    "stack": lambda d: d[["f", "g"]].stack() if PANDAS_3 else d["f"],
    "T": lambda d: d[["f", "g"]].T,
    "isna": lambda d: d.isna(),
    "fillna": lambda d: d[["m", "f"]].fillna(0),
    "astype": lambda d: d.astype({"i": "f8"}),
    "drop": lambda d: d.drop(columns="f"),
    "mode": lambda d: d[["b", "k"]].mode(),
    "nlargest": lambda d: d.nlargest(3, "f"),
    "apply": lambda d: d[["f", "g"]].apply(np.sum, axis=1),
    "agg": lambda d: d[["f", "g"]].agg(["min", "max"]),
    "corr": lambda d: d[["f", "g"]].corr(),
    "rolling": lambda d: d[["f", "g"]].rolling(3).sum(),
    "resample": lambda d: d.set_index("t")[["f"]].resample("D").sum(),
    "duplicated": lambda d: d.duplicated(),
    "value_counts": lambda d: d["k"].value_counts(),
    "select_dtypes": lambda d: d.select_dtypes("number"),
    "itertuples": lambda d: pd.DataFrame(list(d.itertuples())),
    "items": lambda d: pd.concat([s for _, s in d.items()], axis=1),
    "to_dict": lambda d: pd.DataFrame(d.to_dict("list")),
    "memory_usage": lambda d: d[["f", "i"]].memory_usage(),
    "dtypes": lambda d: d.dtypes.astype(str),
    "pipe": lambda d: d.pipe(lambda x: x[["f"]]),
    "where": lambda d: d[["f", "g"]].where(d["f"] > 0.5),
    "xs": lambda d: d.xs(3),
    "sample": lambda d: d.sample(5, random_state=1),
    "round": lambda d: d[["f"]].round(2),
    "rename_axis": lambda d: d.rename_axis("row"),
    "reindex": lambda d: d[["f"]].reindex(range(40)),
    "clip": lambda d: d[["f"]].clip(0.2, 0.5),
    "cut": lambda d: pd.cut(d["f"], 3),
}


def _query_local(frame: Any) -> Any:
    limit = 0.25  # noqa: F841
    return frame.query("f > @limit")


@pytest.mark.parametrize("read", READS.values(), ids=READS)
def test_results_are_those_of_pandas_and_plain(read):
    frame = make()
    sdf = SDataFrame(frame)
    found, wanted = read(sdf), read(frame)
    assert type(found) is type(wanted)
    if isinstance(wanted, pd.DataFrame):
        equal(found, wanted)
    else:
        pd.testing.assert_series_equal(found, wanted)
    equal(sdf.to_pandas(), frame)


def test_reading_copies_nothing():
    sdf = SDataFrame(make())
    memory = sdf._window.store.memories[0]
    for part in (sdf["f"].values, sdf["i"].values, sdf.iloc[3:9]["g"].values, sdf["t"].values):
        assert np.shares_memory(part, memory)


# -- what is derived


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
    again = attach_frame(sdf.handle)
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
        writer = attach_frame(handle)
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
    again, part = attach_frame(sdf.handle), sdf.partitions(3)[1]
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


# -- structure


STRUCTURAL = {
    "new column": (lambda d: d.__setitem__("new", 1), "'new' would be added"),
    "dtype": (lambda d: d.__setitem__("i", 0.5), "'i' would change from dtype int64 to float64"),
    "del": (lambda d: d.__delitem__("a"), "'a' would be dropped"),
    "pop": (lambda d: d.pop("a"), "'a' would be dropped"),
    "columns": (lambda d: setattr(d, "columns", list("xyz")), "'a' would become 'x'"),
    "index": (lambda d: setattr(d, "index", range(len(d))), "row labels would change"),
    "sort": (lambda d: d.sort_values("a", ascending=False, inplace=True), "row labels"),
    "rows": (lambda d: d.drop(index=10, inplace=True), "11 rows would become 10"),
    "enlarge": (lambda d: d.loc.__setitem__(99, [1, 2, 3]), "11 rows would become 12"),
    "attrs": (lambda d: d.attrs.__setitem__("x", 1), "attrs of a part"),
    "all attrs": (lambda d: setattr(d, "attrs", {"x": 1}), "attrs of a part"),
}


@pytest.mark.filterwarnings("ignore:The inplace keyword")
@pytest.mark.parametrize(("operate", "says"), STRUCTURAL.values(), ids=STRUCTURAL)
def test_a_part_says_what_it_cannot_and_the_remedy(operate, says):
    sdf = SDataFrame(numeric())
    with pytest.raises(SharedStructureError, match=says) as caught:
        operate(sdf.partitions(3)[0])
    assert isinstance(caught.value, TypeError)
    assert "the whole frame" in str(caught.value)
    equal(sdf.to_pandas(), numeric())


def test_names_set_on_an_index_are_those_of_the_frame():
    sdf, plain = SDataFrame(numeric()), numeric()
    again, part = numpush.attach(sdf.name), sdf.partitions(2)[0]
    for df in (sdf, plain):
        df.index.name = "row"
    equal(sdf.to_pandas(), plain)
    equal(again.to_pandas(), plain)
    for df in (sdf, plain):
        df.columns.names = ["col"]
    assert list(sdf["a"]) == list(plain["a"])
    equal(again.to_pandas(), plain)
    levels = pd.DataFrame({"a": range(4)}, index=pd.MultiIndex.from_product([["x", "y"], [1, 2]]))
    of_levels = SDataFrame(levels)
    for df in (of_levels, levels):
        df.index.names = ["first", "second"]
    equal(of_levels.reset_index(), levels.reset_index())
    part.index.name = "mine"
    with pytest.raises(SharedStructureError, match="mine"):
        len(part)
    equal(part.to_pandas(), numeric().iloc[:17])


def test_a_replaced_manager_is_adopted():
    """What some pandas internal does that we know nothing of."""
    sdf = SDataFrame(numeric())
    memory = sdf.column("a")
    other = numeric() + 1
    other["i"] = other["i"].astype("i8")
    sdf._mgr = other._mgr
    equal(sdf.to_pandas(), other)
    assert np.shares_memory(sdf["a"].values, memory)
    sdf._mgr = other.drop(columns="a")._mgr
    equal(sdf.to_pandas(), other.drop(columns="a"))
    sdf._mgr.insert(0, "new", np.zeros(33))
    wanted = other.drop(columns="a")
    wanted.insert(0, "new", np.zeros(33))
    equal(sdf.to_pandas(), wanted)
    equal(numpush.attach(sdf.name, "ro").to_pandas(), wanted)


def test_a_string_set_through_its_array_is_the_frames_at_the_next_write():
    sdf, plain = SDataFrame(make()), make()
    part = sdf.partitions(2)[0]
    for df in (sdf, plain):
        df["s"].array[0] = "other"
        df["f"] = 1.0
    equal(sdf.to_pandas(), plain)
    equal(numpush.attach(sdf.name, "ro").to_pandas(), plain)
    part["s"].array[0] = "mine"
    with pytest.raises(SharedStructureError, match="'s'"):
        part["f"] = 2.0


def test_every_method_with_inplace_is_wrapped():
    import inspect

    for name in dir(pd.DataFrame):
        method = inspect.getattr_static(pd.DataFrame, name)
        if (
            not name.startswith("_")
            and inspect.isfunction(method)
            and "inplace" in inspect.signature(method).parameters
        ):
            assert name in vars(WritesInPlace), name


@pytest.mark.parametrize("label", ["name", "lock", "access", "handle", "close", "version", "mode"])
def test_a_column_may_have_the_name_of_an_attribute(label):
    frame = pd.DataFrame({label: [1, 2], "x": [3, 4]})
    sdf = SDataFrame(frame)
    equal(sdf.to_pandas(), frame)
    sdf[label] = [5, 6]
    assert sdf[label].tolist() == [5, 6]
    assert sdf.groupby(label)["x"].sum().tolist() == [3, 4]
    assert callable(sdf.mode)


# -- partitions


@pytest.mark.parametrize("n", [1, 2, 3, 7, 33, 40])
def test_partitions_are_the_rows_in_order(n):
    frame = make()
    sdf = SDataFrame(frame)
    parts = sdf.partitions(n)
    assert len(parts) == n
    assert all(type(part) is SDataFrame for part in parts)
    sizes = [len(part) for part in parts]
    assert sum(sizes) == 33
    assert max(sizes) - min(sizes) <= 1
    equal(pd.concat([p.to_pandas() for p in parts if len(p)]), frame)


@pytest.mark.parametrize("n", [0, -1])
def test_partitions_want_at_least_one(n):
    with pytest.raises(ValueError, match="at least 1"):
        SDataFrame(numeric()).partitions(n)


def test_partitions_write_through_and_refuse_structure():
    sdf = SDataFrame(numeric())
    first, second = sdf.partitions(2)
    first["a"] = 1.0
    second["a"] = 2.0
    second.loc[second["i"] > 30, ["a", "i"]] = 0
    second.iloc[0, 1] = 77.0
    assert sdf["a"].tolist() == [1.0] * 17 + [2.0] * 14 + [0.0] * 2
    assert sdf["b"].iloc[17] == 77.0
    with pytest.raises(SharedStructureError):
        first["new"] = 1
    with pytest.raises(SharedStructureError):
        first.loc[99] = [1, 2, 3]


def test_a_partition_of_a_partition():
    sdf = SDataFrame(numeric())
    part = sdf.partitions(3)[1].partitions(2)[1]
    equal(part.to_pandas(), numeric().iloc[17:22])
    part["i"] = -1
    assert (sdf["i"] == -1).sum() == 5
    assert sdf["i"].iloc[17:22].tolist() == [-1] * 5


@pytest.mark.parametrize(
    "index",
    [
        pd.RangeIndex(5, 5 + 2 * 9, 2),
        pd.Index(list("abcdefghi")),
        pd.date_range("2020", periods=9, unit="ns"),
        pd.MultiIndex.from_product([list("abc"), [1, 2, 3]], names=["x", "y"]),
        pd.CategoricalIndex(list("aabbccaab")),
        pd.Index([1.5, 2.5, 2.5, 3, 4, 5, 6, 7, 8], name="twice"),
    ],
    ids=lambda index: type(index).__name__,
)
def test_partitions_keep_their_labels(index):
    frame = pd.DataFrame({"a": np.arange(9.0)}, index=index)
    sdf = SDataFrame(frame)
    equal(sdf.to_pandas(), frame)
    parts = sdf.partitions(4)
    equal(parts[1].to_pandas(), frame.iloc[3:5], check_freq=False)
    parts[1].iloc[0, 0] = 99.0
    assert sdf.iloc[3, 0] == 99.0
    parts[1].loc[parts[1].index[1], "a"] = 98.0
    assert sdf.iloc[4, 0] == 98.0


def test_empty_partitions_can_be_used():
    sdf = SDataFrame(make(3))
    part = sdf.partitions(5)[4]
    assert len(part) == 0
    assert part["f"].sum() == 0
    part["f"] = 1.0
    part["i"] += 1
    assert part.column("f").shape == (0,)
    equal(part.to_pandas(), make(3).iloc[3:3])
    again = pickle.loads(bytes(ForkingPickler.dumps(part)))
    equal(again.to_pandas(), part.to_pandas())


def test_an_empty_frame():
    sdf = SDataFrame(make(0))
    equal(sdf.to_pandas(), make(0))
    assert [len(part) for part in sdf.partitions(3)] == [0, 0, 0]
    sdf["f"] = 1.0
    plain = make(0)
    for df in (sdf, plain):
        df["f"] = np.ones(3)  # pandas gives an empty frame rows
    equal(sdf.to_pandas(), plain)


# -- column


def test_a_column_is_the_memory_itself():
    sdf = SDataFrame(make())
    column = sdf.column("g")
    assert type(column) is SArray
    column[3] = 42.0
    assert sdf.loc[3, "g"] == 42.0
    assert column.name == sdf.name
    sdf.loc[4, "g"] = 43.0
    assert column[4] == 43.0
    assert sdf.column("t").dtype == "M8[ns]"
    part = sdf.partitions(2)[1]
    part.column("i")[0] = -1
    assert sdf["i"].iloc[17] == -1


def test_a_column_names_what_is_wrong():
    frame = make()
    frame.insert(0, "twice", 1)
    frame.insert(0, "twice", 2, allow_duplicates=True)
    sdf = SDataFrame(frame)
    with pytest.raises(KeyError, match="absent"):
        sdf.column("absent")
    with pytest.raises(ValueError, match="several columns"):
        sdf.column("twice")
    for label, dtype in [("k", "category"), ("s", "string"), ("m", "Int64"), ("o", "(object|str)")]:
        with pytest.raises(TypeError, match=f"{label}.*{dtype}.*to_numpy"):
            sdf.column(label)


def test_duplicate_labels_are_written_by_position():
    frame = pd.DataFrame([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], columns=["x", "x", "y"])
    sdf, plain = SDataFrame(frame), frame.copy()
    for df in (sdf, plain):
        df.iloc[0, 1] = 9.0
        df["x"] = [[7.0, 8.0], [9.0, 10.0]]
        df.loc[1, "x"] = 11.0
        df["y"] = [0.0, 1.0]
    equal(sdf.to_pandas(), plain)


# -- modes


def test_read_only_is_refused_in_the_manner_of_numpy():
    sdf = SDataFrame(make())
    ro = numpush.attach(sdf.name, "ro")
    assert ro.access == "ro"
    for write in (
        lambda: ro.__setitem__("f", 1.0),
        lambda: ro.loc.__setitem__((0, "f"), 1.0),
        lambda: ro.at.__setitem__((0, "f"), 1.0),
        lambda: ro.iloc.__setitem__(0, 1),
        lambda: ro.update(sdf[["f"]]),
        lambda: ro.column("f").__setitem__(0, 1.0),
        lambda: ro.partitions(2)[0].__setitem__("f", 1.0),
        lambda: ro.__delitem__("f"),
    ):
        with pytest.raises(ValueError, match="read-only"):
            write()
    sdf["f"] = 5.0
    assert (ro["f"] == 5.0).all()
    assert ro.describe().shape == sdf.describe().shape
    assert pickle.loads(bytes(ForkingPickler.dumps(ro))).access == "ro"


def test_copy_on_write_is_private():
    sdf = SDataFrame(numeric())
    cow = numpush.attach(sdf.handle, "cow")
    cow["a"] = 5.0
    cow.loc[10, ["b", "i"]] = 7
    assert (cow["a"] == 5.0).all()
    assert cow.loc[10, "i"] == 7
    equal(sdf.to_pandas(), numeric())
    with pytest.raises(SharedStructureError):
        cow["new"] = 1
    arrived = pickle.loads(bytes(ForkingPickler.dumps(cow)))
    assert type(arrived) is pd.DataFrame
    equal(arrived, cow.to_pandas())


# -- how it travels


def test_handles_are_small_whatever_the_size():
    sdf = SDataFrame(pd.DataFrame(np.zeros((20_001, 31))))
    for frame in (sdf, sdf.partitions(7)[3]):
        data = bytes(ForkingPickler.dumps(frame))
        assert len(data) < 300
        arrived = pickle.loads(data)
        assert type(arrived) is SDataFrame
        assert arrived._mgr is frame._mgr
        equal(arrived.to_pandas(), frame.to_pandas())


def test_plain_pickle_is_by_value(tmp_path):
    sdf = SDataFrame(make())
    for part in (sdf, sdf.partitions(2)[0]):
        arrived = pickle.loads(pickle.dumps(part))
        assert type(arrived) is pd.DataFrame
        equal(arrived, part.to_pandas())
        part.to_pickle(tmp_path / "frame.pkl")
        equal(pd.read_pickle(tmp_path / "frame.pkl"), part.to_pandas())
        for copied in (copy.copy(part), copy.deepcopy(part), part.copy()):
            assert type(copied) is pd.DataFrame
            equal(copied, part.to_pandas())


def test_attrs_and_flags_travel():
    frame = numeric().set_flags(allows_duplicate_labels=False)
    frame.attrs["a"] = {"b": [1, 2]}
    sdf = SDataFrame(frame)
    again = attach_frame(sdf.handle)
    assert again.attrs == {"a": {"b": [1, 2]}}
    assert not again.flags.allows_duplicate_labels
    head = again.head()
    head.attrs["c"] = 1
    assert type(head.attrs) is dict
    assert again.attrs == {"a": {"b": [1, 2]}}


def test_a_handle_out_of_bounds_is_refused():
    import dataclasses

    sdf = SDataFrame(numeric())
    for start, stop in [(-1, 3), (0, 34), (5, 4)]:
        with pytest.raises(SegmentDamaged):
            attach_frame(dataclasses.replace(sdf.handle, start=start, stop=stop))
    array = SArray(np.zeros(3))
    with pytest.raises(SegmentDamaged, match="frame"):
        attach_frame(FrameHandle(array.name, array.handle.identity, "rw", 0, 0))


def test_attaching_again_shares_what_was_rebuilt():
    sdf = SDataFrame(make())
    again = attach_frame(sdf.handle)
    assert again._window is sdf._window
    store = weakref.ref(sdf._window.store)
    del sdf, again
    gc.collect()
    assert store() is None


def test_it_goes_with_the_last_view():
    sdf = SDataFrame(numeric())
    name = sdf.name
    column = sdf["a"]
    del sdf
    gc.collect()
    numpush.attach(name)
    del column
    gc.collect()
    with pytest.raises(SegmentNotFound):
        numpush.attach(name)


def test_close_and_what_is_left():
    sdf = SDataFrame(numeric())
    with sdf.lock, pytest.raises(LockError):
        sdf.close()
    sdf.close()
    equal(sdf.to_pandas(), numeric())
    with pytest.raises(HandleClosed):
        _ = sdf.lock
    with pytest.raises(HandleClosed):
        _ = sdf.handle
    with pytest.raises(HandleClosed):
        ForkingPickler.dumps(sdf)


def work(part: SDataFrame, value: float) -> tuple[str, int, float]:
    seen = float(part["a"].sum())
    part["a"] = value
    part.loc[part.index[0], ["b", "i"]] = 7
    with part.lock:
        part["b"] += 1
    return type(part).__name__, os.getpid(), seen


def test_writes_in_workers_are_seen(start_method):
    sdf = SDataFrame(numeric())
    context = multiprocessing.get_context(start_method)
    with context.Pool(2) as pool:
        parts = sdf.partitions(4)
        done = pool.starmap_async(work, [(p, float(i)) for i, p in enumerate(parts)]).get(LIMIT)
        whole = pool.apply_async(work, (sdf, 9.0)).get(LIMIT)
        pool.close()
        pool.join()
    assert {each[0] for each in (*done, whole)} == {"SDataFrame"}
    assert all(each[1] != os.getpid() for each in done)
    assert sum(each[2] for each in done) == numeric()["a"].sum()
    assert (sdf["a"] == 9.0).all()
    assert sdf["i"].tolist().count(7) == 5  # of each partition's first row, and one was there


def bump(sdf: SDataFrame, row: int, times: int) -> None:
    for _ in range(times):
        sdf.loc[row, ["a", "i"]] = sdf.loc[row, ["a", "i"]] + 1
        sdf.loc[row, "b"] += 1.0


def test_cells_that_others_write_are_not_undone(start_method):
    """pandas copies a column onto itself after setting a cell of it; we must not."""
    sdf = SDataFrame(pd.DataFrame(0.0, index=range(5_001), columns=list("abc")).assign(i=0))
    context = multiprocessing.get_context(start_method)
    children = [context.Process(target=bump, args=(sdf, row, 60)) for row in range(3)]
    for child in children:
        child.start()
    for child in children:
        child.join(LIMIT)
        assert child.exitcode == 0
    assert sdf.loc[:2, "a"].tolist() == [60.0] * 3
    assert sdf.loc[:2, "b"].tolist() == [60.0] * 3
    assert sdf.loc[:2, "i"].tolist() == [60] * 3


def inherit(sdf: SDataFrame, queue: Any) -> None:
    sdf["a"] += 1
    sdf.iloc[0] = 3
    queue.put(sdf.partitions(2)[1])


def test_a_forked_child_uses_and_passes_on_what_it_inherits():
    sdf = SDataFrame(numeric())
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=inherit, args=(sdf, queue))
    child.start()
    part = queue.get(timeout=LIMIT)
    child.join(LIMIT)
    assert child.exitcode == 0
    assert sdf.iloc[0].tolist() == [3, 3, 3]
    part["i"] = 0
    assert (sdf["i"].iloc[17:] == 0).all()
    queue.close()
    queue.join_thread()


def test_a_fork_while_a_thread_writes_leaves_the_child_free_to_write():
    sdf = SDataFrame(numeric())
    entered, leave = threading.Event(), threading.Event()

    def hold() -> None:
        with sdf._window.store.lock:
            entered.set()
            leave.wait(LIMIT)

    thread = threading.Thread(target=hold)
    thread.start()
    entered.wait(LIMIT)
    try:
        context = multiprocessing.get_context("fork")
        child = context.Process(target=sdf.__setitem__, args=("a", 4.0))
        child.start()
        child.join(LIMIT)
        assert child.exitcode == 0
    finally:
        leave.set()
        thread.join(LIMIT)
    assert (sdf["a"] == 4.0).all()


# -- locks and news


def test_lock_version_and_news():
    sdf = SDataFrame(numeric())
    part = sdf.partitions(2)[0]
    with sdf.lock:
        assert part.lock.holder() is not None
    before = sdf.version
    with sdf.updating() as frame:
        assert sdf.version % 2
        frame["a"] = 1.0
    assert sdf.version == before + 2
    assert sdf.wait(before, 1) == before + 2
    assert part.notify() == before + 4
    equal(sdf.snapshot(), sdf.to_pandas())
    with pytest.raises(TimeoutError):
        sdf.wait(sdf.version, 0.01)


def test_partitions_lock_apart():
    sdf = SDataFrame(numeric())
    first, second = sdf.partitions(2)
    with first.rwlock.write(1), second.rwlock.write(1), pytest.raises((TimeoutError, LockError)):
        sdf.rwlock.read(0.01)
    with sdf.rwlock.write(1), pytest.raises((TimeoutError, LockError)):
        sdf.column("a").lock_range(slice(0, 3), timeout=0.01)


def test_threads_write_one_after_the_other():
    sdf = SDataFrame(numeric())

    def change(row: int) -> None:
        for value in range(40):
            sdf.loc[row, ["a", "i"]] = value
            sdf["b"] = float(value)

    threads = [threading.Thread(target=change, args=(10 + row,)) for row in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LIMIT)
    assert sdf["a"].iloc[:4].tolist() == [39.0] * 4
    assert sdf["i"].iloc[:4].tolist() == [39] * 4
    assert (sdf["b"] == 39.0).all()


# -- against plain pandas


COLUMNS = st.sampled_from(["a", "b", "i", "new"])
VALUES = st.one_of(
    st.integers(-5, 5), st.floats(-5, 5, width=16), st.just("x"), st.none(), st.booleans()
)
ROWS = st.one_of(
    st.integers(0, 7),
    st.tuples(st.integers(0, 7), st.integers(0, 7)).map(lambda t: slice(min(t), max(t))),
    st.lists(st.integers(0, 6), max_size=4, unique=True),
    st.lists(st.booleans(), min_size=7, max_size=7),
)
STEPS = st.one_of(
    st.tuples(st.just("loc"), ROWS, COLUMNS, VALUES),
    st.tuples(st.just("loc"), ROWS, st.lists(COLUMNS, max_size=3, unique=True), VALUES),
    st.tuples(st.just("iloc"), ROWS, st.integers(0, 3), VALUES),
    st.tuples(st.just("at"), st.integers(0, 7), COLUMNS, VALUES),
    st.tuples(st.just("item"), st.none(), COLUMNS, VALUES),
    st.tuples(st.just("add"), st.none(), COLUMNS, st.integers(0, 3)),
)


def step(df: Any, kind: str, rows: Any, columns: Any, value: Any) -> Exception | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if kind == "item":
                df[columns] = value
            elif kind == "add":
                df[columns] = df[columns] + value
            else:
                getattr(df, kind)[rows, columns] = value
    except Exception as error:
        return error
    return None


@settings(max_examples=150, deadline=None)
@given(st.lists(STEPS, max_size=6))
def test_any_sequence_of_writes_is_that_of_pandas(steps):
    plain = pd.DataFrame({"a": np.arange(7.0), "b": np.arange(7.0), "i": np.arange(7)})
    sdf = SDataFrame(plain)
    for each in steps:
        before = plain.copy()
        wanted, found = step(plain, *each), step(sdf, *each)
        if found is not None or wanted is not None:
            assert found is not None, (each, wanted)
            # pandas makes a column without a type: df.loc[[], ["new"]] = "x"
            has_no_layout = type(found) is TypeError and "has no layout" in str(found)
            assert has_no_layout or type(found) is type(wanted), each
            plain = before  # nothing was written, where pandas may have written a part
        equal(sdf.to_pandas(), plain)
        equal(numpush.attach(sdf.name, "ro").to_pandas(), plain)
