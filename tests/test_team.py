"""Team: kernels over shared arrays, what they take, reductions, and what the members keep."""

from __future__ import annotations

import os
import pickle
import threading
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import numpush
import processes
from numpush import SArray, SDataFrame, Team
from team_tasks import (
    add,
    count_chunks,
    count_locked,
    double,
    empty,
    extremes,
    histogram,
    modules,
    total,
)

N = 3333


@pytest.fixture(scope="module")
def team():
    add.compile()
    with Team(2, "fork") as team:
        team.run(empty, 2, chunk=1)
        yield team


class TestRun:
    def test_every_row_is_done_once(self, start_method):
        x = SArray(np.arange(float(N)))
        with Team(2, start_method) as team:
            assert team.workers == 2
            team.run(add, N, x, 1.0)
            team.run(add, N, x, 1.0, chunk=1)
            team.run(add, 1, x, 1.0, chunk=10**12)
            team.run(add, 0, x, 1.0)
        assert np.array_equal(x[1:], np.arange(1.0, N) + 2)
        assert x[0] == 3

    @pytest.mark.parametrize("chunk", [1, 7, 416, N - 1, N, N + 1])
    def test_chunks_cover_all_rows(self, team, chunk):
        counts = SArray(np.zeros(2, "i8"))
        team.run(count_chunks, N, counts, chunk=chunk)
        assert counts.tolist() == [-(-N // chunk), N]

    def test_a_chunk_is_an_eighth_of_a_share_by_default(self, team):
        counts = SArray(np.zeros(2, "i8"))
        team.run(count_chunks, 1600, counts)
        assert counts.tolist() == [16, 1600]
        team.run(count_chunks, 3, counts)
        assert counts.tolist() == [19, 1603]

    def test_numbers_may_differ_from_run_to_run(self, team):
        x = SArray(np.zeros(N))
        for i in range(200):
            team.run(add, N, x, float(i), chunk=N)  # one member sleeps through it
            team.run(add, N, x, -0.5)
        assert (x == 199 * 100 - 100).all()

    def test_equal_numbers_that_differ_are_told_apart(self, team):
        x = SArray(np.full(3, -0.0))
        team.run(add, 3, x, -0.0)
        assert np.signbit(x).all()
        team.run(add, 3, x, 0.0)
        assert not np.signbit(x).any()

    def test_views_columns_and_dtypes(self, team):
        a = SArray(np.arange(60.0).reshape(6, 10))
        b = SArray(np.zeros((10, 6), order="F"))
        team.run(double, 5, a[3, ::-2], b[1::2, 4])
        assert np.array_equal(b[1::2, 4], 2 * a[3, ::-2])
        assert b.sum() == 2 * a[3, ::-2].sum()
        c = SArray(np.arange(5, dtype="i4"))
        team.run(double, 5, c, c)
        assert c.tolist() == [0, 2, 4, 6, 8]
        frame = SDataFrame(pd.DataFrame({"x": np.arange(float(N)), "y": 1.5, "z": 7}))
        team.run(add, N, frame.column("y"), 1.0)
        assert (frame["y"] == 2.5).all()
        assert (frame["x"] == np.arange(N)).all()
        part = frame.partitions(3)[1]
        team.run(add, len(part), part.column("x"), 1.0)
        assert frame["x"].sum() == np.arange(N).sum() + len(part)

    def test_read_only_memory_is_read(self, team):
        a = SArray(np.arange(5, dtype="i4"))
        b = SArray(np.zeros(5, "i4"))
        team.run(double, 5, numpush.attach(a.name, mode="ro"), b)
        assert b.tolist() == [0, 2, 4, 6, 8]
        with pytest.raises(TypeError, match="read-only"):
            team.run(double, 5, a, numpush.attach(b.name, mode="ro"))

    def test_a_lock_and_what_it_guards(self, team):
        frame = SDataFrame(pd.DataFrame({"n": [0]}))
        column = frame.column("n")
        for guard in (column, frame, frame.lock):
            team.run(count_locked, N, column, guard, chunk=1)
        assert column[0] == 3 * N

    def test_a_plain_array_is_copied_where_it_is_only_read(self, team):
        x = np.arange(5, dtype="i4")
        y = SArray(np.zeros(5, "i4"))
        team.run(double, 5, x, y)
        x += 1  # not what an earlier copy has
        team.run(double, 5, x, y)
        assert y.tolist() == [2, 4, 6, 8, 10]
        with pytest.raises(TypeError, match=r"'y' is a plain array.*numpush.share"):
            team.run(double, 5, x, np.zeros(5, "i4"))
        private = numpush.attach(y.name, mode="cow")
        with pytest.raises(TypeError, match="'cow'"):
            team.run(double, 5, private, y)

    def test_a_view_of_shared_memory_is_shared_whatever_its_type(self, team):
        x = SArray(np.zeros(5))
        team.run(add, 4, np.asarray(x)[1:], 1.0)
        assert x.tolist() == [0, 1, 1, 1, 1]

    def test_wrong_arguments(self, team):
        x = SArray(np.zeros(5))
        with pytest.raises(TypeError, match="no signature fits"):
            team.run(add, 5, x)
        with pytest.raises(TypeError, match="no signature fits"):
            team.run(add, 5, x, "1")
        with pytest.raises(TypeError, match=r"x: a Series \(SDataFrame.column\(label\)"):
            team.run(add, 5, pd.Series(np.zeros(5)), 1.0)
        with pytest.raises(TypeError, match=r"a function is no kernel.*Team.map"):
            team.run(lambda i0, i1: None, 5)
        with pytest.raises(ValueError, match="-1 rows"):
            team.run(add, -1, x, 1.0)
        with pytest.raises(ValueError, match="chunk 0"):
            team.run(add, 5, x, 1.0, chunk=0)
        with pytest.raises(ValueError, match="too many chunks"):
            team.run(add, 1 << 40, x, 1.0, chunk=1)
        with pytest.raises(ValueError, match="'raise' or 'retry'"):
            team.run(add, 5, x, 1.0, on_death="ignore")
        with pytest.raises(ValueError, match="at least 1"):
            Team(0)
        with pytest.raises(TypeError, match="make one there"):
            team.map(lambda i, t: i, 3, team)
        assert not x.any()

    def test_the_variant_of_a_kernel_runs_too(self, team):
        x = SArray(np.zeros(5))
        team.run(add.variant(x, 1.0), 5, x, 1.0)
        assert (x == 1).all()
        with pytest.raises(TypeError, match="dtype"):
            team.run(add.variant(x, 1.0), 5, SArray(np.zeros(5, "i4")), 1.0)

    def test_a_bar_shows_chunks(self, team, capsys):
        x = SArray(np.zeros(N))
        team.run(add, N, x, 1.0, progress=True)
        assert (x == 1).all()
        assert "add: 100%" in capsys.readouterr().err

    def test_threads_wait_for_one_another(self, team):
        arrays = [SArray(np.zeros(N)) for _ in range(4)]

        def work(x):
            for _ in range(100):
                team.run(add, N, x, 1.0)

        threads = [threading.Thread(target=work, args=(x,)) for x in arrays]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(processes.LIMIT)
        assert all((x == 100).all() for x in arrays)

    def test_a_hundred_workers(self):
        x = SArray(np.zeros(N))
        with Team(100, "fork") as team:
            team.run(add, N, x, 1.0, chunk=1)
            assert team.each(lambda rank, barrier: barrier.wait() or rank) == list(range(100))
            team.run(add, N, x, 1.0, chunk=1)
        assert (x == 2).all()


class TestReduce:
    def test_partials_are_put_together(self, team):
        x = SArray(np.arange(float(N)))
        out = np.full(1, 99.0)
        assert team.reduce(total, N, x, out=out) is out
        assert out[0] == x.sum()
        team.reduce(total, N, np.ones(N), out=out)
        assert out[0] == N
        assert team.reduce(total, 0, x, out=out)[0] == 0

    def test_into_shared_memory_of_any_shape(self, team):
        x = SArray(np.arange(N) % 7)
        out = SArray(np.ones((2, 7), "i8"))
        for _ in range(3):
            team.reduce(histogram, N, x, out=out, chunk=1)
            assert np.array_equal(out[0], np.bincount(x))
            assert np.array_equal(out[1], np.bincount(x) * np.arange(7))

    def test_operations(self, team):
        x = SArray(np.arange(3.0, N))
        out = np.zeros(1)
        n = len(x)
        assert team.reduce(extremes, n, x, out=out, op="min")[0] == 3
        found = team.reduce(total, n, x, out=out, op=lambda a, b: a + 2 * b, initial=0.0)
        assert x.sum() <= found[0] <= 2 * x.sum()
        with pytest.raises(TypeError, match="initial="):
            team.reduce(total, N, x, out=out, op=np.add)
        with pytest.raises(ValueError, match="'add', 'multiply'"):
            team.reduce(total, N, x, out=out, op="mean")
        with pytest.raises(TypeError, match="no signature fits"):
            team.reduce(total, N, x, out=np.zeros((2, 2)))

    @pytest.mark.parametrize("dtype", ["i1", "u8", "f4", "?"])
    def test_what_changes_nothing(self, dtype):
        from numpush.team.team import _operation

        values = np.array([0, 1], dtype)
        for op in ("add", "multiply", "min", "max"):
            combine, start = _operation(op, None, values.dtype)
            assert np.array_equal(combine(values, np.full(2, start, dtype)), values)


class TestWhatMembersKeep:
    def test_memory_goes_with_its_last_view(self, team):
        x = SArray(np.zeros(1 << 20))
        name = x.name
        team.run(add, 100, x[10:], 1.0)
        team.run(add, 100, x, 1.0)
        assert any(name in file for file in processes.files())
        del x
        processes.eventually(lambda: not any(name in file for file in processes.files()))

    def test_more_plans_than_they_have_room_for(self, team):
        arrays = [SArray(np.zeros(5)) for _ in range(150)]
        for _ in range(2):
            for x in arrays:
                team.run(add, 5, x, 1.0)
            for x in arrays[::-1]:
                team.run(add, 5, x, 1.0)
        assert all((x == 4).all() for x in arrays)

    def test_a_new_array_at_an_old_address(self, team):
        for i in range(50):
            x = SArray(np.full(N, float(i)))
            team.run(add, N, x, 1.0)
            assert (x == i + 1).all()
            del x

    def test_a_member_that_runs_kernels_needs_neither_numba_nor_loky(self):
        x = SArray(np.zeros(N))
        code = (
            "import os, sys, pickle, numpush\n"
            "from numpush.ffi import step\n"
            "if __name__ == '__main__':\n"
            "    variant = pickle.loads(bytes.fromhex(sys.argv[1]))\n"
            "    x = numpush.SArray([0.0] * 9)\n"
            "    with numpush.Team(1, 'spawn') as team:\n"
            "        team.run(variant, 9, x, 1.0)\n"
            "        (pid,) = team._members.workers[0].process.pid,\n"
            "        maps = open(f'/proc/{pid}/maps').read()\n"
            "    assert (x == 1).all()\n"
            "    print('llvmlite' in maps, 'numba' in maps, 'pandas' in maps)\n"
        )
        data = pickle.dumps(add.variant(x, 1.0)).hex()
        done = processes.run_script(code, data)
        assert done.stdout.split() == ["True", "False", "False"], done.stderr

    def test_functions_find_the_libraries_when_they_need_them(self):
        with Team(1, "spawn") as team:
            assert "loky" in team.map(modules, 1)[0]

    def test_threads_of_libraries_are_capped(self):
        def threads(_):
            return os.environ["OMP_NUM_THREADS"], os.environ["NUMBA_THREADING_LAYER"]

        with Team(1, "fork") as team:
            assert team.map(threads, 1) == [("1", "forksafe")]

    def test_idle_members_use_no_cpu(self, team):
        team.run(empty, 2)
        pids = team.each(lambda rank, barrier: os.getpid())

        def used():
            texts = [Path(f"/proc/{pid}/stat").read_text() for pid in pids]
            fields = [text.rpartition(")")[2].split() for text in texts]
            return sum(int(f[11]) + int(f[12]) for f in fields)

        before = used()
        time.sleep(0.5)
        assert used() - before <= 1  # a tick of 10 ms
