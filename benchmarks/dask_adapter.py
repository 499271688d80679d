"""Frames between Dask's workers: as Dask sends them, and with numpush.adapters.dask.

Clusters of two processes each, one after the other in turn. A transfer is timed by the worker that gets
the data, from its request on (Dask's own `get_data_from_worker`); every time of another frame, so nothing
is there already. Where whole tasks are timed, the scheduler and the client are part of it, and all
data is read.

With --hosts 3 (as root), three times instead: between two hosts, which are namespaces joined by a veth,
each with a /dev/shm of its own; and how much more memory than before the receiving host uses at its peak,
where two workers read the frame, in sizes of the frame.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from distributed import Client, LocalCluster, wait

import dask_hosts
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
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
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


# -- two hosts


def on_hosts(rounds: int, mib: int) -> list[dict[str, Any]]:
    """Run `hosts_client` in the first of two hosts, without the adapter and with it, in turn."""
    why = dask_hosts.why_no_hosts()
    if why:
        print(f"no hosts: {why}")
        return []
    found = []
    for _ in range(rounds):
        for name in (DASK, "numpush"):
            with dask_hosts.two_hosts() as hosts:
                address = dask_hosts.start_cluster(hosts, (1, 2), adapter=name != DASK)
                command = [sys.executable, __file__, "--address", address, "--mib", str(mib)]
                out = subprocess.run(
                    hosts[0].command(*command), check=True, capture_output=True, text=True
                )
                found.append({"name": name, **json.loads(out.stdout.splitlines()[-1])})
                print(found[-1], flush=True)
    return found


def watch(has_shm: bool, dask_worker: Any = None) -> None:
    """Watch what this worker uses more than at first; *has_shm*: and its host's /dev/shm, warm memory too."""
    import threading

    base = getattr(dask_worker, "benchmark", {}).get("base", used(has_shm))
    state = dask_worker.benchmark = {"peak": 0, "is_on": True, "base": base}

    def look() -> None:
        while state["is_on"]:
            state["peak"] = max(state["peak"], used(has_shm) - base)
            time.sleep(0.002)

    threading.Thread(target=look, daemon=True).start()


def stop(dask_worker: Any = None) -> int:
    dask_worker.benchmark["is_on"] = False
    return int(dask_worker.benchmark["peak"])


def used(has_shm: bool) -> int:
    import os

    sizes = {}
    with open("/proc/self/status") as file:
        for line in file:
            name, _, value = line.partition(":")
            if name in ("VmRSS", "RssShmem"):
                sizes[name] = int(value.split()[0]) << 10
    room = os.statvfs("/dev/shm")
    shm = (room.f_blocks - room.f_bfree) * room.f_frsize if has_shm else 0
    return sizes["VmRSS"] - sizes["RssShmem"] + shm


def hosts_client(address: str, mib: int) -> None:
    """Move frames from the first host's worker to the two of the second; print what it took."""
    with Client(address, timeout=60) as client:
        client.wait_for_workers(3, timeout=60)
        names = {w["name"]: a for a, w in client.scheduler_info()["workers"].items()}
        pair = Pair(client, [names["a0"], names["b0"], names["b1"]])
        pair.make(make_frame, 64)
        pair.transfer()
        for i in (1, 2):
            client.run(watch, i == 1, workers=[pair.workers[i]])
        client.run(stop, workers=pair.workers[1:])
        seconds, peaks = [], []
        for _ in range(3):
            pair.make(make_frame, mib << 10)
            seconds.append(round(pair.transfer(), 3))
        for _ in range(2):
            pair.make(make_frame, mib << 10)
            for i in (1, 2):
                client.run(watch, i == 1, workers=[pair.workers[i]])
            for i in (1, 2):  # and both keep it
                pair.submit(i, total, pair.frame).result()
            peaks.append(
                round(sum(client.run(stop, workers=pair.workers[1:]).values()) / (mib << 20), 2)
            )
        print(json.dumps({"seconds": seconds, "peak of two readers / size": peaks}))


def main() -> None:
    args = arguments(__doc__, mib=256, hosts=0, address="")
    if args.address:
        hosts_client(args.address, args.mib)
        return
    if args.hosts:
        on_hosts(args.hosts, args.mib)
        return
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
