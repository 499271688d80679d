"""numpush.Pool: multiprocessing.Pool's interface, plain data by shared memory, and every way to fail."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import importlib.util
import itertools
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pandas as pd
import pytest

import numpush
import processes
from numpush import Pool, RemoteError, SArray, SDataFrame, WorkerDied
from numpush.pool import ResultTimeout

N = 33_333
SHARE = 1 << 16  #: bytes, so that N float64 go by shared memory


@pytest.fixture(scope="module", autouse=True)
def _helpers_of_loky():
    """Load and open whatever the first pool of a process does."""
    with Pool(1) as pool:
        pool.apply(abs, (1,))


@pytest.fixture(scope="module")
def pool():
    with Pool(2, share_from=SHARE) as pool:
        processes.eventually(lambda: len(set(pool.map(pid_of, range(8), chunksize=1))) == 2)
        yield pool


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


# -- tasks, at module level: loky sends them by name


def square(x):
    return x * x


def add(a, b, *, c=0):
    return a + b + c


def pid_of(_=None):
    return os.getpid()


def lies_in_shared_memory(obj):
    """Whether the first numbers of *obj* lie in a file in /dev/shm, by the kernel's account."""
    if not isinstance(obj, np.ndarray):
        obj = obj.iloc[:, 0].to_numpy() if obj.ndim == 2 else obj.to_numpy()
    address = obj.__array_interface__["data"][0]
    with open("/proc/self/maps") as maps:
        for line in maps:
            start, stop = (int(x, 16) for x in line.split()[0].split("-"))
            if start <= address < stop:
                return "/dev/shm/" in line
    return False


def look(obj):
    return type(obj).__name__, lies_in_shared_memory(obj)


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


def die(how):
    if how == "exit":
        os._exit(3)
    if how == "segfault":
        import faulthandler

        faulthandler.disable()
        ctypes.string_at(0)
    os.kill(os.getpid(), getattr(signal, how))


def die_at(i, at):
    if i == at:
        os.kill(os.getpid(), signal.SIGKILL)
    return i


def sleep(seconds):
    time.sleep(seconds)
    return seconds


class CountsItsChunk:
    """Sent anew with each chunk, so that it counts from there."""

    n = 0

    def __call__(self, _):
        self.n += 1
        return self.n


class NeedsTwo(Exception):
    """Pickles, and cannot be unpickled: the oldest trap of multiprocessing."""

    def __init__(self, one, two):
        super().__init__(f"{one} and {two}")


class Unpicklable(Exception):
    def __reduce__(self):
        raise TypeError("not me")


def raise_it(error):
    raise error


def raise_unpicklable(_):
    raise Unpicklable("hello")


class TestInterface:
    def test_apply(self, pool):
        assert pool.apply(add, (1, 2)) == 3
        assert pool.apply(add, [1, 2], {"c": 3}) == 6
        assert pool.apply(os.getpid) != os.getpid()

    @pytest.mark.parametrize("arg", [5, 2.5, "text", None, {"a": 1}, {1, 2}])
    def test_apply_takes_one_argument_as_it_is(self, pool, arg):
        assert pool.apply(repr, arg) == repr(arg)

    def test_map_keeps_the_order(self, pool):
        assert pool.map(square, range(101)) == [i * i for i in range(101)]
        assert pool.map(square, (i for i in range(7)), chunksize=3) == [0, 1, 4, 9, 16, 25, 36]
        assert pool.map(square, []) == []
        assert pool.map(square, iter(())) == []
        assert pool.starmap(add, [(1, 2), [3, 4]]) == [3, 7]

    @pytest.mark.parametrize("n", [1, 7, 8, 9, 101])
    def test_map_splits_as_multiprocessing_does(self, pool, n):
        with multiprocessing.get_context("fork").Pool(2) as other:
            expected = other.map(CountsItsChunk(), range(n))
            other.close()
            other.join()
        assert pool.map(CountsItsChunk(), range(n)) == expected

    def test_async(self, pool):
        got = []
        result = pool.apply_async(add, (1, 2), callback=got.append)
        assert result.get(processes.LIMIT) == 3
        assert result.ready()
        assert result.successful()
        assert got == [3]
        assert pool.map_async(square, [1, 2, 3], 1, got.append).get(processes.LIMIT) == [1, 4, 9]
        assert got == [3, [1, 4, 9]]
        failed = pool.starmap_async(add, [(1,)], error_callback=got.append)
        failed.wait(processes.LIMIT)
        assert not failed.successful()
        assert isinstance(got[2], TypeError)
        with pytest.raises(TypeError, match="missing 1 required positional argument"):
            failed.get()

    def test_a_result_that_is_not_there(self, pool):
        result = pool.apply_async(sleep, (0.5,))
        assert not result.ready()
        with pytest.raises(ValueError, match="not ready"):
            result.successful()
        for cls in (TimeoutError, multiprocessing.TimeoutError, ResultTimeout):
            with pytest.raises(cls):
                result.get(0.001)
        assert result.get(processes.LIMIT) == 0.5

    def test_imap(self, pool):
        assert list(pool.imap(square, range(50))) == [i * i for i in range(50)]
        assert list(pool.imap(square, iter(range(50)), chunksize=7)) == [i * i for i in range(50)]
        found = list(pool.imap_unordered(square, range(50), chunksize=3))
        assert sorted(found) == [i * i for i in range(50)]
        assert list(pool.imap(square, [])) == []

    def test_imap_unordered_gives_what_is_there(self, pool):
        assert next(pool.imap_unordered(sleep, [1.0, 0.0])) == 0.0

    def test_imap_of_something_endless_takes_a_few_and_goes_on(self, pool):
        taken = []
        endless = (taken.append(i) or i for i in itertools.count())
        results = pool.imap(square, endless)
        assert [next(results) for _ in range(100)] == [i * i for i in range(100)]
        assert len(taken) < 120

    def test_imap_next_has_a_timeout(self, pool):
        results = pool.imap(sleep, [0.5])
        with pytest.raises(multiprocessing.TimeoutError):
            results.next(0.001)
        assert results.next(processes.LIMIT) == 0.5

    def test_imap_raises_in_its_place_and_goes_on(self, pool):
        results = pool.imap(lambda x: 1 // x, [1, 0, -1])
        assert next(results) == 1
        with pytest.raises(ZeroDivisionError):
            next(results)
        assert list(results) == [-1]

    def test_imap_passes_on_what_its_iterable_raises(self, pool):
        def broken():
            yield 1
            raise LookupError("no more")

        results = pool.imap(square, broken())
        assert next(results) == 1
        with pytest.raises(LookupError, match="no more"):
            next(results)
        assert list(results) == []

    def test_lambdas_closures_and_partials(self, pool):
        k = 10
        assert pool.map(lambda x: x + k, [1, 2]) == [11, 12]
        assert pool.map(functools.partial(add, 1, c=2), [1, 2]) == [4, 5]
        assert pool.map("a{}".format, [1]) == ["a1"]

    def test_a_thousand_small_tasks(self, pool):
        assert sum(pool.map(square, range(1000), chunksize=1)) == sum(i * i for i in range(1000))

    def test_several_threads_call_at_once(self, pool):
        found = {}

        def call(k):
            found[k] = pool.map(functools.partial(add, k), range(50), chunksize=1)

        threads = [threading.Thread(target=call, args=(k,)) for k in range(5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(processes.LIMIT)
        assert found == {k: [k + i for i in range(50)] for k in range(5)}

    @pytest.mark.parametrize("bad", [{"processes": 0}, {"maxtasksperchild": 0}])
    def test_nonsense_is_refused(self, bad):
        with pytest.raises(ValueError, match="at least 1"):
            Pool(**bad)

    def test_what_is_no_function_is_refused(self, pool):
        with pytest.raises(TypeError, match="a function is wanted"):
            pool.map(5, [1])
        with pytest.raises(TypeError, match="callable"):
            Pool(1, initializer=5)
        with pytest.raises(ValueError, match="chunksize"):
            pool.map(abs, [1], chunksize=0)

    def test_it_cannot_be_pickled(self, pool):
        with pytest.raises(NotImplementedError):
            pickle.dumps(pool)


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


_kept = None


def keep_it(a):
    global _kept
    _kept = a


def look_at_kept(_):
    return (*look(_kept), float(_kept.sum()))


class TestErrors:
    def test_an_exception_keeps_its_class_and_shows_where_it_was_raised(self, pool):
        def outer(x):
            return 1 // x

        with pytest.raises(ZeroDivisionError) as caught:
            pool.map(outer, [3, 2, 1, 0])
        assert "in outer" in str(caught.value.__cause__)
        assert "return 1 // x" in str(caught.value.__cause__)
        assert "numpush/pool" not in str(caught.value.__cause__)
        assert any("task 3 of" in note for note in caught.value.__notes__)

    @pytest.mark.parametrize("error", [KeyError("k"), SystemExit(3), KeyboardInterrupt()])
    def test_any_class(self, pool, error):
        with pytest.raises(type(error)):
            pool.apply(raise_it, error)
        assert pool.apply(abs, -1) == 1

    @pytest.mark.parametrize("which", ["cannot be pickled", "cannot be unpickled"])
    def test_an_exception_that_does_not_travel_is_a_remote_error(self, pool, which):
        function = raise_unpicklable if "un" not in which else lambda _: raise_it(NeedsTwo(1, 2))
        with pytest.raises(RemoteError, match=r"hello|1 and 2") as caught:
            pool.map(function, [0])
        assert "raise" in str(caught.value)
        assert caught.value.type_name.endswith(("Unpicklable", "NeedsTwo"))
        assert isinstance(caught.value, RuntimeError)
        assert isinstance(pickle.loads(pickle.dumps(caught.value)), RemoteError)

    def test_a_result_that_cannot_be_pickled_is_named(self, pool):
        with pytest.raises(pickle.PicklingError, match=r"_thread.lock.*cannot pickle") as caught:
            pool.map(lambda i: threading.Lock() if i == 2 else i, range(4), chunksize=4)
        assert any("task 2 of" in note for note in caught.value.__notes__)
        assert pool.apply(abs, -1) == 1

    def test_an_argument_that_cannot_be_pickled_is_named(self, pool):
        with pytest.raises(TypeError) as caught:
            pool.map(abs, [1, 2, threading.Lock()], chunksize=1)
        assert any("arguments of task 2 of abs" in note for note in caught.value.__notes__)
        with pytest.raises(TypeError) as caught:
            pool.map(functools.partial(abs, threading.Lock()), [1])
        assert any("the function abs" in note for note in caught.value.__notes__)

    def test_an_argument_that_cannot_be_unpickled(self, pool):
        with pytest.raises(TypeError, match="required positional"):
            pool.apply(repr, NeedsTwo(1, 2))

    def test_the_first_error_ends_a_map_and_drops_what_has_not_begun(self, pool):
        done = SArray(np.zeros(200, "i8"))

        def work(i):
            if i == 0:
                raise ValueError("first")
            time.sleep(0.01)
            done[i] = 1

        with pytest.raises(ValueError, match="first"):
            pool.map(work, range(200), chunksize=1)
        pool.map(square, range(4), chunksize=1)
        assert done.sum() < 150

    def test_an_initializer_that_fails_fails_every_task(self):
        with Pool(2, raise_it, (LookupError("no database"),)) as pool:
            for _ in range(2):
                with pytest.raises(LookupError, match="no database"):
                    pool.map(square, range(4))

    def test_a_callback_that_raises_does_not_lose_the_result(self, pool, capsys):
        result = pool.apply_async(abs, (-1,), callback=lambda _: 1 / 0)
        assert result.get(processes.LIMIT) == 1
        assert "ZeroDivisionError" in capsys.readouterr().err


class TestDeath:
    @pytest.mark.parametrize(
        ("how", "exitcode", "words"),
        [
            ("exit", 3, "exit code 3"),
            ("segfault", -11, "SIGSEGV"),
            ("SIGKILL", -9, "SIGKILL"),
            ("SIGTERM", -15, "SIGTERM"),
        ],
    )
    def test_a_worker_that_dies_is_named_and_the_pool_goes_on(self, how, exitcode, words):
        with Pool(1) as pool:
            with pytest.raises(WorkerDied, match=f"{words}.* at task 0 of die") as caught:
                pool.apply(die, how)
            died = caught.value
            assert died.exitcode == exitcode
            assert (died.task, died.index) == ("task 0 of die", 0)
            assert isinstance(died, RuntimeError)
            assert pool.map(square, range(5)) == [0, 1, 4, 9, 16]
            copy = pickle.loads(pickle.dumps(died))
            assert (str(copy), copy.pid, copy.index) == (str(died), died.pid, died.index)

    @pytest.mark.parametrize("chunksize", [1, 4, None])
    def test_the_task_is_found_in_a_map(self, chunksize):
        with Pool(2) as pool:
            with pytest.raises(WorkerDied) as caught:
                pool.starmap(die_at, [(i, 13) for i in range(40)], chunksize)
            assert caught.value.index == 13
            assert caught.value.task == "task 13 of die_at"

    def test_killed_from_outside_in_mid_task(self):
        with Pool(2, share_from=SHARE) as pool:
            pids = SArray(np.zeros(2, "i8"))

            def work(i, big):
                pids[i] = os.getpid()
                time.sleep(processes.LIMIT)

            big = np.arange(float(N))
            result = pool.starmap_async(work, [(0, big), (1, big)], 1)
            processes.eventually(lambda: pids[:].all())
            os.kill(int(pids[1]), signal.SIGKILL)
            with pytest.raises(WorkerDied, match="SIGKILL") as caught:
                result.get(processes.LIMIT)
            assert (caught.value.pid, caught.value.index) == (pids[1], 1)
            assert pool.apply(abs, -1) == 1

    def test_killed_while_idle_does_no_harm(self):
        with Pool(2) as pool:
            for pid in set(pool.map(pid_of, range(8), chunksize=1)):
                os.kill(pid, signal.SIGKILL)
            with contextlib.suppress(WorkerDied):  # found out when the next call has begun, or not
                pool.map(square, range(4))
            assert pool.map(square, range(4)) == [0, 1, 4, 9]

    def test_imap_tells_of_it_and_goes_on_with_what_was_not_sent(self):
        with Pool(1) as pool:
            results = pool.imap(functools.partial(die_at, at=0), range(30))
            with pytest.raises(WorkerDied):
                next(results)
            rest = []
            while len(rest) < 30:
                try:
                    rest.append(next(results))
                except WorkerDied:
                    rest.append(None)
                except StopIteration:
                    break
            assert rest[-1] == 29

    def test_the_workers_end_with_a_parent_that_is_killed(self):
        code = """
import numpy as np, numpush, os, time
def main():
    pool = numpush.Pool(2, share_from=1000)
    print(*set(pool.map(lambda _: (time.sleep(.05), os.getpid())[1], range(8), chunksize=1)), flush=True)
    pool.map(lambda a: time.sleep(1000), [np.zeros(5000)] * 2)
main()
"""
        namespace = processes.new_namespace()
        parent = subprocess.Popen(
            [sys.executable, "-c", code],
            env={**os.environ, "NUMPUSH_NAMESPACE": namespace},
            stdout=subprocess.PIPE,
            text=True,
        )
        pids = [int(pid) for pid in parent.stdout.readline().split()]
        assert pids
        parent.kill()
        parent.wait()
        parent.stdout.close()
        processes.eventually(lambda: not any(map(is_running, pids)))
        processes.run_script("import numpush; numpush.gc()", namespace=namespace)
        assert not any(".seg." in f for f in processes.files_of(namespace))
        for file in processes.files_of(namespace):
            os.unlink(processes.SHM / file)


def is_running(pid):
    try:
        with open(f"/proc/{pid}/stat") as f:
            return f.read().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


class TestLife:
    def test_join_without_close_as_in_the_oldest_example(self):
        frame = SDataFrame(pd.DataFrame({"x": np.zeros(5)}))
        pool = Pool(processes=2)
        pool.apply(lambda f: f.__setitem__("x", 2.0), frame)
        pool.join()
        assert frame["x"].sum() == 10
        with pytest.raises(ValueError, match="not running"):
            pool.apply(abs, -1)

    def test_close_lets_what_was_begun_end(self):
        pool = Pool(2)
        result = pool.map_async(sleep, [0.05] * 8, chunksize=1)
        pool.close()
        with pytest.raises(ValueError, match="not running"):
            pool.map(square, [1])
        pool.join()
        assert result.ready()
        assert result.get() == [0.05] * 8
        pool.join()
        pool.terminate()

    def test_closing_alone_ends_the_workers(self):
        pool = Pool(2)
        pids = set(pool.map(pid_of, range(8), chunksize=1))
        pool.close()
        processes.eventually(lambda: not any(map(is_running, pids)))
        pool.join()

    def test_terminate_ends_tasks_and_those_who_wait(self):
        pool = Pool(2, share_from=SHARE)
        pids = SArray(np.zeros(2, "i8"))

        def work(i, big):
            pids[i] = os.getpid()
            time.sleep(1000)

        result = pool.starmap_async(work, [(0, np.ones(N)), (1, np.ones(N))], 1)
        processes.eventually(lambda: pids[:].all())
        waiting = pool.apply_async(abs, (-1,))
        pool.terminate()
        for each in (result, waiting):
            with pytest.raises(RuntimeError, match="terminated"):
                each.get(processes.LIMIT)
        assert not any(map(is_running, map(int, pids)))
        pool.join()

    def test_terminate_before_the_workers_have_started(self):
        pool = Pool(2, keep_it, (np.ones(N),), share_from=SHARE)
        pool.apply_async(look, (np.ones(N),))
        pool.terminate()
        Pool(2).terminate()
        Pool(2).join()

    def test_leaving_the_block_with_an_exception_ends_it(self):
        with pytest.raises(KeyError), Pool(1) as pool:
            give_up(pool.apply_async(sleep, (1000,)))

    def test_a_pool_that_is_forgotten_ends(self):
        pool = Pool(2)
        pids = set(pool.map(pid_of, range(8), chunksize=1))
        del pool
        processes.eventually(lambda: not any(map(is_running, pids)))

    def test_a_pool_that_is_left_open_ends_at_exit(self):
        code = """
import numpush, time
pool = numpush.Pool(2)
print(pool.map(lambda x: x + 1, range(3)))
pool.apply_async(time.sleep, (1000,))
"""
        done = processes.run_script(code)
        assert (done.stdout, done.stderr, done.returncode) == ("[1, 2, 3]\n", "", 0)

    def test_each_worker_does_no_more_tasks_than_it_may(self):
        with Pool(2, maxtasksperchild=3) as pool:
            pids = pool.map(pid_of, range(13), chunksize=1)
        assert max(pids.count(pid) for pid in pids) <= 3

    def test_one_task_per_worker(self):
        with Pool(2, maxtasksperchild=1) as pool:
            pids = pool.map(pid_of, range(6), chunksize=1)
            assert len(set(pids)) == 6
            pool.close()
            pool.join()

    def test_threads_are_capped_before_anything_loads(self):
        def caps():
            import numba

            names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
            return [os.environ.get(name) for name in names], numba.get_num_threads()

        with Pool(1, threads=2) as pool:
            assert pool.apply(caps) == (["2"] * 3, min(2, os.cpu_count()))
        with Pool(1, threads=None) as pool:
            expected = os.environ.get("OMP_NUM_THREADS")
            assert pool.apply(os.environ.get, ("OMP_NUM_THREADS",)) == expected

    def test_pools_in_workers_of_pools(self):
        def inner(n):
            with Pool(2, share_from=SHARE) as pool:
                return sum(map(len, pool.map(np.zeros, [n, N])))

        with Pool(2) as pool:
            assert pool.map(inner, [1, 2], chunksize=1) == [N + 1, N + 2]

    def test_death_in_a_pool_in_a_worker(self):
        def inner(_):
            with Pool(1) as pool:
                pool.apply(die, "SIGKILL")

        with Pool(1) as pool, pytest.raises(WorkerDied, match="SIGKILL at task 0 of die"):
            pool.apply(inner, None)

    def test_in_processes_of_the_users(self, ctx):
        child = ctx.Process(target=check_in_child)
        child.start()
        assert processes.join(child) == [0]

    def test_a_child_of_a_fork_has_its_own_workers(self):
        with Pool(1) as pool:
            mine = pool.apply(os.getpid)
            assert processes.run_forked(check_inherited, pool, mine) == 0
            assert pool.apply(os.getpid) == mine

    def test_an_idle_pool_uses_no_processor(self):
        with Pool(2) as pool:
            pids = [os.getpid(), *set(pool.map(pid_of, range(8), chunksize=1))]
            time.sleep(0.3)  # loky's workers look once after their first task
            before = [ticks(pid) for pid in pids]
            time.sleep(1)
            after = [ticks(pid) for pid in pids]
        assert sum(after) - sum(before) <= 5  # hundredths of a second; polling takes all of them


def give_up(_):
    raise KeyError


def ticks(pid):
    with open(f"/proc/{pid}/stat") as f:
        fields = f.read().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def check_in_child():
    with Pool(2) as pool:
        assert pool.map(square, range(4)) == [0, 1, 4, 9]


def check_inherited(pool, mine):
    assert pool.apply(os.getpid) != mine
    pool.terminate()


SCRIPT = """
import os, sys, time
import numpush

def work(i):
    os.write(1, b"at work\\n")  # at once: two do it
    time.sleep(1000)

pool = numpush.Pool(2)
try:
    {call}
except KeyboardInterrupt:
    print("interrupted", flush=True)
print(pool.map(lambda x: x + 1, [1, 2]), flush=True)
pool.join()
"""


class TestCtrlC:
    @pytest.mark.parametrize(
        "call",
        ["pool.map(work, range(2))", "pool.apply(work, 1)", "list(pool.imap(work, range(2)))"],
    )
    def test_it_ends_the_call_and_the_workers_and_the_pool_goes_on(self, call):
        child = subprocess.Popen(
            [sys.executable, "-c", SCRIPT.format(call=call)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        assert child.stdout.readline() == "at work\n"
        os.killpg(child.pid, signal.SIGINT)  # as a terminal does: to all of them
        out, errors = child.communicate(timeout=processes.LIMIT)
        assert errors == ""
        assert out.replace("at work\n", "") == "interrupted\n[2, 3]\n"
        assert child.returncode == 0

    def test_without_a_handler_the_program_ends(self):
        code = SCRIPT.format(call="pool.map(work, range(2))").replace(
            "KeyboardInterrupt", "OSError"
        )
        child = subprocess.Popen(
            [sys.executable, "-c", code],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        assert child.stdout.readline() == "at work\n"
        os.kill(child.pid, signal.SIGINT)  # to the parent alone
        _, errors = child.communicate(timeout=processes.LIMIT)
        assert errors.rstrip().endswith("KeyboardInterrupt")
        assert child.returncode == -signal.SIGINT


class TestProgress:
    def test_a_bar_counts_the_tasks(self, pool, capsys):
        assert pool.map(square, range(20), chunksize=3, progress=True) == [i * i for i in range(20)]
        assert "20/20" in capsys.readouterr().err
        assert len(list(pool.imap(square, range(5), progress=True))) == 5
        assert "5/5" in capsys.readouterr().err
        pool.map(square, range(20))
        assert capsys.readouterr().err == ""

    def test_for_all_calls_of_a_pool(self, capsys):
        with Pool(1, progress=True) as pool:
            pool.map_async(square, range(7)).get(processes.LIMIT)
            assert "7/7" in capsys.readouterr().err
            pool.map(square, range(7), progress=False)
            assert capsys.readouterr().err == ""
            with pytest.raises(ZeroDivisionError):
                pool.map(lambda x: 1 // x, [0, 1])


def test_loky_is_imported_with_the_pool_and_not_before():
    code = (
        "import sys, numpush\nnumpush.SArray([1])\nfound = 'loky' in sys.modules\n"
        "numpush.Pool\nprint(found, 'loky' in sys.modules)"
    )
    assert processes.run_script(code).stdout == "False True\n"


def test_functions_and_classes_of_a_script(tmp_path):
    """A script without the guard that multiprocessing wants."""
    assert importlib.util.find_spec("cloudpickle") is not None
    script = tmp_path / "script.py"
    script.write_text(
        "import numpush\n"
        "class Point:\n"
        "    def __init__(self, x): self.x = x\n"
        "def double(p): return Point(p.x * 2)\n"
        "with numpush.Pool(2) as pool:\n"
        "    back = pool.map(double, [Point(1), Point(2)])\n"
        "    print([p.x for p in back], all(isinstance(p, Point) for p in back))\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", str(script)],
        capture_output=True, text=True, timeout=processes.LIMIT, check=False,
    )  # fmt: skip
    assert (done.stdout, done.stderr) == ("[2, 4] True\n", "")


def test_the_example_finds_the_stations_that_were_made_to_rise():
    example = processes.HERE.parent / "examples" / "pool.py"
    done = subprocess.run(
        [sys.executable, "-W", "error", str(example), "--stations", "6", "--years", "20"],
        capture_output=True, text=True, timeout=2 * processes.LIMIT, check=False, cwd="/",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "2 of 6 stations rise; 2 were made to" in done.stdout
    assert "6/6" in done.stderr
