"""Handles: their bytes, and the time to make one and to attach: to a known segment, to a new one, and
for the first time in a new process, to frames of 1000 columns.
"""

from __future__ import annotations

import functools
import multiprocessing as mp
import os
import pickle
import time
from collections.abc import Callable
from multiprocessing import shared_memory
from multiprocessing.reduction import ForkingPickler
from typing import Any

import numpy as np
import pandas as pd

import numpush
from handoff import unlink
from harness import Race, arguments, finish
from numpush.layout import describe, rebuild
from numpush.shm import process
from numpush.shm.leases import lease

BASE = "attach to a known segment (unpickle a handle)"
_kept: list[Any] = []


def _make(n: int) -> tuple[list[numpush.Handle], list[str]]:
    """In a worker: make n arrays, and n blocks of the standard library, and keep them."""
    arrays = [numpush.SArray(np.zeros(100_003)) for _ in range(n)]
    blocks = [shared_memory.SharedMemory(create=True, size=800_024) for _ in range(n)]
    _kept.extend([arrays, blocks])
    return [array.handle for array in arrays], [block.name for block in blocks]


def _drop(_: Any) -> None:
    arrays, blocks = _kept
    _kept.clear()
    arrays.clear()
    for block in blocks:
        block.close()
        unlink(block)


def _import_all() -> None:
    small = pd.DataFrame({"a": ["x"], "b": pd.Categorical(["y"]), "c": pd.Timestamp(0)})
    schema, buffers = describe(small)
    raw = [np.zeros(buffer.nbytes, np.uint8) for buffer in buffers]
    for buffer, dest in zip(buffers, raw):
        for target, source in buffer.copies(dest):
            target[...] = source
    rebuild(schema, raw)
    _ = numpush.attach, numpush.SDataFrame  # whose modules load when they are asked for


def _time(attach: Callable[[], Any]) -> float:
    start = time.perf_counter()
    _kept.append(attach())
    return time.perf_counter() - start


def _first_and_third(handles: list[numpush.Handle]) -> tuple[float, float]:
    """Attach to three frames in a new process, which has imported what it needs."""
    _import_all()
    first, _, third = (_time(functools.partial(numpush.attach, handle)) for handle in handles)
    return first, third


def _stdlib_first_and_third(names: list[str], n: int) -> tuple[float, float]:
    """Put a frame of n x n numbers over each of three blocks of the standard library."""
    _import_all()

    def attach(name: str) -> Any:
        block = shared_memory.SharedMemory(name)
        return block, pd.DataFrame(np.ndarray((n, n), buffer=block.buf), copy=False)

    first, _, third = (_time(functools.partial(attach, name)) for name in names)
    return first, third


def first_attach(rounds: int) -> Race:
    """Time the first attach to frames of 1000 columns in processes that have never attached."""
    race = Race(
        "Attach in a new, spawned process, by handle, imports excluded", "stdlib, the first"
    )
    n = 1000
    numbers = pd.DataFrame(np.zeros((n, n)))
    more = pd.DataFrame(
        {
            "label": [f"item {i}" for i in range(n)],
            "kind": pd.Categorical(list("abcde") * (n // 5)),
            "time": pd.date_range("2026-01-01", periods=n),
        }
    )
    mixed = pd.concat([numbers.iloc[:, ::2], numbers.iloc[:, 1::2].astype("int64"), more], axis=1)
    frames = {
        "1 column": numbers[[0]],
        "1000 columns": numbers,
        "1003 columns: float64, int64, str, category, datetime": mixed,
    }
    shared = {name: [numpush.SDataFrame(frame) for _ in range(3)] for name, frame in frames.items()}
    blocks = [shared_memory.SharedMemory(create=True, size=8 * n * n) for _ in range(3)]
    jobs: dict[str, tuple[Any, ...]] = {
        "stdlib": (_stdlib_first_and_third, [block.name for block in blocks], n),
        **{
            name: (_first_and_third, [each.handle for each in three])
            for name, three in shared.items()
        },
    }
    context = mp.get_context("spawn")
    server = context.Pool(1, maxtasksperchild=1)
    for _ in range(rounds):
        for name, (function, *args) in jobs.items():
            first, third = server.apply(function, args)
            race.seconds.setdefault(f"{name}, the first", []).append(first)
            race.seconds.setdefault(f"{name}, the third", []).append(third)
    server.terminate()
    server.join()
    for block in blocks:
        unlink(block)
    return race


def main() -> None:
    args = arguments(__doc__, n=1000)
    # The standard library's tracker complains of blocks that others have unlinked meanwhile.
    os.environ["PYTHONWARNINGS"] = "ignore:resource_tracker:UserWarning"
    n = args.n
    array = numpush.SArray(np.arange(1_000_003.0))
    frame = numpush.SDataFrame(pd.DataFrame(np.zeros((3_333, 100))))
    part = frame.partitions(7)[3]
    print(
        f"Handles, pickled: SArray {_size(array)} bytes, a view {_size(array[5::7])}, "
        f"SDataFrame of 100 columns {_size(frame)}, a partition {_size(part)}\n"
    )
    race = Race(f"{n} times", BASE)

    def cross(obj: Any) -> None:
        for _ in range(n):
            pickle.loads(ForkingPickler.dumps(obj))

    handle = bytes(ForkingPickler.dumps(array))

    def known() -> None:
        for _ in range(n):
            pickle.loads(handle)

    pool = mp.get_context("fork").Pool(1)
    handles, names = pool.apply(_make, (n,))

    def new() -> None:
        for each in handles:
            numpush.attach(each)

    def stdlib() -> None:
        for name in names:
            shared_memory.SharedMemory(name).close()

    segment = array._segment()
    sender = lease(segment, to_child=False)

    def attach_alone() -> None:
        for _ in range(n):
            process.attach(segment.name, "rw", identity=segment.identity, sender=sender)

    race.add(BASE, known)
    race.add("the same without unpickling: process.attach alone", attach_alone)
    race.add("make a handle and attach to a known segment: SArray", lambda: cross(array))
    race.add("the same, SDataFrame of 100 columns", lambda: cross(frame))
    race.add("the same, a partition of it", lambda: cross(part))
    race.add("attach to a new segment, and leave it", new)
    race.add("stdlib: SharedMemory(name), close", stdlib)
    race.run(args.rounds)
    pool.apply(_drop, (None,))
    pool.close()
    pool.join()
    finish([race, first_attach(args.rounds)], args.json)


def _size(obj: Any) -> int:
    return len(ForkingPickler.dumps(obj))


if __name__ == "__main__":
    main()
