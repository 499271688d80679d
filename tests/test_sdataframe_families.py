"""SDataFrame over columns of every family: reads, writes in place, refusals, other processes."""

from __future__ import annotations

import contextlib
import multiprocessing
import warnings

import numpy as np
import pandas as pd
import pytest

import numpush
from layout_families import (
    FAMILY_COLUMNS,
    INTERVAL_COLUMNS,
    PERIOD_COLUMNS,
    PICKLED_COLUMNS,
    M,
    assert_same_array,
    assert_same_family,
    family,
)
from layout_samples import PANDAS_3, naming, pa
from numpush import SDataFrame

ALL = [*FAMILY_COLUMNS, *PICKLED_COLUMNS]
#: Families of fixed width; Arrow's buffers are never written to.
FIXED = [
    pytest.param([*PERIOD_COLUMNS], id="period"),
    pytest.param(
        [name for name in INTERVAL_COLUMNS if "arrow" not in name],
        id="interval",
    ),
]


def frame_of(columns):
    frame = {name: family(name) for name in columns}
    return pd.DataFrame({"f": np.arange(M) / 3, **frame}, copy=False)


def pieces():
    for start in range(0, len(ALL), 12):
        yield frame_of(ALL[start : start + 12])


def test_shared_frames_of_every_family_read_equal():
    for frame in pieces():
        sdf = SDataFrame(frame)
        assert_same_family(sdf.to_pandas(), frame)
        for part in sdf.partitions(3):
            rows = slice(part.index[0], part.index[-1])
            assert_same_family(part.to_pandas(), frame.loc[rows])
        copy = numpush.attach(sdf.name, "cow")
        for name in frame.columns:
            with naming(name):
                assert_same_family(copy[name], frame[name])


def check(sdf):
    """Compare in the worker: pyarrow's own pickle forgets that a map's keys are sorted."""
    assert_same_family(sdf.to_pandas(), frame_of(sdf.columns[1:]))
    return sdf


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_handles_of_every_family_go_through_a_pool(method):
    with multiprocessing.get_context(method).Pool(2) as pool:
        for frame in pieces():
            sdf = SDataFrame(frame)
            assert_same_family(pool.map(check, [sdf])[0].to_pandas(), frame)


def write_first(sdf):
    for name in sdf.columns[1:]:
        sdf.loc[3, name] = sdf.loc[9, name]


def spell(frame, name, value):
    """Write a value in every spelling."""
    position = frame.columns.get_loc(name)
    frame.loc[3, name] = value
    frame.iloc[5, position] = value
    frame.at[7, name] = value
    frame.iat[8, position] = value
    frame.loc[20:30, name] = value
    column = frame[name].copy()
    column.iloc[11] = value
    frame[name] = column


@pytest.mark.parametrize("names", FIXED)
def test_periods_and_intervals_are_written_in_place_and_seen_elsewhere(names):
    frame = frame_of(names)
    sdf = SDataFrame(frame)
    other = numpush.attach(sdf.name)
    for name in names:
        with naming(name):
            value = frame[name].iloc[99]
            spell(frame, name, value)
            spell(sdf, name, value)
            assert_same_array(sdf[name].array, frame[name].array)
            # another mapping of the segment: what is there, not what this process holds
            assert_same_array(numpush.attach(sdf.name, "cow")[name].array, frame[name].array)
            assert_same_array(other[name].array, frame[name].array)


@pytest.mark.parametrize("names", FIXED)
def test_a_worker_writes_periods_and_intervals_in_place(names):
    frame = frame_of(names)
    sdf = SDataFrame(frame)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        pool.map(write_first, [sdf])
    for name in names:
        with naming(name):
            column = frame[name].copy()
            column.iloc[3] = column.iloc[9]
            assert_same_array(sdf[name].array, column.array)


def copy_on_write():
    """Have derived frames be copies, which pandas 3 always does."""
    return contextlib.nullcontext() if PANDAS_3 else pd.option_context("mode.copy_on_write", True)


@pytest.mark.parametrize("names", FIXED)
def test_what_was_derived_keeps_its_values(names):
    frame = frame_of(names)
    sdf = SDataFrame(frame)
    for name in frame.columns[1:]:
        with naming(name), copy_on_write():
            before = sdf[name]
            sdf.loc[3, name] = frame[name].iloc[51]
            assert before.iloc[3] == frame[name].iloc[3]
            assert sdf[name].iloc[3] == frame[name].iloc[51]


def in_two_dimensions():
    """Give a frame with several columns of one zone, and of one freq of periods."""
    days = pd.date_range("2020", periods=9, tz="Europe/Paris", unit="ns")
    months = pd.period_range("2020", periods=9, freq="M")
    return pd.DataFrame(
        {
            **{f"z{i}": days + pd.Timedelta(i, "h") for i in range(3)},
            **{f"p{i}": months + i for i in range(2)},
            "n": np.arange(9.0),
        }
    )


WHEN, MONTH = pd.Timestamp("2021-07-01", tz="Europe/Paris"), pd.Period("2021-07", "M")
BLOCK_WRITES = {
    "a cell": lambda f: f.at.__setitem__((3, "z1"), WHEN),
    "a cell of a period": lambda f: f.iat.__setitem__((3, 4), MONTH),
    "missing": lambda f: f.loc.__setitem__((slice(2, 4), "z0"), pd.NaT),
    "rows of a column": lambda f: f.iloc.__setitem__((slice(2, 5), 2), WHEN),
    "some rows": lambda f: f.loc.__setitem__((f["n"] > 4, "p1"), MONTH),
    "two columns": lambda f: f.loc.__setitem__((slice(None), ["z2", "z0"]), WHEN),
    "a row": lambda f: f.loc.__setitem__((1, ["z0", "z1", "z2"]), [WHEN] * 3),
    "a column": lambda f: f.__setitem__("z1", f["z0"]),
    "a column of periods": lambda f: f.__setitem__("p0", f["p1"] + 1),
    "columns": lambda f: f.__setitem__(["z0", "z1"], f[["z1", "z0"]].to_numpy()),
    "in place": lambda f: f.__setitem__("z2", f["z2"] + pd.Timedelta("1h")),
    "fillna": lambda f: f.fillna({"z0": WHEN, "p0": MONTH}, inplace=True),
    "sorted": lambda f: f.sort_values("z0", ascending=False, inplace=True, ignore_index=True),
    "another zone": lambda f: f.__setitem__("z1", f["z1"].dt.tz_convert("UTC")),
    "dropped": lambda f: f.__delitem__("z1"),
    "added": lambda f: f.insert(1, "z9", f["z2"]),
    "rows dropped": lambda f: f.drop(index=[0, 5], inplace=True),
}


@pytest.mark.parametrize("name", BLOCK_WRITES)
def test_columns_in_two_dimensions_are_written_as_pandas_would(name):
    write = BLOCK_WRITES[name]
    with copy_on_write(), warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of `inplace`, from pandas 3.1 on
        plain = in_two_dimensions()
        sdf = SDataFrame(plain)
        # pandas 2 has no block of several columns of periods
        widths = [3, 2, 1] if PANDAS_3 else [3, 1, 1, 1]
        assert [block.values.shape[0] for block in sdf._mgr.blocks] == widths
        kept, derived = in_two_dimensions(), [sdf["z1"], sdf[["p0", "p1"]]]
        write(plain)
        write(sdf)
        assert_same_family(sdf.to_pandas(), plain)
        assert_same_family(numpush.attach(sdf.name, "cow").to_pandas(), plain)
        assert_same_family(derived[0], kept["z1"])
        assert_same_family(derived[1], kept[["p0", "p1"]])
        sdf.compact()
        assert_same_family(sdf.to_pandas(), plain)
        # a part of the rows, written through
        part = sdf.partitions(2)[1]
        part.iloc[0, 0] = WHEN
        plain.iloc[len(plain) - len(part), 0] = WHEN
        assert_same_family(sdf.to_pandas(), plain)


def test_a_frame_of_one_zone_is_written_by_position_as_one_array():
    """pandas takes a table of values by position only where it has one block."""
    plain = in_two_dimensions()[["z0", "z1", "z2"]]
    sdf = SDataFrame(plain)
    sdf.iloc[[2, 0], ::-1] = plain.iloc[[5, 6]].to_numpy()
    wanted = plain.to_numpy()
    wanted[[2, 0], ::-1] = plain.iloc[[5, 6]].to_numpy()
    assert sdf.to_numpy().tolist() == wanted.tolist()
    assert list(sdf.dtypes) == list(plain.dtypes)


def test_what_pandas_refuses_changes_nothing():
    names = ["sparse", "sparse in blocks", "arrow list", "arrow struct", "arrow map"]
    frame = frame_of(names)
    sdf = SDataFrame(frame)
    for name in names:
        with pytest.raises((TypeError, ValueError, pa.ArrowException)):
            sdf.loc[3, name] = object()
        assert_same_family(sdf.to_pandas(), frame)
