"""Writing to a shared frame: what pandas would have done, seen by another process.

Every operation of frame_operations runs on a plain frame and on a shared one, with nobody, a column and
a shallow copy derived before. What another process then sees must be what the plain frame is; or, when
pandas refuses, what it was before.
"""

from __future__ import annotations

import gc
import multiprocessing
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import numpush
from frame_operations import MIXED, NUMERIC, OPERATIONS, make_mixed, make_plain, write_array
from numpush import SDataFrame, SSeries, _pandas, frame_writes
from numpush.shm import life

LIMIT = 60.0  #: seconds that anything here may take on a busy machine
pytestmark = pytest.mark.usefixtures("copy_on_write")
equal = pd.testing.assert_frame_equal

CASES = [
    *[pytest.param([make_plain, make_mixed], f, id=name) for name, f in OPERATIONS.items()],
    *[pytest.param([make_plain], f, id=name) for name, f in NUMERIC.items()],
    *[pytest.param([make_mixed], f, id=name) for name, f in MIXED.items()],
]
HELD = {
    "nothing": lambda df: None,
    "column": lambda df: df["a"],
    "shallow copy": lambda df: df.copy(deep=False),
}


def serve(pipe: Any) -> None:
    """Another process: for each handle, what it sees there."""
    with pipe:
        life.node()
        pipe.send("ready")
        while (handle := pipe.recv()) is not None:
            pipe.send(numpush.attach(handle, "ro").to_pandas())


class Elsewhere:
    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=serve, args=(theirs,), daemon=True)
        self.process.start()
        theirs.close()
        assert self.pipe.recv() == "ready"

    def load(self, sdf: SDataFrame) -> pd.DataFrame:
        self.pipe.send(sdf.handle)
        if not self.pipe.poll(LIMIT):
            raise TimeoutError("the other process does not answer")
        frame: pd.DataFrame = self.pipe.recv()
        return frame

    def close(self) -> None:
        self.pipe.send(None)
        self.process.join()
        self.process.close()
        self.pipe.close()


@pytest.fixture(scope="module", autouse=True)
def elsewhere():
    other = Elsewhere()
    yield other
    other.close()


def test_methods_give_what_they_give_in_pandas():
    """pandas 3 returns the frame itself from some methods in place, None from others."""
    for call in (
        lambda d: d.fillna(0, inplace=True),
        lambda d: d.where(d == d, inplace=True),
        lambda d: d.rename(columns={"a": "a"}, inplace=True),
        lambda d: d.eval("a = a + 1", inplace=True),
        lambda d: d.update(pd.DataFrame({"a": [1.0]})),
    ):
        plain, sdf = make_plain(), SDataFrame(make_plain())
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            wanted, found = call(plain), call(sdf)
        assert (found is sdf) if wanted is plain else (found is None and wanted is None)


def run(operate: Callable[[Any], Any], df: Any) -> Exception | None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            operate(df)
        except Exception as error:
            return error
    return None


@pytest.mark.parametrize(("makers", "operate"), CASES)
def test_a_write_does_what_pandas_does(makers, operate, elsewhere):
    for make in makers:
        for held in HELD:
            check_write(make, operate, HELD[held], elsewhere)


def check_write(make, operate, hold, elsewhere):
    plain, sdf, before = make(), SDataFrame(make()), make()
    equal(elsewhere.load(sdf), before)
    derived = hold(sdf)
    plain_error, error = run(operate, plain), run(operate, sdf)
    after = elsewhere.load(sdf)
    if plain_error is not None:
        assert type(error) is type(plain_error), error
        equal(after, before)  # plain pandas may have written a part
    else:
        assert error is None, error
        equal(after, plain)
    equal(sdf.to_pandas(), after)
    # What fits where it lies is written there: no process has to look for a new structure.
    same = [after[label] for label in after if has_variable_width(after[label])]
    if (
        after.dtypes.equals(before.dtypes)
        and ("k" not in after or after["k"].cat.categories.identical(before["k"].cat.categories))
        and all(x.identical(y) for x, y in zip(after.axes, before.axes))
        and all(column.equals(before[column.name]) for column in same)
    ):
        assert sdf._window.store.generation == 0
    # What was derived before keeps its values, but for the raw array that it was told to change.
    if derived is not None and operate is not write_array:
        testing = pd.testing
        same_as = testing.assert_series_equal if derived.ndim == 1 else equal
        same_as(derived, hold(before))


def has_variable_width(column: Any) -> bool:
    return str(column.dtype) in ("object", "string", "str")


@pytest.mark.parametrize(
    "name", ["loc rows with a misfit", "item of rows", "update", "fillna dict", "where", "replace"]
)
def test_big_frames_rehearse_on_a_private_mapping(name, monkeypatch, elsewhere):
    """The kernel copies the pages that the rehearsal writes to; the mapping goes with it."""
    monkeypatch.setattr(frame_writes, "_MAP_FROM", 0)
    for make in (make_plain, make_mixed):
        for held in HELD.values():
            check_write(make, OPERATIONS[name], held, elsewhere)
    sdf = SDataFrame(make_plain())
    before = Path("/proc/self/maps").read_text().count(sdf.name)
    run(OPERATIONS[name], sdf)
    gc.collect()
    extents = 1 if sdf._window.store.generation else 0
    assert Path("/proc/self/maps").read_text().count(sdf.name) == before + extents


@pytest.mark.parametrize("first", ["new column", "sort_values"])
@pytest.mark.parametrize(("makers", "operate"), CASES)
def test_a_write_to_a_later_generation_does_what_pandas_does(first, makers, operate, elsewhere):
    make = makers[-1]
    plain, sdf = make(), SDataFrame(make())
    for df in (plain, sdf):
        assert run(OPERATIONS[first], df) is None
    part_is_written = run(operate, plain) is not None
    error = run(operate, sdf)
    assert (error is not None) == part_is_written, error
    if not part_is_written:
        equal(elsewhere.load(sdf), plain)
        equal(sdf.to_pandas(), plain)
    sdf.compact()
    equal(elsewhere.load(sdf), sdf.to_pandas())


def test_the_table_has_in_place_and_structural_operations():
    in_place = structural = 0
    for operate in OPERATIONS.values():
        sdf = SDataFrame(make_plain())
        if run(operate, sdf) is None:
            is_in_place = sdf._window.store.generation == 0
            in_place += is_in_place
            structural += not is_in_place
    assert in_place >= 60
    assert structural >= 30


WARNED = {
    "a method": lambda frame: frame.rename(columns=str, copy=False),
    "a method in place": lambda frame: frame.drop(columns="i", inplace=True),
    "one not in place": lambda frame: frame.drop(columns="i", inplace=False),
    "labels": lambda frame: frame.set_index("i", inplace=True),
    "a series": lambda frame: SSeries(frame["i"]).sort_values(inplace=True),
}


@pytest.mark.skipif(
    _pandas.VERSION < (3, 1), reason="pandas counts the stack by a path that it does not keep"
)
@pytest.mark.parametrize("name", WARNED)
def test_warnings_of_pandas_name_the_line_that_called_us(name):
    call = WARNED[name]
    for frame in (make_plain(), SDataFrame(make_plain())):
        with pytest.warns(DeprecationWarning, match="deprecated") as caught:
            call(frame)
        assert len(caught) == 1
        line = call.__code__.co_firstlineno
        assert {(each.filename, each.lineno) for each in caught} == {(__file__, line)}
