"""A job that does nothing, handed to all workers and waited for: a kernel by Team, a function by the others.

That is what it costs to use all cores once. Pools are started before; each call gives every worker
something to do: the kernel in 8 chunks for each, functions in one task for each, and their results are
checked. Base: a kernel without arguments, by Team.
"""

from __future__ import annotations

import multiprocessing as mp
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import numpy as np

import numpush
import tasks
from harness import Race, arguments, finish, installed

BASE = "numpush.Team, a kernel without arguments"


def main() -> None:
    args = arguments(__doc__, workers=2)
    n = args.workers
    wanted = [tasks.nothing(i) for i in range(n)]
    race = Race(f"A job that does nothing to {n} workers, and back", BASE)
    ends = []

    def check(results: Any) -> None:
        if list(results) != wanted:
            raise AssertionError(f"wrong results: {results}")

    stdlib = mp.get_context("fork").Pool(n)
    executor = ProcessPoolExecutor(n, mp_context=mp.get_context("fork"))
    check(stdlib.map(tasks.nothing, range(n), chunksize=1))
    check(executor.map(tasks.nothing, range(n)))
    ends += [stdlib.terminate, executor.shutdown]
    race.add("Pool.map", lambda: check(stdlib.map(tasks.nothing, range(n), chunksize=1)))
    race.add("ProcessPoolExecutor.map", lambda: check(executor.map(tasks.nothing, range(n))))
    if installed("loky"):
        import loky

        pool = loky.ProcessPoolExecutor(n)
        ends.append(pool.shutdown)
        race.add("loky, executor.map", lambda: check(pool.map(tasks.nothing, range(n))))
    else:
        race.missing.append("loky")
    if installed("joblib"):
        from joblib import Parallel, delayed

        parallel = Parallel(n).__enter__()
        ends.append(lambda: parallel.__exit__(None, None, None))
        race.add(
            "joblib, one Parallel kept",
            lambda: check(parallel(delayed(tasks.nothing)(i) for i in range(n))),
        )
    else:
        race.missing.append("joblib")

    team = numpush.Team(n)
    ends.append(team.close)
    race.add("numpush.Team, map of a function", lambda: check(team.map(tasks.nothing, n)))
    if installed("numba"):
        from numpush.kernels import kernel

        @kernel("")
        def empty(i0: int, i1: int) -> None: ...

        @kernel("f8[:], f8[:], f8")
        def with_arrays(i0: int, i1: int, x: Any, y: Any, c: float) -> None: ...

        x, y = numpush.SArray(np.zeros(1000)), numpush.SArray(np.zeros(1000))
        race.add(BASE, lambda: team.run(empty, 8 * n))
        race.add("numpush.Team, with two arrays", lambda: team.run(with_arrays, 8 * n, x, y, 2.0))

        def with_numbers() -> None:
            for i in range(10):
                team.run(with_arrays, 8 * n, x, y, i + 0.5)

        race.add("ten times, with a number that differs", with_numbers)
    else:
        race.base = "Pool.map"
        race.missing.append(BASE)
    try:
        race.run(args.rounds)
        finish([race], args.json)
    finally:
        for end in ends:
            end()


if __name__ == "__main__":
    main()
