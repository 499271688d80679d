"""numpush/frame_keeper.py: what may stay of a frame when its SDataFrames are gone, and what may not."""

from __future__ import annotations

import gc
import multiprocessing
import pickle

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

import numpush
from numpush import SDataFrame
from numpush._pandas import PANDAS_3
from numpush.shm import process, registry

LISTS = pd.ArrowDtype(pa.list_(pa.int64()))
WORDS = pd.ArrowDtype(pa.dictionary(pa.int32(), pa.string()))
TEXT = pd.StringDtype("pyarrow", na_value=np.nan) if PANDAS_3 else "string[pyarrow]"


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


def kept():
    """Make a frame that is kept: with pandas 2 it has plain columns only."""
    return frame() if PANDAS_3 else frame()[["a", "b", "i"]]


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
    assert (keeper_of(sdf) is not None) == PANDAS_3
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


def rich(n=1000):
    """Make a frame with labels, categories and Arrow buffers in its memory, too."""
    days = pd.to_datetime(np.arange(n) ** 2, unit="s", utc=True)
    df = pd.DataFrame(
        {
            "a": np.arange(n, dtype="f8"),
            "text": pd.array([f"text {i}" for i in range(n)], dtype=TEXT),
            "gaps": pd.array(["x", None] * (n // 2), dtype="string[pyarrow]"),
            "number": pd.array(range(n), dtype="int64[pyarrow]"),
            "stamp": pd.array(days, dtype="timestamp[ns, tz=UTC][pyarrow]"),
            "truth": pd.array([True, None] * (n // 2), dtype="bool[pyarrow]"),
            "kind": pd.Categorical(np.arange(n) % 500),
            "word": pd.Categorical([f"word {i % 500}" for i in range(n)]),
            "zoned": days.tz_convert("Europe/Vienna"),
            "span": pd.arrays.IntervalArray.from_breaks(np.arange(n + 1.0)),
            "month": pd.period_range("2026-01", periods=n, freq="M"),
        },
        index=days,
    )
    for i in range(40):  # more labels than go into the schema
        df[f"a column that has a long name, {i}"] = 0
    return df


def leveled(n=1000):
    index = pd.MultiIndex.from_arrays([np.arange(n) ** 2, [f"label {i}" for i in range(n)]])
    return pd.DataFrame({"a": np.arange(n, dtype="f8")}, index=index)


def chunk(d, name="text"):
    return d[name].array._pa_array.chunk(0)


RICH_HOLDERS = {
    "text": lambda d: d["text"],
    "text's array": lambda d: d["text"].array,
    "some text": lambda d: d["text"].array[5:9],
    "rows of text": lambda d: d["text"].iloc[5:9],
    "chunked": lambda d: d["text"].array._pa_array,
    "chunk": chunk,
    "part of a chunk": lambda d: chunk(d).slice(5, 3),
    "buffer": lambda d: chunk(d).buffers()[2],
    "part of a buffer": lambda d: chunk(d).buffers()[2].slice(5, 3),
    "bytes of text": lambda d: np.frombuffer(chunk(d).buffers()[2], np.uint8),
    "memory of text": lambda d: memoryview(chunk(d).buffers()[2]),
    "bitmap": lambda d: chunk(d, "gaps").buffers()[0],
    "copy, which shares its labels": lambda d: d.copy(),
    "as Arrow": lambda d: pa.array(d["text"]),
    "table": lambda d: pa.Table.from_pandas(d[["a", "text", "number"]]),
    "table of numbers": lambda d: pa.Table.from_pandas(d[["a"]]),
    "batch": lambda d: pa.RecordBatch.from_pandas(d[["text"]]),
    "chunks": lambda d: pa.chunked_array([chunk(d), chunk(d)]),
    "list over text": lambda d: pa.ListArray.from_arrays([0, 3, 7], chunk(d)),
    "struct over text": lambda d: pa.StructArray.from_arrays([chunk(d)], ["x"]),
    "capsules": lambda d: chunk(d).__arrow_c_array__(),
    "concatenated": lambda d: pd.concat([d["text"], d["text"]]),
    "Arrow numbers": lambda d: d["number"],
    "their NumPy array": lambda d: chunk(d, "number").to_numpy(),
    "Arrow stamps": lambda d: chunk(d, "stamp"),
    "as another type": lambda d: chunk(d, "stamp").view(pa.int64()),
    "Arrow truth": lambda d: d["truth"].array,
    "iterator over text": lambda d: iter(d["text"].array),
    "block of text": lambda d: next(b for b in d._mgr.blocks if b.dtype == d["text"].dtype),
    "its values": lambda d: next(b.values for b in d._mgr.blocks if b.dtype == d["text"].dtype),
    "index": lambda d: d.index,
    "index view": lambda d: d.index.view(),
    "part of the index": lambda d: d.index[5:9],
    "index array": lambda d: d.index.array,
    "index in i8": lambda d: d.index.asi8,
    "index in another zone": lambda d: d.index.tz_convert("Asia/Tokyo"),
    "engine": lambda d: (d.index.get_loc(d.index[7]), d.index._engine),
    "series of the index": lambda d: pd.Series(0, index=d.index),
    "index as a column": lambda d: d.reset_index(),
    "new columns": lambda d: d[["a"]].assign(b=1),
    "column labels": lambda d: d.columns,
    "values of column labels": lambda d: d.columns.array,
    "categories": lambda d: d["kind"].cat.categories,
    "values of categories": lambda d: d["kind"].cat.categories.values,
    "engine of categories": lambda d: d["kind"].cat.categories._engine,
    "categories of text": lambda d: d["word"].cat.categories,
    "dtype": lambda d: d["kind"].dtype,
    "dtype of text": lambda d: d["word"].dtype,
    "categorical index": lambda d: pd.CategoricalIndex(d["kind"].iloc[:3].array.copy()),
    "codes of text": lambda d: d["word"].cat.codes,
    "zoned": lambda d: d["zoned"],
    "zoned values": lambda d: d["zoned"].array._ndarray,
    "sides": lambda d: d["span"].array.right,
    "months": lambda d: d["month"].array,
    "groups by label": lambda d: d.groupby(level=0),
    "part": lambda d: d.partitions(3)[1],
    "iterator": lambda d: d.itertuples(),
}
LEVELED_HOLDERS = {
    "index": lambda d: d.index,
    "levels": lambda d: d.index.levels,
    "level": lambda d: d.index.levels[1],
    "values of a level": lambda d: d.index.levels[0].values,
    "codes": lambda d: d.index.codes,
    "codes of a level": lambda d: d.index.codes[0],
    "rows": lambda d: d.index[3:7],
    "labels of a row": lambda d: d.loc[(slice(None), "label 3"), :].index,
}


needs_pandas_3 = pytest.mark.skipif(
    not PANDAS_3, reason="with pandas 2 only frames of plain arrays are kept"
)


@needs_pandas_3
@pytest.mark.parametrize(
    ("make", "hold"),
    [
        *(pytest.param(rich, hold, id=name) for name, hold in RICH_HOLDERS.items()),
        *(pytest.param(leveled, hold, id=f"{name}, two levels") for name, hold in LEVELED_HOLDERS.items()),
    ],
)  # fmt: skip
def test_what_refers_to_labels_categories_and_arrow_keeps_the_segment(make, hold):
    sdf = SDataFrame(make())
    name = sdf.name
    assert keeper_of(sdf) is not None
    held = hold(sdf)
    del sdf
    gc.collect()
    assert is_attached(name)
    again = numpush.attach(name)
    pd.testing.assert_frame_equal(again.to_pandas(), make())
    del again
    gc.collect()
    assert is_attached(name)
    del held
    gc.collect()
    assert not is_attached(name)


RICH_LETS_GO = {
    "look-up by label": lambda d: d.loc[d.index[7], "a"],
    "text": lambda d: d["text"].str.upper().tolist(),
    "one text": lambda d: d["text"].iloc[3],
    "Arrow scalar": lambda d: chunk(d)[7],
    "copied index": lambda d: d.index.copy(deep=True),
    "row": lambda d: d[["a", "text", "number"]].iloc[-1].to_dict(),
    "row of all": lambda d: d.iloc[-1].to_dict(),
    "rows of all": lambda d: [len(row) for _, row in d.iloc[:3].iterrows()],
    "names of dtypes": lambda d: d.dtypes.astype(str).tolist(),
    "taken": lambda d: d["text"].take([3, 1]).reset_index(drop=True),
    "length": lambda d: chunk(d).null_count,
    "write": lambda d: d.__setitem__("a", 1.0),
    "cell": lambda d: d.iat.__setitem__((3, 0), 1.0),
    "sorted": lambda d: d["text"].sort_values(ignore_index=True),
    "counts": lambda d: d["kind"].value_counts(sort=False).to_numpy(),
    "first level": lambda d: d.index.get_level_values(0).year.tolist(),
}


@needs_pandas_3
@pytest.mark.parametrize("use", RICH_LETS_GO.values(), ids=RICH_LETS_GO)
def test_a_result_of_labels_categories_and_arrow_does_not_keep_the_segment(use):
    sdf = SDataFrame(rich())
    name, mapping, keeper = sdf.name, sdf._mapping(), keeper_of(sdf)
    other = numpush.attach(name, mode="ro")
    result = use(sdf)
    del sdf
    gc.collect()
    assert mapping.token is None
    assert mapping.keeper is keeper
    again = numpush.attach(name)
    assert again["text"].tolist() == rich()["text"].tolist()
    assert again["a"].iloc[7] == other["a"].iloc[7]
    del again, other
    gc.collect()
    assert not is_attached(name)
    del result


NOT_KEPT = {
    "lists": pd.DataFrame({"a": pd.Series([[1, 2], None, []] * 5, dtype=LISTS)}),
    "dictionary": pd.DataFrame({"a": pd.Series(["x", "y"] * 200, dtype=WORDS)}),
    "sparse": pd.DataFrame({"a": pd.arrays.SparseArray([0, 0, 1] * 200)}),
}


@pytest.mark.parametrize("df", NOT_KEPT.values(), ids=NOT_KEPT)
def test_a_frame_with_what_cannot_be_counted_is_not_kept(df):
    sdf = SDataFrame(df)
    assert keeper_of(sdf) is None
    values = sdf["a"].array
    del sdf
    gc.collect()
    pd.testing.assert_extension_array_equal(values, df["a"].array)


def _tell(obj):
    """Say what an object is, so that any change of its memory shows; None: that cannot be said."""
    try:
        return pickle.dumps(obj)
    except Exception:
        return None


def _call(obj, name):
    """Give an attribute, or what the method gives without arguments; None: it cannot be called so."""
    try:
        found = getattr(obj, name)
        return found() if callable(found) and not isinstance(found, type) else found
    except Exception:
        return None


#: shows windows, writes to the terminal, or ends what is looked at; and what is inside of our objects
_NO_RESULT = {
    "__dict__",
    "to_clipboard",
    "plot",
    "hist",
    "boxplot",
    "close",
    "compact",
    "notify",
    "wait",
    "info",
}


@needs_pandas_3
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "part",
    [
        lambda d: d,
        lambda d: d["a"],
        lambda d: d["text"],
        lambda d: d["kind"],
        lambda d: d["text"].array,
        lambda d: d["number"].array,
        lambda d: d["word"].array,
        lambda d: d["zoned"].array,
        lambda d: d.index,
        lambda d: d.columns,
    ],
    ids=[*("frame", "a", "text", "kind", "text's", "number's", "word's", "zoned's"), "index", "columns"],
)  # fmt: skip
def test_nothing_that_pandas_gives_sees_memory_that_was_let_go(part):
    """Of every attribute and method: what it gives keeps the segment, or does not need it."""
    n_free = 0
    df = rich(60)
    for name in dir(part(df)):
        if name in _NO_RESULT:
            continue
        sdf = SDataFrame(df)
        mapping, other = sdf._mapping(), process.attach(sdf.name, "ro")
        result = _call(part(sdf), name)
        told = _tell(result)
        if told is not None and _tell(result) == told:
            del sdf
            if mapping.token is None:
                n_free += 1
                mapping.buffer()[:] = b"\xa5" * mapping.size  # as whoever has the memory next
                mapping.keeper = None
                assert _tell(result) == told, name
        sdf = result = None
        del other
    assert n_free > 5


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
        sdf = SDataFrame(kept())
        ids = set()
        for i in range(4):
            sdf.loc[0, "a"] = float(i)
            store, total, name = pool.apply(_look, (sdf,))
            assert total == sdf["a"].sum()
            assert not pool.apply(_is_attached_here, (name,))
            ids.add(store)
        assert len(ids) == 1
        assert [pool.apply(_rename, (sdf,)) for _ in range(3)] == [None] * 3
        assert list(sdf.columns) == list(kept().columns)
        pool.close()
        pool.join()


def test_a_kept_frame_goes_with_its_mapping_and_with_its_segment():
    sdf = SDataFrame(kept())
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
    sdf = SDataFrame(kept())
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
