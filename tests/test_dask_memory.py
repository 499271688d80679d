"""Dask's workers with little memory, and numpush.adapters.dask: what is counted, spilled, and left."""

from __future__ import annotations

import contextlib
import gc
import os
import time
from collections.abc import Iterator
from typing import Any

import dask
import numpy as np
import pandas as pd
import psutil
import pytest
from distributed import Client, LocalCluster, wait

import dask_tasks as tasks
import numpush
import processes
from numpush.adapters import dask as adapter

pytest_plugins = ["dask_fixtures"]
pytestmark = pytest.mark.leaves_processes  # as in test_dask.py

MIB = 1 << 20
LIMIT = 1000 * MIB  #: of a worker, which has some 140 MiB of its own
FRACTIONS = {"target": 0.6, "spill": 0.8, "pause": 0.9, "terminate": 0.95}
CONFIG = {
    **{f"distributed.worker.memory.{name}": value for name, value in FRACTIONS.items()},
    "distributed.admin.system-monitor.interval": "100ms",
    "distributed.scheduler.active-memory-manager.start": False,  # it drops what two workers have
}


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    before = processes.files()
    with (
        dask.config.set(CONFIG),
        LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            memory_limit=LIMIT,
            local_directory=tmp_path_factory.mktemp("dask"),
            dashboard_address=":0",
        ) as cluster,
        Client(cluster) as client,
    ):
        adapter.install(client)
        yield client
        adapter.uninstall()
    processes.eventually(lambda: not processes.files() - before)


@pytest.fixture(autouse=True)
def _lives_on(client: Client) -> Iterator[None]:
    """Fail a test whose nanny ended a worker, and wait until Dask has forgotten what it had."""
    before = client.run(os.getpid)
    yield
    assert client.run(os.getpid) == before
    deadline = time.monotonic() + 30
    while sizes("seg") and time.monotonic() < deadline:
        gc.collect()
        time.sleep(0.05)


def sizes(kind: str) -> list[int]:
    """Return the sizes of the files of a kind: "seg" or "warm"."""
    found = []
    for file in processes.files():
        if f".{kind}." in file:
            with contextlib.suppress(FileNotFoundError):
                found.append((processes.SHM / file).stat().st_size)
    return found


def make(n_mib: int, i: int = 0) -> Any:
    return np.arange(i, i + n_mib * MIB // 8)


def keys(dask_worker: Any) -> tuple[set[str], set[str]]:
    """Return the keys that a worker has in memory, and on its disk."""
    return set(dask_worker.data.fast), set(dask_worker.data.slow)


def memory(dask_worker: Any) -> tuple[int, int]:
    """Return what a worker uses as it counts, and as its kernel does."""
    return dask_worker.monitor.get_process_memory(), psutil.Process().memory_info().rss


def test_what_was_spilled_is_out_of_its_segment_and_comes_back_equal(client, workers, on):
    arrays = [on(0, make, 100, i) for i in range(4)]
    wait(arrays)
    frame, shared = on(0, tasks.make_mixed, 3), on(0, tasks.make_shared, 4)
    wait([frame, shared])
    name = on(0, tasks.name_of, shared).result()
    wait(arrays := [*arrays, *(on(0, make, 100, i) for i in range(4, 11))])
    fast, slow = client.run(keys, workers=workers[:1])[workers[0]]
    assert {frame.key, shared.key} <= slow
    assert len(fast) + len(slow) == 13  # of 1.1 GB

    def is_freed() -> bool:  # nor kept warm, beyond what the worker may use; one may be on its way
        is_left = not any(name in file for file in processes.files())
        return is_left and sum(sizes("seg") + sizes("warm")) < 0.6 * LIMIT + 110 * MIB

    processes.eventually(is_freed, 10)
    for i, array in enumerate(arrays):
        assert on(0, lambda x, i=i: bool((x == np.arange(i, i + len(x))).all()), array).result()
    found = on(0, lambda x: (type(x), tasks.name_of(x), x.to_pandas()), shared).result()
    assert found[0] is numpush.SDataFrame
    assert found[1] != name  # anew: it is nobody else's
    pd.testing.assert_frame_equal(found[2], tasks.make_frame(4))
    pd.testing.assert_frame_equal(frame.result(), tasks.make_mixed(3))


def test_what_was_spilled_moves_on_to_another_worker(client, workers, on):
    arrays = [on(0, make, 100, i) for i in range(8)]
    wait(arrays)
    assert client.run(keys, workers=workers[:1])[workers[0]][1]
    sums = [on(1, lambda x: int(x[0]) + len(x), array) for array in arrays]
    assert client.gather(sums) == [i + 100 * MIB // 8 for i in range(8)]


@pytest.mark.parametrize("kind", [np.asarray, numpush.SArray])
def test_shared_pages_are_counted_once_and_no_reason_to_spill_or_to_end_a_worker(
    client, workers, on, kind
):
    before = client.run(memory)
    shared = [on(0, lambda i=i: kind(make(100, i))) for i in range(5)]
    wait(shared)
    wait(
        received := on(1, lambda *parts: [float(part.sum()) for part in parts], *shared), timeout=30
    )
    wait(own := on(1, make, 360))

    def difference() -> list[tuple[float, float]]:
        after = client.run(memory)
        return [
            tuple((after[w][i] - before[w][i]) / MIB for i in (0, 1))  # type: ignore[misc]
            for w in workers
        ]

    processes.eventually(lambda: difference()[1][1] > 800, 10)
    counted, _ = zip(*difference())
    assert counted == pytest.approx([250, 250 + 360], abs=60)
    # The kernel counts them in each: more than Dask would have let live.
    assert client.run(memory)[workers[1]][1] > 0.95 * LIMIT
    time.sleep(1)  # in which the nanny looks ten times
    assert not any(slow for _, slow in client.run(keys).values())

    def metrics(dask_scheduler: Any) -> dict[str, int]:
        return {w.address: w.metrics["memory"] for w in dask_scheduler.workers.values()}

    known = client.run_on_scheduler(metrics)
    assert sum(known.values()) < sum(m for m, _ in before.values()) + (5 * 100 + 360 + 60) * MIB
    assert own.status == received.status == "finished"


def test_what_others_are_in_is_spilled_last(client, workers, on):
    there = on(0, make, 200)
    here = on(1, lambda x: x, there)  # the oldest that worker 1 has
    wait(here)
    own = [on(1, make, 100, i) for i in range(8)]
    wait(own)
    fast, slow = client.run(keys, workers=workers[1:])[workers[1]]
    assert here.key in fast
    assert slow & {future.key for future in own}
    names = {on(i, tasks.segment_of, x).result() for i, x in enumerate([there, here])}
    assert len(names) == 1
    assert None not in names


def test_a_worker_is_not_ended_for_memory_that_it_has_freed(client, workers, on):
    """It is kept warm, and mapped: of sizes that nothing later can use."""
    for n_mib in (40, 52, 68, 88, 115, 150, 190, 240):
        wait(on(0, make, n_mib))
        time.sleep(0.15)
    processes.eventually(lambda: sum(sizes("warm")) < 0.6 * LIMIT, 10)
