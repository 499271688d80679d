"""Hand 256 MB to 16 tasks on 2 workers: an array, and a frame.

Data that was put into shared memory before (what a second map over the same data costs), and a
plain array or frame in hand, the putting included. Base: the same Pool of multiprocessing with empty
arguments, whose tasks do nothing. Pools are started before; each task reads a number from each of a
thousand pages, and the sums are checked; what that takes alone is in the row of the workers' own data,
which they have from the fork.
"""

from __future__ import annotations

import contextlib
import multiprocessing as mp
from multiprocessing import shared_memory
from typing import Any

import numpy as np
import pandas as pd

import numpush
import tasks
from harness import Race, arguments, finish, installed

EMPTY = "Pool, empty arguments"
OWN = "Pool, the workers' own data read"


def main() -> None:
    args = arguments(__doc__, mib=256, tasks=16, workers=2)
    n = (args.mib << 20) // 8
    data = np.arange(n, dtype=float)
    frame = pd.DataFrame(np.arange(n, dtype=float).reshape(8, -1).T, columns=list("abcdefgh"))
    what = f"{args.tasks} tasks on {args.workers} workers, {args.mib} MiB"
    there = Race(f"Hand-off of a shared array: {what} {data.shape} float64", EMPTY)
    in_hand = Race(
        f"Hand-off of a plain array, sharing included: {what} {data.shape} float64", EMPTY
    )
    frames = Race(f"Hand-off of a frame: {what} {frame.shape} float64", EMPTY)
    answer, frame_answer = tasks.expected(n), tasks.look_frame(frame)
    tasks.own.update(array=data, frame=frame)
    context = mp.get_context("fork")
    pool = context.Pool(args.workers)
    pool.map(tasks.nothing, range(args.workers * 4), chunksize=1)

    def check(results: list[float], wanted: float = answer) -> None:
        if results != [wanted] * args.tasks:
            raise AssertionError(f"wrong results: {results}")

    def through_pool(function: Any, argument: Any) -> list[float]:
        return pool.map(function, [argument] * args.tasks, chunksize=1)

    for race in (there, in_hand, frames):
        race.add(EMPTY, lambda: through_pool(tasks.nothing, None))

    there.add(OWN, lambda: check(through_pool(tasks.look_own, None)))
    frames.add(OWN, lambda: check(through_pool(tasks.look_own_frame, None), frame_answer))
    shared = numpush.SArray(data)
    there.add("numpush SArray, not read", lambda: through_pool(tasks.nothing, shared))
    there.add("numpush SArray", lambda: check(through_pool(tasks.look, shared)))
    in_hand.add("numpush SArray(a)", lambda: check(through_pool(tasks.look, numpush.SArray(data))))
    shared_frame = numpush.SDataFrame(frame)
    frames.add("numpush SDataFrame, not read", lambda: through_pool(tasks.nothing, shared_frame))
    frames.add(
        "numpush SDataFrame",
        lambda: check(through_pool(tasks.look_frame, shared_frame), frame_answer),
    )
    frames.add(
        "numpush SDataFrame(df), sharing included",
        lambda: check(through_pool(tasks.look_frame, numpush.SDataFrame(frame)), frame_answer),
    )

    in_hand.add("Pool, pickling", lambda: check(through_pool(tasks.look, data)), slow=True)
    frames.add(
        "Pool, pickling",
        lambda: check(through_pool(tasks.look_frame, frame), frame_answer),
        slow=True,
    )

    block = shared_memory.SharedMemory(create=True, size=data.nbytes)
    np.copyto(np.ndarray((n,), float, block.buf), data)
    there.add(
        "stdlib shared_memory by hand",
        lambda: check(through_pool(tasks.look_by_name, (block.name, n))),
    )

    def stdlib() -> None:
        mine = shared_memory.SharedMemory(create=True, size=data.nbytes)
        np.copyto(np.ndarray((n,), float, mine.buf), data)
        check(through_pool(tasks.look_by_name, (mine.name, n)))
        mine.close()
        unlink(mine)

    in_hand.add("stdlib shared_memory by hand", stdlib)

    def through_joblib(function: Any, argument: Any) -> list[float]:
        from joblib import Parallel, delayed

        return Parallel(args.workers)(delayed(function)(argument) for _ in range(args.tasks))

    there.add("joblib with our SArray", lambda: check(through_joblib(tasks.look, shared)), "joblib")
    in_hand.add("joblib", lambda: check(through_joblib(tasks.look, data)), "joblib")
    frames.add(
        "joblib", lambda: check(through_joblib(tasks.look_frame, frame), frame_answer), "joblib"
    )
    _add_torch(there, in_hand, args, data, check)
    stop_ray = _add_ray(there, in_hand, frames, args, data, frame, check, frame_answer)
    stop_mpire = _add_mpire(there, args, data, check)

    try:
        for race in (there, in_hand, frames):
            race.run(args.rounds)
        finish([there, in_hand, frames], args.json)
    finally:
        stop_mpire()
        stop_ray()
        pool.terminate()
        pool.join()
        block.close()
        unlink(block)


def unlink(block: shared_memory.SharedMemory) -> None:
    # Before Python 3.13 a worker that attached may have had its tracker unlink it already.
    with contextlib.suppress(FileNotFoundError):
        block.unlink()


def _add_torch(there: Race, in_hand: Race, args: Any, data: Any, check: Any) -> None:
    name = "torch.multiprocessing"
    if not installed("torch"):
        there.missing.append(name)
        in_hand.missing.append(name)
        return
    import torch
    import torch.multiprocessing

    pool = torch.multiprocessing.get_context("fork").Pool(args.workers)
    tensor = torch.from_numpy(data.copy()).share_memory_()

    def run(argument: Any) -> None:
        check(pool.map(tasks.look_tensor, [argument] * args.tasks, chunksize=1))

    there.add(name, lambda: run(tensor))
    in_hand.add(name, lambda: run(torch.from_numpy(data.copy()).share_memory_()))


def _add_ray(
    there: Race,
    in_hand: Race,
    frames: Race,
    args: Any,
    data: Any,
    frame: Any,
    check: Any,
    frame_answer: float,
) -> Any:
    if not installed("ray"):
        for race in (there, in_hand, frames):
            race.missing.append("Ray")
        return lambda: None
    ray = start_ray(args.workers)
    look = ray.remote(tasks.look)
    look_frame = ray.remote(tasks.look_frame)
    ref = ray.put(data)
    frame_ref = ray.put(frame)

    def run(function: Any, argument: Any, *wanted: float) -> None:
        check(ray.get([function.remote(argument) for _ in range(args.tasks)]), *wanted)

    there.add("Ray, put before", lambda: run(look, ref))
    in_hand.add("Ray, put included", lambda: run(look, ray.put(data)))
    frames.add("Ray, put before", lambda: run(look_frame, frame_ref, frame_answer))
    return ray.shutdown


def start_ray(workers: int) -> Any:
    """Start a Ray of this machine alone, telling nobody."""
    import os
    import warnings
    from pathlib import Path

    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ["PYTHONPATH"] = str(Path(__file__).parent)
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    import ray

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ray.init(
            num_cpus=workers,
            include_dashboard=False,
            log_to_driver=False,
            _node_ip_address="127.0.0.1",
            object_store_memory=4 << 30,
            logging_level="ERROR",
        )
    return ray


def _add_mpire(there: Race, args: Any, data: Any, check: Any) -> Any:
    name = "mpire shared_objects (fork)"
    if not installed("mpire"):
        there.missing.append(name)
        return lambda: None
    from mpire import WorkerPool

    pool = WorkerPool(args.workers, shared_objects=data, start_method="fork", keep_alive=True)
    there.add(
        name,
        lambda: check(pool.map(tasks.look_shared, range(args.tasks), chunk_size=1)),
    )
    return pool.terminate


if __name__ == "__main__":
    main()
