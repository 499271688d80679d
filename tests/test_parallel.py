"""map_partitions, parallel_apply and groupby(..).parallel_apply: what pandas does, by processes."""

from __future__ import annotations

import gc
import time
import weakref

import numpy as np
import pandas as pd
import pytest

from numpush import SDataFrame, parallel

N = 600


@pytest.fixture(autouse=True)
def _pools():
    """The pool would stay until the process ends, and its board in shared memory with it."""
    yield
    parallel._close()


@pytest.fixture
def df():
    rng = np.random.default_rng(7)
    return pd.DataFrame(
        {
            "key": rng.choice(list("abcde"), N),
            "num": rng.integers(0, 4, N),
            "x": rng.random(N),
            "y": rng.random(N),
            "when": pd.date_range("2026-01-01", periods=N, freq="h"),
        },
        index=pd.RangeIndex(100, 100 + N, name="row"),
    )


def same(found, wanted):
    if isinstance(wanted, pd.DataFrame):
        pd.testing.assert_frame_equal(found, wanted)
    else:
        pd.testing.assert_series_equal(found, wanted)


ROWS = {
    "number": lambda r: r["x"] + r["y"],
    "text": lambda r: f"{r['key']}{r['num']}",
    "series": lambda r: pd.Series({"sum": r["x"] + r["num"], "key": r["key"]}),
    "date": lambda r: r["when"] + pd.Timedelta(1, "D"),
}


def test_apply_to_rows(df):
    sdf = SDataFrame(df)
    for function in ROWS.values():
        same(sdf.parallel_apply(function, axis=1, processes=2), df.apply(function, axis=1))


COLUMNS = {
    "number": lambda c: c.nunique(),
    "series": lambda c: c.iloc[::-1].reset_index(drop=True),
    "several": lambda c: pd.Series({"first": str(c.iloc[0]), "n": len(c)}),
}


def test_apply_to_columns(df):
    sdf = SDataFrame(df)
    for function in COLUMNS.values():
        same(sdf.parallel_apply(function, processes=2), df.apply(function))


def test_apply_takes_what_apply_takes(df):
    numeric = df[["x", "y", "num"]]
    sdf = SDataFrame(numeric)

    def scale(values, factor, plus=0):
        return values.sum() * factor + plus

    kwargs = {"axis": 1, "raw": True, "args": (3,), "plus": 1}
    same(sdf.parallel_apply(scale, processes=2, **kwargs), numeric.apply(scale, **kwargs))
    same(
        sdf.parallel_apply(lambda r: [r["x"], r["y"]], axis=1, result_type="expand", processes=2),
        numeric.apply(lambda r: [r["x"], r["y"]], axis=1, result_type="expand"),
    )
    empty = SDataFrame(numeric.iloc[:0])
    same(empty.parallel_apply(np.sum, processes=2), numeric.iloc[:0].apply(np.sum))


GROUPS = {
    "number": lambda g: g["x"].sum(),
    "series": lambda g: pd.Series({"n": len(g), "name": str(g.name)}),
    "frame": lambda g: g.head(2),
    "same": lambda g: g,
    "described": lambda g: g[["x", "y"]].describe(),
    "none for some": lambda g: None if "a" in str(g.name) else g["y"].max(),
}
BY = {
    "one": {"by": "key"},
    "two": {"by": ["key", "num"]},
    "not sorted": {"by": "key", "sort": False},
    "no keys": {"by": "num", "group_keys": False},
    "no index": {"by": "key", "as_index": False},
    "function": {"by": lambda row: row % 3},
    "grouper": {},  # a Grouper keeps the frame that it was used on
}


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize("by", BY.values(), ids=BY)
def test_apply_to_groups(df, by):
    sdf = SDataFrame(df)
    by = by or {"by": pd.Grouper(key="when", freq="D")}
    for function in GROUPS.values():
        found = sdf.groupby(**by).parallel_apply(function, processes=2)
        same(found, df.groupby(**by).apply(function))


@pytest.mark.filterwarnings("ignore:.*operated on the grouping columns")  # pandas 2
def test_apply_to_groups_of_a_column_and_of_some(df):
    sdf = SDataFrame(df)

    def spread(values, factor=1):
        return (values.max() - values.min()) * factor

    same(
        sdf.groupby("key")["x"].parallel_apply(spread, 2, processes=2),
        df.groupby("key")["x"].apply(spread, 2),
    )
    same(
        sdf.groupby("key")[["x", "y"]].parallel_apply(spread, factor=3, processes=2),
        df.groupby("key")[["x", "y"]].apply(spread, factor=3),
    )
    missing = df.assign(key=df["key"].where(df["num"] > 0))
    same(
        SDataFrame(missing).groupby("key").parallel_apply(len, processes=2),
        missing.groupby("key").apply(len),
    )


def test_the_groups_are_pandas_groups(df):
    sdf = SDataFrame(df)
    same(sdf.groupby("key")["x"].mean(), df.groupby("key")["x"].mean())
    same(sdf.groupby("key")[["x"]].agg("sum"), df.groupby("key")[["x"]].agg("sum"))
    assert [name for name, _ in sdf.groupby("num")] == [0, 1, 2, 3]


def test_map_partitions_puts_results_together_and_may_write(df):
    sdf = SDataFrame(df)

    def double(part, by):
        part["x"] *= by
        return part["x"]

    same(sdf.map_partitions(double, 2, processes=2), df["x"] * 2)
    assert (sdf["x"] == df["x"] * 2).all()
    same(
        sdf.map_partitions(lambda part: part.assign(new=1), n=3, processes=2),
        df.assign(x=df["x"] * 2, new=1),
    )
    assert sdf.map_partitions(len, n=7, processes=2) == [86] * 5 + [85] * 2


def test_a_number_of_processes_that_cannot_be_is_refused(df):
    with pytest.raises(ValueError, match="processes"):
        SDataFrame(df).map_partitions(len, processes=-1)


def _fail(part, *args):
    raise ValueError("not today")


CALLS = {
    "parts": lambda sdf, more: sdf.map_partitions(_fail, more, processes=2),
    "rows": lambda sdf, more: sdf.parallel_apply(_fail, axis=1, args=(more,), processes=2),
    "columns": lambda sdf, more: sdf.parallel_apply(_fail, args=(more,), processes=2),
    "groups": lambda sdf, more: sdf.groupby("num").parallel_apply(_fail, more, processes=2),
}


@pytest.mark.filterwarnings("ignore:.*operated on the grouping columns")  # pandas 2
@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_what_was_passed_goes_with_the_exception_of_a_task(call, df):
    """Not with the next garbage collection: it may be most of the memory."""
    gc.collect()
    gc.disable()
    try:
        sdf, more = SDataFrame(df), np.zeros(300_000)
        alive = weakref.ref(sdf), weakref.ref(more)
        with pytest.raises(ValueError, match="not today") as caught:
            call(sdf, more)
        assert "of _fail" in caught.value.__notes__[0]
        del sdf, more, caught
        limit = time.monotonic() + 20  # other tasks of the call may still be under way
        while any(each() is not None for each in alive) and time.monotonic() < limit:
            time.sleep(0.01)
        assert [each() for each in alive] == [None, None]
    finally:
        gc.enable()
