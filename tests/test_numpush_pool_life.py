"""numpush.Pool: how it ends, its workers' lives, forks, pools in pools, and Ctrl-C."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pandas as pd
import pytest

import processes
from numpush import Pool, SArray, SDataFrame, WorkerDied
from pool_tasks import SHARE, N, die, is_running, keep_it, look, pid_of, sleep, square

pytestmark = pytest.mark.usefixtures("pool_helpers")


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

    def test_their_environment_can_be_added_to(self):
        def look():
            return [os.environ.get(name) for name in ("NEW", "OMP_NUM_THREADS", "MKL_NUM_THREADS")]

        with Pool(1, threads=2, env={"NEW": "yes", "OMP_NUM_THREADS": "3"}) as pool:
            assert pool.apply(look) == ["yes", "3", "2"]
        assert "NEW" not in os.environ

    @pytest.mark.parametrize("order", ["loky, joblib, numpush", "joblib, numpush"])
    def test_each_loky_starts_its_own_workers(self, order):
        """That of joblib and ours: who is imported last takes the name in multiprocessing's table."""
        pytest.importorskip("joblib")
        code = f"""
import {order}

def module():
    with open("/proc/self/cmdline") as f:
        return f.read().split("\\0")[2]

with numpush.Pool(1) as pool:
    print(pool.apply(module), *joblib.Parallel(2)([joblib.delayed(module)()]))
"""
        done = processes.run_script(code, PYTHONWARNINGS="default")
        started = "loky.backend.popen_loky_posix joblib.externals.loky.backend.popen_loky_posix"
        assert done.stdout.split() == started.split(), done.stderr

    def test_pools_in_workers_of_pools(self):
        def inner(n):
            with Pool(2, share_from=SHARE) as pool:
                return sum(map(len, pool.map(np.zeros, [n, N])))

        with Pool(2) as pool:
            assert pool.map(inner, [1, 2], chunksize=1) == [N + 1, N + 2]

    def test_processes_that_joblib_keeps_in_a_worker_end_with_it(self):
        """joblib has them wait 300 s for another call."""
        pytest.importorskip("joblib")

        def inner():
            import joblib

            return joblib.Parallel(2, backend="loky")([joblib.delayed(os.getpid)()] * 4)

        pool = Pool(1)
        pids = pool.apply(inner)
        assert os.getpid() not in pids
        pool.close()
        thread = threading.Thread(target=pool.join, daemon=True)
        thread.start()
        thread.join(processes.LIMIT)
        assert not thread.is_alive()
        assert not any(map(is_running, pids))

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


#: What each process does when it starts: say whether its Ctrl-C is blocked, if it is a worker.
AT_START = """
import os, sys
if any("popen_loky" in arg for arg in sys.orig_argv):
    with open("/proc/self/status") as file:
        blocked = next(int(line.split()[1], 16) for line in file if line.startswith("SigBlk"))
    os.write(1, b"blocked\\n" if blocked & 2 else b"open\\n")
"""


class TestCtrlC:
    def test_workers_start_with_it_blocked(self, tmp_path):
        """Or it would meet them while they import, and they would print where."""
        (tmp_path / "sitecustomize.py").write_text(AT_START)
        script = "import numpush; pool = numpush.Pool(2); pool.map(abs, [1, 2]); pool.close(); pool.join()"
        done = subprocess.run(
            [sys.executable, "-c", script],
            env=dict(os.environ, PYTHONPATH=str(tmp_path)),
            capture_output=True,
            text=True,
            timeout=processes.LIMIT,
        )
        assert (done.stdout, done.stderr) == ("blocked\n" * 2, "")

    @pytest.mark.parametrize(
        "call",
        ["pool.map(work, range(2))", "pool.apply(work, 1)", "list(pool.imap(work, range(2)))"],
    )
    def test_it_ends_the_call_and_the_workers_and_the_pool_goes_on(self, call):
        done = processes.run_interrupted(SCRIPT.format(call=call))
        assert done == ("interrupted\n[2, 3]\n", "", 0)

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
