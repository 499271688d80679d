"""Peers of ZeroMQ that are no such, that come and go, that are killed; and who may come at all."""

from __future__ import annotations

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
from numpush import WaitTimeout, ingest
from numpush.ingest import hub, zmtp
from zmq_peers import (  # noqa: F401  # fixtures
    ANY,
    bound,
    collector_of_pyzmq,
    connected,
    context_of_libzmq,
    drain,
    endpoint,
    failure,
    frame,
    no_thread_is_left,
    open_socket,
    opened,
    push_by_hand,
    tcp_url,
    try_bind,
    until_it_arrives,
)


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
            opened.append(monitor)
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
