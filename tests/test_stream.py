"""Bytes between sockets and memory or files, by C."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import threading

import numpy as np
import pytest

from ingest_links import LIMIT
from numpush.ffi import stream

SIZE = 3_333_333  #: large enough to be waited for a mebibyte at a time
SECOND_NS = 10**9


@pytest.fixture(params=["tcp", "unix"])
def pair(request):
    """Two connected sockets, the first one as links have it."""
    with contextlib.ExitStack() as stack:
        if request.param == "unix":
            ours, theirs = socket.socketpair()
        else:
            server = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            theirs = socket.create_connection(server.getsockname())
            ours, _ = server.accept()
        stack.enter_context(ours)
        stack.enter_context(theirs)
        ours.setblocking(False)
        theirs.settimeout(LIMIT)
        yield ours, theirs


@pytest.fixture(params=["recv", "splice"])
def receive(request, pair):
    """Return what receives SIZE bytes by either engine, and what was received."""
    sock = pair[0].fileno()
    if request.param == "recv":
        memory = np.zeros(SIZE, np.uint8)
        address = memory.__array_interface__["data"][0]
        yield lambda at, ns: stream.recv(sock, address + at, SIZE - at, ns), memory.tobytes
        return
    fd, pipe = os.memfd_create("numpush-test"), os.pipe()
    yield (
        lambda at, ns: stream.splice(sock, pipe, fd, at, SIZE - at, ns),
        lambda: os.pread(fd, SIZE, 0),
    )
    for each in (fd, *pipe):
        os.close(each)


def wakes_at(sock):
    return sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT)


def test_what_comes_in_small_pieces_is_no_silence(pair, receive):
    """The wait is for a mebibyte; less, when the time has passed, is received all the same."""
    ours, theirs = pair
    call, _ = receive
    timer = threading.Timer(0.05, theirs.sendall, [bytes(1000)])
    timer.start()
    assert call(0, SECOND_NS) == (1000, errno.EAGAIN)
    timer.join()
    assert wakes_at(ours) == 1


def test_all_of_it_comes_and_the_socket_is_as_it_was(pair, receive):
    ours, theirs = pair
    call, received = receive
    data = np.arange(SIZE, dtype=np.uint32).astype(np.uint8).tobytes()
    thread = threading.Thread(target=theirs.sendall, args=[data + b"next"])
    thread.start()
    assert call(0, int(LIMIT * SECOND_NS)) == (SIZE, 0)
    thread.join(LIMIT)
    assert received() == data
    assert wakes_at(ours) == 1
    assert ours.recv(9) == b"next"


def test_an_end_before_a_mebibyte_is_noticed_at_once(pair, receive):
    ours, theirs = pair
    call, _ = receive
    theirs.sendall(bytes(1000))
    timer = threading.Timer(0.05, theirs.close)
    timer.start()
    assert call(0, int(LIMIT * SECOND_NS)) == (1000, errno.ENODATA)
    timer.join()
    assert wakes_at(ours) == 1
