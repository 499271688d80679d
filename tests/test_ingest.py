"""One conformance test over every transport: what is sent arrives, whole, once, in order, shared."""

from __future__ import annotations

import asyncio
import errno
import threading
import time

import numpy as np
import pandas as pd
import pytest

import numpush.ffi.stream
import processes
from ingest_links import LIMIT, TRANSPORTS, link, threads, url_of
from numpush import SArray, SDataFrame, SSeries, WaitTimeout, ingest

ARRAYS = {
    "small": np.arange(3333, dtype="i4"),
    "large": np.random.default_rng(1).random(1 << 19),
    "C": np.arange(60_000.0).reshape(200, 300),
    "F": np.asfortranarray(np.arange(60_000.0).reshape(200, 300)),
    "every third": np.arange(99_999)[::3],
    "reversed": np.arange(99_999)[::-1],
    "part of rows": np.arange(60_000.0).reshape(200, 300)[3:190:2, 5:77],
    "empty": np.zeros((0, 3)),
    "0-d": np.array(2.5),
    "bool": np.arange(999) % 2 == 0,
    "big-endian": np.arange(999, dtype=">f8"),
    "text": np.array(["a", "bc", ""]),
    "dates": np.array(["2026-11-28", "NaT"], "M8[s]"),
    "records": np.array([(1, 2.5)] * 999, [("a", "i1"), ("b", "f8")]),
    "complex": np.arange(999) * 1j,
}


def mixed_frame(n=3333):
    return pd.DataFrame(
        {
            "x": np.arange(n) / 7,
            "n": np.arange(n),
            "text": [f"row {i}" for i in range(n)],
            "kind": pd.Categorical(["a", "b", "c"] * (n // 3), ordered=True),
            "when": pd.date_range("2026-01-01", periods=n, freq="s", tz="Europe/Paris"),
            "maybe": pd.array([1, None, 3] * (n // 3), dtype="Int64"),
        },
        index=pd.Index(np.arange(n) * 2, name="id"),
    )


@pytest.fixture(params=TRANSPORTS)
def ends(request, tmp_path):
    with link(request.param, tmp_path) as both:
        yield both


@pytest.fixture
def transport():
    """The one for tests that need not run over each; tests/tipc has others."""
    return "tcp"


@pytest.fixture
def pair(transport, tmp_path):
    with link(transport, tmp_path) as both:
        yield both


@pytest.fixture
def url(transport, tmp_path):
    return url_of(transport, tmp_path)


@pytest.fixture
def known_url(tmp_path):
    """One that is known before anybody listens there."""
    return url_of("unix", tmp_path)


class TestObjects:
    def test_arrays_of_every_kind(self, ends):
        listener, connection = ends
        for name, array in ARRAYS.items():
            connection.send(array)
            got = listener.recv(LIMIT)
            assert type(got) is SArray, name
            assert got.dtype == array.dtype, name
            assert got.shape == array.shape, name
            assert np.array_equal(got, array, equal_nan=array.dtype.kind in "fM"), name
            assert got.flags.writeable

    def test_frames_and_series(self, ends):
        listener, connection = ends
        frame = mixed_frame()
        frame.attrs["from"] = "a test"
        for obj in (frame, SDataFrame(frame), frame.iloc[::2], frame[["x", "n"]], frame.iloc[:0]):
            connection.send(obj)
            got = listener.recv(LIMIT)
            assert type(got) is SDataFrame
            pd.testing.assert_frame_equal(got.to_pandas(), pd.DataFrame(obj))
            assert got.attrs == obj.attrs
        for series in (frame["x"], frame["text"], SSeries(frame["when"]), frame["kind"].iloc[5:50]):
            connection.send(series)
            got = listener.recv(LIMIT)
            assert type(got) is SSeries
            pd.testing.assert_series_equal(got.to_pandas(), pd.Series(series))

    def test_shared_views_and_partitions(self, ends):
        listener, connection = ends
        shared = SArray(np.arange(200_000.0).reshape(500, 400))
        for view in (shared, shared[100:200], shared[:, ::2], shared.T):
            connection.send(view)
            assert np.array_equal(listener.recv(LIMIT), view)
        parts = SDataFrame(mixed_frame()).partitions(3)
        for part in parts:
            connection.send(part)
            pd.testing.assert_frame_equal(listener.recv(LIMIT).to_pandas(), part.to_pandas())

    def test_both_ends_send_and_receive(self, ends):
        listener, connection = ends
        connection.send(np.arange(5))
        listener.recv(LIMIT)
        listener.send(np.arange(70_000))
        assert connection.recv(LIMIT)[-1] == 69_999

    def test_what_landed_is_shared(self, pair):
        listener, connection = pair
        for array in (np.zeros(10), np.zeros(100_000)):  # in an arena, in a segment of its own
            connection.send(array)
            got = listener.recv(LIMIT)
            child = processes.fork(got.__setitem__, slice(2, 4), 7.0)
            assert processes.wait(child) == 0
            assert got[1:5].tolist() == [0, 7, 7, 0]
            with got.lock:
                pass

    def test_small_arrays_keep_apart(self, pair):
        listener, connection = pair
        sent = [np.full(size % 97 + 1, size, "u2") for size in range(3333)]
        for array in sent:
            connection.send(array)
        got = [listener.recv(LIMIT) for _ in sent]
        got[5][:] = 0
        assert len({array.name for array in got}) < 20
        assert all(np.array_equal(a, b) for i, (a, b) in enumerate(zip(sent, got)) if i != 5)

    def test_a_sender_may_change_what_it_has_sent(self, transport, tmp_path):
        for io in ("auto", "send", "sendfile"):
            with link(transport, tmp_path, io=io) as (listener, connection):
                shared = SArray(np.zeros(1 << 20))
                for i in range(8):
                    shared[:] = i
                    connection.send(shared)
                for i in range(8):
                    got = listener.recv(LIMIT)
                    assert got[0] == got[-1] == i
                    assert (got == i).all(), io

    @pytest.mark.parametrize("io", ["auto", "splice", "recv"])
    @pytest.mark.parametrize("transport", ["tcp", "unix"])
    def test_every_way_of_receiving(self, transport, io, tmp_path):
        array = np.random.default_rng(3).integers(0, 256, 3_333_333, "u1")
        with link(transport, tmp_path, io=io) as (listener, connection):
            for size in (1, 4095, 4096, 65_537, 3_333_333, 3_333_333):
                connection.send(array[:size])
                assert np.array_equal(listener.recv(LIMIT), array[:size])

    @pytest.mark.parametrize("io", ["auto", "splice"])
    def test_where_splice_is_not_to_be_had_recv_is(self, io, tmp_path, monkeypatch):
        tried = []

        def no_splice(*args):
            tried.append(args)
            return 0, errno.EINVAL

        monkeypatch.setattr(numpush.ffi.stream, "splice", no_splice)
        with link("tcp", tmp_path, io=io) as (listener, connection):
            for _ in range(3):
                connection.send(np.arange(100_000))
                assert listener.recv(LIMIT)[-1] == 99_999
        assert len(tried) == 1

    def test_compressed_and_with_checksums(self, transport, tmp_path):
        frame = mixed_frame(99_999)
        for options in ({"checksum": True}, {"compress": "lz4"}, {"compress": "zstd"}):
            with link(transport, tmp_path, **options) as (listener, connection):
                connection.send(frame)
                pd.testing.assert_frame_equal(listener.recv(LIMIT).to_pandas(), frame)
                for array in ARRAYS.values():
                    connection.send(array)
                    assert listener.recv(LIMIT).tobytes() == array.tobytes()

    def test_what_cannot_be_sent_says_so_and_nothing_is_lost(self, pair):
        listener, connection = pair
        with pytest.raises(TypeError, match="column 'o'"):
            connection.send(pd.DataFrame({"o": [object()]}))
        for obj in ([1, 2], "text", {"a": 1}, pd.Index([1, 2]), np.array([None])):
            with pytest.raises(TypeError):
                connection.send(obj)
        connection.send(np.arange(3))
        assert listener.recv(LIMIT).tolist() == [0, 1, 2]


class TestLinks:
    def test_one_object_each_way(self, known_url):
        got = []
        receiver = threading.Thread(
            target=lambda: got.append(ingest.recv(known_url, timeout=LIMIT))
        )
        receiver.start()
        ingest.send(known_url, mixed_frame(), timeout=LIMIT)
        receiver.join(LIMIT)
        pd.testing.assert_frame_equal(got[0].to_pandas(), mixed_frame())

    def test_who_connects_may_come_first(self, known_url):
        found = []
        early = threading.Thread(
            target=lambda: found.append(ingest.connect(known_url, timeout=LIMIT))
        )
        early.start()
        time.sleep(0.1)
        with ingest.listen(known_url) as listener:
            early.join(LIMIT)
            with found[0] as connection:
                connection.send(np.arange(3))
            assert listener.recv(LIMIT).tolist() == [0, 1, 2]

    def test_iteration_ends_with_the_goodbye(self, pair):
        listener, connection = pair
        for i in range(5):
            listener.send(np.full(3, i))
        listener.flush(LIMIT)
        for peer in listener._hub.peers:
            peer.say_bye()
            peer.stop()
        assert [int(array[0]) for array in connection] == [0, 1, 2, 3, 4]
        with pytest.raises(ingest.PeerGone, match="goodbye"):
            connection.recv(LIMIT)

    def test_iteration_of_a_listener_ends_when_it_is_closed(self, url):
        listener = ingest.listen(url)
        closer = threading.Timer(0.2, listener.close)
        closer.start()
        assert list(listener) == []
        closer.join()
        with pytest.raises(ingest.LinkClosed):
            listener.recv()
        with pytest.raises(ingest.LinkClosed):
            listener.send(np.arange(3))

    def test_several_peers_at_once(self, url):
        n_peers, n_each = 8, 40
        with ingest.listen(url) as listener:

            def run(peer):
                with ingest.connect(listener.url) as connection:
                    for i in range(n_each):
                        connection.send(np.full(1 + 3333 * (i % 7), 1000 * peer + i))

            peers = [threading.Thread(target=run, args=(peer,)) for peer in range(n_peers)]
            for peer in peers:
                peer.start()
            got = [int(listener.recv(LIMIT)[0]) for _ in range(n_peers * n_each)]
            for peer in peers:
                peer.join(LIMIT)
        for peer in range(n_peers):  # of each in its order
            mine = [value - 1000 * peer for value in got if value // 1000 == peer]
            assert mine == list(range(n_each))

    def test_objects_go_to_each_peer_in_turn(self, url):
        with ingest.listen(url) as listener:
            with pytest.raises(WaitTimeout, match="no peer"):
                listener.send(np.arange(3), timeout=0.05)
            with ingest.connect(listener.url) as first, ingest.connect(listener.url) as second:
                processes.eventually(lambda: len(listener.statistics().peers) == 2)
                for i in range(10):
                    listener.send(np.full(3, i))
                listener.flush(LIMIT)
                got = [[int(each.recv(LIMIT)[0]) for _ in range(5)] for each in (first, second)]
        assert sorted(got[0] + got[1]) == list(range(10))

    def test_recv_waits_no_longer_than_told(self, pair):
        listener, connection = pair
        for end in (listener, connection):
            with pytest.raises(WaitTimeout):
                end.recv(timeout=0.05)

    def test_statistics(self, pair):
        listener, connection = pair
        for _ in range(3):
            connection.send(np.zeros(100_000))
        connection.flush(LIMIT)
        found, sent = listener.statistics(), connection.statistics()
        assert (found.objects, found.bytes) == (3, 2_400_000)
        assert (sent.sent_objects, sent.sent_bytes) == (3, 2_400_000)
        assert found.gb_per_s > 0
        assert len(found.peers) == 1
        assert not found.failures

    def test_a_thousand_connections_in_turn_leave_no_more_than_one(self, url):
        before = processes.descriptors()
        with ingest.listen(url) as listener:
            for i in range(1000):
                with ingest.connect(listener.url) as connection:
                    connection.send(np.full(3, i))
                assert listener.recv(LIMIT)[0] == i
            processes.eventually(lambda: len(threads()) == 1)
            assert len(processes.descriptors() - before) <= 2
        assert not threads()

    def test_64_connections_at_once(self, url):
        with ingest.listen(url) as listener:
            links = [ingest.connect(listener.url) for _ in range(64)]
            for i, each in enumerate(links):
                each.send(np.full(100_000, i))
            got = {int(listener.recv(LIMIT)[0]) for _ in links}
            assert got == set(range(64))
            for each in links:
                each.close()
        assert not threads()

    def test_a_link_that_is_forgotten_ends(self, url):
        listener = ingest.listen(url)
        connection = ingest.connect(listener.url)
        connection.send(np.arange(3))
        del connection
        assert listener.recv(LIMIT).tolist() == [0, 1, 2]
        del listener
        assert not threads()

    def test_a_forked_child_has_no_part_in_it(self, pair):
        listener, connection = pair
        connection.send(np.arange(100_000))

        def child():
            for end in (listener, connection):
                with pytest.raises(ingest.LinkClosed):
                    end.recv(0.1)
                end.close()

        pid = processes.fork(child)
        assert processes.wait(pid) == 0
        assert listener.recv(LIMIT)[-1] == 99_999
        listener.send(np.arange(3))
        assert connection.recv(LIMIT).tolist() == [0, 1, 2]

    def test_asyncio(self, pair):
        listener, connection = pair

        async def receive():
            got = []
            async for array in listener:
                got.append(int(array[0]))
                if len(got) == 20:
                    return got

        async def send():
            for i in range(20):
                await connection.send_async(np.full(3, i))
                await asyncio.sleep(0)

        async def both():
            # A receiver that is cancelled loses nothing.
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(listener.recv_async(), 0.05)
            got, _ = await asyncio.wait_for(asyncio.gather(receive(), send()), LIMIT)
            return got

        assert asyncio.run(both()) == list(range(20))


FORK_WHILE_A_THREAD_IMPORTS_BLOSC2 = """
import os, signal, sys, threading, time, warnings
warnings.simplefilter("ignore")  # that there are threads is the point
from numpush.ingest.compress import load_blosc2

thread = threading.Thread(target=load_blosc2)
thread.start()
while "blosc2" not in sys.modules:
    time.sleep(0)
pid = os.fork()
if not pid:
    signal.alarm(20)
    load_blosc2()
    os._exit(0)
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
thread.join()
"""


def test_a_child_that_is_forked_while_blosc2_is_imported_can_use_it():
    found = processes.run_script(FORK_WHILE_A_THREAD_IMPORTS_BLOSC2, limit=2 * LIMIT)
    assert (found.stdout, found.returncode) == ("0\n", 0), found.stderr
