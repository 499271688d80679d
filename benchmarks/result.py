"""A worker computes 256 MB, and the parent gets them. Base: the worker computes into an SArray.

The result is new each time: numbers that the worker has, times one. Ours goes by `out=` into the
segment, or is computed first and copied by SArray(a); the others return it.
"""

from __future__ import annotations

import multiprocessing as mp
from typing import Any

import numpy as np

import tasks
from handoff import start_ray
from harness import Race, arguments, finish, installed

BASE = "numpush, worker computes into SArray.empty"


def main() -> None:
    args = arguments(__doc__, mib=256)
    n = (args.mib << 20) // 8
    data = np.arange(n, dtype=float)
    answers = {look: look(data) for look in (tasks.look, tasks.read_all)}
    races = {
        look: Race(f"A result of {args.mib} MiB ({n},) float64, {how} by the parent", BASE)
        for look, how in ((tasks.look, "1000 pages looked at"), (tasks.read_all, "all read"))
    }
    pool = mp.get_context("fork").Pool(1)
    stops = [pool.terminate]

    def add(name: str, call: Any, **options: Any) -> None:
        for look, race in races.items():
            race.add(name, lambda look=look: check(look, call()), **options)

    def check(look: Any, array: Any) -> None:
        if look(array) != answers[look]:
            raise AssertionError("wrong data")

    add(BASE, lambda: pool.apply(tasks.make_shared, (n,)))
    add("numpush, worker returns SArray(a)", lambda: pool.apply(tasks.make_shared_copy, (n,)))
    add("Pool, pickling", lambda: pool.apply(tasks.return_numbers, (n,)), slow=True)
    for library, name, enter in (
        ("ray", "Ray", _add_ray),
        ("torch", "torch.multiprocessing", _add_torch),
        ("joblib", "joblib (loky)", _add_joblib),
    ):
        if installed(library):
            stops.append(enter(name, n, add))
        else:
            for race in races.values():
                race.missing.append(name)
    try:
        for race in races.values():
            race.run(args.rounds, warm_up=2)
        finish(list(races.values()), args.json)
    finally:
        for stop in reversed(stops):
            stop()


def _add_ray(name: str, n: int, add: Any) -> Any:
    ray = start_ray(1)
    make = ray.remote(tasks.return_numbers)
    add(name, lambda: ray.get(make.remote(n)))
    return ray.shutdown


def _add_torch(name: str, n: int, add: Any) -> Any:
    import torch.multiprocessing

    pool = torch.multiprocessing.get_context("fork").Pool(1)
    add(name, lambda: pool.apply(tasks.make_tensor, (n,)))
    return pool.terminate


def _add_joblib(name: str, n: int, add: Any) -> Any:
    from joblib import Parallel, delayed
    from joblib.externals.loky import get_reusable_executor

    add(name, lambda: Parallel(2)([delayed(tasks.return_numbers)(n)])[0], slow=True)
    return lambda: get_reusable_executor().shutdown(wait=True)


if __name__ == "__main__":
    main()
