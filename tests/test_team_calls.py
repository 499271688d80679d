"""Team: Python functions: map, each, what goes to the workers and back."""

from __future__ import annotations

import os
import pickle
import threading
import time

import numpy as np
import pandas as pd
import pytest

import numpush
import pool_tasks
import processes
from numpush import RemoteError, SArray, SDataFrame, Team
from numpush.team import Barrier
from team_tasks import fail_at, fail_strangely, pid_of, square, sum_of

N = 3333
BIG = 1 << 18  #: elements; goes by shared memory


@pytest.fixture(scope="module")
def team():
    with Team(2, "fork") as team:
        team.map(square, 4)
        yield team


class TestMap:
    def test_results_come_in_order(self, start_method):
        with Team(2, start_method) as team:
            assert team.map(square, 100) == [i * i for i in range(100)]
            assert team.map(square, 100, chunk=1) == [i * i for i in range(100)]
            assert team.map(square, [3, -1, 2], chunk=2) == [9, 1, 4]
            assert team.map(square, 0) == team.map(square, []) == []

    def test_what_items_may_be(self, team):
        assert team.map(square, range(3, 6)) == [9, 16, 25]
        assert team.map(square, (i for i in (2, 3))) == [4, 9]
        assert team.map(square, np.int64(3)) == [0, 1, 4]
        assert team.map(square, np.arange(3)) == [0, 1, 4]

    def test_lambdas_closures_and_their_arguments(self, team):
        offset = 10
        assert team.map(lambda i, a, b: i + a + b + offset, 3, 100, 1000) == [1110, 1111, 1112]

    def test_a_function_is_sent_once_and_its_arguments_anew(self, team):
        calls = []

        def remember(i, seen):
            calls.append(i)
            seen.append(i)
            return len(calls), len(seen)

        first = team.map(remember, 4, [], chunk=4)
        again = team.map(remember, 4, [], chunk=4)
        assert first == [(i, i) for i in range(1, 5)]
        assert again in (
            [(4 + i, i) for i in range(1, 5)],
            first,
        )  # by the same worker, or the other
        assert calls == []

    def test_more_functions_than_are_kept(self, team):
        def adding(k):
            return lambda i: i + k

        functions = [adding(k) for k in range(50)]
        for _ in range(2):
            for k, function in enumerate(functions):
                assert team.map(function, 2, chunk=1) == [k, k + 1]

    def test_shared_objects_stay_shared(self, team):
        x = SArray(np.zeros(10))
        frame = SDataFrame(pd.DataFrame({"a": np.arange(float(N)), "b": 1.0}))

        def write(part, x):
            part["b"] = part["a"] * 2
            x[int(part["a"].iloc[0]) % 10] += 1
            return len(part)

        assert sum(team.map(write, frame.partitions(10), x, chunk=1)) == N
        assert (frame["b"] == frame["a"] * 2).all()
        assert x.sum() == 10
        parts = np.array_split(SArray(np.arange(float(N))), 7)
        assert sum(team.map(sum_of, parts, 2)) == N * (N - 1)

    def test_plain_objects_go_by_shared_memory_both_ways(self, team):
        big = np.arange(float(BIG))
        lies = team.map(lambda i, a: pool_tasks.lies_in_shared_memory(a), 4, big, chunk=1)
        assert lies == [True] * 4
        results = team.map(lambda i: np.full(BIG, float(i)), 4, chunk=1)
        assert [float(r.sum()) for r in results] == [0, BIG, 2 * BIG, 3 * BIG]
        assert all(pool_tasks.lies_in_shared_memory(r) for r in results)
        assert team.map(lambda a: float(a.sum()), [big, big + 1]) == [
            big.sum(), big.sum() + BIG,
        ]  # fmt: skip

    def test_nothing_of_a_call_is_kept(self, team):
        before = processes.files()
        team.map(lambda part, x: float(part.sum() + x[0]), [np.ones(BIG)] * 4, np.zeros(BIG))

        def is_all_gone():
            processes.collect_garbage()  # freed memory is kept warm
            return processes.files() <= before

        processes.eventually(is_all_gone)

    def test_a_bar_shows_tasks(self, team, capsys):
        team.map(square, 100, progress=True)
        assert "square: 100%" in capsys.readouterr().err

    def test_a_private_array_goes_by_value(self, team):
        shared = SArray(np.zeros(3))
        private = numpush.attach(shared.handle, mode="cow")
        private[:] = [0, 1, 2]
        for a in (private, private.view(np.ndarray).copy().view(SArray)):
            assert team.map(lambda i, a: float(a[i]), 3, a) == [0, 1, 2]

    def test_a_team_in_a_worker(self, team):
        def nested(i):
            with Team(2, "fork") as inner:
                return inner.map(square, 3), len(set(inner.each(lambda rank, _: os.getpid())))

        assert team.map(nested, 2, chunk=1) == [([0, 1, 4], 2)] * 2

    def test_several_teams(self, team):
        with Team(1, "fork") as other:
            pids = {*team.map(pid_of, 20, chunk=1), *other.map(pid_of, 4)}
            assert os.getpid() not in pids
            assert len(pids) >= 2


class TestFailures:
    def test_an_exception_arrives_as_it_is_with_its_place(self, team):
        with pytest.raises(KeyError, match="no such row") as raised:
            team.map(fail_at, 100, 42)
        assert raised.value.args == ("no such row", 42)
        (note,) = raised.value.__notes__
        assert note.startswith("numpush.Team: task 42 of fail_at, in worker ")
        remote = str(raised.value.__cause__)
        assert "team_tasks.py" in remote
        assert 'raise KeyError("no such row", i)' in remote
        assert "member.py" not in remote

    def test_one_that_cannot_be_pickled(self, team):
        with pytest.raises(RemoteError, match="Strange"):
            team.map(fail_strangely, 3)

    def test_the_rest_stops(self, team):
        x = SArray(np.zeros(1000))

        def slow(i, x):
            x[i] = 1
            if i == 0:
                raise ValueError("stop")
            time.sleep(0.002)

        with pytest.raises(ValueError, match="stop"):
            team.map(slow, 1000, x)
        assert x.sum() < 500
        assert team.map(square, 3) == [0, 1, 4]

    def test_what_cannot_be_sent(self, team):
        with pytest.raises(TypeError, match="pickle"):
            team.map(square, [1, threading.Lock()])
        with pytest.raises(TypeError, match="pickle"):
            team.map(lambda i, lock: i, 3, threading.Lock())
        with pytest.raises(pickle.PicklingError, match=r"the result, a _thread.lock, cannot be"):
            team.map(lambda i: threading.Lock(), 3)
        assert team.map(square, 3) == [0, 1, 4]

    def test_what_cannot_be_received(self, team):
        class Bad:
            def __reduce__(self):
                return int, ("no number",)

        with pytest.raises(ValueError, match="no number"):
            team.map(lambda i, bad: i, 3, Bad())
        with pytest.raises(ValueError, match="no number"):
            team.map(lambda i: Bad(), 3)
        assert team.map(square, 3) == [0, 1, 4]

    def test_big_exceptions(self, team):
        def fail(i):
            raise ValueError("x" * 1_000_000)

        for _ in range(3):
            with pytest.raises(ValueError, match="xxx"):
                team.map(fail, 8, chunk=1)


class TestEach:
    def test_every_worker_calls_once(self, start_method):
        with Team(3, start_method) as team:
            found = team.each(lambda rank, barrier, c: (rank, barrier.parties, c, os.getpid()), 7)
        assert [f[:3] for f in found] == [(0, 3, 7), (1, 3, 7), (2, 3, 7)]
        assert len({f[3] for f in found}) == 3

    def test_the_barrier(self, team):
        x = SArray(np.zeros(2, "i8"))

        def phases(rank, barrier, x):
            assert isinstance(barrier, Barrier)
            for k in range(500):
                x[rank] = k
                barrier.wait(timeout=processes.LIMIT)
                assert (x == k).all()
                barrier.wait()
            return rank

        for _ in range(3):
            assert team.each(phases, x) == [0, 1]

    def test_who_fails_breaks_the_barrier(self, team):
        def fail(rank, barrier):
            if rank == 1:
                raise ZeroDivisionError("rank 1")
            barrier.wait()

        for _ in range(3):
            with pytest.raises(ZeroDivisionError, match="rank 1"):
                team.each(fail)

    def test_a_barrier_that_nobody_else_comes_to(self, team):
        with pytest.raises(threading.BrokenBarrierError):
            team.each(lambda rank, barrier: barrier.wait(timeout=0.05) if rank else None)
        assert team.each(lambda rank, barrier: barrier.wait()) == [None, None]
