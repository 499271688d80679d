"""The ground that TIPC tests stand on: sockets, splice, the topology server, two nodes, and numpush itself.

`make test-tipc` runs it where there is TIPC; see guest.sh.
"""

from __future__ import annotations

import multiprocessing
import re
import shlex
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import bulk
import processes
from numpush import SArray
from numpush.ingest import topology


def _why_no_tipc() -> str:
    try:
        socket.socket(socket.AF_TIPC, socket.SOCK_STREAM).close()
    except OSError as error:
        return f"no TIPC in this kernel ({error}): make test-tipc finds one that has it"
    return ""


WHY_NO_TIPC = _why_no_tipc()
pytestmark = [
    pytest.mark.tipc,
    pytest.mark.skipif(bool(WHY_NO_TIPC), reason=WHY_NO_TIPC or "it has"),
]

HERE = Path(__file__).parent
SERVICE = 18950
N = (16 << 20) + 3333
NAME = (socket.TIPC_ADDR_NAMESEQ, SERVICE, 1, 1, socket.TIPC_CLUSTER_SCOPE)
PEER = (socket.TIPC_ADDR_NAME, SERVICE, 1, 0, socket.TIPC_CLUSTER_SCOPE)


def tipc(kind: socket.SocketKind) -> socket.socket:
    return bulk.limit_waiting(socket.socket(socket.AF_TIPC, kind))


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_SEQPACKET])
def test_a_connection_is_made_by_accept_and_ends_in_order(kind: socket.SocketKind):
    with tipc(kind) as listener, tipc(kind) as caller:
        listener.listen()
        listener.bind(NAME)
        caller.setblocking(False)  # connect would wait for accept
        with pytest.raises(BlockingIOError):
            caller.connect(PEER)
        connection, address = listener.accept()
        with connection:
            caller.setblocking(True)
            assert address == caller.getsockname()
            caller.send(b"there")
            assert connection.recv(100) == b"there"
            connection.send(b"and back")
            connection.shutdown(socket.SHUT_RDWR)
            assert caller.recv(100) == b"and back"
            assert caller.recv(100) == b""


def test_rdm_carries_messages_both_ways():
    with tipc(socket.SOCK_RDM) as server, tipc(socket.SOCK_RDM) as caller:
        server.bind(NAME)
        for message in (b"x" * 66_000, b"y"):
            caller.sendto(message, PEER)
            received, address = server.recvfrom(1 << 17)
            assert received == message
            server.sendto(message[::-1], address)
            assert caller.recv(1 << 17) == message[::-1]


def test_a_stream_is_spliced_into_shared_memory_and_back():
    child = processes.fork(bulk.echo, SERVICE, 2, N)
    bulk.check(SERVICE, 2, N)
    assert processes.wait(child) == 0


def test_the_topology_server_tells_who_comes_and_goes():
    assert not topology.wait_published(SERVICE, 1, 0.1)
    with tipc(socket.SOCK_RDM) as server:
        server.bind(NAME)
        seen = topology.events(SERVICE, 1, processes.LIMIT)
        assert next(seen) == socket.TIPC_PUBLISHED
    assert next(seen) == socket.TIPC_WITHDRAWN
    with tipc(socket.SOCK_RDM) as server:
        server.bind(NAME)
        assert next(seen) == socket.TIPC_PUBLISHED
    seen.close()


def test_two_nodes_talk_over_the_cable():
    program = shlex.join([sys.executable, str(HERE / "bulk.py")])
    done = subprocess.run(
        [HERE / "two_nodes.sh", f"{program} check {SERVICE} 3 {N}", f"{program} echo {SERVICE} 3 {N}"],
        capture_output=True, text=True, timeout=3 * processes.LIMIT, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    sent = [int(n) for n in re.findall(r"(\d+) bytes", done.stderr)]
    assert len(sent) == 2
    assert min(sent) > N, "it did not take the cable"
    print(done.stderr)


def _double(array: SArray) -> int:
    array *= 2
    return int(array.sum())


def test_arrays_are_shared():
    array = SArray(np.ones((3, 3333)))
    with multiprocessing.get_context("fork").Pool(2) as pool:
        assert pool.map(_double, list(array)) == [6666] * 3
        pool.close()
        pool.join()
    assert (array == 2).all()
