"""What comes by ZeroMQ, from libzmq through pyzmq: messages of all kinds, subscriptions."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import subprocess
import sys
import threading

import numpy as np
import pytest
import zmq

from ingest_links import LIMIT, Bare
from numpush import SArray, SegmentFull, WaitTimeout, ingest
from numpush.ingest import hub, zmtp
from numpush.shm import process
from zmq_peers import (  # noqa: F401  # fixtures
    ANY,
    SIZES,
    bound,
    collector_of_pyzmq,
    connected,
    context_of_libzmq,
    endpoint,
    failure,
    no_thread_is_left,
    push_by_hand,
    send_array,
    tcp_url,
)


class TestReceiving:
    @pytest.mark.parametrize("how", ["auto", "splice", "recv"])
    @pytest.mark.parametrize("is_listening", [True, False])
    def test_frames_of_any_size_arrive_as_they_are(self, context, how, is_listening):
        if is_listening:
            link = ingest.listen(ANY, io=how)
            sock = connected(context, link)
        else:
            sock, where = bound(context)
            link = ingest.connect(where, io=how)
        with link:
            for size in SIZES:
                data = np.random.default_rng(size).integers(0, 256, size, np.uint8)
                sock.send(data)
                found = link.recv(LIMIT)
                assert type(found) is SArray
                assert found.dtype == np.uint8
                np.testing.assert_array_equal(found, data)

    @pytest.mark.parametrize("where", ["/ingest.sock", "@"])
    def test_over_ipc(self, context, tmp_path, where):
        name = f"{tmp_path}{where}" if where != "@" else f"@numpush-test-{secrets.token_hex(8)}"
        with ingest.listen(f"zmq+ipc://{name}") as link:
            sock = connected(context, link)
            sock.send(bytes(100_000))
            assert link.recv(LIMIT).size == 100_000
            if where != "@":
                assert os.stat(name).st_mode & 0o777 == 0o600
        assert not os.path.exists(name)

    def test_many_messages_stay_in_order(self, context):
        with ingest.listen(ANY, dtype="<i8") as link:
            sock = connected(context, link)
            rng = np.random.default_rng(0)
            sizes = rng.choice([0, 1, 7, 31, 32, 300, 5000, 70_000], 2000)
            sender = threading.Thread(
                target=lambda: [sock.send(np.full(n, i)) for i, n in enumerate(sizes)]
            )
            sender.start()
            for i, n in enumerate(sizes):
                np.testing.assert_array_equal(link.recv(LIMIT), np.full(n, i))
            sender.join(LIMIT)

    @pytest.mark.parametrize(
        "array",
        [
            np.arange(70_000.0).reshape(7, -1),
            np.arange(24, dtype="i4").reshape(2, 3, 4),
            np.array([True, False]),
            np.array(["2020-01-01", "NaT"], "M8[ns]"),
            np.array(["abc", "ü"]),
            np.array(3.5),
            np.zeros((0, 3), "c16"),
            np.arange(5, dtype=">u2"),
        ],
        ids=lambda array: f"{array.dtype}{list(array.shape)}",
    )
    def test_the_recipe_of_pyzmq_arrives_as_an_array(self, context, array):
        with ingest.listen(ANY) as link:
            send_array(connected(context, link), array, name="ignored")
            found = link.recv(LIMIT)
            assert type(found) is SArray
            assert (found.dtype, found.shape) == (array.dtype, array.shape)
            np.testing.assert_array_equal(found, array)

    @pytest.mark.parametrize(
        "head",
        [
            {"dtype": "object", "shape": [1]},
            {"dtype": "O", "shape": [1]},
            {"dtype": "i4,f8", "shape": [1]},
            {"dtype": "[('a', 'i4')]", "shape": [1]},
            {"dtype": 5, "shape": [1]},
            {"dtype": "float64", "shape": [2]},
            {"dtype": "float64", "shape": [-1]},
            {"dtype": "float64", "shape": [True]},
            {"dtype": "float64", "shape": 1},
            {"dtype": "float64", "shape": [2**62]},
            {"dtype": "float64", "shape": [2**62, 0]},
            {"dtype": "float64", "shape": [1] * 40},
            {"dtype": "S0", "shape": [8]},
            {"dtype": "datetime64[xx]", "shape": [1]},
        ],
        ids=str,
    )
    def test_a_description_that_does_not_fit_is_refused(self, context, head):
        with ingest.listen(ANY) as link:
            sock = connected(context, link)
            sock.send_multipart([json.dumps(head).encode(), bytes(8)])
            assert failure(link)
            other = connected(context, link)
            other.send(b"good")
            assert bytes(link.recv(LIMIT)) == b"good"

    def test_a_message_with_more_or_less_than_was_announced_is_refused(self, context):
        head = json.dumps({"dtype": "u1", "shape": [3]}).encode()
        ours = ingest.wire.encode(np.arange(3)).head
        for message in ([head, b"abc", b"d"], [ours], [ours, bytes(23)], [ours, bytes(24), b""]):
            with ingest.listen(ANY) as link:
                connected(context, link).send_multipart(message)
                assert failure(link)
                assert link.statistics().objects == 0

    def test_a_damaged_head_is_refused(self, context):
        head = ingest.wire.encode(np.arange(3)).head
        signal_frame = ingest.wire.pack_signal(ingest.wire.BYE)
        for first in (head[:40], head + b"\0", signal_frame, head[:4] + b"\xff" + head[5:]):
            with ingest.listen(ANY) as link:
                connected(context, link).send_multipart([first, bytes(24)])
                assert failure(link)

    def test_raw_frames_have_the_dtype_and_shape_that_the_receiver_says(self, context):
        array = np.arange(30, dtype="<f4").reshape(5, 3, 2)
        for shape in ((-1, 3, 2), (5, 3, 2), (5, -1, 2)):
            with ingest.listen(ANY, dtype="<f4", shape=shape) as link:
                sock = connected(context, link)
                sock.send(array)
                np.testing.assert_array_equal(link.recv(LIMIT), array)
                sock.send(bytes(array.nbytes + 4))
                assert failure(link, ingest.FrameError).args[0].count("125 bytes found") == 0
        with ingest.listen(ANY, dtype="<f4") as link:
            connected(context, link).send(bytes(5))
            assert "5 bytes found" in str(failure(link))

    def test_what_is_no_bool_is_refused_each_time(self, context):
        with ingest.listen(ANY, dtype=bool) as link:
            sock = connected(context, link)
            for _ in range(2):
                sock.send(b"\1\0")
                assert link.recv(LIMIT).tolist() == [True, False]
            sock.send(b"\1\2")
            assert failure(link)

    def test_each_frame_of_a_plain_multipart_is_an_array(self, context):
        parts = [b"", b"a", b"{", b"{}", bytes(100_000), bytes(5000), b"x" * 4096]
        with ingest.listen(ANY) as link:
            sock = connected(context, link)
            for first in range(len(parts)):
                sock.send_multipart(parts[first:])
                for part in parts[first:]:
                    assert link.recv(LIMIT).tobytes() == part

    def test_more_than_max_bytes_is_refused(self, context):
        with ingest.listen(ANY, max_bytes=1000) as link:
            sock = connected(context, link)
            sock.send(bytes(1000))
            assert link.recv(LIMIT).size == 1000
            sock.send(bytes(1001))
            assert "max_bytes" in str(failure(link))

    def test_an_impossible_size_is_refused_before_there_is_memory_for_it(self):
        with ingest.listen(ANY) as link, push_by_hand(link) as bare:
            bare.write(zmtp.pack_header(2**62) + b"some")
            assert "announced" in str(failure(link))

    def test_two_pushers_at_once(self):
        with ingest.listen(ANY, dtype="<i8") as link:
            children = [
                subprocess.Popen([sys.executable, "-c", PUSH_MANY, endpoint(link), str(i)])
                for i in range(2)
            ]
            seen = [[], []]
            for _ in range(400):
                found = link.recv(LIMIT)
                assert (found[1:] == found[0]).all()
                seen[found[0] % 2].append(int(found[0] // 2))
            assert seen == [list(range(200))] * 2
            assert len(link.statistics().peers) <= 2
            for child in children:
                assert child.wait(LIMIT) == 0

    def test_what_nobody_asks_for_makes_the_pusher_wait(self, context, monkeypatch):
        size = 1 << 20
        monkeypatch.setattr(hub, "AHEAD", 4 * size)
        with ingest.listen(ANY) as link:
            sock = connected(context, link, sndhwm=1)
            n = 0
            while sock.poll(300, zmq.POLLOUT):
                sock.send(np.full(size, n % 256, np.uint8))
                n += 1
                assert n < 200
            assert link.statistics().objects == 4
            for i in range(n):
                assert link.recv(LIMIT)[0] == i % 256

    def test_a_full_shared_memory_makes_the_pusher_wait(self, context, monkeypatch):
        is_full = threading.Event()
        create = process.create

        def full_or_not(*args, **kwargs):
            if is_full.is_set():
                raise SegmentFull("there is no room")
            return create(*args, **kwargs)

        monkeypatch.setattr(process, "create", full_or_not)
        for size in (10, 100_000):
            is_full.set()
            with ingest.listen(ANY) as link:
                connected(context, link).send(bytes(size))
                with pytest.raises(WaitTimeout):
                    link.recv(0.3)
                is_full.clear()
                assert link.recv(LIMIT).size == size

    def test_asyncio(self, context):
        async def receive(link, sock):
            sock.send(b"one")
            first = await asyncio.wait_for(link.recv_async(), LIMIT)
            sock.send(b"two")
            async for obj in link:
                return first.tobytes(), obj.tobytes()

        with ingest.listen(ANY) as link:
            assert asyncio.run(receive(link, connected(context, link))) == (b"one", b"two")

    @pytest.mark.system
    def test_2_gib(self, context):
        size = (2 << 30) + 12_345
        with ingest.listen(ANY) as link:
            data = np.zeros(size, np.uint8)
            data[::4096] = 1
            sock = connected(context, link)
            sock.send(data, copy=False)
            found = link.recv(600)
            assert found.size == size
            assert (found[::4096] == 1).all()
            assert int(found.sum(dtype=np.int64)) == len(data[::4096])


PUSH_MANY = """
import sys, numpy as np, zmq
context = zmq.Context()
sock = context.socket(zmq.PUSH)
sock.connect(sys.argv[1])
for i in range(200):
    sock.send(np.full(1 + i * 97, 2 * i + int(sys.argv[2])))
context.destroy(linger=60_000)
"""


class TestSubscribing:
    def test_filters_work_at_the_publisher(self, context):
        sock, where = bound(context, zmq.XPUB)
        with ingest.connect(f"{where}?type=sub&subscribe=a&subscribe=b%00") as link:
            assert {sock.recv(), sock.recv()} == {b"\1a", b"\1b\0"}
            for message in (b"c", b"a1", b"b1", b"b\0x"):
                sock.send(message)
            assert [link.recv(LIMIT).tobytes() for _ in range(2)] == [b"a1", b"b\0x"]
        assert {sock.recv(), sock.recv()} == {b"\0a", b"\0b\0"}  # we have gone

    def test_without_a_prefix_all_of_it_is_wanted(self, context):
        sock, where = bound(context, zmq.XPUB)
        with ingest.connect(f"{where}?type=sub") as link:
            assert sock.recv() == b"\1"
            sock.send(b"x")
            assert link.recv(LIMIT).tobytes() == b"x"

    def test_3_0_is_subscribed_to_by_messages(self):
        with ingest.listen(f"{ANY}?type=sub&subscribe=ab") as link, Bare(tcp_url(link)) as bare:
            greeting = bytearray(zmtp.pack_greeting())
            greeting[11] = 0
            bare.write(bytes(greeting) + zmtp.pack_ready("PUB"))
            assert bare.read(zmtp.GREETING_SIZE)[10:12] == b"\3\1"
            n = len(zmtp.pack_ready("SUB"))
            assert bare.read(n) == zmtp.pack_ready("SUB")
            assert bare.read(5) == b"\0\3\1ab"
            bare.write(zmtp.pack_header(3) + b"abc")
            assert link.recv(LIMIT).tobytes() == b"abc"

    def test_a_topic_is_kept_apart_from_arrays_and_frames(self, context):
        sock, where = bound(context, zmq.XPUB)
        array = np.arange(6.0).reshape(2, 3)
        with (
            ingest.connect(f"{where}?type=sub&subscribe=pri", topics=True) as link,
            ingest.connect(f"{where}?type=sub") as without,
        ):
            assert {sock.recv(), sock.recv()} == {b"\1pri", b"\1"}
            sock.send(b"prices", zmq.SNDMORE)
            send_array(sock, array)
            sock.send(b"prices")
            topic, found = link.recv(LIMIT)
            assert topic == b"prices"
            np.testing.assert_array_equal(found, array)
            assert link.recv(LIMIT)[0] == b""
            np.testing.assert_array_equal(without.recv(LIMIT), array)

    def test_two_publishers_at_once(self, context):
        with ingest.listen(f"{ANY}?type=sub") as link:
            socks = [connected(context, link, zmq.XPUB) for _ in range(2)]
            for sock in socks:
                assert sock.recv() == b"\1"
            for i in range(50):
                for j, sock in enumerate(socks):
                    sock.send(bytes((j, i)) + bytes(1000 * i))
            seen = [[], []]
            for _ in range(100):
                found = link.recv(LIMIT)
                seen[found[0]].append(int(found[1]))
            assert seen == [list(range(50))] * 2
