"""numpush.Pool: what raises, what does not travel, and workers that die."""

from __future__ import annotations

import contextlib
import functools
import os
import pickle
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

import processes
from numpush import Pool, RemoteError, SArray, WorkerDied
from pool_tasks import SHARE, N, Unloadable, die, is_running, pid_of, square

pytestmark = pytest.mark.usefixtures("pool_helpers")


def die_at(i, at):
    if i == at:
        os.kill(os.getpid(), signal.SIGKILL)
    return i


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
        with pytest.raises(ValueError, match="unloadable"):
            pool.apply(repr, Unloadable())

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
