"""redis://: servers that die, fill up, evict and lie; writers that are killed."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import time

import numpy as np
import pytest
import redis

import processes
import redis_servers
from numpush import stores
from redis_servers import Proxy, running

pytest_plugins = ["redis_fixtures"]

BIG = np.arange(3_333_333.0)  # 27 parts of 1 MB
ONCE = redis.retry.Retry(redis.backoff.NoBackoff(), 1)
FAST = {"socket_timeout": 0.5, "retry": ONCE}
PARTS = {"chunk": 1_000_000}


def parts_of(client):
    return client.keys("numpush:part:*")


def after(n_bytes, do):
    """Return what is to be told of progress, which does something once, in the middle."""
    told = [0]

    def tell(n):
        before, told[0] = told[0], told[0] + n
        if before <= n_bytes < told[0]:
            do()

    return tell


class TestDyingServers:
    @pytest.mark.parametrize("keeps", [True, False])
    def test_a_server_that_is_started_again_in_the_middle_of_a_put(self, tmp_path, keeps):
        with running(tmp_path, keeps=keeps) as server, stores.open(server.url, **PARTS) as store:

            def restart():
                server.kill()
                server.start()

            store._put("k", BIG, after(5_000_000, restart))
            assert np.array_equal(store.get("k"), BIG)
            with server.client() as client:
                assert len(parts_of(client)) == 27
                assert all(client.ttl(part) == -1 for part in parts_of(client))

    @pytest.mark.parametrize("keeps", [True, False])
    def test_a_server_that_is_started_again_in_the_middle_of_a_get(self, tmp_path, keeps):
        with running(tmp_path, keeps=keeps) as server, stores.open(server.url, **PARTS) as store:
            store.put("k", BIG)

            def restart():
                server.kill()
                server.start()

            tell = after(5_000_000, restart)
            if keeps:
                found = store._get("k", None, None, None, None, tell)
                assert np.array_equal(found, BIG)
            else:
                with pytest.raises(stores.KeyNotFound, match="'k'"):
                    store._get("k", None, None, None, None, tell)

    def test_a_server_that_stays_away_is_unavailable_and_what_was_there_stays(self, tmp_path):
        with (
            running(tmp_path, keeps=True) as server,
            stores.open(server.url, **PARTS, **FAST) as store,
        ):
            store.put("k", BIG)
            with pytest.raises(stores.StoreUnavailable, match="'k'"):
                store._put("k", BIG + 1, after(5_000_000, server.kill))
            for call in (store.get, store.delete, store.stat, lambda key: store.put(key, BIG)):
                with pytest.raises(stores.StoreUnavailable, match="'k'"):
                    call("k")
            with pytest.raises(stores.StoreUnavailable):
                store.keys()
            server.start()
            assert np.array_equal(store.get("k"), BIG)
            with pytest.raises(stores.StoreUnavailable):
                store._get("k", None, None, None, None, after(5_000_000, server.kill))
            with pytest.raises(stores.StoreUnavailable), stores.open(server.url, **FAST):
                pass

    def test_a_server_that_hangs_is_given_up(self, tmp_path):
        with running(tmp_path) as server, stores.open(server.url, **PARTS, **FAST) as store:
            store.put("k", BIG)
            pid = server.pid
            for call in (
                lambda: store._get(
                    "k", None, None, None, None, after(5_000_000, lambda: os.kill(pid, 19))
                ),
                lambda: store._put("k", BIG + 1, after(5_000_000, lambda: os.kill(pid, 19))),
            ):
                with pytest.raises(stores.StoreUnavailable, match="'k'"):
                    call()
                os.kill(pid, signal.SIGCONT)
                assert np.array_equal(store.get("k"), BIG)


class TestLyingServers:
    def test_a_connection_that_is_cut_is_taken_up_where_it_was(self, server, store):
        store.put("k", BIG)
        with Proxy(server) as proxy, stores.open(proxy.url) as other:
            cuts = [10_000_000, 100_001]

            def cut(data, count):
                if cuts and count > cuts[-1]:
                    cuts.pop()
                    return b""
                return data

            proxy.harm = cut
            assert np.array_equal(other.get("k"), BIG)
            assert cuts == []

    @pytest.mark.parametrize("harm", [b"", None], ids=["cut", "stalled"])
    @pytest.mark.parametrize("at", [100, 100_000, 9_000_000])
    def test_one_that_never_ends_a_reply_is_unavailable(self, server, store, harm, at):
        store.put("k", BIG)
        before = processes.files()
        with Proxy(server) as proxy, stores.open(proxy.url, **FAST) as other:
            proxy.harm = lambda data, count: data if count < at else harm
            with pytest.raises(stores.StoreUnavailable, match="'k'"):
                other.get("k")
            proxy.harm = redis_servers.unharmed
            gc.collect()  # from Python 3.13 on the error's traceback is in a cycle
            assert processes.files() == before
            assert np.array_equal(other.get("k"), BIG)

    def test_one_that_goes_in_the_middle_of_the_switch_is_unavailable(self, server, store):
        store.put("k", BIG)
        with Proxy(server) as proxy, stores.open(proxy.url, **PARTS, **FAST) as other:
            watched = []

            def harm(data, count):
                if watched:
                    return b""
                if data == b"+OK\r\n":
                    watched.append(True)  # the reply to WATCH, and the last one
                return data

            with pytest.raises(stores.StoreUnavailable, match="'k'"):
                other._put(
                    "k", BIG + 1, after(BIG.nbytes - 1, lambda: setattr(proxy, "harm", harm))
                )
            assert watched
            assert np.array_equal(store.get("k"), BIG)

    @pytest.mark.parametrize("spare", [0, 60])
    @pytest.mark.parametrize("replies", [1, 2, 3, 4, 5])
    def test_a_connection_that_is_lost_in_the_switch_is_made_again(
        self, server, store, replies, spare
    ):
        """Also when the server has done it, and its reply is what was lost."""
        with Proxy(server) as proxy, stores.open(proxy.url, **PARTS, spare=spare) as other:
            for obj in (BIG, BIG + 1):
                left = [replies]

                def harm(data, count, left=left):
                    left[0] -= 1
                    return b"" if left[0] == 0 else data

                other._put("k", obj, after(BIG.nbytes - 1, lambda: setattr(proxy, "harm", harm)))
                proxy.harm = redis_servers.unharmed
                assert np.array_equal(store.get("k"), obj)
            with server.client() as client:
                lives = [client.ttl(part) for part in parts_of(client)]
            assert lives == [-1] * 27
            left = [replies]
            proxy.harm = harm
            other.delete("k")
            assert "k" not in store

    @pytest.mark.parametrize(
        ("old", "new", "kind"),
        [
            (b"$4194240\r\n", b"$4194239\r\n", stores.StoreDamaged),
            (b"$4194240\r\n", b"$9999999999\r\n", stores.StoreDamaged),
            (b"$4194240\r\n", b"$-1\r\n", stores.StoreDamaged),
            (b"$4194240\r\n", b"$x\r\n", stores.StoreUnavailable),
            (b"$4194240\r\n", b"$\r\n", stores.StoreUnavailable),
            (b"$4194240\r\n", b"*4194240\r\n", stores.StoreUnavailable),
            (b"$4194240\r\n", b"x" * 5000, stores.StoreUnavailable),
            (b"$4194240\r\n", b"-ERR no\r\n", stores.StoreUnavailable),
            (b"$4194240\r\n", b"-LOADING wait\r\n", stores.StoreUnavailable),
            (b"\r\n$4194240\r\n", b"xx$4194240\r\n", stores.StoreUnavailable),
        ],
    )
    def test_replies_that_are_none_are_named(self, server, store, old, new, kind):
        store.put("k", BIG)
        with Proxy(server) as proxy, stores.open(proxy.url, **FAST) as other:
            proxy.harm = lambda data, count: data.replace(old, new)
            with pytest.raises(kind, match="'k'"):
                other.get("k")
            proxy.harm = redis_servers.unharmed
            assert np.array_equal(other.get("k"), BIG)  # the connection was dropped

    def test_random_damage_never_gives_what_was_not_put(self, server, client):
        rng = np.random.default_rng(1)
        with (
            Proxy(server) as proxy,
            stores.open(proxy.url, checksum=True, chunk=10_000, **FAST) as store,
        ):
            store.put("k", BIG[:50_000])
            for _ in range(60):
                hit = int(rng.integers(0, 450_000))

                def harm(data, count, hit=hit):
                    if count <= hit < count + len(data):
                        data = bytearray(data)
                        data[hit - count] ^= 0x10
                    return bytes(data)

                client.client_kill_filter(_type="normal", skipme=True)
                proxy.harm = harm
                with contextlib.suppress(stores.StoreError):
                    assert np.array_equal(store.get("k"), BIG[:50_000])


class TestFullServers:
    def test_no_room_leaves_what_was_there_and_no_parts(self, tmp_path):
        with (
            running(tmp_path, "--maxmemory", "60mb") as server,
            stores.open(server.url, **PARTS) as store,
            server.client() as client,
        ):
            store.put("k", BIG)
            store.put("small", np.arange(3))
            for _ in range(2):
                with pytest.raises(stores.StoreFull, match=r"'k'.*maxmemory"):
                    store.put("k", np.concatenate([BIG, BIG]))
                assert len(parts_of(client)) == 27
            assert np.array_equal(store.get("k"), BIG)
            client.config_set("maxmemory", "1mb")
            with pytest.raises(stores.StoreFull, match="'small'"):
                store.put("small", np.arange(4))
            assert store.get("small").tolist() == [0, 1, 2]
            store.delete("k")  # a full server still deletes
            assert store.keys() == ["small"]
            assert parts_of(client) == []

    def test_what_was_evicted_is_not_found_and_never_torn(self, tmp_path):
        options = ("--maxmemory", "40mb", "--maxmemory-policy", "allkeys-random")
        with running(tmp_path, *options) as server, stores.open(server.url, **PARTS) as store:
            there, said = {}, []
            for i in range(6):
                with contextlib.suppress(stores.StoreFull):
                    store.put(f"k{i}", BIG + i)
            for i in range(6):
                try:
                    there[i] = store.get(f"k{i}")
                except stores.KeyNotFound as error:
                    said.append(str(error))
            assert all("evicted" in each or "there is none" in each for each in said)
            assert all(np.array_equal(found, BIG + i) for i, found in there.items())
            assert len(there) < 3

    def test_a_server_that_evicts_the_parts_of_a_put_is_full(self, tmp_path):
        options = ("--maxmemory", "40mb", "--maxmemory-policy", "volatile-ttl")
        with running(tmp_path, *options) as server, stores.open(server.url, **PARTS) as store:
            store.put("k", BIG)
            with pytest.raises(stores.StoreFull, match=r"'other'.*evicts"):
                store.put("other", BIG)
            assert np.array_equal(store.get("k"), BIG)
            assert "other" not in store


class TestKilledWriters:
    @pytest.mark.crash
    @pytest.mark.parametrize("spare", [0, 60])
    def test_they_leave_one_or_the_other_and_parts_that_expire(self, server, client, store, spare):
        ones, twos = np.ones(500_003), np.full(700_003, 2.0)
        store.put("k", ones)
        rng = np.random.default_rng(1)
        n_orphans = 0
        for _ in range(40):
            pid = processes.fork(write_for_ever, server.url, spare, ones, twos)
            time.sleep(rng.uniform(0.02, 0.2))
            os.kill(pid, signal.SIGKILL)
            processes.wait(pid)
            found = store.get("k")
            assert len(found) in (500_003, 700_003)
            assert (found == (1 if len(found) == 500_003 else 2)).all()
            lives = [client.ttl(part) for part in parts_of(client)]
            assert lives.count(-1) == store.stat("k").more["chunks"]
            assert all(0 < life <= 100 for life in lives if life != -1)
            n_orphans += len(lives) - lives.count(-1)
        assert n_orphans > 0


def write_for_ever(url, spare, ones, twos):
    with stores.open(url, chunk=100_000, orphans=100, spare=spare) as store:
        while True:
            store.put("k", twos)
            store.put("k", ones)
