"""Both ends of a link are killed at random moments, and stopped; what they leave is looked at."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import time

import numpy as np
import pandas as pd
import pytest

import processes
from ingest_links import LIMIT, options_of, threads, url_of
from numpush import SArray, WaitTimeout, ingest

SIZES = (100, 3333, 50_000, 400_000)  #: elements: in an arena and in segments of their own
N_KILLS = 60


def send_for_ever(url, seed, options):
    """Send arrays that say what they are to hold, by every way."""
    rng = random.Random(seed)
    ways = {"io": rng.choice(ingest_ways()), "checksum": rng.random() < 0.2}
    with ingest.connect(url, **ways, **options) as link:
        while True:
            size = rng.choice(SIZES)
            link.send(np.full(size, size, "i4"))


def ingest_ways():
    return ["auto", "send", "sendfile"]


def receive_for_ever(url):
    with ingest.listen(url) as link:
        for array in link:
            check(array)


def check(array):
    assert type(array) is SArray
    assert len(array) in SIZES
    assert (array == len(array)).all()


@pytest.mark.crash
class TestKilled:
    @pytest.mark.parametrize("transport", ["tcp", "tls", "unix"])
    def test_senders(self, transport, tmp_path):
        rng = random.Random(5)
        for_listen, for_connect = options_of(transport)
        with ingest.listen(url_of(transport, tmp_path), **for_listen) as link:
            for i in range(N_KILLS):
                pid = processes.fork(send_for_ever, link.url, i, for_connect)
                until = time.monotonic() + rng.random() * 0.15 + 0.05
                while time.monotonic() < until:
                    try:
                        check(link.recv(0.01))
                    except WaitTimeout:
                        continue
                os.kill(pid, signal.SIGKILL)
                assert processes.wait(pid) == -signal.SIGKILL
            processes.eventually(lambda: len(threads()) == 1)
            while True:
                try:
                    check(link.recv(0))
                except WaitTimeout:
                    break
            told = link.statistics()
            assert told.objects > N_KILLS
            assert all(isinstance(error, ingest.PeerGone) for _, error in told.failures)
        processes.collect_garbage()

    def test_receivers(self, tmp_path):
        rng = random.Random(6)
        url = f"unix://{tmp_path}/link.sock"
        for _ in range(N_KILLS):
            pid = processes.fork(receive_for_ever, url)
            with ingest.connect(url) as link:
                until = time.monotonic() + rng.random() * 0.15
                killed = False
                try:
                    while True:
                        size = rng.choice(SIZES)
                        link.send(np.full(size, size, "i4"))
                        if time.monotonic() > until and not killed:
                            os.kill(pid, signal.SIGKILL)
                            killed = True
                except ingest.PeerGone:
                    pass
            assert processes.wait(pid) == -signal.SIGKILL
            assert not threads()
        processes.collect_garbage()


@pytest.mark.parametrize("stopped", ["sender", "receiver"])
def test_who_is_stopped_goes_on_where_it_was(tmp_path, stopped):
    url = f"unix://{tmp_path}/link.sock"
    if stopped == "sender":
        with ingest.listen(url) as link:
            pid = processes.fork(send_some, url)
            os.kill(pid, signal.SIGSTOP)
            time.sleep(0.3)
            os.kill(pid, signal.SIGCONT)
            for _ in range(50):
                check(link.recv(LIMIT))
            assert processes.wait(pid) == 0
    else:
        pid = processes.fork(receive_some, url)
        with ingest.connect(url) as link:
            for i in range(50):
                link.send(np.full(50_000, 50_000, "i4"))
                if i == 10:
                    os.kill(pid, signal.SIGSTOP)
                    time.sleep(0.3)
                    os.kill(pid, signal.SIGCONT)
        assert processes.wait(pid) == 0


def send_some(url):
    with ingest.connect(url) as link:
        for i in range(50):
            size = SIZES[i % len(SIZES)]
            link.send(np.full(size, size, "i4"))


def receive_some(url):
    with ingest.listen(url) as link:
        for _ in range(50):
            check(link.recv(LIMIT))


def total(part):
    part["y"] = part["x"] * 2
    return float(part["y"].sum())


def test_a_pool_works_on_what_lands(ctx):
    """Pools that were started while objects were landing, and before."""
    frame = pd.DataFrame({"x": np.arange(99_999.0), "y": 0.0})
    with ingest.listen("tcp://127.0.0.1:0") as link, ingest.connect(link.url) as out:
        for _ in range(4):
            out.send(frame)
        with ctx.Pool(2) as pool:
            for _ in range(4):
                landed = link.recv(LIMIT)
                assert sum(pool.map(total, landed.partitions(4))) == 2 * frame["x"].sum()
                assert landed["y"].iloc[-1] == 2 * 99_998
            pool.close()
            pool.join()


def run_in_child(url, queue):
    with ingest.listen(url) as link:
        queue.put(link.recv(LIMIT))
        queue.close()
        queue.join_thread()


def test_what_landed_outlives_who_received_it(ctx, tmp_path):
    """A worker receives, hands over, and exits at once."""
    url = f"unix://{tmp_path}/link.sock"
    queue = ctx.Queue()
    worker = ctx.Process(target=run_in_child, args=(url, queue))
    worker.start()
    with ingest.connect(url) as link:
        link.send(np.arange(100_000))
    got = queue.get(timeout=LIMIT)
    processes.join(worker)
    assert got[-1] == 99_999
    queue.close()
    assert multiprocessing.active_children() == []
