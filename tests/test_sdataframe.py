"""SDataFrame: what it reads as, its structure, columns, modes and locks."""

from __future__ import annotations

import pickle
import threading
from multiprocessing.reduction import ForkingPickler
from typing import Any

import numpy as np
import pandas as pd
import pytest

import numpush
from numpush import SArray, SDataFrame, SharedStructureError
from numpush.errors import LockError
from numpush.frame_spellings import WritesInPlace
from shared_frames import LIMIT, PANDAS_3, equal, make, numeric

pytestmark = pytest.mark.usefixtures("copy_on_write")


# -- reading


def test_it_reads_as_the_frame_it_was_made_from():
    frame = make()
    sdf = SDataFrame(frame)
    assert isinstance(sdf, pd.DataFrame)
    equal(sdf.to_pandas(), frame)
    equal(sdf.copy(), frame)
    equal(pd.DataFrame(sdf), frame)
    assert repr(sdf) == repr(frame)
    assert sdf._repr_html_().startswith(frame._repr_html_())
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


# -- structure


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
        part.sum()
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
