"""Put 256 MB into shared memory, cold and warm, and the ways there are to fill fresh pages.

Cold: pages that nothing has touched. Ours: nothing is kept warm. Ray's: all objects are kept, so each
put takes memory of the store that was not used yet. Warm: the object before was dropped. Giving the
memory back is not timed.
"""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Callable, Iterator
from multiprocessing import shared_memory
from typing import Any

import numpy as np

import numpush
from handoff import start_ray
from harness import Race, arguments, finish, installed
from numpush.ffi import map as _map
from numpush.shm import process, warm

PIECE = 4 << 20
BASE = "numpush SArray(a)"


def main() -> None:
    args = arguments(__doc__, mib=256)
    n = (args.mib << 20) // 8
    data = np.arange(n, dtype=float)
    what = f"{args.mib} MiB {data.shape} float64 into shared memory"
    cold = Race(f"{what}, cold", BASE)
    warm_race = Race(f"{what}, warm", BASE)

    def check(array: Any) -> Any:
        if array[-1] != n - 1 or array[n // 2] != n // 2:
            raise AssertionError("wrong data")
        return array

    cold.add(BASE, lambda: check(numpush.SArray(data)), before=numpush.gc)
    warm_race.add(BASE, lambda: check(numpush.SArray(data)))

    def stdlib() -> Any:
        block = shared_memory.SharedMemory(create=True, size=data.nbytes)
        np.copyto(np.ndarray((n,), float, block.buf), data)
        check(np.ndarray((n,), float, block.buf))
        return _Unlinked(block)

    cold.add("stdlib shared_memory and np.copyto", stdlib)
    cold.add("np.copy (private memory)", lambda: check(data.copy()))
    warm_race.add("np.copyto (private memory)", lambda: np.copyto(private, data))
    private = data.copy()
    ways = Race(f"Ways to fill {args.mib} MiB of fresh shared memory", "pwrite, 1 thread")
    for name, kinds in {
        "pwrite, 1 thread": [_pwrite],
        "pwrite, 2 threads": [_pwrite, _pwrite],
        "mapping, 1 thread": [_copy],
        "mapping, 2 threads": [_copy, _copy],
        "MADV_POPULATE_WRITE and mapping, 2 threads": [_populate, _populate],
        "pwrite and mapping at once": [_pwrite, _copy],
    }.items():
        ways.add(name, lambda kinds=kinds: _fill(data.view(np.uint8), kinds))
    stop = _add_ray(cold, warm_race, data)
    try:
        cold.run(args.rounds)
        _kept.clear()
        warm_race.run(args.rounds)
        limit, warm._limit = warm.limit(), 0
        ways.run(args.rounds)
        warm._limit = limit
        finish([cold, warm_race, ways], args.json)
    finally:
        stop()


class _Unlinked:
    """A block that goes when it is dropped."""

    def __init__(self, block: shared_memory.SharedMemory) -> None:
        self.block = block

    def __del__(self) -> None:
        self.block.close()
        self.block.unlink()


_kept: list[Any] = []


def _add_ray(cold: Race, warm_race: Race, data: Any) -> Callable[[], None]:
    if not installed("ray"):
        cold.missing.append("Ray put")
        warm_race.missing.append("Ray put")
        return lambda: None
    ray = start_ray(1)
    cold.add("Ray put", lambda: _kept.append(ray.put(data)))
    warm_race.add("Ray put", lambda: ray.put(data))
    return ray.shutdown  # type: ignore[no-any-return]  # Ray has no types


def _fill(data: Any, kinds: list[Any]) -> Any:
    """Fill a fresh segment by one thread of each of *kinds*, which share the pieces."""
    segment, token = process.create(b"", data.nbytes)
    target = np.frombuffer(token, np.uint8)
    pieces = iter(range(0, data.nbytes, PIECE))
    lock = threading.Lock()

    def mine() -> Iterator[int]:
        for _ in itertools.count():
            with lock:
                start = next(pieces, None)
            if start is None:
                return
            yield start

    with segment.opened() as fd:
        threads = [
            threading.Thread(target=kind, args=(mine(), data, target, fd, segment.data_offset))
            for kind in kinds
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    if target[data.nbytes - 1] != data[-1]:
        raise AssertionError("wrong data")
    return target


def _pwrite(pieces: Iterator[int], data: Any, target: Any, fd: int, offset: int) -> None:
    for i in pieces:
        os.pwrite(fd, data[i : i + PIECE], offset + i)


def _copy(pieces: Iterator[int], data: Any, target: Any, fd: int, offset: int) -> None:
    for i in pieces:
        np.copyto(target[i : i + PIECE][: len(data) - i], data[i : i + PIECE])


def _populate(pieces: Iterator[int], data: Any, target: Any, fd: int, offset: int) -> None:
    address = target.__array_interface__["data"][0]
    for i in pieces:
        _map.populate(address + i, PIECE, write=True)
        np.copyto(target[i : i + PIECE][: len(data) - i], data[i : i + PIECE])


if __name__ == "__main__":
    main()
