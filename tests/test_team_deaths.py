"""Team: kernels that raise, workers that are killed, and what becomes of their chunks."""

from __future__ import annotations

import contextlib
import faulthandler
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest

import processes
from numpush import SArray, Team, WorkerDied
from numpush.ffi import step
from team_tasks import (
    add,
    count_chunks,
    crash_once,
    die_at,
    empty,
    fail_at,
    refuse,
    square,
    total,
    wait_for,
)

N = 3333
LOCATION = "team_tasks.py"


@pytest.fixture(scope="module")
def compiled():
    """Compile what tests run, before any fork."""
    x, i = SArray(np.zeros(3)), SArray(np.zeros(3, "i8"))
    add.variant(x, 1.0)
    refuse.variant(x, 1)
    crash_once.variant(x, i)
    wait_for.variant(i, i)
    count_chunks.variant(i)
    total.variant(x, x)


@pytest.fixture
def team(compiled):
    with Team(2, "fork") as team:
        team.each(lambda rank, barrier: None)
        yield team


def kill_when(condition, pid):
    """Kill a process as soon as *condition* holds."""

    def work():
        processes.eventually(condition)
        os.kill(pid, signal.SIGKILL)

    thread = threading.Thread(target=work)
    thread.start()
    return thread


def pids_of(team):
    return team.each(lambda rank, barrier: os.getpid())


class TestExceptions:
    def test_a_kernel_s_exception_arrives_with_its_place(self, team):
        x = SArray(np.zeros(N))
        for row in (0, 1700, N - 1):
            with pytest.raises(ValueError, match="no such row") as raised:
                team.run(refuse, N, x, row, chunk=10)
            assert raised.value.args == ("no such row", 7)
            notes = "\n".join(raised.value.__notes__)
            assert LOCATION in notes
            assert f"chunk {row // 10} (from row {row // 10 * 10}) of kernel 'refuse'" in notes
            assert "in worker" in notes
        team.run(add, N, x, 1.0)

    def test_the_rest_stops_at_the_next_chunk(self, team):
        x = SArray(np.zeros(1 << 20))
        with pytest.raises(ValueError, match="no such row"):
            team.run(refuse, len(x), x, 5, chunk=10)
        assert x.sum() < len(x) / 2

    def test_in_a_reduction(self, team):
        with pytest.raises(ValueError, match="no such row"):
            team.run(refuse, N, SArray(np.zeros(N)), 3)
        assert team.reduce(total, N, np.ones(N), out=np.zeros(1))[0] == N

    def test_a_plan_that_cannot_be_made(self, team):
        class Broken:
            name, key = "broken", "0" * 64
            arguments = add.variant(SArray(np.zeros(1)), 1.0).arguments

            def pack(self, args):
                if os.getpid() != parent:
                    raise LookupError("not here")
                return bytes(8)

            def __reduce__(self):
                return _unpickle_broken, ()

        parent = os.getpid()
        for _ in range(3):
            with pytest.raises(LookupError, match="not here") as raised:
                team.run(Broken(), N)
            assert any("chunk" in note for note in raised.value.__notes__)
        x = SArray(np.zeros(N))
        team.run(add, N, x, 1.0)
        assert (x == 1).all()


def _unpickle_broken():
    raise LookupError("not here")


@pytest.fixture
def no_traceback() -> Iterator[None]:
    """Have members that are forked crash as they would without pytest, which prints where they were."""
    faulthandler.disable()
    yield
    faulthandler.enable(sys.__stderr__)


@pytest.mark.usefixtures("no_traceback")
class TestKernelDeaths:
    def test_it_names_signal_worker_and_chunk(self, team, start_method):
        with Team(2, start_method) as team:
            x, deaths = SArray(np.zeros(100)), SArray(np.array([1, 37]))
            with pytest.raises(WorkerDied, match=r"SIGSEGV in chunk 3 \(from row 30\) of kernel"):
                team.run(crash_once, 100, x, deaths, chunk=10)
            assert x[:30].sum() == 30
            x[:] = 0
            team.run(add, 100, x, 1.0)
            assert (x == 1).all()
            assert len(set(pids_of(team))) == 2

    def test_its_attributes(self, team):
        pids = pids_of(team)
        with pytest.raises(WorkerDied, match=r"worker [01] \(process") as raised:
            team.run(crash_once, 100, SArray(np.zeros(100)), SArray(np.array([1, 55])), chunk=10)
        assert raised.value.pid in pids
        assert raised.value.exitcode == -signal.SIGSEGV
        assert raised.value.task == "chunk 5 (from row 50) of kernel 'crash_once'"
        assert raised.value.index == 5

    def test_retry_does_the_chunk_again(self, team):
        for row in (0, 55, 99):
            x, deaths = SArray(np.zeros(100)), SArray(np.array([2, row]))
            team.run(crash_once, 100, x, deaths, chunk=10, on_death="retry")
            first = row // 10 * 10
            twice = np.zeros(100)
            twice[first:row] = 2
            assert np.array_equal(x, 1 + twice)

    def test_retry_gives_up_on_a_chunk_that_always_kills(self, team):
        x, deaths = SArray(np.zeros(100)), SArray(np.array([1000, 55]))
        with pytest.raises(WorkerDied, match="chunk 5"):
            team.run(crash_once, 100, x, deaths, chunk=10, on_death="retry")
        assert deaths[0] == 997
        x[:] = 0
        team.run(add, 100, x, 1.0)
        assert (x == 1).all()

    def test_all_are_killed_in_the_middle(self, team):
        for how, n_done in (("raise", None), ("retry", 100)):
            flag, counts = SArray(np.zeros(1, "i8")), SArray(np.zeros(101, "i8"))
            pids = pids_of(team)

            def work(flag=flag, counts=counts, pids=pids):
                processes.eventually(lambda: counts[0] == 2)
                for pid in pids:
                    os.kill(pid, signal.SIGKILL)
                flag[0] = 1

            thread = threading.Thread(target=work)
            thread.start()
            if n_done is None:
                with pytest.raises(WorkerDied, match="SIGKILL in chunk"):
                    team.run(wait_for, 100, flag, counts, chunk=10, on_death=how)
            else:
                team.run(wait_for, 100, flag, counts, chunk=10, on_death=how)
                assert (counts[1:] == 1).all()
            thread.join()

    def test_one_that_is_killed_when_idle_is_replaced(self, team):
        pids = pids_of(team)
        os.kill(pids[0], signal.SIGKILL)
        processes.eventually(
            lambda: len(processes.children() & {str(p) for p in pids}) == 1 or _reap(team)
        )
        x = SArray(np.zeros(N))
        team.run(add, N, x, 1.0)
        assert (x == 1).all()
        now = pids_of(team)
        assert pids[0] not in now
        assert pids[1] == now[1]

    def test_a_worker_that_is_stopped_holds_nobody_up(self, team):
        pids = pids_of(team)
        os.kill(pids[0], signal.SIGSTOP)
        try:
            x = SArray(np.zeros(N))
            for _ in range(5):
                team.run(add, N, x, 1.0, chunk=N)
            assert (x == 5).all()
        finally:
            os.kill(pids[0], signal.SIGCONT)

    def test_a_reduction_is_done_again(self, team):
        x = SArray(np.arange(float(N)))
        pids = pids_of(team)
        os.kill(pids[0], signal.SIGKILL)
        assert team.reduce(total, N, x, out=np.zeros(1), on_death="retry")[0] == x.sum()

    def test_workers_that_cannot_start(self, tmp_path):
        script = tmp_path / "no_guard.py"  # each worker would make a team when it imports this
        script.write_text(
            "import numpush\n"
            "team = numpush.Team(1, 'spawn')\n"
            "try:\n    team.map(abs, 3)\n"
            "except numpush.WorkerDied as error:\n    print(error)\n"
        )
        done = subprocess.run(
            [sys.executable, str(script)],
            capture_output=True, text=True, timeout=processes.LIMIT, check=False,
        )  # fmt: skip
        assert "ended with exit code 1 before it was ready" in done.stdout
        assert "freeze_support" in done.stderr  # what multiprocessing has to say


def _reap(team):
    return bool(team._members.find_dead())


class TestCallDeaths:
    def test_it_names_signal_worker_and_tasks(self, team):
        left = SArray(np.array([1]))
        with pytest.raises(WorkerDied, match="SIGKILL in tasks 40 to 49 of die_at") as raised:
            team.map(die_at, 100, 44, left, chunk=10)
        assert raised.value.index == 40
        assert team.map(square, 4) == [0, 1, 4, 9]

    def test_retry(self, team):
        for row in (0, 44, 99):
            left = SArray(np.array([2]))
            assert team.map(die_at, 100, row, left, chunk=10, on_death="retry") == list(range(100))
            assert left[0] == 0
        left = SArray(np.array([1000]))
        with pytest.raises(WorkerDied, match="task 44 of die_at"):
            team.map(die_at, 100, 44, left, chunk=1, on_death="retry")
        assert left[0] == 997

    def test_each_is_told_at_the_barrier(self, team):
        def die(rank, barrier):
            if rank == 0:
                os._exit(3)
            barrier.wait()

        with pytest.raises(WorkerDied, match="ended with exit code 3 in task"):
            team.each(die)
        assert team.each(lambda rank, barrier: barrier.wait() or rank) == [0, 1]

    def test_an_exception_and_the_end_of_a_worker(self, team):
        with pytest.raises(KeyError, match="no such row"):
            team.map(fail_at, 100, 3)
        pids = pids_of(team)
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        assert team.map(square, 3) == [0, 1, 4]

    def test_results_that_were_sent_are_kept(self, team):
        """A worker dies between an answer and the next chunk: nothing is lost, nothing done again."""
        x = SArray(np.zeros(100))

        def work(i, x):
            x[i] += 1
            if i == 0:
                threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGKILL)).start()
            if i == 1:
                time.sleep(0.3)
            return np.full(1 << 18, float(i))

        results = team.map(work, 2, x, chunk=1, on_death="retry")
        assert [r[0] for r in results] == [0, 1]
        assert x[0] == 1


def disarm(team):
    with contextlib.suppress(WorkerDied):  # of a step that was left
        team.each(lambda rank, barrier: rank or step.arm(0))


@pytest.mark.crash
class TestAtEachStep:
    """A worker dies at its n-th step from now, while another is at work."""

    def test_kernels(self, compiled):
        x = SArray(np.zeros(60))
        with Team(2, "fork") as team:
            for n in range(1, 70):
                x[:] = 0
                team.each(lambda rank, barrier, n: rank or step.arm(n), n)
                team.run(add, 60, x, 1.0, chunk=2, on_death="retry")
                assert np.isin(
                    x, (1, 2)
                ).all()  # a chunk that was done, and not counted, is done twice
                assert (x == 2).sum() in (0, 2)
                disarm(team)
                x[:] = 0
                team.run(add, 60, x, 1.0, chunk=2)
                assert (x == 1).all()

    def test_kernels_that_fail(self, compiled):
        x = SArray(np.zeros(60))
        with Team(2, "fork") as team:
            for n in range(1, 40):
                team.each(lambda rank, barrier, n: rank or step.arm(n), n)
                with pytest.raises((ValueError, WorkerDied)):
                    team.run(refuse, 60, x, 20, chunk=2)
                disarm(team)
                x[:] = 0
                team.run(add, 60, x, 1.0, chunk=2)
                assert (x == 1).all()

    def test_functions(self, compiled):
        with Team(2, "fork") as team:
            for n in range(1, 60):
                team.each(lambda rank, barrier, n: rank or step.arm(n), n)
                assert team.map(square, 20, chunk=1, on_death="retry") == [i * i for i in range(20)]
                disarm(team)

    def test_reductions(self, compiled):
        x = SArray(np.arange(60.0))
        out = np.zeros(1)
        with Team(2, "fork") as team:
            for n in range(1, 60):
                team.each(lambda rank, barrier, n: rank or step.arm(n), n)
                assert team.reduce(total, 60, x, out=out, chunk=2, on_death="retry")[0] == x.sum()
                disarm(team)

    def test_at_random_moments(self, compiled, start_method):
        x, rng = SArray(np.zeros(N)), np.random.default_rng(3)
        with Team(3, start_method) as team:
            for i in range(60 if start_method == "fork" else 12):
                pid = pids_of(team)[i % 3]
                timer = threading.Timer(rng.uniform(0, 0.02), os.kill, (pid, signal.SIGKILL))
                timer.start()
                for _ in range(20):
                    x[:] = 0
                    team.run(add, N, x, 1.0, chunk=50, on_death="retry")
                    assert np.isin(x, (1, 2)).all()
                    assert (x == 2).sum() <= 50
                    assert team.map(square, 10, on_death="retry") == [i * i for i in range(10)]
                timer.join()
                team.run(empty, 100, chunk=1)
