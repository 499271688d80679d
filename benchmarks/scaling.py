"""Kernels on 1 to n workers over the same shared arrays: one that computes, and one that moves memory.

Beside them, with as many threads or processes: numba's prange in this process, and the kernel, called
over parts of the rows by Pool.map, joblib and Ray's tasks, which get shared arrays by their handles and
keep what they have linked. The base is the kernel called in this process, on one core.
"""

from __future__ import annotations

import os
from typing import Any

import numba
import numpy as np

import numpush
from handoff import start_ray
from harness import Race, arguments, finish, installed
from scaling_kernels import call, compute, compute_parallel, move, move_parallel

ALONE = "the kernel alone, one core"
PARTS = 8  #: of the rows for each worker, as a Team has by default


def main() -> None:
    cores = len(os.sched_getaffinity(0))
    args = arguments(__doc__, rows=1 << 16, mib=256, workers=cores)
    points = numpush.SArray(np.linspace(-2, 0.5, args.rows))
    depths = numpush.SArray.zeros(args.rows, "i4")
    x = numpush.SArray(np.arange(float((args.mib << 20) // 16)))
    y = numpush.SArray.zeros(len(x))
    jobs: list[tuple[str, Any, Any, int, tuple[Any, ...]]] = [
        (
            f"computing: {args.rows} points of a fractal",
            compute,
            compute_parallel,
            args.rows,
            (points, depths),
        ),
        (f"moving: y = 2 x + y over {args.mib} MiB", move, move_parallel, len(x), (x, y, 2.0)),
    ]
    races = []
    for workers in _steps(args.workers):
        with _Peers(workers) as peers:
            for title, kernel, parallel, n, arrays in jobs:
                race = Race(f"{title} ({workers} workers)", ALONE)
                peers.enter(race, kernel, parallel, n, arrays)
                race.run(args.rounds)
                races.append(race)
    finish(races, args.json)


def _steps(most: int) -> list[int]:
    """1, 2, 4 .. and *most*."""
    return sorted({*(1 << i for i in range(most.bit_length()) if 1 << i <= most), most})


class _Peers:
    """What runs a kernel with so many workers."""

    def __init__(self, workers: int) -> None:
        import multiprocessing as mp

        self.workers = workers
        self.team = numpush.Team(workers, "spawn")
        self.pool = mp.get_context("spawn").Pool(workers)
        self.ray = start_ray(workers) if installed("ray") else None

    def __enter__(self) -> _Peers:
        return self

    def __exit__(self, *_: object) -> None:
        self.team.close()
        self.pool.terminate()
        self.pool.join()
        if self.ray is not None:
            self.ray.shutdown()

    def enter(self, race: Race, kernel: Any, parallel: Any, n: int, arrays: Any) -> None:
        """Have all of them run *kernel* over *n* rows."""
        step = max(1, n // (PARTS * self.workers))
        parts = [(i, min(n, i + step)) for i in range(0, n, step)]
        tasks = [(kernel.name, part, arrays) for part in parts]
        race.add(ALONE, lambda: kernel(0, n, *arrays))
        race.add("numpush.Team", lambda: self.team.run(kernel, n, *arrays))
        plain = [np.asarray(each) if isinstance(each, np.ndarray) else each for each in arrays]

        def prange() -> None:
            numba.set_num_threads(self.workers)
            parallel(*plain)

        race.add("numba prange, threads", prange)
        race.add("Pool.map", lambda: self.pool.map(call, tasks, chunksize=1))
        if installed("joblib"):
            from joblib import Parallel, delayed

            def joblib() -> None:
                Parallel(self.workers)(delayed(call)(task) for task in tasks)

            race.add("joblib", joblib)
        else:
            race.missing.append("joblib")
        if self.ray is None:
            race.missing.append("Ray")
            return
        ray = self.ray
        remote = ray.remote(call)
        handles = [each.handle if isinstance(each, np.ndarray) else each for each in arrays]
        sent = [(kernel.name, part, handles) for part in parts]
        race.add("Ray", lambda: ray.get([remote.remote(task) for task in sent]))


if __name__ == "__main__":
    main()
