"""SSeries: what pandas would have done, in shared memory, seen by others."""

from __future__ import annotations

import copy
import gc
import pickle
import warnings

import numpy as np
import pandas as pd
import pytest

import numpush
from numpush import SArray, SSeries
from numpush.errors import SharedStructureError

pytestmark = pytest.mark.usefixtures("copy_on_write")
same = pd.testing.assert_series_equal


def numbers() -> pd.Series:
    return pd.Series(np.arange(8.0), index=list("abcdefgh"), name="x")


SERIES = {
    "float": numbers,
    "int": lambda: pd.Series(range(8), name=("a", 1)),
    "text": lambda: pd.Series(list("qwertyui")),
    "dates": lambda: pd.Series(pd.date_range("2026-01-01", periods=8, tz="UTC"), name=3),
    "category": lambda: pd.Series(pd.Categorical(list("abababab"))),
    "masked": lambda: pd.Series([1, None] * 4, dtype="Int64", index=range(10, 18)),
    "levels": lambda: pd.Series(
        range(4), index=pd.MultiIndex.from_product([["a", "b"], [1, 2]], names=["k", None])
    ),
    "empty": lambda: pd.Series([], dtype="f8", name="none"),
    "attrs": lambda: _with_attrs(numbers()),
}


def _with_attrs(series):
    series.attrs["unit"] = "m"
    return series


@pytest.mark.parametrize("make", SERIES.values(), ids=SERIES)
def test_it_reads_as_the_series_it_was_made_from(make):
    series, ss = make(), SSeries(make())
    assert isinstance(ss, pd.Series)
    same(ss.to_pandas(), series)
    same(numpush.attach(ss.handle).to_pandas(), series)
    assert repr(ss) == repr(series).replace("Series([]", "SSeries([]")
    assert ss.name == series.name
    assert ss.attrs == series.attrs
    assert type(ss.head(2)) is pd.Series
    assert type(ss.to_frame()) is pd.DataFrame
    same(ss.iloc[:3], series.iloc[:3])
    same(ss.astype(object), series.astype(object))


def set_(indexer, key, value):
    def operate(s):
        target = getattr(s, indexer) if indexer else s
        target[key] = value

    return operate


def add(s):
    s += 1


def delete(s):
    del s["c"]


OPERATIONS = {
    "item": set_("", "b", 99.0),
    "items": set_("", ["b", "c"], [7.0, 8.0]),
    "slice": set_("", slice("b", "d"), -1.0),
    "mask": lambda s: set_("", s > 3, 0.0)(s),
    "all": set_("", slice(None), 5.0),
    "loc": set_("loc", "b", 99.0),
    "loc mask": lambda s: set_("loc", s < 2, 5)(s),
    "iloc": set_("iloc", -1, 99.0),
    "iloc slice": set_("iloc", slice(2, 5), [1.0, 2.0, 3.0]),
    "at": set_("at", "a", 3.5),
    "iat": set_("iat", 0, 3.5),
    "add": add,
    "new label": set_("loc", "new", 1.0),
    "new item": set_("", "new", 1.0),
    "misfit": set_("", "b", "text"),
    "del": delete,
    "pop": lambda s: s.pop("d"),
    "update": lambda s: s.update(pd.Series({"a": 50.0, "h": 60.0})),
    "index": lambda s: setattr(s, "index", range(8)),
    "index name": lambda s: setattr(s.index, "name", "row"),
    "name": lambda s: setattr(s, "name", "y"),
    "fillna": lambda s: (set_("", "b", np.nan)(s), s.fillna(0.0, inplace=True)),
    "sort_values": lambda s: s.sort_values(ascending=False, inplace=True),
    "sort_index": lambda s: s.sort_index(ascending=False, inplace=True),
    "drop": lambda s: s.drop("b", inplace=True),
    "dropna": lambda s: s.dropna(inplace=True),
    "rename": lambda s: s.rename("z", inplace=True),
    "rename_axis": lambda s: s.rename_axis("ax", inplace=True),
    "replace": lambda s: s.replace(3.0, 33.0, inplace=True),
    "where": lambda s: s.where(s > 2, -1.0, inplace=True),
    "clip": lambda s: s.clip(2, 5, inplace=True),
    "reset_index": lambda s: s.reset_index(drop=True, inplace=True),
    "missing label": set_("iloc", 99, 1.0),
    "wrong length": set_("", slice(None), [1.0, 2.0]),
    "array": lambda s: s.array.__setitem__(0, 99.0),
    "values": lambda s: s.values.__setitem__(0, 99.0),
}
IN_PLACE = {"item", "items", "slice", "mask", "all", "loc", "iloc", "at", "iat", "add", "update"}


def run(operate, s):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            operate(s)
        except Exception as error:
            return error
    return None


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("held", [lambda s: None, lambda s: s[:], lambda s: s.copy(deep=False)])
def test_a_write_does_what_pandas_does(name, held):
    operate = OPERATIONS[name]
    plain, ss = numbers(), SSeries(numbers())
    again = numpush.attach(ss.handle)
    derived = held(ss)
    wanted, found = run(operate, plain), run(operate, ss)
    assert type(found) is type(wanted), found
    if wanted is not None:
        plain = numbers()
    same(ss.to_pandas(), plain)
    same(again.to_pandas(), plain)
    same(numpush.attach(ss.handle, "ro").to_pandas(), plain)
    if derived is not None and name != "array":
        same(derived, numbers())
    if name in IN_PLACE:
        assert ss._frame._window.store.generation == 0


def change(part):
    part *= 2
    return part.sum()


def test_it_travels_as_a_handle_and_is_written_to(ctx):
    ss = SSeries(numbers())
    with ctx.Pool(2) as pool:
        assert sum(pool.map(change, ss.partitions(3))) == numbers().sum() * 2
        assert pool.apply(change, (ss,)) == numbers().sum() * 4
        pool.close()
        pool.join()
    same(ss.to_pandas(), numbers() * 4)


def test_plain_pickle_writes_values():
    ss = SSeries(numbers())
    data = pickle.dumps(ss)
    del ss
    gc.collect()
    found = pickle.loads(data)
    assert type(found) is pd.Series
    same(found, numbers())


def test_parts_locks_column_and_copies():
    ss = SSeries(numbers())
    first, second = ss.partitions(2)
    first[:] = 1.0
    with ss.lock, second.rwlock.write():
        second.iloc[0] = 7.0
    assert ss.tolist() == [1.0] * 4 + [7.0, 5.0, 6.0, 7.0]
    with pytest.raises(SharedStructureError):
        first.loc["new"] = 1.0
    column = ss.column()
    assert type(column) is SArray
    column[0] = -5
    assert ss["a"] == -5
    with ss.updating():
        ss += 1
    assert ss.snapshot()["a"] == -4
    for copied in (copy.copy(ss), copy.deepcopy(ss), ss.copy(), ss.to_pandas()):
        assert type(copied) is pd.Series
        copied.iloc[0] = 100.0
        assert ss["a"] == -4
    ss.loc["new"] = 3.0
    del column, first, second, copied
    gc.collect()
    assert ss.compact() > 0
    assert ss["new"] == 3.0


def test_publish_and_attach_by_name():
    ss = SSeries(numbers())
    numpush.publish("a-series", ss)
    try:
        found = numpush.attach("a-series")
        assert type(found) is SSeries
        found["a"] = 12.0
        assert ss["a"] == 12.0
    finally:
        numpush.withdraw("a-series")
    assert isinstance(numpush.share(numbers()), SSeries)
