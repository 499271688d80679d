"""numpush.Pool: plain data by shared memory, private where it arrives, and nothing left of it."""

from __future__ import annotations

import functools
import subprocess
import sys
import weakref

import numpy as np
import pandas as pd
import pytest

import numpush
import processes
from numpush import Pool, SArray, SDataFrame
from numpush.pool.payload import Outbox, loads
from pool_tasks import SHARE, N, add, keep_it, lies_in_shared_memory, look, look_at_kept, square

pytestmark = pytest.mark.usefixtures("pool_helpers")


def mixed_frame(n=N):
    return pd.DataFrame(
        {
            "f": np.arange(n) / 3,
            "i": np.arange(n),
            "s": [f"text {i % 77}" for i in range(n)],
            "c": pd.Categorical(np.where(np.arange(n) % 2, "odd", "even")),
            "t": pd.date_range("2020-01-01", periods=n, freq="min", tz="Europe/Vienna"),
            "m": pd.array(np.arange(n) % 5, dtype="Int32"),
            "b": np.arange(n) % 3 == 0,
        }
    )


def overwrite(obj):
    """Change what arrived, and give its sum: it is ours alone."""
    if isinstance(obj, np.ndarray):
        obj[0] = -1
        return float(obj.sum())
    if isinstance(obj, pd.DataFrame):
        assert obj.iloc[0, 0] == 0
        obj.iloc[0, 0] = -1
        obj["new"] = 5
        return float(obj["f"].sum())
    obj.iloc[0] = -1
    return float(obj.sum())


def write(shared):
    shared[0] = 77


class TestPlainData:
    @pytest.mark.parametrize("how", ["array", "frame", "series"])
    def test_it_arrives_as_a_private_writable_object(self, pool, how):
        whole = {
            "array": np.arange(float(N)),
            "frame": mixed_frame(),
            "series": pd.Series(np.arange(float(N))),
        }[how]
        assert pool.apply(look, (whole,)) == (type(whole).__name__, True)
        before = whole.copy()
        column = whole["f"] if how == "frame" else whole
        expected = float(column.sum()) - 1
        # Twice by the same worker or not: nobody sees what another wrote.
        assert pool.map(overwrite, [whole] * 8, chunksize=1) == pytest.approx([expected] * 8)
        if how == "array":
            np.testing.assert_array_equal(whole, before)
        else:
            (pd.testing.assert_frame_equal if how == "frame" else pd.testing.assert_series_equal)(
                whole, before
            )

    def test_it_comes_back_equal(self, pool):
        frame = mixed_frame().set_index(["i", "s"])
        frame.attrs["unit"] = "m"
        back = pool.apply(lambda x: x, frame)
        pd.testing.assert_frame_equal(back, frame)
        assert back.attrs == frame.attrs
        assert lies_in_shared_memory(back)
        back.iloc[0, 0] = 5.0
        back["new"] = 1
        assert frame.iloc[0, 0] == 0

    def test_small_ones_are_pickled(self, pool):
        assert pool.apply(look, np.arange(5.0)) == ("ndarray", False)
        assert pool.apply(look, mixed_frame(5)) == ("DataFrame", False)

    def test_anywhere_in_containers_and_arguments(self, pool):
        a = np.arange(float(N))
        found = pool.apply(
            lambda nested, *, key: [look(nested["x"][0][1]), look(key)],
            ({"x": [(0, a)]},),
            {"key": a},
        )
        assert found == [("ndarray", True)] * 2
        one, two = pool.apply(lambda x: (x, {"y": [x]}), a)
        assert two["y"][0] is one
        assert lies_in_shared_memory(one)

    def test_what_a_function_holds(self, pool):
        frame = mixed_frame()
        assert pool.map(lambda i: (i, look(frame)), [1, 2]) == [
            (1, ("DataFrame", True)),
            (2, ("DataFrame", True)),
        ]
        assert pool.map(functools.partial(add, np.ones(N)), [1])[0].sum() == 2 * N

    @pytest.mark.parametrize("wrap", [lambda a: [(a, i) for i in range(16)]], ids=["tuples"])
    def test_one_object_in_many_tasks_is_put_there_once(self, pool, wrap, monkeypatch):
        made = count_segments(monkeypatch)
        a = np.arange(float(N))
        assert pool.starmap(lambda a, i: float(a[i]), wrap(a)) == list(range(16))
        assert pool.starmap(lambda a, i: float(a[i]), wrap(a), chunksize=1) == list(range(16))
        assert len(made) == 2
        assert pool.map(functools.partial(lambda a, i: float(a[i]), a), range(16)) == list(
            range(16)
        )
        assert len(made) == 3

    def test_what_changes_between_calls_is_sent_anew(self, pool):
        a = np.zeros(N)
        for i in range(4):
            a[:] = i
            assert pool.map(np.max, [a, a], chunksize=1) == [i, i]
            assert pool.apply(np.max, a) == i

    def test_a_generator_that_fills_one_buffer_again_and_again(self, pool):
        def fill():
            a = np.zeros(N)
            for i in range(30):
                a[:] = i
                yield a

        assert list(pool.imap(np.max, fill())) == list(range(30))

    def test_what_was_sent_is_not_kept_and_not_taken_for_what_comes_in_its_place(self):
        outbox = Outbox(SHARE)
        ids, sent = set(), []
        for i in range(20):
            array = np.full(N, i)
            ids.add(id(array))
            sent.append(weakref.ref(array))
            data, parcels, _ = outbox.dumps([array])
            assert loads(data)[0][0] == i
            del array, parcels
        assert len(ids) < 20
        assert not any(ref() is not None for ref in sent)

    def test_many_big_arguments_do_not_all_lie_in_memory_at_once(self, pool, monkeypatch):
        made = count_segments(monkeypatch)
        most = 0

        def arrays():
            for i in range(40):
                yield np.full(1 << 20, float(i))  # 8 MiB each

        def note(_):
            nonlocal most
            most = max(most, len(numpush.segments()))

        items = list(arrays())
        result = pool.map_async(np.max, items, 1, callback=note)
        while not result.ready():
            note(None)
        assert result.get() == list(range(40))
        assert len(made) == 40
        assert most < 30
        del items

    def test_object_columns_and_strange_subclasses_are_pickled(self, pool):
        frame = pd.DataFrame({"f": np.arange(float(N)), "o": [{"i": i} for i in range(N)]})
        back = pool.apply(lambda x: x, frame)
        pd.testing.assert_frame_equal(back, frame)
        assert pool.apply(lambda x: type(x), np.ma.zeros(N)) is np.ma.MaskedArray
        objects = np.array([{"a": 1}] * N, object)
        assert pool.apply(lambda x: x[5], (objects,)) == {"a": 1}
        record = np.zeros(N, "f8").view(np.recarray)
        assert pool.apply(lambda x: type(x), (record,)) is np.recarray

    def test_shared_objects_stay_shared(self, pool):
        a = SArray(np.zeros(N))
        pool.apply(write, a)
        assert a[0] == 77
        pool.map(write, np.array_split(a, 4))
        assert a.sum() == 4 * 77
        frame = SDataFrame(pd.DataFrame({"x": np.zeros(100)}))
        pool.map(lambda part: part.__setitem__("x", 1.0), frame.partitions(4))
        assert frame["x"].sum() == 100
        back = pool.apply(lambda x: x, frame)
        assert type(back) is SDataFrame
        back.loc[0, "x"] = 5
        assert frame.loc[0, "x"] == 5
        assert pool.apply(type, frame) is SDataFrame

    def test_results_that_nobody_fetches_leave_nothing(self, pool):
        for _ in range(3):
            pool.apply_async(np.zeros, (N,))
        results = pool.imap(np.zeros, [N] * 20)
        next(results)
        pool.map(square, range(8), chunksize=1)  # they have come by now
        del results
        assert all(o.leases == 0 for o in numpush.segments())

    def test_results_on_the_way_when_the_pool_ends_leave_nothing(self):
        before = {o.name for o in numpush.segments()}
        pool = Pool(2, share_from=SHARE)
        pool.map(abs, range(4))
        pool.map_async(np.zeros, [N] * 60, chunksize=1)
        pool.terminate()
        with processes.grace(1e6):
            left = {o.name for o in numpush.segments() if o.kind != "warm"}
        assert left <= before

    def test_initargs_too(self):
        a = np.arange(float(N))
        with Pool(2, keep_it, (a,), share_from=SHARE) as pool:
            assert pool.map(look_at_kept, range(4)) == [("ndarray", True, float(a.sum()))] * 4

    def test_a_full_shared_memory_falls_back_to_pickling(self):
        """In a namespace of mounts with a small /dev/shm."""
        probe = ["unshare", "-m", "mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", "/dev/shm"]
        if subprocess.run(probe, capture_output=True, check=False).returncode:
            pytest.skip("no right to mount")
        code = """
import numpy as np, numpush
def main():
    a = np.arange(1 << 20)  # 8 MiB
    with numpush.Pool(2) as pool:
        def f(a):
            a[0] = 1
            return a
        for back in pool.map(f, [a, a]):
            assert back.sum() == a.sum() + 1
        small = pool.apply(f, np.zeros(1 << 17))
        print("ok", small.sum())
main()
"""
        mount = 'mount -t tmpfs -o size=4m tmpfs /dev/shm && exec "$@"'
        done = subprocess.run(
            ["unshare", "-m", "sh", "-c", mount, "sh", sys.executable, "-c", code],
            capture_output=True, text=True, timeout=processes.LIMIT, check=False,
        )  # fmt: skip
        assert done.stdout == "ok 1.0\n", done.stderr


def count_segments(monkeypatch):
    from numpush import blocks

    made = []
    store = blocks.store
    monkeypatch.setattr(blocks, "store", lambda *a, **k: made.append(0) or store(*a, **k))
    return made
