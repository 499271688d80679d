"""numpush.Pool: multiprocessing.Pool's interface, progress, and functions of any kind."""

from __future__ import annotations

import functools
import importlib.util
import itertools
import multiprocessing
import os
import pickle
import subprocess
import sys
import threading

import pytest

import processes
from numpush import Pool
from numpush.pool import ResultTimeout
from pool_tasks import add, sleep, square

pytestmark = pytest.mark.usefixtures("pool_helpers")


class CountsItsChunk:
    """Sent anew with each chunk, so that it counts from there."""

    n = 0

    def __call__(self, _):
        self.n += 1
        return self.n


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
