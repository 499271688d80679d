"""Handles: their bytes, and the time to make one and to attach, to a known and to a new segment."""

from __future__ import annotations

import multiprocessing as mp
import pickle
from multiprocessing import shared_memory
from multiprocessing.reduction import ForkingPickler
from typing import Any

import numpy as np
import pandas as pd

import numpush
from handoff import unlink
from harness import Race, arguments, finish
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


def main() -> None:
    args = arguments(__doc__, n=1000)
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
    finish([race], args.json)


def _size(obj: Any) -> int:
    return len(ForkingPickler.dumps(obj))


if __name__ == "__main__":
    main()
