"""numpush.joblib: what joblib.Parallel does with our pool under it."""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
import weakref

import numpy as np
import pandas as pd
import pytest

import processes
from numpush import SArray, WorkerDied
from pool_tasks import SHARE, N, die, is_running, lies_in_shared_memory, look, pid_of, sleep, square

# Earlier ones have no initializers, no unordered generators, or write to stderr as they end.
pytest.importorskip("joblib", "1.5.1")
import joblib
from joblib import Parallel, delayed, parallel_config
from joblib.parallel import get_active_backend

from numpush.joblib import NumpushBackend

pytestmark = pytest.mark.usefixtures("pool_helpers")


@pytest.fixture(scope="module")
def shared_backend(pool_helpers):
    """Two workers that stay for all tests that kill none."""
    backend = NumpushBackend()
    parallel = Parallel(2, backend=backend, max_nbytes=SHARE, batch_size=1)
    processes.eventually(lambda: len(set(parallel(delayed(pid_of)(i) for i in range(8)))) == 2)
    return backend


def make_parallel(**options):
    """Make a Parallel of the active backend that shares small things too, with a task in each batch.

    A new one for each call: after an exception, joblib's may do a task of the last call once more.
    """
    return Parallel(**{"n_jobs": 2, "max_nbytes": SHARE, "batch_size": 1} | options)


@pytest.fixture
def parallel(shared_backend):
    with parallel_config(backend=shared_backend):
        yield make_parallel


@pytest.fixture
def own():
    """The same over workers of the test's own, which it may kill."""
    with parallel_config(backend="numpush"):
        yield make_parallel


def frame():
    return pd.DataFrame({"x": np.arange(float(N)), "s": [f"text {i % 77}" for i in range(N)]})


def variable(name):
    return os.environ.get(name)


def file_of(obj, _=None):
    """Return the file that the first numbers of *obj* lie in, as the kernel calls it."""
    array = obj if isinstance(obj, np.ndarray) else obj["x"].to_numpy()
    address = array.__array_interface__["data"][0]
    with open("/proc/self/maps") as maps:
        for line in maps:
            where, *_, name = line.split()
            start, stop = (int(x, 16) for x in where.split("-"))
            if start <= address < stop:
                return name
    return None


class TestSharing:
    def test_an_object_in_many_tasks_is_put_into_shared_memory_once(self, parallel):
        one, two = frame(), np.arange(float(N))
        files = parallel()(delayed(file_of)(each, i) for i in range(20) for each in (one, two))
        assert all(file.startswith("/dev/shm/") for file in files)
        assert len(set(files)) == 2
        assert len(set(files[::2])) == 1

    def test_also_with_batches_of_many_tasks(self, parallel):
        df = frame()
        files = parallel(batch_size="auto")(delayed(file_of)(df, i) for i in range(200))
        assert len(set(files)) == 1

    def test_each_call_shares_anew_what_may_have_changed(self, parallel):
        a = np.ones(N)
        with parallel() as both:
            assert both(delayed(np.sum)(a) for _ in range(4)) == [N] * 4
            a[0] = 11
            assert both(delayed(np.sum)(a) for _ in range(4)) == [N + 10] * 4

    def test_what_a_generator_makes_for_one_task_is_let_go(self, parallel):
        made, most = [], 0

        def tasks():
            nonlocal most
            for i in range(60):
                part = np.full(N, float(i))
                made.append(weakref.ref(part))
                most = max(most, sum(ref() is not None for ref in made))
                yield delayed(np.max)(part)
                del part

        assert parallel()(tasks()) == list(range(60))
        assert most < 20

    @pytest.mark.parametrize("kind", ["array", "frame", "series"])
    def test_it_arrives_plain_writable_and_private(self, parallel, kind):
        obj = {"array": np.zeros(N), "frame": frame(), "series": frame()["x"]}[kind]
        before = obj.copy()

        def change(obj):
            was = look(obj), float((obj["x"] if kind == "frame" else obj)[0])
            if kind == "frame":
                obj.loc[0, "x"] = 1.0
                obj["s"] = "other"
            else:
                obj[:] = 1.0
            return was

        found = parallel()(delayed(change)(obj) for _ in range(6))
        assert found == [((type(obj).__name__, True), 0.0)] * 6
        assert (obj == before).all(axis=None)

    def test_shared_objects_stay_shared_and_results_travel_so_too(self, parallel):
        a = SArray(np.zeros(4))
        parallel()(delayed(a.__setitem__)(i, i + 1.0) for i in range(4))
        assert a.tolist() == [1, 2, 3, 4]
        for result in parallel()(delayed(np.ones)(N) for _ in range(4)):
            assert lies_in_shared_memory(result)
            result[0] = 5
            assert result.sum() == N + 4

    def test_max_nbytes_is_where_sharing_begins(self, own):
        a = np.ones(N)
        for limit, is_shared in ((None, False), ("1M", False), ("200K", True)):
            found = own(max_nbytes=limit)(delayed(look)(a) for _ in range(2))
            assert found == [("ndarray", is_shared)] * 2


class TestCalls:
    @pytest.mark.parametrize("pre_dispatch", ["all", "2*n_jobs", 1])
    @pytest.mark.parametrize("batch_size", ["auto", 1, 7])
    def test_results_come_in_order(self, parallel, batch_size, pre_dispatch):
        both = parallel(batch_size=batch_size, pre_dispatch=pre_dispatch)
        assert both(delayed(square)(i) for i in range(50)) == [i * i for i in range(50)]
        assert both(delayed(lambda a, *, b: a - b)(i, b=1) for i in range(3)) == [-1, 0, 1]
        assert both([]) == []

    def test_no_more_is_taken_from_the_iterable_than_pre_dispatch_says(self, parallel):
        taken = []
        gate = SArray(np.zeros(1, "i8"))

        def wait():
            while not gate[0]:
                time.sleep(0.002)

        tasks = (taken.append(i) or delayed(wait)() for i in range(50))
        results = parallel(pre_dispatch=6, return_as="generator")(tasks)
        time.sleep(0.1)
        assert len(taken) == 6
        gate[0] = 1
        assert len(list(results)) == len(taken) == 50

    def test_a_generator_gives_results_while_others_are_computed(self, parallel):
        gate = SArray(np.zeros(1, "i8"))

        def work(i):
            while i == 3 and not gate[0]:
                time.sleep(0.002)
            return i

        results = parallel(return_as="generator")(delayed(work)(i) for i in range(6))
        assert [next(results) for _ in range(3)] == [0, 1, 2]
        gate[0] = 1
        assert list(results) == [3, 4, 5]
        gate[0] = 0
        results = parallel(return_as="generator_unordered")(delayed(work)(i) for i in range(6))
        assert sorted(next(results) for _ in range(5)) == [0, 1, 2, 4, 5]
        gate[0] = 1
        assert list(results) == [3]

    def test_two_calls_at_once_on_one_backend(self, parallel):
        one, two = np.full(N, 1.0), np.full(N, 2.0)
        first = parallel(return_as="generator")(delayed(np.max)(one * i) for i in range(30))
        second = parallel()(delayed(np.max)(two) for _ in range(10))
        assert second == [2.0] * 10
        assert list(first) == list(range(30))

    def test_what_is_nested_uses_threads_and_then_nothing(self, parallel):
        def outer():
            inner = Parallel(2)(delayed(inside)() for _ in range(2))
            return type(get_active_backend()[0]).__name__, inner

        def inside():
            return type(get_active_backend()[0]).__name__, os.getpid()

        def alone():
            return inside(), os.getpid()

        for name, inner in parallel()(delayed(outer)() for _ in range(2)):
            assert name == "ThreadingBackend"
            assert {each for each, _ in inner} == {"SequentialBackend"}
            assert len({pid for _, pid in inner}) == 1
        (name, inner), outer_pid = parallel()([delayed(alone)()])[0]
        assert inner == outer_pid

    def test_one_job_runs_here_and_minus_one_is_all(self):
        with parallel_config(backend="numpush"):
            assert joblib.effective_n_jobs(-1) == joblib.cpu_count()
            assert joblib.effective_n_jobs(3) == 3
            assert Parallel()(delayed(os.getpid)() for _ in range(2)) == [os.getpid()] * 2
            assert Parallel(n_jobs=1)(delayed(os.getpid)() for _ in range(2)) == [os.getpid()] * 2
        with pytest.raises(ValueError, match="n_jobs == 0"):
            Parallel(0, backend="numpush")([delayed(abs)(1)])


class TestFailures:
    def test_an_exception_keeps_its_class_and_says_where_and_which(self, own):
        def divide(x):
            return 1 // x

        with pytest.raises(ZeroDivisionError) as caught:
            own()(delayed(divide)(3 - i) for i in range(9))
        assert "return 1 // x" in str(caught.value.__cause__)
        assert any("task 3 of" in note and "divide" in note for note in caught.value.__notes__)
        assert own()(delayed(divide)(1) for _ in range(4)) == [1] * 4

    def test_an_exception_ends_what_others_do(self, own):
        started = SArray(np.zeros(1, "i8"))

        def work(i):
            if i == 1:
                processes.eventually(lambda: started[0])
                raise KeyError(i)
            started[0] = os.getpid()
            time.sleep(1000)

        with pytest.raises(KeyError):
            own()(delayed(work)(i) for i in range(2))
        assert not is_running(int(started[0]))

    @pytest.mark.parametrize("at", [0, 30])
    def test_an_argument_that_cannot_be_pickled(self, own, at):
        tasks = [delayed(abs)(threading.Lock() if i == at else i) for i in range(40)]
        with pytest.raises(TypeError, match="pickle") as caught:
            own()(tasks)
        assert any(f"task {at} of abs" in note for note in caught.value.__notes__)
        assert own()(delayed(abs)(-1) for _ in range(4)) == [1] * 4

    @pytest.mark.parametrize("at", [0, 30])
    def test_an_iterable_that_raises(self, own, at):
        def tasks():
            for i in range(40):
                yield delayed(abs)(i // (i != at or 0))

        with pytest.raises(ZeroDivisionError):
            own()(tasks())

    def test_a_worker_that_is_killed_is_named_and_others_take_its_place(self, own):
        def work(i):
            if i == 5:
                die("SIGKILL")
            return i

        with own() as both:  # also where joblib is to go on with the same
            with pytest.raises(WorkerDied, match=r"SIGKILL at task 5 of .*work") as caught:
                both(delayed(work)(i) for i in range(20))
            assert both(delayed(work)(i) for i in range(4))[-4:] == [0, 1, 2, 3]
        assert caught.value.index == 5
        assert own()(delayed(work)(i) for i in range(4)) == [0, 1, 2, 3]

    def test_a_timeout_ends_the_call(self, own):
        with pytest.raises(multiprocessing.TimeoutError):
            own(timeout=0.2)(delayed(sleep)(1000) for _ in range(2))
        assert own(timeout=processes.LIMIT)(delayed(square)(i) for i in range(3)) == [0, 1, 4]

    def test_a_generator_that_is_dropped_ends_its_tasks(self, own):
        pids = SArray(np.zeros(2, "i8"))

        def work(i, big):
            if i < 2:
                return i
            pids[i - 2] = os.getpid()
            time.sleep(1000)

        parallel = own(return_as="generator")
        results = parallel(delayed(work)(i, np.ones(N)) for i in range(4))
        assert next(results) == 0
        processes.eventually(lambda: pids[:].all())
        with pytest.warns(UserWarning, match="cancelled"):
            results.close()
        assert not any(map(is_running, map(int, pids)))

    def test_ctrl_c_ends_the_call_and_the_workers(self):
        code = """
import os, time
import numpush.joblib
from joblib import Parallel, delayed, parallel_config

def work(i):
    os.write(1, b"at work\\n")  # at once: two do it
    time.sleep(1000)

with parallel_config(backend="numpush", n_jobs=2):
    try:
        Parallel()(delayed(work)(i) for i in range(2))
    except KeyboardInterrupt:
        print("interrupted", flush=True)
    print(Parallel()(delayed(abs)(-i) for i in (1, 2)), flush=True)
"""
        done = processes.run_interrupted(code)
        assert done == ("interrupted\n[1, 2]\n", "", 0)


class TestWorkers:
    def test_they_stay_for_the_block_and_end_with_it(self):
        with parallel_config(backend="numpush", n_jobs=2):
            calls = [Parallel(batch_size=1)(delayed(pid_of)(i) for i in range(9)) for _ in range(3)]
            pids = {pid for call in calls for pid in call}
            assert len(pids) <= 2
            assert all(map(is_running, pids))
        processes.eventually(lambda: not any(map(is_running, pids)))

    def test_they_end_with_a_parallel_of_its_own(self):
        parallel = make_parallel(backend="numpush")
        pids = {pid for _ in range(3) for pid in parallel(delayed(pid_of)(i) for i in range(9))}
        assert len(pids) <= 2
        del parallel
        processes.eventually(lambda: not any(map(is_running, pids)))

    def test_another_number_of_jobs_takes_others_when_these_are_done(self):
        with parallel_config(backend="numpush"):
            results = Parallel(2, return_as="generator")(delayed(pid_of)(i) for i in range(9))
            first = {next(results)}
            second = set(Parallel(3, batch_size=1)(delayed(pid_of)(i) for i in range(9)))
            first |= set(results)
            assert os.getpid() not in first | second
        processes.eventually(lambda: not any(map(is_running, first | second)))

    def test_threads_are_capped_as_joblib_has_it(self, monkeypatch):
        names = ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS")
        for name in names:
            monkeypatch.delenv(name, raising=False)

        def caps(**options):
            with parallel_config(backend="numpush", **options):
                return Parallel(2)([delayed(variable)(name) for name in names])

        assert caps() == [str(max(1, joblib.cpu_count() // 2))] * 2
        assert caps(inner_max_num_threads=3) == ["3", "3"]
        monkeypatch.setenv("OMP_NUM_THREADS", "5")
        assert caps() == ["5", str(max(1, joblib.cpu_count() // 2))]

    def test_initializers(self):
        def begin(what):
            os.environ["BEGUN"] = what

        options = {"initializer": begin, "initargs": ("yes",)}
        asked = [delayed(variable)("BEGUN")] * 4
        assert Parallel(2, backend="numpush", **options)(asked) == ["yes"] * 4
        with parallel_config(backend="numpush", **options):
            assert Parallel(2)(asked) == ["yes"] * 4

    def test_a_script_needs_one_import_and_leaves_nothing(self):
        code = """
import joblib, numpush, numpy as np
from joblib import Parallel, delayed
assert "numpush" not in joblib.parallel.BACKENDS
import numpush.joblib
a = np.ones(1 << 18)
parallel = Parallel(2, backend="numpush")
print(set(parallel(delayed(lambda a, i: float(a.sum()))(a, i) for i in range(9))))
joblib.parallel_config(backend="numpush", n_jobs=2)
print(Parallel()(delayed(lambda a, i: float(a.sum()))(a, i) for i in range(2)))
"""
        namespace = processes.new_namespace()
        done = processes.run_script(code, namespace=namespace)
        assert done.stderr == ""
        assert done.stdout == "{262144.0}\n[262144.0, 262144.0]\n"
        assert processes.files_of(namespace) == set()
