"""Partitions of an SDataFrame, and empty ones: shared rows, a fixed structure."""

from __future__ import annotations

import pickle
from multiprocessing.reduction import ForkingPickler

import numpy as np
import pandas as pd
import pytest

from numpush import SDataFrame, SharedStructureError
from shared_frames import equal, make, numeric

pytestmark = pytest.mark.usefixtures("copy_on_write")


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
