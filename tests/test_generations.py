"""Replacing the structure of a shared frame: generations, in other processes, and what they cost."""

from __future__ import annotations

import gc
import os
import pickle
import threading
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.reduction import ForkingPickler

import numpy as np
import pandas as pd
import pytest

import numpush
import processes
from numpush import SArray, SDataFrame, SegmentNotFound, SharedStructureError
from numpush.shm import life, naming
from shared_frames import equal, file_size, mixed

pytestmark = pytest.mark.filterwarnings("ignore:The inplace keyword")
N = 1000
PANDAS_2_COPIES = pytest.mark.skipif(
    int(pd.__version__.split(".")[0]) < 3, reason="pandas 2 copies several columns"
)


# -- other processes


def add_columns(sdf: SDataFrame, who: int, n: int) -> int:
    for i in range(n):
        sdf[f"{who}-{i}"] = float(who * 1000 + i)
        sdf.loc[who, "s"] = f"{who} wrote {i}"
    return len(sdf.columns)


def test_nothing_is_lost_when_processes_change_the_structure_at_once(ctx):
    sdf = SDataFrame(mixed())
    with ctx.Pool(3) as pool:
        pool.starmap(add_columns, [(sdf, who, 5) for who in range(4)], chunksize=1)
        pool.close()
        pool.join()
    plain = mixed()
    assert set(sdf.columns) == {*plain.columns, *(f"{w}-{i}" for w in range(4) for i in range(5))}
    for who in range(4):
        plain.loc[who, "s"] = f"{who} wrote 4"
        for i in range(5):
            plain[f"{who}-{i}"] = float(who * 1000 + i)
    equal(sdf.to_pandas()[list(plain.columns)], plain)


def test_nor_through_an_executor():
    sdf = SDataFrame(mixed())
    with ProcessPoolExecutor(3) as pool:
        list(pool.map(add_columns, [sdf] * 3, range(3), [3] * 3))
    assert len(sdf.columns) == 5 + 9


def rows_of(sdf: SDataFrame) -> tuple[list[object], float]:
    sdf["a"] = 7.0
    return list(sdf.columns), float(sdf["a"].sum())


def test_every_frame_on_all_rows_follows_and_a_part_stays(ctx):
    sdf = SDataFrame(mixed())
    again, part = numpush.attach(sdf.name), sdf.partitions(4)[1]
    sdf["new"] = 1
    del sdf["b"]
    assert list(again.columns) == ["a", "i", "s", "k", "new"]
    equal(part.to_pandas(), mixed().iloc[250:500])
    with ctx.Pool(1) as pool:
        columns, total = pool.apply(rows_of, (part,))
        assert (columns, total) == (list(mixed().columns), 7.0 * 250)
        assert sdf["a"].sum() == part["a"].sum() + mixed()["a"].drop(range(250, 500)).sum()
        columns, total = pool.apply(rows_of, (sdf.partitions(2)[0],))
        assert (columns, total) == (["a", "i", "s", "k", "new"], 7.0 * 500)
        columns, _ = pool.apply(rows_of, (sdf,))
        assert columns == list(sdf.columns)
        pool.close()
        pool.join()
    assert (again["a"] == 7.0).all()


def triple(column: SArray) -> int:
    column *= 3
    return len(column)


def test_a_column_of_a_later_generation_travels_as_a_handle(ctx):
    sdf = SDataFrame(mixed())
    sdf["new"] = np.arange(N, dtype="f8")
    column = sdf.column("new")
    assert len(pickle.dumps(column.handle)) < 400
    with ctx.Pool(1) as pool:
        assert pool.apply(triple, (column,)) == N
        assert pool.apply(triple, (column[5:8],)) == 3
        pool.close()
        pool.join()
    wanted = np.arange(N) * 3.0
    wanted[5:8] *= 3
    assert sdf["new"].tolist() == wanted.tolist()
    by_handle = numpush.attach(column.handle, "ro")
    assert by_handle.tolist() == wanted.tolist()
    del sdf, by_handle
    gc.collect()
    assert column.tolist() == wanted.tolist()  # it keeps the segment
    with column.lock_range(slice(0, 10)), column.lock:
        column[0] = 1


def test_a_fork_in_between():
    sdf = SDataFrame(mixed())
    sdf["new"] = 1.5

    def in_child() -> None:
        assert sdf["new"].sum() == N * 1.5
        sdf["child"] = 2.5
        sdf.drop(columns="new", inplace=True)

    processes.run_forked(in_child)
    assert list(sdf.columns) == [*mixed().columns, "child"]
    assert (sdf["child"] == 2.5).all()


def test_threads_change_the_structure_at_once():
    sdf = SDataFrame(mixed())

    def add(who: int) -> None:
        for i in range(5):
            sdf[f"{who}-{i}"] = i

    threads = [threading.Thread(target=add, args=(who,)) for who in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(sdf.columns) == 5 + 20


# -- what it costs, and compact


def test_a_column_that_was_read_before_is_read_anew():
    sdf = SDataFrame(mixed())
    other = numpush.attach(sdf.name)
    assert other["a"].sum() == sdf["a"].sum() == mixed()["a"].sum()
    sdf["a"] = "text"
    assert other["a"].tolist() == sdf["a"].tolist() == ["text"] * N


def test_what_did_not_change_is_not_copied():
    n = 1 << 17
    sdf = SDataFrame({"a": np.zeros(n), "b": np.ones(n), "c": np.full(n, 2.0)})
    before, column = file_size(sdf), sdf.column("a")
    sdf["new"] = np.zeros(n, "i1")
    assert file_size(sdf) - before < n + 3 * 4096
    del sdf["b"]
    sdf.columns = ["x", "y", "z"]
    assert file_size(sdf) - before < n + 6 * 4096
    assert np.shares_memory(sdf.column("x"), column)
    column[3] = 5
    assert sdf.loc[3, "x"] == 5
    sdf["x"] = sdf["y"]  # memory of its own, though pandas would share it for now
    sdf.loc[0, "x"] = -1.0
    assert sdf.loc[0, "y"] == 2.0


def test_two_columns_never_get_the_same_memory():
    sdf = SDataFrame(mixed())
    sdf["c"] = sdf["a"]
    sdf["d"] = sdf["a"]
    sdf[["e", "f"]] = sdf[["a", "b"]]
    sdf.loc[:, "c"] = 1.0
    sdf.loc[:, "e"] = 2.0
    wanted = mixed()
    wanted["c"], wanted["d"], wanted["e"], wanted["f"] = 1.0, wanted["a"], 2.0, wanted["b"]
    equal(sdf.to_pandas(), wanted)


def test_compact_gives_back_what_nobody_can_use():
    n = 1 << 17
    sdf = SDataFrame(pd.DataFrame(np.ones((n, 4)), columns=list("abcd")))
    assert sdf.compact() == 0
    sdf["e"] = "text"
    del sdf["b"]
    wanted = pd.DataFrame(np.ones((n, 4)), columns=list("abcd")).assign(e="text")
    del wanted["b"]
    assert sdf.compact() >= n * 8 * 4
    equal(sdf.to_pandas(), wanted)
    equal(numpush.attach(sdf.name, "ro").to_pandas(), wanted)
    assert len(sdf._window.store.memories) == 1
    path = naming.path(naming.segment_file(sdf.name))
    assert os.stat(path).st_blocks * 512 < n * 8 * 4 + (1 << 21)
    assert sdf.compact() == 0
    sdf["a"] += 1
    sdf["f"] = 1
    assert sdf["a"].sum() == 2 * n


@pytest.mark.parametrize(
    "hold",
    [
        lambda d: d["a"],
        lambda d: d.column("a"),
        lambda d: d.partitions(2)[0],
        pytest.param(lambda d: d[["a", "b"]].values, marks=PANDAS_2_COPIES),
        lambda d: d["a"].array,
    ],
    ids=["column", "SArray", "part", "values", "array"],
)
def test_compact_waits_for_what_was_derived(hold):
    sdf = SDataFrame(mixed())
    held = hold(sdf)
    before = np.array(held, dtype=object).tolist()
    sdf["new"] = 1
    assert sdf.compact() == 0
    assert np.array(held, dtype=object).tolist() == before
    del held
    gc.collect()
    assert sdf.compact() > 0
    equal(sdf.to_pandas(), mixed().assign(new=1))


def wait_for_word(pipe, sdf) -> None:
    pipe.send(len(sdf))
    pipe.recv()
    pipe.send(sdf["a"].sum())


def test_compact_waits_for_other_processes_and_handles(ctx):
    sdf = SDataFrame(mixed())
    sdf["new"] = 1
    ours, theirs = ctx.Pipe()
    other = ctx.Process(target=wait_for_word, args=(theirs, sdf))
    other.start()
    theirs.close()
    assert ours.recv() == N
    assert sdf.compact() == 0
    ours.send("go")
    assert ours.recv() == mixed()["a"].sum()
    other.join()
    ours.close()
    other.close()
    message = bytes(ForkingPickler.dumps(sdf.partitions(2)[1]))
    gc.collect()
    assert sdf.compact() == 0
    arrived = pickle.loads(message)
    equal(arrived.to_pandas(), mixed().assign(new=1).iloc[500:])
    del arrived
    gc.collect()
    assert sdf.compact() > 0


def test_a_handle_to_what_compact_took_away_is_void():
    sdf = SDataFrame(mixed())
    part, column = sdf.partitions(2)[0].handle, sdf.column("a").handle
    sdf["new"] = np.arange(N)
    later, new = sdf.partitions(2)[0].handle, sdf.column("new").handle
    gc.collect()
    assert sdf.compact() > 0
    for handle in (part, column, later, new):
        with pytest.raises(SegmentNotFound, match="compact"):
            numpush.attach(handle)
    equal(numpush.attach(sdf.handle).to_pandas(), mixed().assign(new=np.arange(N)))


def test_only_a_whole_frame_is_compacted():
    sdf = SDataFrame(mixed())
    with pytest.raises(SharedStructureError):
        sdf.partitions(2)[0].compact()


# -- modes, attributes and what is shown


def test_a_read_only_frame_follows_and_refuses():
    sdf = SDataFrame(mixed())
    ro, cow = numpush.attach(sdf.name, "ro"), numpush.attach(sdf.name, "cow")
    cow["a"] = 5.0
    sdf["new"] = 1
    assert "new" in ro
    with pytest.raises(ValueError, match="read-only"):
        ro["more"] = 1
    assert "new" not in cow  # its changes are its own, and so is what it sees
    assert (cow["a"] == 5.0).all()
    with pytest.raises(SharedStructureError):
        cow["more"] = 1
    equal(sdf.to_pandas(), mixed().assign(new=1))


def test_attrs_are_seen_by_all():
    sdf = SDataFrame(mixed())
    again = numpush.attach(sdf.name)
    again.attrs["unit"] = "m"
    again.attrs.update(scale=2)
    assert sdf.attrs == {"unit": "m", "scale": 2}
    assert sdf.attrs.pop("unit") == "m"
    assert again.attrs == {"scale": 2}
    copied = sdf.copy()
    copied.attrs["mine"] = 1
    assert "mine" not in sdf.attrs
    sdf.attrs = {}
    assert not again.attrs


def test_ls_shows_the_latest_generation():
    sdf = SDataFrame(mixed())
    before = next(info for info in numpush.segments() if info.name == sdf.name)
    sdf["new"] = np.zeros(N)
    after = next(info for info in numpush.segments() if info.name == sdf.name)
    assert before.name == after.name
    assert life.node().id
    assert str(before) != str(after)
