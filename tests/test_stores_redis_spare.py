"""redis:// with spare=: what a put has replaced is what the next one is written over."""

from __future__ import annotations

import threading

import numpy as np
import pytest

pytest.importorskip("redis", reason='needs redis-py: pip install "numpush[redis]"')

import processes
import redis_servers
from numpush import stores
from redis_servers import Proxy

pytest_plugins = ["redis_fixtures"]

BIG = np.arange(3_333_333.0)  # 26 parts of 1 MB, and an odd one
OPTIONS = {"chunk": 1_000_000, "spare": 30}


@pytest.fixture
def store(server, client):
    with stores.open(server.url, **OPTIONS) as store:
        yield store


def names(client, kind):
    return client.keys(f"numpush:{kind}:*")


def lives(client, kind):
    return [client.ttl(name) for name in names(client, kind)]


def test_memory_of_what_was_replaced_is_used_again(server, store, client):
    faults, used = [], []
    for i in range(5):
        before = page_faults(server.pid)
        store.put("k", BIG + i)
        faults.append(page_faults(server.pid) - before)
        used.append(client.info("memory")["used_memory"])
        assert np.array_equal(store.get("k"), BIG + i)
        assert lives(client, "part") == [-1] * 27
        assert len(names(client, "spare")) == (26 if i else 0)
        assert all(0 < life <= 30 for life in lives(client, "spare"))
    assert max(faults[2:]) < min(faults[:2]) / 4  # all but the odd part, and what is sent
    assert max(used[2:]) < 1.1 * used[1]


def page_faults(pid):
    with open(f"/proc/{pid}/stat") as file:
        return int(file.read().rpartition(")")[2].split()[7])


def test_objects_of_other_sizes_and_parts_are_right(server, store, client):
    sizes = [3_333_333, 1_000_000, 125_000, 100, 3_333_333, 125_001, 3_333_333, 2_000_000, 249_999]
    with stores.open(server.url, chunk=999_999, spare=30) as other:
        for i, n in enumerate(sizes * 2):
            for writer in (store, other) if i % 3 else (store,):
                writer.put("k", BIG[:n] + i)
                assert np.array_equal(store.get("k"), BIG[:n] + i)
                assert set(lives(client, "part")) <= {-1}
    store.delete("k")
    assert names(client, "part") == []
    assert set(lives(client, "spare")).isdisjoint({-1})


def test_what_is_not_used_again_goes(server, client):
    with stores.open(server.url, chunk=1_000_000, spare=0.2) as store:
        store.put("k", BIG)
        store.put("k", BIG + 1)
        processes.eventually(lambda: not names(client, "spare"))
        store.put("k", BIG + 2)
        assert np.array_equal(store.get("k"), BIG + 2)


def test_spares_that_go_in_the_middle_are_not_missed(store, client):
    for i in range(3):
        store.put("k", BIG + i)
    told = []

    def tell(n):
        told.append(n)
        if len(told) == 5:
            assert len(names(client, "spare")) > 10
            client.delete(*names(client, "spare"))
            assert set(lives(client, "part")) != {-1}
            assert all(life == -1 or 30 < life <= 3600 for life in lives(client, "part"))

    store._put("k", BIG + 3, tell)
    assert sum(told) == BIG.nbytes
    assert np.array_equal(store.get("k"), BIG + 3)
    assert lives(client, "part") == [-1] * 27


def test_writers_at_once_and_readers_see_whole_objects(server, store):
    arrays = [np.full(300_007 + 50_000 * i, float(i)) for i in range(3)]
    store.put("k", arrays[0])
    wrong = []

    def write(i):
        with stores.open(server.url, chunk=100_000, spare=30) as mine:
            for _ in range(15):
                mine.put("k", arrays[i])

    def read():
        while any(writer.is_alive() for writer in writers):
            found = np.asarray(store.get("k"))
            if not np.array_equal(found, arrays[int(found[0])]):
                wrong.append(found)

    writers = [threading.Thread(target=write, args=(i,)) for i in range(3)]
    reader = threading.Thread(target=read)
    for thread in (*writers, reader):
        thread.start()
    for thread in (*writers, reader):
        thread.join(processes.LIMIT)
    assert wrong == []


@pytest.mark.parametrize("reply", [1, 2, 3, 4, 30, 61, 104])
def test_a_connection_that_is_lost_in_the_middle_is_made_again(server, client, reply):
    with Proxy(server) as proxy, stores.open(proxy.url, **OPTIONS) as store:
        for i in range(3):
            store.put("k", BIG + i)
        left, cuts = [reply], []

        def cut(data, count):
            left[0] -= data.count(b"\r\n")
            if left[0] <= 0 and not cuts:
                cuts.append(count)
                return b""
            return data

        proxy.harm = cut
        store.put("k", BIG + 3)
        proxy.harm = redis_servers.unharmed
        assert cuts
        assert np.array_equal(store.get("k"), BIG + 3)
        assert lives(client, "part") == [-1] * 27


def test_a_part_that_came_out_longer_is_refused(server, store, client):
    store.put("k", BIG)
    store.put("k", BIG + 1)
    client.append("numpush:spare:{k}:1000000:3", b"x")
    with pytest.raises(stores.StoreUnavailable, match="1000000 bytes written, 1000001 there"):
        store.put("k", BIG + 2)
    assert np.array_equal(store.get("k"), BIG + 1)
    store.put("k", BIG + 2)
    assert np.array_equal(store.get("k"), BIG + 2)
    assert lives(client, "part") == [-1] * 27
