"""redis://: parts and heads, time to live, damage; watching."""

from __future__ import annotations

import os
import signal
import threading

import numpy as np
import pandas as pd
import pytest

import processes
from layout_samples import N
from numpush import SArray, SDataFrame, stores

pytest_plugins = ["redis_fixtures"]

BIG = np.arange(3_333_333.0)  # seven parts, the last one odd
FRAME = pd.DataFrame(
    {"x": np.arange(N) / 3, "n": np.arange(N), "text": [f"s{i}" for i in range(N)]}
)


def parts_of(client, key="*"):
    return sorted(client.keys(f"numpush:part:{{{key}}}:*"))


class TestReading:
    @pytest.mark.parametrize("chunk", [1 << 12, 1 << 20, (4 << 20) - 3, 64 << 20])
    @pytest.mark.parametrize("form", ["url", "tcp"])
    def test_parts_of_every_size_over_every_socket(self, server, client, chunk, form):
        with stores.open(getattr(server, form), chunk=chunk, checksum=True) as store:
            store.put("a", BIG)
            store.put("f", FRAME)
            assert store.stat("a").more["chunks"] == -(-BIG.nbytes // chunk)
            for _ in range(2):  # into fresh memory, then into warm
                assert np.array_equal(store.get("a"), BIG)
            assert np.array_equal(store.get("a", rows=slice(7, 2_000_001)), BIG[7:2_000_001])
            pd.testing.assert_frame_equal(store.get("f").to_pandas(), FRAME)
            pd.testing.assert_frame_equal(
                store.get("f", columns=["n", "x"]).to_pandas(), FRAME[["n", "x"]]
            )
            array = SArray.zeros(BIG.shape)
            assert np.array_equal(store.get("a", into=array), BIG)

    def test_a_part_moves_only_its_ranges(self, store, client):
        store.put("f", pd.DataFrame(np.ones((100_000, 20))))
        before = client.info("stats")["total_net_output_bytes"]
        store.get("f", columns=[3], rows=slice(10, 20))
        store.stat("f")
        assert client.info("stats")["total_net_output_bytes"] - before < 20_000

    def test_nothing_is_copied_on_the_way(self, store):
        frame = SDataFrame(pd.DataFrame(np.ones((500_000, 20))))
        processes.peak_memory()
        before = processes.peak_memory()
        store.put("f", frame)
        assert processes.peak_memory() - before < 20 << 20
        other = store.get("f")
        assert processes.peak_memory() - before < (80 + 20) << 20
        store.get("f", into=other)
        assert processes.peak_memory() - before < (80 + 20) << 20

    def test_who_reads_what_is_replaced_reads_the_new_one(self, store, client):
        """The parts go while they are read: the progress of the first one replaces the object."""
        with stores.open(store.url, chunk=1 << 20) as other:
            other.put("k", BIG)
            seen = []

            def replace(n):
                if not seen:
                    store.put("k", BIG + 1)
                seen.append(n)

            found = other._get("k", None, None, None, None, replace)
            assert np.array_equal(found, BIG + 1)
            seen.clear()
            into = SArray.zeros(BIG.shape)
            other._get("k", into, None, None, None, replace)
            assert np.array_equal(into, BIG + 1)

    def test_who_reads_what_is_deleted_is_told(self, server, store, client):
        with stores.open(server.url, chunk=1 << 20) as other:
            other.put("k", BIG)
            with pytest.raises(stores.KeyNotFound, match="'k'"):
                other._get("k", None, None, None, None, lambda n: client.flushall())


class TestWriting:
    def test_the_bytes_on_the_server_are_as_documented(self, store, client):
        """Read by hand, as another implementation would."""
        store.put("a/b", BIG)
        store.put("s", np.arange(5))
        head = client.get("numpush:head:{a/b}")
        assert head[:8] == b"\x89NPR\1\0\0\0"
        n_record, chunk = (int.from_bytes(head[i : i + 4], "little") for i in (12, 16))
        generation, size = head[20:36].hex(), int.from_bytes(head[36:44], "little")
        assert (len(head), chunk, size) == (48 + n_record, (4 << 20) - 64, BIG.nbytes)
        names = [f"numpush:part:{{a/b}}:{generation}:{n}" for n in range(7)]
        assert sorted(names) == [name.decode() for name in parts_of(client)]
        assert b"".join(client.mget(names)) == BIG.tobytes()
        assert all(client.ttl(name) == -1 for name in names)
        small = client.get("numpush:head:{s}")
        assert small[48 + int.from_bytes(small[12:16], "little") :] == np.arange(5).tobytes()

    def test_the_server_has_hardly_more_memory_than_bytes(self, store, client):
        before = client.info("memory")["used_memory"]
        store.put("a", BIG)
        used = client.info("memory")["used_memory"] - before
        assert used < 1.1 * BIG.nbytes  # 1.3 with parts of just 4 MiB

    def test_a_put_leaves_nothing_of_what_was_there(self, store, client):
        for obj in (BIG, BIG[:1_000_000], np.arange(3), FRAME, BIG):
            store.put("k", obj)
            assert len(parts_of(client)) == store.stat("k").more["chunks"]
        store.delete("k")
        assert client.keys("*") == [b"numpush:events"]

    def test_what_is_not_dense_is_gathered_by_the_part(self, store):
        array = np.arange(8_000_000.0).reshape(4_000_000, 2)[:, 1]
        processes.peak_memory()
        before = processes.peak_memory()
        store.put("a", array)
        assert processes.peak_memory() - before < 20 << 20
        assert np.array_equal(store.get("a"), array)

    def test_writers_that_race_leave_one_object_and_no_parts(self, store, client):
        arrays = [np.full(100_003 + i, float(i)) for i in range(4)]

        def work(i):
            for _ in range(20):
                store.put("k", arrays[i])

        threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(processes.LIMIT)
        found = store.get("k")
        assert np.array_equal(found, arrays[int(found[0])])
        assert len(parts_of(client)) == 1

    @pytest.mark.parametrize("is_through", [True, False])
    def test_ctrl_c_at_the_switch_leaves_one_or_the_other(
        self, store, client, monkeypatch, is_through
    ):
        store.put("k", BIG)
        real = store._switch

        def interrupted(*args):
            if is_through:
                real(*args)
            raise KeyboardInterrupt

        monkeypatch.setattr(store, "_switch", interrupted)
        with pytest.raises(KeyboardInterrupt):
            store.put("k", BIG + 1)
        assert np.array_equal(store.get("k"), BIG + is_through)
        assert len(parts_of(client)) == 7

    def test_events_that_are_no_stream_are_told_after_the_put(self, store, client):
        client.set("numpush:events", "x")
        with pytest.raises(stores.StoreDamaged, match=r"it is done.*numpush:events"):
            store.put("k", BIG)
        assert np.array_equal(store.get("k"), BIG)
        with pytest.raises(stores.StoreDamaged, match="numpush:events"):
            store.delete("k")
        assert "k" not in store

    def test_keys_that_mean_something_to_redis_are_plain(self, store):
        keys = ["}x", "{", "{a}b", "a*b", "a?b", "[ab]", "^-]", "a\\b", "%7D", "100%", "é ü"]
        for i, key in enumerate(keys):
            store.put(key, np.full(10_000, i))
        assert store.keys() == sorted(keys)
        for i, key in enumerate(keys):
            assert store.get(key)[0] == i
            assert store.keys(key) == [each for each in sorted(keys) if each.startswith(key)]
        assert store.keys("a") == sorted(["a*b", "a?b", "a\\b"])
        for key in keys:
            store.delete(key)
        assert store.keys() == []

    def test_namespaces_do_not_meet(self, server, store, client):
        with stores.open(server.url, namespace="a:b") as other:
            other.put("k", BIG)
            assert "k" not in store
            store.put("k", FRAME)
            assert np.array_equal(other.get("k"), BIG)
            assert other.keys() == store.keys() == ["k"]
        for namespace in ("", "a{b", "a b", "x" * 101, "a*"):
            with pytest.raises(ValueError, match="namespace"):
                stores.open(server.url, namespace=namespace)
        with pytest.raises(TypeError, match="namespace"):
            stores.open(server.url, namespace=3)


class TestTimeToLive:
    @pytest.mark.parametrize("obj", [np.arange(3), BIG], ids=["small", "large"])
    def test_what_is_put_for_a_time_goes_by_itself(self, store, client, obj):
        store.put("k", obj, ttl=1000)
        assert 990 < store.stat("k").more["ttl"] <= 1000
        for part in parts_of(client):
            assert client.ttl(part) > 1000  # whoever read the head can read the parts
        store.put("k", obj)
        assert store.stat("k").more["ttl"] is None
        assert all(client.ttl(part) == -1 for part in parts_of(client))
        store.put("k", obj, ttl=0.05)
        processes.eventually(lambda: "k" not in store)
        with pytest.raises(stores.KeyNotFound, match="'k'"):
            store.get("k")

    def test_wrong_times_are_named(self, store):
        for ttl in (0, -1, float("nan"), float("inf")):
            with pytest.raises(ValueError, match="ttl"):
                store.put("k", np.arange(3), ttl=ttl)
        assert store.keys() == []


class TestDamage:
    def test_every_byte_of_the_head_counts(self, store, client):
        for obj in (FRAME[:5], BIG[:10_000]):
            store.put("f", obj)
            whole = client.get("numpush:head:{f}")
            for at in range(len(whole)):
                damaged = bytearray(whole)
                damaged[at] ^= 0x41
                client.set("numpush:head:{f}", bytes(damaged))
                for call in (store.get, store.stat):
                    with pytest.raises(stores.StoreDamaged, match="'f'"):
                        call("f")
            for damaged in (b"", whole[:20], whole[:-1], whole + b"x"):
                client.set("numpush:head:{f}", damaged)
                with pytest.raises(stores.StoreDamaged):
                    store.get("f")

    def test_parts_of_other_lengths_and_types_are_damage(self, store, client):
        for columns in (None, ["x"]):
            for damaged in (b"x", b"x" * (4 << 20)):
                store.put("f", pd.DataFrame({"x": BIG, "y": BIG}))
                part = next(p for p in parts_of(client) if p.endswith(b":0"))
                client.set(part, damaged[: client.strlen(part) - 1])
                with pytest.raises(stores.StoreDamaged, match=r"'f'.*found"):
                    store.get("f", columns=columns)
        client.delete(part)
        client.rpush(part, "x")
        with pytest.raises(stores.StoreDamaged, match="WRONGTYPE"):
            store.get("f")
        client.delete("numpush:head:{f}")
        client.rpush("numpush:head:{f}", "x")
        with pytest.raises(stores.StoreDamaged, match="WRONGTYPE"):
            store.get("f")

    def test_a_checksum_finds_a_bit_of_the_data(self, server, client):
        with stores.open(server.url, checksum=True) as store:
            store.put("a", BIG)
            client.setrange(parts_of(client)[2], 77, b"\x01")
            with pytest.raises(stores.StoreDamaged, match="CRC-32"):
                store.get("a")

    def test_a_damaged_head_can_be_replaced_and_deleted(self, store, client):
        for repair in (lambda: store.put("k", FRAME), lambda: store.delete("k")):
            store.put("k", BIG)
            lost = parts_of(client)
            client.setrange("numpush:head:{k}", 30, b"damaged")
            repair()
            assert all(0 < client.ttl(part) <= 3600 for part in lost)
        assert store.keys() == []


class TestWatching:
    def test_it_gives_what_is_put_and_deleted_from_now_on(self, store):
        store.put("before", np.arange(3))
        everything, some = store.watch(timeout=0.5), store.watch("a/", timeout=0.5)
        for key in ("a/x", "b", "a/y"):
            store.put(key, np.arange(3))
        store.delete("a/x")
        assert list(everything) == ["a/x", "b", "a/y", "a/x"]
        assert list(some) == ["a/x", "a/y", "a/x"]
        assert list(store.watch(timeout=0)) == []

    def test_it_gives_what_others_put_as_it_happens(self, server, store):
        found = []
        news = store.watch()
        thread = threading.Thread(target=lambda: found.extend(next(news) for _ in range(20)))
        thread.start()
        with stores.open(server.url) as other:
            for i in range(20):
                other.put(f"k{i}", BIG if i == 7 else np.arange(i))
        thread.join(processes.LIMIT)
        assert found == [f"k{i}" for i in range(20)]

    def test_nothing_is_lost_while_the_connection_is(self, server, client, store):
        news = store.watch(timeout=2.0)
        found = []
        for i in range(10):
            client.client_kill_filter(_type="normal", skipme=True)
            with stores.open(server.url) as other:
                other.put(f"k{i}", np.arange(i))
            found.append(next(news))
        assert found == [f"k{i}" for i in range(10)]

    def test_it_ends_with_the_store(self, store):
        news = store.watch()
        store.put("k", np.arange(3))
        assert next(news) == "k"
        store.close()
        with pytest.raises(stores.StoreClosed):
            next(news)

    def test_ctrl_c_ends_it(self, server, client, store):
        pid = processes.fork(watch_until_interrupted, server.url)
        processes.eventually(lambda: "ready" in store)
        os.kill(pid, signal.SIGINT)
        assert processes.wait(pid) == 0


def watch_until_interrupted(url):
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with stores.open(url) as store:
        try:
            store.put("ready", np.arange(3))
            for _ in store.watch():
                pass
        except KeyboardInterrupt:
            return
    raise AssertionError("it ended by itself")
