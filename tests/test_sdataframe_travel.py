"""How an SDataFrame travels: handles, pickles, workers, forks, and its end."""

from __future__ import annotations

import copy
import gc
import multiprocessing
import os
import pickle
import threading
import weakref
from multiprocessing.reduction import ForkingPickler
from typing import Any

import numpy as np
import pandas as pd
import pytest

import numpush
from numpush import SArray, SDataFrame
from numpush.errors import HandleClosed, LockError, SegmentDamaged, SegmentNotFound
from numpush.handle import FrameHandle
from shared_frames import LIMIT, equal, make, numeric

pytestmark = pytest.mark.usefixtures("copy_on_write")


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
    again = numpush.attach(sdf.handle)
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
            numpush.attach(dataclasses.replace(sdf.handle, start=start, stop=stop))
    array = SArray(np.zeros(3))
    with pytest.raises(SegmentDamaged, match="frame"):
        numpush.attach(FrameHandle(array.name, array.handle.identity, "rw", 0, 0))


def test_attaching_again_shares_what_was_rebuilt():
    sdf = SDataFrame(make())
    again = numpush.attach(sdf.handle)
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
