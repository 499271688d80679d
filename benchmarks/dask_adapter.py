"""Frames between Dask's workers: as Dask sends them, and with numpush.adapters.dask.

Clusters of two processes each, one after the other in turn. A transfer is timed by the worker that gets
the data, from its request on (Dask's own `get_data_from_worker`); every time of another frame, so nothing
is there already. Where whole tasks are timed, the scheduler and the client are part of it, and all
data is read.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from distributed import Client, LocalCluster, wait

import numpush
from harness import Race, arguments, finish
from numpush.adapters import dask as adapter

N_COLUMNS = 8
DASK, RESULTS, SENDING = "Dask", "numpush, results in shared memory", "numpush, results=False"
SHARED = "numpush, an SDataFrame"


# -- what workers do


def make_frame(kib: int) -> pd.DataFrame:
    n = (kib << 10) // 8 // N_COLUMNS
    return pd.DataFrame(np.arange(n * N_COLUMNS, dtype=float).reshape(N_COLUMNS, n).T)


def make_shared(kib: int) -> numpush.SDataFrame:
    return numpush.SDataFrame(make_frame(kib))


def total(frame: pd.DataFrame) -> float:
    return float(frame.to_numpy().sum())


async def fetch(key: str, address: str, dask_worker: Any = None) -> float:
    """Get a key from another worker, as Dask does; return how long it took."""
    from distributed.worker import get_data_from_worker

    start = time.perf_counter()
    response = await get_data_from_worker(dask_worker.rpc, [key], address)
    elapsed = time.perf_counter() - start
    assert response["data"][key].iloc[-1, -1] > 0
    return elapsed


# -- one cluster


class Pair:
    """Two workers, and a frame that one of them has."""

    def __init__(self, client: Client, names: list[str]) -> None:
        self.client = client
        self.workers = names
        self.frame: Any = None

    def submit(self, i: int, function: Any, *args: Any) -> Any:
        return self.client.submit(function, *args, workers=self.workers[i], pure=False)

    def make(self, function: Any, kib: int) -> None:
        self.frame = None
        self.frame = self.submit(0, function, kib)
        wait(self.frame)

    def transfer(self) -> float:
        found = self.client.run(fetch, self.frame.key, self.workers[0], workers=[self.workers[1]])
        return float(found[self.workers[1]])


class Elapsed:
    """A clock that stands at what the workers have measured."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds

    def add(self, seconds: float) -> None:
        self.seconds += seconds


@contextlib.contextmanager
def local_pair(**options: Any) -> Iterator[Pair]:
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0") as cluster,
        Client(cluster) as client,
    ):
        if options:
            adapter.install(client, **options)
        pair = Pair(client, sorted(client.scheduler_info()["workers"]))
        pair.make(make_frame, 64)
        pair.transfer()  # a connection
        yield pair


# -- races


def transfers(title: str, pairs: dict[str, Pair], kib: int, rounds: int) -> Race:
    clock = Elapsed()
    race = Race(title, DASK, clock)
    for name, pair in pairs.items():
        race.add(
            name,
            lambda pair=pair: clock.add(pair.transfer()),
            before=lambda pair=pair: pair.make(make_frame, kib),
        )
    if kib >= 1 << 18:
        pair = pairs[RESULTS]
        race.add(
            SHARED,
            lambda: clock.add(pair.transfer()),
            before=lambda: pair.make(make_shared, kib),
        )
    race.run(rounds)
    return race


def tasks(title: str, pairs: dict[str, Pair], kib: int, rounds: int, *, is_made: bool) -> Race:
    """Time a task that reads all of a frame of the other worker; *is_made*: which is made before."""
    race = Race(title, DASK)
    expected = total(make_frame(kib))

    def run(pair: Pair) -> None:
        frame = pair.frame if is_made else pair.submit(0, make_frame, kib)
        assert pair.submit(1, total, frame).result() == expected

    for name, pair in pairs.items():
        race.add(
            name,
            lambda pair=pair: run(pair),
            before=lambda pair=pair: pair.make(make_frame, kib if is_made else 1),
        )
    race.run(rounds)
    return race


def main() -> None:
    args = arguments(__doc__, mib=256)
    kib = args.mib << 10
    shape = f"{args.mib} MiB ({(args.mib << 20) // 8 // N_COLUMNS}, {N_COLUMNS}) float64"
    races = []
    with (
        local_pair() as plain,
        local_pair(share_from=1 << 14) as sharing,
        local_pair(share_from=1 << 14, results=False) as sending,
    ):
        pairs = {DASK: plain, RESULTS: sharing, SENDING: sending}
        races.append(
            transfers(f"From one worker to another: a frame, {shape}", pairs, kib, args.rounds)
        )
        title = f"A task reads a frame that another worker has, {shape}"
        races.append(tasks(title, pairs, kib, args.rounds, is_made=True))
        title = f"A task makes a frame, and one on the other worker reads it, {shape}"
        races.append(tasks(title, pairs, kib, args.rounds, is_made=False))
        for size in (64, 256, 512, 1024, 2048, 4096, 16384):
            title = f"From one worker to another: a frame of {size} KiB"
            races.append(transfers(title, pairs, size, 3 * args.rounds))
    finish(races, args.json)


if __name__ == "__main__":
    main()
