"""numpush/frame_keeper.py: what may stay of a frame when its SDataFrames are gone, and what may not."""

from __future__ import annotations

import gc
import multiprocessing

import numpy as np
import pandas as pd
import pytest

import numpush
from numpush import SDataFrame
from numpush.shm import registry


def frame(n=1000):
    return pd.DataFrame(
        {
            "a": np.arange(n, dtype="f8"),
            "b": np.arange(n, dtype="f8") * 2,
            "i": np.arange(n),
            "when": pd.date_range("2026-01-01", periods=n, freq="h"),
            "zoned": pd.date_range("2026-01-01", periods=n, freq="h", tz="Europe/Vienna"),
            "kind": pd.Categorical(["x", "y"] * (n // 2)),
            "masked": pd.array([1, None] * (n // 2), dtype="Int64"),
        }
    )


def is_attached(name):
    return any(info.name == name for info in numpush.segments())


def keeper_of(sdf):
    return sdf._mapping().keeper


HOLDERS = {
    "column": lambda d: d["a"],
    "column's array": lambda d: d["a"].array,
    "column's numpy": lambda d: d["a"].to_numpy(),
    "columns": lambda d: d[["a", "b"]],
    "rows": lambda d: d.iloc[5:9],
    "shallow copy": lambda d: d.copy(deep=False),
    "values of a block": lambda d: d[["a", "b"]].values,
    "datetimes": lambda d: d["when"].dt,
    "zoned": lambda d: d["zoned"].array,
    "datetime values": lambda d: d["zoned"].array._ndarray,
    "codes": lambda d: d["kind"].array.codes,
    "categorical": lambda d: d["kind"].array,
    "mask": lambda d: d["masked"].array._mask,
    "masked": lambda d: d["masked"].array,
    "SArray": lambda d: d.column("a"),
    "part": lambda d: d.partitions(3)[1],
    "column of a part": lambda d: d.partitions(3)[1]["a"],
    "memoryview": lambda d: memoryview(d["a"].to_numpy()),
    "memoryview of a block": lambda d: memoryview(d._mgr.blocks[0].values),
    "block": lambda d: d._mgr.blocks[0],
    "values": lambda d: d._mgr.blocks[0].values,
    "manager": lambda d: d._mgr,
    "indexer": lambda d: d.loc,
    "groups": lambda d: d.groupby("i"),
    "iterator": lambda d: d.items(),
    "lock": lambda d: d.lock,
}


if int(pd.__version__.split(".")[0]) < 3:  # pandas 2 copies several columns
    del HOLDERS["columns"], HOLDERS["values of a block"]


@pytest.mark.parametrize("hold", HOLDERS.values(), ids=HOLDERS)
def test_what_refers_to_the_memory_keeps_the_segment(hold):
    sdf = SDataFrame(frame())
    name = sdf.name
    assert keeper_of(sdf) is not None
    held = hold(sdf)
    del sdf
    gc.collect()
    assert is_attached(name)
    again = numpush.attach(name)  # over memory that something derived holds: nothing is kept
    assert again["a"].tolist() == frame()["a"].tolist()
    del again
    gc.collect()
    assert is_attached(name)
    del held
    gc.collect()
    assert not is_attached(name)


LETS_GO = {
    "nothing": lambda d: None,
    "sum": lambda d: d["a"].sum(),
    "copy": lambda d: d.copy(),
    "to_pandas": lambda d: d.to_pandas(),
    "write": lambda d: d.__setitem__("a", 1.0),
    "cell": lambda d: d.at.__setitem__((3, "a"), 1.0),
    "columns": lambda d: d.columns,
    "index": lambda d: d.index,
    "groups": lambda d: d.groupby("kind", observed=True)["a"].mean(),
    "apply": lambda d: d[["a", "b"]].apply(np.sum, axis=1),
}


@pytest.mark.parametrize("use", LETS_GO.values(), ids=LETS_GO)
def test_a_result_does_not_keep_the_segment(use):
    sdf = SDataFrame(frame())
    name = sdf.name
    result = use(sdf)
    del sdf
    gc.collect()
    assert not is_attached(name)
    del result


MORE = {
    "labels": pd.DataFrame({"a": np.zeros(5000)}, index=np.arange(5000.0)),
    "datetimes": pd.DataFrame(
        {"a": np.zeros(5000)}, index=pd.to_datetime(np.arange(5000) ** 2, unit="s")
    ),
    "levels": pd.DataFrame(
        {"a": np.zeros(100)}, index=pd.MultiIndex.from_product([range(10), range(10)])
    ),
    "categories": pd.DataFrame({"a": pd.Categorical(np.arange(5000.0))}),
    "strings": pd.DataFrame({"a": ["x", "yy", None] * 5}, dtype="string[pyarrow]"),
    "labels of text": pd.DataFrame(
        {"a": np.zeros(5000)},
        index=pd.Index([str(i) for i in range(5000)], dtype="string[pyarrow]"),
    ),
}


@pytest.mark.parametrize("df", MORE.values(), ids=MORE)
def test_a_frame_with_more_in_its_memory_than_columns_is_not_kept(df):
    """Nobody counts who refers to labels, categories and Arrow buffers."""
    sdf = SDataFrame(df)
    assert keeper_of(sdf) is None
    labels, values = sdf.index, sdf["a"].array
    del sdf
    gc.collect()
    pd.testing.assert_index_equal(labels, df.index)
    pd.testing.assert_extension_array_equal(values, df["a"].array)


def _look(sdf):
    return id(sdf._window.store), float(sdf["a"].sum()), sdf.name


def _rename(sdf):
    sdf_columns = sdf.columns
    name = sdf_columns.name
    del sdf
    sdf_columns.name = "mine"  # labels of a frame that is gone
    return name


def _is_attached_here(name):
    return registry.segments[name].node != 0


def test_a_worker_finds_the_frame_of_its_last_task(ctx):
    with ctx.Pool(1) as pool:
        sdf = SDataFrame(frame())
        ids = set()
        for i in range(4):
            sdf.loc[0, "a"] = float(i)
            store, total, name = pool.apply(_look, (sdf,))
            assert total == sdf["a"].sum()
            assert not pool.apply(_is_attached_here, (name,))
            ids.add(store)
        assert len(ids) == 1
        assert [pool.apply(_rename, (sdf,)) for _ in range(3)] == [None] * 3
        assert list(sdf.columns) == list(frame().columns)
        pool.close()
        pool.join()


def test_a_kept_frame_goes_with_its_mapping_and_with_its_segment():
    sdf = SDataFrame(frame())
    mapping = sdf._mapping()
    assert mapping.keeper is not None
    del sdf
    gc.collect()
    assert mapping.keeper is None  # we were the last
    big = SDataFrame({"a": np.zeros(1 << 18)})  # big enough to be kept warm
    mapping, name = big._mapping(), big.name
    del big
    gc.collect()
    assert mapping.keeper is None
    array = numpush.SArray(np.ones(1 << 18))
    assert array.name != name
    assert array._mapping().keeper is None


def test_only_the_latest_window_on_all_rows_is_kept():
    sdf = SDataFrame(frame())
    window, keeper = sdf._window, keeper_of(sdf)
    assert keeper.window is window
    parts = [part._window for part in sdf.partitions(4)]
    assert all(part is not window for part in parts)


def test_a_fork_inherits_what_is_kept_and_may_use_it():
    sdf = SDataFrame(frame())
    other = multiprocessing.get_context("fork")
    with other.Pool(1) as pool:
        assert pool.apply(_total, (sdf,)) == sdf["a"].sum()
        del sdf
        gc.collect()
        again = SDataFrame(frame())
        assert pool.apply(_total, (again,)) == again["a"].sum()
        pool.close()
        pool.join()


def _total(sdf):
    return sdf["a"].sum()
