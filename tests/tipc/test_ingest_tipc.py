"""Ingest over TIPC: what holds for every transport, and what is TIPC's own."""

from __future__ import annotations

import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

import processes
import test_ingest
from ingest_links import LIMIT, TIPC_TRANSPORTS, threads, url_of
from numpush import WaitTimeout, ingest
from numpush.ingest import hub, packets, rdm, sockets, tipc, wire
from numpush.ingest.hello import shake_hands
from numpush.ingest.url import parse
from test_guest import HERE, pytestmark  # noqa: F401  # marked and skipped as those are
from test_ingest_peers import failure, receive_for_ever, send_often


@pytest.fixture(params=TIPC_TRANSPORTS)
def transport(request):
    return request.param


@pytest.fixture
def ends(pair):
    return pair


@pytest.fixture
def known_url(url):
    return url


pair, url = test_ingest.pair, test_ingest.url


class TestObjects(test_ingest.TestObjects):
    @pytest.mark.parametrize("io", ["auto", "splice", "recv"])
    def test_every_way_of_receiving(self, transport, io, tmp_path):
        super().test_every_way_of_receiving(transport, io, tmp_path)


TestLinks = test_ingest.TestLinks


def stream_to(url):
    """Return a connection as a stream that has shaken hands."""
    stream = sockets.open_stream(sockets.dial(parse(url), LIMIT), "auto", None, None, LIMIT)
    shake_hands(stream, None, is_listening=False)
    return stream


def send_and_die(url, cut):
    """Be killed when all but *cut* bytes of an object are sent."""
    outgoing = wire.encode(np.ones(100_000))
    stream_to(url).write(outgoing.head, bytes(800_000 - cut))
    os.kill(os.getpid(), signal.SIGKILL)


class TestDeath:
    @pytest.mark.parametrize("cut", [800_000, 333_333, 1])
    def test_a_sender_killed_in_the_middle_leaves_nothing(self, url, cut):
        with ingest.listen(url) as listener:
            before = processes.files()
            assert processes.run_forked(send_and_die, url, cut) == -signal.SIGKILL
            error = failure(listener)
            assert isinstance(error, ingest.PeerGone)
            assert re.search("ended|broke", str(error))
            processes.eventually(lambda: len(threads()) == 1)
            with pytest.raises(WaitTimeout):
                listener.recv(0)
            processes.collect_garbage()
            assert processes.files() <= before

    def test_a_peer_killed_between_two_objects(self, url):
        with ingest.listen(url) as listener:
            child = processes.fork(lambda: (ingest.connect(url), time.sleep(LIMIT)))
            processes.eventually(lambda: listener.statistics().peers)
            os.kill(child, signal.SIGKILL)
            assert processes.wait(child) == -signal.SIGKILL
            assert "without a goodbye" in str(failure(listener))

    def test_a_killed_receiver(self, url):
        child = processes.fork(receive_for_ever, url)
        with ingest.connect(url) as connection:
            connection.send(np.ones(1 << 17))
            connection.flush(LIMIT)
            os.kill(child, signal.SIGKILL)
            assert processes.wait(child) == -signal.SIGKILL
            with pytest.raises(ingest.PeerGone):
                send_often(connection, np.ones(1 << 17))
            with pytest.raises(ingest.PeerGone):
                connection.recv(LIMIT)
        processes.collect_garbage()

    def test_a_silent_peer_is_given_up(self, url):
        with ingest.listen(url, timeout=0.5) as listener:
            stream = stream_to(url)
            stream.write(wire.encode(np.ones(100_000)).head, bytes(1000))
            assert "silent for 0.5 s" in str(failure(listener))
            stream.close()

    def test_a_link_closed_in_the_middle_of_an_object(self, url):
        listener = ingest.listen(url, timeout=LIMIT)
        stream = stream_to(url)
        stream.write(wire.encode(np.ones(100_000)).head, bytes(1000))
        processes.eventually(lambda: listener._hub.peers[0]._landing)
        time.sleep(0.1)
        listener.close()
        assert not threads()
        stream.close()

    def test_a_deadline_ends_a_send_that_waits(self, url, monkeypatch):
        monkeypatch.setattr(hub, "AHEAD", 1)
        with ingest.listen(url) as listener:
            connection = ingest.connect(url)
            with pytest.raises(WaitTimeout, match="did not take"):
                send_often(connection, np.ones(1 << 18), timeout=0.2)
            with pytest.raises(ingest.PeerGone, match="half sent"):
                connection.send(np.zeros(3))
            connection.close()
            assert listener.recv(LIMIT).size == 1 << 18


def test_what_nobody_asks_for_makes_the_sender_wait(pair, monkeypatch):
    monkeypatch.setattr(hub, "AHEAD", 2 << 20)
    listener, connection = pair
    fill_and_drain(connection, listener)
    fill_and_drain(listener, connection)


def fill_and_drain(sender, receiver):
    wanted = receiver.statistics().objects + 2
    thread = threading.Thread(
        target=lambda: [sender.send(np.full(1 << 20, i, "u1")) for i in range(8)]
    )
    thread.start()
    processes.eventually(lambda: receiver.statistics().objects == wanted)
    time.sleep(0.2)
    assert receiver.statistics().objects == wanted
    receiver.send(np.arange(3))  # while it is full one way, the other way is open
    assert sender.recv(LIMIT).tolist() == [0, 1, 2]
    for i in range(8):
        assert (receiver.recv(LIMIT) == i).all()
    thread.join(LIMIT)


def test_both_ends_send_small_things_at_once(pair):
    listener, connection = pair
    n = 1000

    def send(end):
        for i in range(n):
            end.send(np.full(3, i))

    threads = [threading.Thread(target=send, args=(end,)) for end in (listener, connection)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LIMIT)
    for end in (listener, connection):
        assert [int(end.recv(LIMIT)[0]) for _ in range(n)] == list(range(n))
        end.flush(LIMIT)


class TestAddresses:
    def test_an_address_in_use(self, url):
        with (
            ingest.listen(url),
            pytest.raises(OSError, match=r"cannot listen at tipc.*: Address already in use"),
        ):
            ingest.listen(url)
        ingest.listen(url).close()  # it is free again

    def test_other_nodes_come_in_where_they_are_let_in(self, url):
        for is_open in (True, False):
            with sockets.bind(parse(url), is_open=is_open)[0] as listener:
                node = listener.getsockname()[1]
                listener.check_node((socket.TIPC_ADDR_ID, node, 5, 0, 0))
                stranger = (socket.TIPC_ADDR_ID, node + 1, 5, 0, 0)
                if is_open:
                    listener.check_node(stranger)
                    continue
                with pytest.raises(PermissionError, match="node"):
                    listener.check_node(stranger)

    def test_nobody_there(self, url):
        with pytest.raises(ingest.PeerGone, match="no process has bound it"):
            ingest.connect(url, timeout=0.3)

    def test_a_key(self, url):
        with ingest.listen(url, key=b"k" * 16) as listener:
            with pytest.raises(ingest.AccessDenied):
                ingest.connect(url, key=b"x" * 16)
            with ingest.connect(url, key=b"k" * 16) as connection:
                connection.send(np.arange(3))
            assert listener.recv(LIMIT).tolist() == [0, 1, 2]


class TestPackets:
    def test_one_that_goes_beyond_its_body_is_refused(self):
        url = url_of("tipc+seqpacket", "")
        outgoing = wire.encode(np.ones(10_000))
        with ingest.listen(url) as listener:
            stream = stream_to(url)
            stream.write(outgoing.head)
            stream.write(bytes(60_000))
            stream.write(bytes(30_000))
            assert "beyond the end" in str(failure(listener))
            stream.close()


class TestRdm:
    def test_a_flood_without_credit_ends_its_connection_and_no_other(self):
        url = url_of("tipc+rdm", "")
        child = processes.fork(self.be_flooded, url)
        outgoing = wire.encode(np.ones(1 << 20))
        stream = stream_to(url)
        pair = stream._pair
        stream.write(outgoing.head)
        os.kill(child, signal.SIGSTOP)
        for number in range(1, 100):
            rdm._send(pair.out, pair.peer_in, rdm._pack(rdm.DATA, number), bytes(60_000))
        with pytest.raises(ConnectionResetError, match="came back"):
            self.take_for_ever(pair)
        os.kill(child, signal.SIGCONT)
        time.sleep(0.2)
        stream.shutdown()
        stream.close()
        assert processes.wait(child) == 0

    @staticmethod
    def take_for_ever(pair):
        while True:
            rdm._take(pair.out, pair.peer_in, bytearray(0))

    @staticmethod
    def be_flooded(url):
        with ingest.listen(url) as listener, ingest.connect(url) as good:
            assert isinstance(failure(listener), ingest.PeerGone)
            good.send(np.arange(100_000))
            assert listener.recv(LIMIT)[-1] == 99_999

    def test_what_may_be_sent_without_credit_has_room(self):
        """No packet comes back, though the receiver takes none."""
        with rdm.Pair() as sender, rdm.Pair() as receiver:
            sender.peer_in = receiver.getsockname()[1:3]
            stream = rdm.RdmStream(sender, LIMIT)
            for _ in range(rdm.WINDOW):
                stream.write(bytes(packets.PACKET))
            for _ in range(rdm.N_SMALL):
                stream.write(bytes(rdm.SMALL))
            for size in (rdm.SMALL, packets.PACKET):
                with pytest.raises(TimeoutError):
                    stream.write(bytes(size), until=time.monotonic() + 0.2)

    def test_strangers_are_not_heard(self):
        url = url_of("tipc+rdm", "")
        with ingest.listen(url) as listener, ingest.connect(url) as connection, rdm._Port() as port:
            node = port.getsockname()[1]
            for data in (b"", b"x", rdm._pack(rdm.END, 0), rdm._pack(rdm.DATA, 0) + b"x" * 99):
                for pair in (connection._peer._stream._pair, listener._hub.peers[0]._stream._pair):
                    for sock in (pair, pair.out):
                        port.sendto(data, (socket.TIPC_ADDR_ID, node, sock.getsockname()[2], 0))
                port.sendto(data, tipc.name_of(parse(url)))
            connection.send(np.arange(100_000))
            assert listener.recv(LIMIT)[-1] == 99_999
            ingest.connect(url).close()


def run_on_two_nodes(a, b):
    program = [sys.executable, str(Path(__file__).with_name("frames.py"))]
    return subprocess.run(
        [HERE / "two_nodes.sh", shlex.join([*program, *a]), shlex.join([*program, *b])],
        capture_output=True, text=True, timeout=3 * processes.LIMIT, check=False,
    )  # fmt: skip


def test_a_frame_from_node_to_node(url):
    done = run_on_two_nodes(["send", url], ["receive", url])
    assert done.returncode == 0, done.stderr
    sent, _ = (int(n) for n in re.findall(r"(\d+) bytes", done.stderr))
    assert sent > 5_000_000, "it did not take the cable"


def test_without_a_key_other_nodes_are_not_told(tmp_path):
    url = url_of("tipc", tmp_path)
    done = run_on_two_nodes(["knock", url], ["wait_here", url])
    assert done.returncode == 0, done.stderr
