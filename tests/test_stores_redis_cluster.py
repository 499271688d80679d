"""redis+cluster:// on a cluster of three real nodes: the contract's main points, moved slots, dead nodes."""

from __future__ import annotations

import multiprocessing
import threading
import time

import numpy as np
import pandas as pd
import pytest

pytest.importorskip("redis", reason='needs redis-py: pip install "numpush[redis]"')

import redis_servers
from numpush import SArray, SDataFrame, stores

BIG = np.arange(700_003.0)  # of two parts
FRAME = pd.DataFrame({"x": np.arange(3333) / 7, "text": [f"s{i}" for i in range(3333)]})
KEYS = [f"k/{i}" for i in range(12)]  # on all nodes


@pytest.fixture(scope="module")
def nodes(tmp_path_factory):
    with redis_servers.cluster(tmp_path_factory.mktemp("cluster")) as made:
        yield made


@pytest.fixture
def store(nodes, request):
    url = f"redis+cluster://127.0.0.1:{nodes[0].port}"
    with stores.open(url, namespace=request.node.name) as made:
        yield made


def owner(nodes, store, key):
    """Return the node that has an object, and its slot."""
    name = store._open(store._cluster.get_primaries()[0]).names.head(key)
    port = store._cluster.get_node_from_key(name).port
    return next(node for node in nodes if node.port == port), store._cluster.keyslot(name)


def test_objects_are_spread_and_come_back(nodes, store):
    for i, key in enumerate(KEYS):
        store.put(key, BIG + i)
    store.put("f", SDataFrame(FRAME))
    assert len({owner(nodes, store, key)[0].port for key in KEYS}) == 3
    for i, key in enumerate(KEYS):
        assert np.array_equal(store.get(key), BIG + i)
    pd.testing.assert_frame_equal(store.get("f").to_pandas(), FRAME)
    pd.testing.assert_frame_equal(
        store.get("f", columns=["x"], rows=slice(5, 9)).to_pandas(), FRAME[["x"]][5:9]
    )
    assert np.array_equal(store.get(KEYS[0], into=SArray.zeros(BIG.shape)), BIG)
    assert store.keys("k/") == sorted(KEYS)
    assert store.stat("f").shape == FRAME.shape
    store.put(KEYS[0], BIG[:5], ttl=60)
    assert 0 < store.stat(KEYS[0]).more["ttl"] <= 60
    store.delete(KEYS[1])
    assert KEYS[1] not in store
    with pytest.raises(stores.KeyNotFound, match=rf"'{KEYS[1]}' of redis\+cluster://"):
        store.get(KEYS[1])


def read(store, key):
    return float(store.get(key).sum())


def test_it_travels(store):
    store.put("a", BIG)
    for method in ("fork", "spawn"):
        with multiprocessing.get_context(method).Pool(1) as pool:
            assert pool.apply(read, (store, "a")) == BIG.sum()


def test_watching_tells_of_all_nodes(store):
    found = []

    def watch():
        for key in store.watch("k/", timeout=20):
            found.append(key)
            if len(found) == len(KEYS):
                return

    watcher = threading.Thread(target=watch)
    watcher.start()
    time.sleep(0.5)
    for key in KEYS:
        store.put(key, BIG[:10])
    watcher.join(30)
    assert found == KEYS


def test_a_slot_that_has_moved_is_found(nodes, store):
    store.put("a", BIG)
    old, slot = owner(nodes, store, "a")
    new = next(node for node in nodes if node is not old)
    with old.client() as source, new.client() as target:
        ids = [client.execute_command("CLUSTER MYID").decode() for client in (source, target)]
        target.execute_command("CLUSTER SETSLOT", slot, "IMPORTING", ids[0])
        source.execute_command("CLUSTER SETSLOT", slot, "MIGRATING", ids[1])
        keys = source.execute_command("CLUSTER GETKEYSINSLOT", slot, 1000)
        assert len(keys) >= 3  # head and parts, and those of other tests
        source.execute_command("MIGRATE", "127.0.0.1", new.port, "", 0, 10000, "KEYS", *keys)
        for node in nodes:
            with node.client() as client:
                client.execute_command("CLUSTER SETSLOT", slot, "NODE", ids[1])
    assert np.array_equal(store.get("a"), BIG)
    store.put("a", BIG + 1)
    assert np.array_equal(store.get("a"), BIG + 1)
    assert owner(nodes, store, "a")[0] is new


def test_a_dead_node_is_named_and_the_others_work(tmp_path):
    with (
        redis_servers.cluster(tmp_path) as nodes,
        stores.open(f"redis+cluster://127.0.0.1:{nodes[0].port}") as store,
    ):
        for key in KEYS:
            store.put(key, BIG[:100])
        dead = nodes[1]
        lost = [key for key in KEYS if owner(nodes, store, key)[0] is dead]
        dead.kill()
        with pytest.raises(stores.StoreUnavailable, match=r"redis\+cluster://"):
            store.get(lost[0])
        for key in KEYS:
            if key not in lost:
                assert np.array_equal(store.get(key), BIG[:100])


def test_no_cluster_says_so(tmp_path):
    with pytest.raises(stores.StoreUnavailable, match=r"redis\+cluster://"):
        stores.open(f"redis+cluster://127.0.0.1:{redis_servers.free_port()}")
    with (
        redis_servers.running(tmp_path) as server,
        pytest.raises(stores.StoreUnavailable, match=r"redis\+cluster://"),
    ):
        stores.open(f"redis+cluster://127.0.0.1:{server.port}")
