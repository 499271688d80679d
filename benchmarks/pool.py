"""A plain DataFrame of mixed dtypes (floats, strings, categories, datetimes) to 16 tasks on 2 workers.

Nothing is shared beforehand: the frame goes with every task, as one writes it without thinking. Then
the same with a frame that is in shared memory, and what a task costs that does nothing. Base: the same
pool with empty arguments. Pools are started before; each task reads from every column, and what it
finds is checked.
"""

from __future__ import annotations

import functools
import multiprocessing as mp
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import numpy as np
import pandas as pd

import numpush
import tasks
from handoff import start_ray
from harness import Race, arguments, finish, installed

EMPTY = "numpush.Pool, empty arguments"


def make_frame(mib: int) -> pd.DataFrame:
    """Make a frame of about *mib* MiB: 64 bytes a row."""
    n = (mib << 20) // 64
    numbers = np.arange(n)
    labels = pd.Series([f"item {i:06}" for i in range(5000)])
    return pd.DataFrame(
        {
            **{name: numbers * (i + 0.5) for i, name in enumerate("abc")},
            "label": labels.take(numbers % len(labels)).reset_index(drop=True),
            "kind": pd.Categorical.from_codes(numbers % 7, list("tuvwxyz")),
            "time": pd.Timestamp("2020-01-01") + pd.to_timedelta(numbers, unit="s"),
        }
    )


def main() -> None:
    args = arguments(__doc__, mib=256, tasks=16, workers=2, small=1000)
    frame = make_frame(args.mib)
    answer = tasks.look_mixed(frame)
    what = (
        f"{args.tasks} tasks on {args.workers} workers, {args.mib} MiB {frame.shape} mixed dtypes"
    )
    plain = Race(f"Hand-off of a plain frame to a pool: {what}", EMPTY)
    shared = Race(f"Hand-off of a shared frame to a pool: {what}", EMPTY)
    small = Race(
        f"{args.small} tasks that do nothing, one at a time to {args.workers} workers", "loky"
    )

    pool = numpush.Pool(args.workers)
    tasks.own["mixed"] = frame
    stdlib = mp.get_context("fork").Pool(args.workers)
    executor = ProcessPoolExecutor(args.workers, mp_context=mp.get_context("fork"))
    for start in (pool.map, stdlib.map, executor.map):
        list(start(tasks.nothing, range(args.workers * 8)))

    def through(call: Any, argument: Any, look: Any = tasks.look_mixed) -> None:
        results = call(look, [argument] * args.tasks, chunksize=1)
        if list(results) != [answer] * args.tasks:
            raise AssertionError(f"wrong results: {results}")

    def through_installed() -> None:
        numpush.install()
        try:
            through(stdlib.map, frame)
        finally:
            numpush.uninstall()

    def through_joblib(argument: Any, backend: Any) -> None:
        from joblib import Parallel, delayed

        parallel = Parallel(args.workers, backend=backend)
        results = parallel(delayed(tasks.look_mixed)(argument) for _ in range(args.tasks))
        if results != [answer] * args.tasks:
            raise AssertionError(f"wrong results: {results}")

    def through_empty(call: Any) -> None:
        call(tasks.nothing, range(args.tasks), chunksize=1)

    plain.add(EMPTY, lambda: through_empty(pool.map))
    plain.add("numpush.Pool, plain DataFrame", lambda: through(pool.map, frame))
    plain.add("Pool after numpush.install()", through_installed)
    plain.add("joblib, numpush's backend", lambda: through_joblib(frame, own_backend()), "joblib")
    plain.add("joblib", lambda: through_joblib(frame, "loky"), "joblib", slow=True)
    plain.add("Pool, pickling", lambda: through(stdlib.map, frame), slow=True)

    shared_frame = numpush.SDataFrame(frame)
    shared.add(EMPTY, lambda: through_empty(pool.map))
    shared.add("numpush.Pool, SDataFrame", lambda: through(pool.map, shared_frame))
    shared.add("Pool, empty arguments", lambda: through_empty(stdlib.map))
    shared.add(
        "Pool, the workers' own frame read", lambda: through(stdlib.map, None, tasks.look_own_mixed)
    )
    shared.add("Pool, numpush SDataFrame", lambda: through(stdlib.map, shared_frame))
    shared.add(
        "Pool, numpush SDataFrame, not read",
        lambda: stdlib.map(tasks.nothing, [shared_frame] * args.tasks, chunksize=1),
    )

    numbers = range(args.small)
    stop_loky = _add_loky(small, args.workers, numbers)
    small.add("numpush.Pool", lambda: pool.map(tasks.nothing, numbers, chunksize=1))
    small.add("Pool", lambda: stdlib.map(tasks.nothing, numbers, chunksize=1))
    small.add("ProcessPoolExecutor", lambda: list(executor.map(tasks.nothing, numbers)))
    stop_ray = _add_ray(plain, shared, args, frame, answer)

    races = [plain, shared, *([small] if installed("loky") else [])]
    try:
        for race in races:
            race.run(args.rounds)
        finish(races, args.json)
    finally:
        stop_ray()
        stop_loky()
        executor.shutdown()
        stdlib.terminate()
        stdlib.join()
        pool.terminate()


@functools.cache
def own_backend() -> Any:
    """Make it once: its workers end with it."""
    from numpush.joblib import NumpushBackend

    return NumpushBackend()


def _add_loky(small: Race, workers: int, numbers: range) -> Any:
    import loky

    executor = loky.ProcessPoolExecutor(workers)
    list(executor.map(tasks.nothing, range(workers * 8)))
    small.add("loky", lambda: list(executor.map(tasks.nothing, numbers)))
    return executor.shutdown


def _add_ray(plain: Race, shared: Race, args: Any, frame: Any, answer: Any) -> Any:
    if not installed("ray"):
        plain.missing.append("Ray")
        shared.missing.append("Ray")
        return lambda: None
    ray = start_ray(args.workers)
    look = ray.remote(tasks.look_mixed)
    ref = ray.put(frame)

    def run(argument: Any) -> None:
        results = ray.get([look.remote(argument) for _ in range(args.tasks)])
        if results != [answer] * args.tasks:
            raise AssertionError(f"wrong results: {results}")

    plain.add("Ray, put included", lambda: run(ray.put(frame)))
    shared.add("Ray, put before", lambda: run(ref))
    return ray.shutdown


if __name__ == "__main__":
    main()
