"""Team: how it starts and ends, forks, Ctrl-C, and a parent that is killed."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

import processes
from numpush import SArray, Team
from pool_tasks import is_running
from team_tasks import add, pid_of, square

N = 3333


@pytest.fixture(scope="module")
def compiled():
    add.variant(SArray(np.zeros(3)), 1.0)


def pids_of(team):
    return team.each(lambda rank, barrier: os.getpid())


class TestEnd:
    def test_close(self, start_method):
        team = Team(2, start_method)
        pids = pids_of(team)
        team.close()
        assert not any(map(is_running, pids))
        team.close()
        assert "closed" in repr(team)
        for call in (lambda: team.map(square, 3), lambda: team.each(square)):
            with pytest.raises(ValueError, match="closed"):
                call()
        with pytest.raises(ValueError, match="closed"), team:
            team.run(add, 3, SArray(np.zeros(3)), 1.0)

    def test_before_its_members_have_started(self, start_method):
        Team(2, start_method).close()

    def test_a_team_that_is_dropped(self, compiled):
        x = SArray(np.zeros(N))
        team = Team(2, "fork")
        pids = pids_of(team)
        team.run(add, N, x, 1.0)
        del team
        gc.collect()
        assert not any(map(is_running, pids))
        del x  # what told the team of its end is of no use now

    def test_an_exception_that_keeps_the_team_keeps_no_process(self):
        with contextlib.suppress(ZeroDivisionError), Team(2, "fork") as team:
            pids = pids_of(team)
            raise ZeroDivisionError
        assert not any(map(is_running, pids))

    @pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
    def test_a_team_that_is_open_at_exit(self, method, tmp_path):
        done = run_file(tmp_path, OPEN_AT_EXIT, method)
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
        pids = [int(pid) for pid in done.stdout.split()]
        assert len(pids) == 2
        assert not any(map(is_running, pids))

    @pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
    def test_members_end_when_their_parent_is_killed(self, method, tmp_path):
        """At work in a kernel, in a function and idle."""
        namespace = processes.new_namespace()
        for what in ("idle", "function", "kernel"):
            done = run_file(tmp_path, KILLED, method, what, namespace=namespace)
            assert done.returncode == -signal.SIGKILL, done.stderr
            pids = [int(pid) for pid in done.stdout.split()]
            assert len(pids) == 2
            processes.eventually(lambda pids=pids: not any(map(is_running, pids)))
        processes.sweep(namespace)  # what was under way to a member holds for the grace period
        assert processes.files_of(namespace) == set()

    def test_the_thread_that_made_it_may_end(self):
        made = []
        thread = threading.Thread(target=lambda: made.append(Team(2, "fork")))
        thread.start()
        thread.join()
        with made.pop() as team:
            assert team.map(square, 3) == [0, 1, 4]
            assert len(set(pids_of(team))) == 2


class TestForks:
    def test_a_fork_cannot_use_its_parent_s_team(self, compiled):
        x = SArray(np.zeros(N))
        with Team(2, "fork") as team:
            team.run(add, N, x, 1.0)

            def child():
                for call in (
                    lambda: team.run(add, N, x, 1.0),
                    lambda: team.map(square, 3),
                    lambda: team.each(square),
                ):
                    with pytest.raises(RuntimeError, match="make a Team here"):
                        call()
                team.close()
                with Team(2, "fork") as own:
                    own.run(add, N, x, 1.0)

            assert processes.run_forked(child) == 0
            team.run(add, N, x, 1.0)
            assert (x == 3).all()

    def test_a_fork_while_another_thread_is_at_work(self):
        begun = SArray(np.zeros(1))

        def work(i):
            begun[0] = 1
            time.sleep(0.3)

        with Team(1, "fork") as team:
            thread = threading.Thread(target=team.map, args=(work, 1))
            thread.start()
            processes.eventually(lambda: begun[0])

            def child():
                with pytest.raises(RuntimeError, match="make a Team here"):
                    team.map(square, 3)
                team.close()

            assert processes.run_forked(child) == 0
            thread.join()

    def test_a_fork_that_drops_it(self, compiled):
        teams = [Team(2, "fork")]
        x = SArray(np.zeros(N))
        teams[0].run(add, N, x, 1.0)

        def child():
            teams.clear()
            gc.collect()

        assert processes.run_forked(child) == 0
        teams[0].run(add, N, x, 1.0)
        assert (x == 2).all()
        teams.pop().close()

    def test_a_fork_that_drops_an_array(self, compiled):
        arrays = [SArray(np.zeros(N))]
        with Team(2, "fork") as team:
            team.run(add, N, arrays[0], 1.0)
            assert processes.run_forked(arrays.clear) == 0
            team.run(add, N, arrays[0], 1.0)
            assert (arrays[0] == 2).all()


class TestCalls:
    def test_not_from_within_a_call(self):
        with Team(1, "fork") as team:

            class Sneaky:
                def __reduce__(self):
                    with pytest.raises(RuntimeError, match="at work in this very thread"):
                        team.map(square, 3)
                    return int, ()

            assert team.map(lambda i, a: a, 1, Sneaky()) == [0]

    def test_ctrl_c(self):
        """The chunks under way end, and the team can be used again, with the same members."""
        for what in ("kernel", "function", "each"):
            out, errors, code = processes.run_interrupted(INTERRUPTED % what)
            assert out.split() == ["KeyboardInterrupt", "True", "True"], errors
            assert (errors, code) == ("", 0)

    def test_a_second_ctrl_c_ends_the_members(self):
        out, errors, code = processes.run_interrupted(TWICE)
        assert out.split() == ["KeyboardInterrupt", "True"], errors
        assert (errors, code) == ("", 0)

    def test_signal_handlers_run_while_a_kernel_does(self, compiled):
        seen = []
        before = signal.signal(signal.SIGALRM, lambda *_: seen.append(1))
        signal.setitimer(signal.ITIMER_REAL, 0.05, 0.05)
        try:
            with Team(1, "fork") as team:
                team.map(lambda i: time.sleep(0.1), 5)
                x = SArray(np.zeros(1 << 21))
                while len(seen) < 10:
                    team.run(add, len(x), x, 1.0)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
        assert (x == x[0]).all()

    def test_members_do_not_notice_ctrl_c(self, compiled):
        x = SArray(np.zeros(N))
        with Team(2, "fork") as team:
            pids = pids_of(team)
            for pid in pids:
                os.kill(pid, signal.SIGINT)
            team.run(add, N, x, 1.0)
            assert team.map(pid_of, 1)[0] in pids
            assert pids_of(team) == pids


def run_file(tmp_path, code, *args, namespace=None):
    """Run a script that a spawned child can import."""
    script = tmp_path / "script.py"
    script.write_text(code)
    environ = {**os.environ, "NUMPUSH_NAMESPACE": namespace or processes.new_namespace()}
    return subprocess.run(
        [sys.executable, str(script), *args],
        capture_output=True, text=True, timeout=processes.LIMIT, check=False, env=environ,
    )  # fmt: skip


OPEN_AT_EXIT = """
import os, sys, numba, numpy as np, numpush
from numpush.kernels import kernel

@numba.njit
def keep_globals(x):  # numba has this module's die when others are empty already
    x[0] += 1

@kernel("f8[:]")
def add(i0, i1, x):
    for i in range(i0, i1):
        x[i] += 1

def pid(rank, barrier):
    return os.getpid()

if __name__ == "__main__":
    arrays = [numpush.SArray(np.zeros(100)) for _ in range(5)]
    keep_globals(np.zeros(3))
    with numpush.Team(1, sys.argv[1]) as closed:
        closed.run(add, 100, arrays[0])
    team = numpush.Team(2, sys.argv[1])
    for x in arrays:
        team.run(add, 100, x)
    x = None
    print(*team.each(pid))
"""

KILLED = """
import os, signal, sys, threading, time, numpy as np, numpush

def pid(rank, barrier):
    return os.getpid()

def work(i):
    time.sleep(1000)

if __name__ == "__main__":
    team = numpush.Team(2, sys.argv[1])
    print(*team.each(pid), flush=True)
    what = sys.argv[2]
    if what != "idle":
        threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGKILL)).start()
    if what == "function":
        team.map(work, 2, chunk=1)
    if what == "kernel":
        from numpush.kernels import atomic_load, kernel

        @kernel("i8[:]")
        def spin(i0, i1, x):
            while atomic_load(x, 0) == 0:
                pass

        team.run(spin, 2, numpush.SArray(np.zeros(1, "i8")), chunk=1)
    os.kill(os.getpid(), signal.SIGKILL)
"""

INTERRUPTED = """
import os, threading, time, numpy as np, numpush
from numpush.kernels import atomic_add, kernel

WHAT = "%s"

@kernel("i8[:], i8")
def count(i0, i1, counts, n):
    for _ in range(n):
        atomic_add(counts, 1, 1)
    atomic_add(counts, 0, 1)

def pid(rank, barrier):
    return os.getpid()

def wait_a_little(i, counts):
    counts[1] += 1
    time.sleep(0.01)

def wait(rank, barrier, counts):
    while True:
        barrier.wait()
        counts[1] += 1

def watch(counts):
    while counts[1] < 10:
        time.sleep(0.01)
    print("at work", flush=True)

if __name__ == "__main__":
    counts = numpush.SArray(np.zeros(2, "i8"))
    with numpush.Team(2, "fork") as team:
        team.run(count, 4, counts, 1)
        pids = team.each(pid)
        try:
            threading.Thread(target=watch, args=(counts,)).start()
            if WHAT == "kernel":
                team.run(count, 1000000, counts, 1000000, chunk=1)
            elif WHAT == "function":
                team.map(wait_a_little, 1000000, counts)
            else:
                team.each(wait, counts)
        except KeyboardInterrupt:
            print("KeyboardInterrupt")
        before = counts[0]
        team.run(count, 5, counts, 1, chunk=1)
        print(counts[0] == before + 5, team.each(pid) == pids)
"""

TWICE = """
import os, signal, threading, time, numpush

def work(i):
    print("at work", flush=True)
    time.sleep(1000)

def pid(rank, barrier):
    return os.getpid()

if __name__ == "__main__":
    with numpush.Team(2, "fork") as team:
        pids = team.each(pid)
        threading.Timer(2, os.kill, (os.getpid(), signal.SIGINT)).start()
        try:
            team.map(work, 1)
        except KeyboardInterrupt:
            print("KeyboardInterrupt")
        print(not set(team.each(pid)) & set(pids))
"""
