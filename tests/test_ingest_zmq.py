"""Links of ZeroMQ against libzmq, through pyzmq, and against each other."""

from __future__ import annotations

import asyncio
import io
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time

import numpy as np
import pandas as pd
import pytest
import zmq

import processes
from ingest_links import LIMIT, Bare, threads
from numpush import SArray, SDataFrame, SegmentFull, SSeries, WaitTimeout, ingest
from numpush.ingest import hub, url, zmq_messages, zmtp
from numpush.shm import process

ANY = "zmq+tcp://127.0.0.1:0"
LIMIT_MS = round(LIMIT * 1e3)
SIZES = [0, 1, 255, 256, 65536, 3_333_333, 20_000_001]


@pytest.fixture(scope="module", autouse=True)
def _collector_of_pyzmq():
    """Start the thread that pyzmq keeps for what is sent without a copy: no test is to blame."""
    with zmq.Context() as context, context.socket(zmq.PAIR) as one, context.socket(zmq.PAIR) as two:
        port = one.bind_to_random_port("tcp://127.0.0.1")
        two.connect(f"tcp://127.0.0.1:{port}")
        one.send(bytes(1 << 17), copy=False, track=True).wait(LIMIT)


@pytest.fixture(autouse=True)
def _no_thread_is_left():
    yield
    processes.eventually(lambda: not threads(), LIMIT)


@pytest.fixture
def context():
    """A context of libzmq, whose sockets go with it."""
    found = zmq.Context()
    yield found
    found.destroy(linger=0)
    _opened.clear()


_opened = []  #: pyzmq warns of sockets that go before they are closed


def open_socket(context, kind, **options):
    sock = context.socket(kind)
    _opened.append(sock)
    sock.rcvtimeo = sock.sndtimeo = LIMIT_MS
    for name, value in options.items():
        setattr(sock, name, value)
    return sock


def endpoint(link):
    return link.url.removeprefix("zmq+")


def connected(context, link, kind=zmq.PUSH, **options):
    """Return a socket of libzmq that is connected to a link that listens."""
    sock = open_socket(context, kind, **options)
    sock.connect(endpoint(link))
    return sock


def bound(context, kind=zmq.PUSH, **options):
    """Return a socket of libzmq, and the URL of a link that connects to it."""
    sock = open_socket(context, kind, **options)
    port = sock.bind_to_random_port("tcp://127.0.0.1")
    return sock, f"zmq+tcp://127.0.0.1:{port}"


def send_array(sock, array, **more):
    """As pyzmq's documentation has it."""
    sock.send_json({"dtype": str(array.dtype), "shape": array.shape, **more}, zmq.SNDMORE)
    sock.send(np.ascontiguousarray(array).view(np.uint8) if array.dtype.kind in "mM" else array)


def failure(link, kind=ingest.FrameError):
    """Wait for a peer's connection to end in an error, and return that."""

    def find():
        return [error for _, error in link.statistics().failures if isinstance(error, kind)]

    return processes.eventually(find, LIMIT)[-1]


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


def tcp_url(link):
    return link.url.removeprefix("zmq+")


def push_by_hand(link):
    """Return a peer that has done the handshake, and says what the test wants."""
    bare = Bare(tcp_url(link))
    bare.write(zmtp.pack_greeting() + zmtp.pack_ready("PUSH"))
    bare.read(zmtp.GREETING_SIZE)
    bare.read(len(zmtp.pack_ready("PULL")))
    return bare


class TestStrangers:
    @pytest.mark.parametrize("kind", [zmq.DEALER, zmq.ROUTER, zmq.REQ, zmq.PAIR, zmq.PUB, zmq.PULL])
    def test_another_type_is_refused_and_the_others_go_on(self, context, kind):
        with ingest.listen(ANY) as link:
            sock = connected(context, link, kind)
            assert "PUSH wanted for our PULL" in str(failure(link))
            good = connected(context, link)
            good.send(b"x")
            assert link.recv(LIMIT).tobytes() == b"x"
            sock.close(0)

    def test_the_refusal_says_why(self):
        with ingest.listen(ANY) as link, Bare(tcp_url(link)) as bare:
            bare.write(zmtp.pack_greeting() + zmtp.pack_ready("DEALER"))
            data = bare.read_all()[zmtp.GREETING_SIZE + len(zmtp.pack_ready("PULL")) :]
            assert data[0] == 4
            name, body = zmtp.read_command(data[2:])
            assert name == "ERROR"
            assert "a peer of type PUSH wanted" in zmtp.read_error(body)

    def test_another_type_ends_a_link_that_connects(self, context):
        _, where = bound(context, zmq.ROUTER)
        with ingest.connect(where) as link:
            for _ in range(2):
                with pytest.raises(ingest.FrameError, match="'ROUTER' found"):
                    link.recv(LIMIT)

    def test_a_peer_with_curve_is_named(self, context):
        public, secret = zmq.curve_keypair()
        with ingest.listen(ANY) as link:
            connected(
                context,
                link,
                curve_publickey=public,
                curve_secretkey=secret,
                curve_serverkey=public,
            )
            assert "want curve=" in str(failure(link, ingest.PeerGone))
            with Bare(tcp_url(link)) as bare:
                bare.write(zmtp.pack_greeting("CURVE"))
                assert "mechanism CURVE" in str(failure(link, ingest.AccessDenied))

    @pytest.mark.parametrize("data", [b"GET / HTTP/1.1\r\n\r\n", bytes(64), b"\xff" * 64])
    def test_another_protocol_is_refused(self, context, data):
        with ingest.listen(ANY) as link, Bare(tcp_url(link)) as bare:
            bare.write(data)
            assert failure(link)
            connected(context, link).send(b"x")
            assert link.recv(LIMIT).tobytes() == b"x"

    def test_who_says_nothing_has_a_limit(self):
        with ingest.listen(ANY, timeout=0.2) as link, Bare(tcp_url(link)):
            assert failure(link, ingest.PeerGone)

    def test_a_message_in_place_of_ready_is_refused(self):
        with ingest.listen(ANY) as link, Bare(tcp_url(link)) as bare:
            bare.write(zmtp.pack_greeting() + zmtp.pack_header(5) + b"hello")
            assert "handshake" in str(failure(link))

    def test_error_is_told(self):
        with ingest.listen(ANY) as link, push_by_hand(link) as bare:
            bare.write(zmtp.pack_error("not you"))
            assert "not you" in str(failure(link, ingest.PeerRefused))

    def test_unknown_commands_mean_nothing(self):
        with ingest.listen(ANY) as link, push_by_hand(link) as bare:
            bare.write(zmtp.pack_command("NOVELTY", b"x") + zmtp.pack_header(2) + b"ok")
            assert link.recv(LIMIT).tobytes() == b"ok"

    @pytest.mark.parametrize("seed", range(30))
    def test_noise_ends_a_connection_and_nothing_else(self, seed):
        rng = np.random.default_rng(seed)
        message = b"".join(
            zmtp.pack_header(len(part), more) + part
            for part, more in ((ingest.wire.encode(np.arange(9)).head, True), (bytes(72), False))
        )
        data = bytearray(zmtp.pack_ping(0, b"hi") + message * 3)
        for at in rng.integers(0, len(data), 4):
            data[at] ^= 1 << rng.integers(0, 8)
        with ingest.listen(ANY, timeout=0.3, max_bytes=1 << 20) as link:
            with push_by_hand(link) as bare:
                bare.write(bytes(data))
                bare.sock.shutdown(socket.SHUT_WR)
                bare.read_all()
            processes.eventually(lambda: not link.statistics().peers, LIMIT)
            allowed = ingest.FrameError, ingest.PeerGone, ingest.PeerRefused
            for _, error in link.statistics().failures:
                assert type(error) in allowed, error


HALF = """
import socket, sys, time
from numpush.ingest import zmtp
if sys.argv[2] == "connect":
    sock = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
else:
    door = socket.create_server(("127.0.0.1", int(sys.argv[1])))
    sock, _ = door.accept()
sock.sendall(zmtp.pack_greeting() + zmtp.pack_ready("PUSH"))
sock.sendall(zmtp.pack_header(64 << 20) + bytes(30 << 20))
time.sleep(600)
"""

PUSH_LARGE = """
import sys, zmq
sock = zmq.Context().socket(zmq.PUSH)
sock.connect(sys.argv[1])
while True:
    sock.send(bytes(300 << 20), copy=False)
"""


class TestComingAndGoing:
    def test_a_pusher_that_ends_at_any_byte_leaves_nothing(self, context):
        """Of the handshake and the head each byte, of the body some."""
        hands = zmtp.pack_greeting() + zmtp.pack_ready("PUSH")
        whole = hands + zmtp.pack_header(100_000) + bytes(100_000)
        with ingest.listen(ANY) as link:
            for cut in (*range(0, len(hands) + 12, 3), 4000, 70_000, len(whole) - 1):
                with Bare(tcp_url(link)) as bare:
                    bare.write(whole[:cut])
                processes.eventually(lambda: len(threads()) == 1)
            assert link.statistics().objects == 0
            assert isinstance(failure(link, ingest.PeerGone), ingest.PeerGone)
            connected(context, link).send(b"next")
            assert link.recv(LIMIT).tobytes() == b"next"
        processes.collect_garbage()
        assert processes.files() == set()

    def test_a_pusher_killed_in_the_middle_leaves_nothing(self, context):
        with ingest.listen(ANY) as link:
            port = link.url.rpartition(":")[2]
            child = subprocess.Popen([sys.executable, "-c", HALF, port, "connect"])
            processes.eventually(lambda: processes.files(), LIMIT)
            child.send_signal(signal.SIGKILL)
            child.wait(LIMIT)
            assert failure(link, ingest.PeerGone)
            processes.collect_garbage()
            assert processes.files() == set()
            assert link.statistics().objects == 0
            connected(context, link).send(b"next")
            assert link.recv(LIMIT).tobytes() == b"next"

    def test_a_libzmq_killed_while_it_pushes(self, context):
        with ingest.listen(ANY, io="splice") as link:
            child = subprocess.Popen([sys.executable, "-c", PUSH_LARGE, endpoint(link)])
            assert link.recv(LIMIT).size == 300 << 20  # and the next is under way
            child.send_signal(signal.SIGKILL)
            child.wait(LIMIT)
            processes.eventually(lambda: not link.statistics().peers, LIMIT)
            connected(context, link).send(b"next")
            while link.recv(LIMIT).size != 4:
                pass

    def test_a_bound_pusher_is_killed_and_comes_again(self, context):
        with socket.create_server(("127.0.0.1", 0)) as door:
            port = door.getsockname()[1]
        with ingest.connect(f"zmq+tcp://127.0.0.1:{port}") as link:
            child = subprocess.Popen([sys.executable, "-c", HALF, str(port), "bind"])
            processes.eventually(lambda: processes.files(), LIMIT)
            child.send_signal(signal.SIGKILL)
            child.wait(LIMIT)
            for i in range(3):
                sock = open_socket(context, zmq.PUSH)
                processes.eventually(lambda sock=sock: try_bind(sock, port), LIMIT)
                sock.send(bytes((i,)))
                assert link.recv(LIMIT).tobytes() == bytes((i,))
                sock.close(0)
            with pytest.raises(WaitTimeout):  # nobody there is no error
                link.recv(0.2)
        processes.collect_garbage()
        assert processes.files() == set()

    def test_it_may_be_there_before_its_peer(self, context, tmp_path):
        with ingest.connect(f"zmq+ipc://{tmp_path}/later") as link:
            with pytest.raises(WaitTimeout):
                link.recv(0.1)
            sock = open_socket(context, zmq.PUSH)
            sock.bind(f"ipc://{tmp_path}/later")
            sock.send(b"here")
            assert next(iter(link)).tobytes() == b"here"

    def test_closing_ends_an_iteration(self):
        link = ingest.connect("zmq+tcp://127.0.0.1:9")
        closer = threading.Timer(0.1, link.close)
        closer.start()
        assert list(link) == []
        closer.join(LIMIT)
        with pytest.raises(ingest.LinkClosed):
            link.recv(1)

    def test_heartbeats_are_answered(self, context, monkeypatch):
        """Also while nothing is read, since too much waits to be asked for."""
        monkeypatch.setattr(hub, "AHEAD", 1000)
        with ingest.listen(ANY) as link:
            sock = connected(
                context, link, heartbeat_ivl=100, heartbeat_timeout=1000, heartbeat_ttl=1000
            )
            monitor = sock.get_monitor_socket(zmq.EVENT_DISCONNECTED)
            _opened.append(monitor)
            sock.send(bytes(1000))
            (peer,) = processes.eventually(lambda: link.statistics().peers, LIMIT)
            assert monitor.poll(1500) == 0
            for _ in range(3):
                sock.send(bytes(1000))
            assert monitor.poll(1500) == 0
            for _ in range(4):
                assert link.recv(LIMIT).size == 1000
            assert link.statistics().peers == (peer,)

    def test_ping_is_answered_with_its_context(self):
        with ingest.listen(ANY) as link, push_by_hand(link) as bare:
            wanted = zmtp.pack_pong(b"context")
            bare.write(zmtp.pack_header(1, True) + b"a" + zmtp.pack_ping(1, b"context"))
            assert bare.read(len(wanted)) == wanted
            bare.write(zmtp.pack_header(1) + b"b")
            assert [link.recv(LIMIT).tobytes() for _ in "ab"] == [b"a", b"b"]

    def test_a_fork_leaves_the_link_to_the_parent(self, context):
        with ingest.listen(ANY) as link, ingest.connect(link.url + "?type=push") as out:
            out.send(np.arange(3))
            link.recv(LIMIT)

            def child():
                with pytest.raises(ingest.LinkClosed):
                    link.recv(1)
                with pytest.raises(ingest.LinkClosed):
                    out.send(np.arange(3), 1)
                out.close()

            assert processes.run_forked(child) == 0
            out.send(np.arange(3))
            assert link.recv(LIMIT).sum() == 3


def try_bind(sock, port):
    try:
        sock.bind(f"tcp://127.0.0.1:{port}")
    except zmq.ZMQError:
        return False
    return True


def frame():
    return pd.DataFrame(
        {
            "x": np.arange(50_000.0),
            "n": np.arange(50_000),
            "s": ["a", None, "ü", "long enough", ""] * 10_000,
            "c": pd.Categorical(["a", "b"] * 25_000),
        }
    )


def send_many(out):
    """Send more than the buffers of two sockets hold."""
    for _ in range(20):
        out.send(np.zeros(4_000_000), 1)


class TestSending:
    @pytest.mark.parametrize("scheme", ["tcp", "ipc"])
    @pytest.mark.parametrize("is_bound", [True, False])
    def test_what_numpush_sends_arrives_equal(self, tmp_path, scheme, is_bound):
        where = ANY if scheme == "tcp" else f"zmq+ipc://{tmp_path}/a"
        if is_bound:
            out = ingest.listen(f"{where}?type=push", checksum=True)
            link = ingest.connect(out.url)
        else:
            link = ingest.listen(where)
            out = ingest.connect(f"{link.url}?type=push", checksum=True)
        with link, out:
            df = frame()
            big = np.random.default_rng(0).random((500, 400))
            for array in (big, big.T, big[::3, ::-2], np.arange(3), np.array(1), big[:0]):
                out.send(array, LIMIT)
                np.testing.assert_array_equal(link.recv(LIMIT), array)
            out.send(SArray(big)[100:200], LIMIT)
            np.testing.assert_array_equal(link.recv(LIMIT), big[100:200])
            for table in (df, SDataFrame(df), df[:0], df[[]]):
                out.send(table, LIMIT)
                found = link.recv(LIMIT)
                assert type(found) is SDataFrame
                pd.testing.assert_frame_equal(pd.DataFrame(found), pd.DataFrame(table))
            out.send(df["x"], LIMIT)
            found = link.recv(LIMIT)
            assert type(found) is SSeries
            pd.testing.assert_series_equal(pd.Series(found), df["x"])
            assert out.statistics().sent_objects == 12

    def test_to_a_plain_pull_of_pyzmq(self, context):
        sock, where = bound(context, zmq.PULL)
        with ingest.connect(where + "?type=push") as out:
            sender = threading.Thread(target=out.send, args=(np.arange(100_000),))
            sender.start()
            head, body = sock.recv_multipart()
            sender.join(LIMIT)
            assert head[:4] == b"\x89NPW"
            np.testing.assert_array_equal(np.frombuffer(body, int), np.arange(100_000))

    def test_after_send_the_object_may_be_changed(self, context):
        with ingest.listen(ANY) as link, ingest.connect(link.url + "?type=push") as out:
            for size in (10, 1_000_000):
                array = SArray(np.zeros(size))
                for i in range(10):
                    array[:] = i
                    out.send(array, LIMIT)
                array[:] = -1
                for i in range(10):
                    assert (link.recv(LIMIT) == i).all()

    def test_a_topic_is_what_subscriptions_are_compared_with(self):
        with ingest.listen(ANY + "?type=pub") as out:
            where = f"{out.url}?type=sub&subscribe="
            with ingest.connect(where + "a", topics=True) as link:
                until_it_arrives(out, link, np.arange(3), topic=b"abc")
                out.send(np.arange(4), topic=b"b")
                out.send(np.arange(5))
                out.send(np.arange(6), topic=b"a")
                while (found := link.recv(LIMIT))[1].size != 6:
                    assert found[0] == b"abc"
                assert found[0] == b"a"
            with pytest.raises(ValueError, match="topic"):
                out.send(np.arange(3), topic=bytes(zmq_messages.MAX_TOPIC + 1))

    def test_a_subscriber_that_does_not_read_misses_nothing(self, context):
        with ingest.listen(ANY + "?type=pub") as out:
            sock = connected(context, out, zmq.SUB, rcvhwm=1)
            sock.subscribe(b"t")
            processes.eventually(lambda: out.send(np.zeros(1), topic=b"t") or sock.poll(10), LIMIT)
            n = 0
            try:
                while n < 50_000:
                    n += 1
                    out.send(np.full(300, n), 0.3, topic=b"t")
            except WaitTimeout:
                n -= 1
            assert n < 49_999
            found = [0]
            while found[-1] < n:
                found.append(np.frombuffer(sock.recv_multipart()[2], int)[0])
            assert [i for i in found if i] == list(range(1, n + 1))

    def test_a_subscriber_of_pyzmq(self, context):
        with ingest.listen(ANY + "?type=pub") as out:
            sock = connected(context, out, zmq.SUB, rcvtimeo=10)
            sock.subscribe(b"t")

            def arrives():
                out.send(np.arange(3), topic=b"t")
                return sock.poll(10)

            processes.eventually(arrives, LIMIT)
            topic, head, body = sock.recv_multipart()
            assert (topic, head[:4]) == (b"t", b"\x89NPW")
            np.testing.assert_array_equal(np.frombuffer(body, int), np.arange(3))

    def test_without_a_peer_it_waits_and_stays_open(self):
        for link in (
            ingest.listen(ANY + "?type=push"),
            ingest.connect("zmq+tcp://127.0.0.1:9?type=push"),
        ):
            with link:
                for size in (3, 1_000_000):
                    with pytest.raises(WaitTimeout, match="no peer"):
                        link.send(np.zeros(size), 0.2)

    def test_a_peer_that_does_not_read_ends_it(self, context):
        sock, where = bound(context, zmq.PULL, rcvhwm=1)
        with ingest.connect(where + "?type=push") as out:
            with pytest.raises(WaitTimeout, match="the link is closed"):
                send_many(out)
            with pytest.raises(ingest.LinkClosed):
                out.send(np.zeros(3), 1)
        sock.close(0)

    def test_closing_while_another_thread_sends(self, context):
        sock, where = bound(context, zmq.PULL, rcvhwm=1)
        out = ingest.connect(where + "?type=push", timeout=1)
        errors = []

        def send():
            try:
                while True:
                    out.send(np.zeros(4_000_000))
            except ingest.LinkClosed as error:
                errors.append(error)

        sender = threading.Thread(target=send)
        sender.start()
        time.sleep(0.3)
        out.close()
        sender.join(LIMIT)
        assert len(errors) == 1
        sock.close(0)

    def test_all_small_ones_are_there_after_the_with(self):
        with ingest.listen(ANY) as link:
            with ingest.connect(link.url + "?type=push") as out:
                for i in range(3000):
                    out.send(np.full(i % 50, i))
            for i in range(3000):
                assert (link.recv(LIMIT) == i).all()

    def test_send_and_recv_in_one_call(self, tmp_path):
        where = f"zmq+ipc://{tmp_path}/one"
        sender = threading.Thread(target=ingest.send, args=(where, np.arange(7)))
        sender.start()
        assert ingest.recv(where, timeout=LIMIT).sum() == 21
        sender.join(LIMIT)

    def test_the_wrong_direction_names_the_remedy(self):
        with ingest.listen(ANY) as link, pytest.raises(io.UnsupportedOperation, match="type=push"):
            link.send(np.arange(3))
        with ingest.listen(ANY + "?type=pub") as out:
            for call in (lambda: out.recv(1), lambda: next(iter(out))):
                with pytest.raises(io.UnsupportedOperation, match="type=pull"):
                    call()
            with pytest.raises(io.UnsupportedOperation, match="type=pull"):
                asyncio.run(out.recv_async())


def until_it_arrives(out, link, obj, **options):
    """Send until a subscription has reached the publisher."""

    def arrives():
        out.send(obj, **options)
        try:
            return (link.recv(0.01),)
        except WaitTimeout:
            return None

    return processes.eventually(arrives, LIMIT)[0]


class TestSecurity:
    @pytest.mark.parametrize("sends", ["push", "pub"])
    def test_curve(self, sends):
        server, client, stranger = (zmq.curve_keypair() for _ in range(3))
        receives = "pull" if sends == "push" else "sub"
        with ingest.listen(
            f"{ANY}?type={receives}", curve=(*server, [client[0], zmq.curve_keypair()[0]])
        ) as link:
            where = f"{link.url}?type={sends}"
            with ingest.connect(where, curve=(*stranger, server[0])) as wrong:
                if sends == "push":
                    with pytest.raises(WaitTimeout):
                        wrong.send(np.arange(4), 0.5)
                else:
                    for _ in range(50):
                        wrong.send(np.arange(4))
                        time.sleep(0.01)
            with ingest.connect(where, curve=(*client, server[0])) as out:
                for obj in (np.arange(3), np.arange(1_000_000.0)):
                    found = until_it_arrives(out, link, obj)
                    np.testing.assert_array_equal(found, obj)
                    drain(link)

    def test_curve_the_other_way_round(self):
        server, client = zmq.curve_keypair(), zmq.curve_keypair()
        with (
            ingest.listen(f"{ANY}?type=push", curve=(*server, client[0])) as out,
            ingest.connect(out.url, curve=(*client, server[0])) as link,
        ):
            df = frame()
            out.send(df, LIMIT)
            pd.testing.assert_frame_equal(pd.DataFrame(link.recv(LIMIT)), df)
            out.send(np.arange(3), LIMIT)
            assert link.recv(LIMIT).sum() == 3

    def test_plain(self):
        with ingest.listen(ANY, plain=("me", "secret")) as link:
            where = f"{link.url}?type=push"
            for user in (("me", "wrong"), ("you", "secret")):
                with (
                    ingest.connect(where, plain=user) as out,
                    pytest.raises(WaitTimeout),
                ):
                    out.send(np.arange(3), 0.3)
            with ingest.connect(where, plain=("me", "secret")) as out:
                out.send(np.arange(3), LIMIT)
            assert link.recv(LIMIT).sum() == 3

    def test_a_bad_message_over_curve_is_left_out(self, context):
        server, client = zmq.curve_keypair(), zmq.curve_keypair()
        with ingest.listen(ANY, curve=(*server, client[0])) as link:
            sock = connected(
                context,
                link,
                curve_publickey=client[0],
                curve_secretkey=client[1],
                curve_serverkey=server[0],
            )
            sock.send_multipart([b'{"dtype": "O", "shape": [1]}', bytes(8)])
            sock.send_multipart([b"", b"good"])
            assert [link.recv(LIMIT).tobytes() for _ in range(2)] == [b"", b"good"]
            assert "plain items" in str(failure(link))

    def test_others_machines_are_let_in_only_when_that_is_said(self):
        with pytest.raises(ValueError, match="curve=") as caught:
            ingest.listen("zmq+tcp://0.0.0.0:0")
        assert "insecure=True" in str(caught.value)
        ingest.listen("zmq+tcp://0.0.0.0:0", insecure=True).close()
        ingest.listen("zmq+tcp://0.0.0.0:0", plain=("me", "secret")).close()


def drain(link):
    try:
        while True:
            link.recv(0.3)
    except WaitTimeout:
        pass


class TestOptions:
    def test_pyzmq_is_loaded_when_it_is_needed(self):
        code = f"""if True:
            import sys
            from numpush import ingest
            with ingest.listen({ANY!r}) as link:
                assert "zmq" not in sys.modules
            with ingest.listen({ANY + "?type=push"!r}):
                assert "zmq" in sys.modules
        """
        done = processes.run_script(code)
        assert (done.returncode, done.stderr) == (0, "")

    @pytest.mark.parametrize(
        ("text", "kind", "topics"),
        [
            ("zmq+tcp://h:1", "pull", ()),
            ("zmq+tcp://h:1?type=push", "push", ()),
            ("zmq+ipc:///a/b?type=pub", "pub", ()),
            ("zmq+ipc://@a?type=sub", "sub", (b"",)),
            ("zmq+tcp://h:1?type=sub&subscribe=a%26b&subscribe=", "sub", (b"a&b", b"")),
            ("zmq+tcp://h:1?subscribe=a%00&type=sub", "sub", (b"a\0",)),
        ],
    )
    def test_urls(self, text, kind, topics):
        found = url.parse(text)
        assert (found.zmq_type, found.topics) == (kind, topics)
        assert str(found) == text.partition("?")[0]

    @pytest.mark.parametrize(
        ("text", "why"),
        [
            ("zmq+tcp://h", "HOST:PORT"),
            ("zmq+tcp://h:1?type=dealer", "pull, sub, push, pub"),
            ("zmq+tcp://h:1?type=", "pull, sub, push, pub"),
            ("zmq+tcp://h:1?type=pull&type=push", "one type="),
            ("zmq+tcp://h:1?typ=pull", "'typ'"),
            ("zmq+tcp://h:1?subscribe=a", "for type=sub"),
            ("zmq+tcp://h:1?type=push&subscribe=a", "for type=sub"),
            ("zmq+tcp://h:1#a", "options"),
            ("zmq+ipc://relative", "zmq+ipc:///PATH"),
            (f"zmq+ipc:///{'a' * 107}", "107"),
            ("zmq://h:1", "wanted one of"),
            ("tcp://h:1?type=pull", "takes no options"),
        ],
    )
    def test_wrong_urls_say_why(self, text, why):
        with pytest.raises(ValueError, match=r"^URL") as caught:
            url.parse(text)
        assert why in str(caught.value)

    @pytest.mark.parametrize(
        ("options", "error"),
        [
            ({"key": b"k" * 32}, ValueError),
            ({"compress": "lz4"}, ValueError),
            ({"io": "fast"}, ValueError),
            ({"dtype": object}, TypeError),
            ({"dtype": "S"}, ValueError),
            ({"dtype": "nonsense"}, TypeError),
            ({"shape": (-1, -1)}, ValueError),
            ({"shape": (-2,)}, ValueError),
            ({"shape": [1] * 33}, ValueError),
            ({"curve": (b"x" * 40, b"y" * 40)}, ValueError),
            ({"curve": (b"short", b"y" * 40, b"z" * 40)}, ValueError),
            ({"curve": (b"x" * 40,) * 3, "plain": ("a", "b")}, ValueError),
            ({"unknown": 1}, TypeError),
        ],
        ids=str,
    )
    def test_wrong_options_are_refused(self, options, error):
        for call in (ingest.listen, ingest.connect):
            with pytest.raises(error):
                call("zmq+tcp://127.0.0.1:0", **options)

    def test_options_of_zeromq_are_for_zeromq(self):
        for call in (ingest.listen, ingest.connect):
            with pytest.raises(TypeError, match="dtype: for zmq"):
                call("tcp://127.0.0.1:0", dtype="f8")

    def test_an_address_in_use_is_an_oserror(self):
        for kind in ("pull", "push"):
            with ingest.listen(f"{ANY}?type={kind}") as link, pytest.raises(OSError, match="use"):
                ingest.listen(f"{link.url}?type={kind}")
