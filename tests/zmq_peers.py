"""Sockets of libzmq, by pyzmq, that the tests of ZeroMQ have as peers; and their fixtures."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import zmq

import processes
from ingest_links import LIMIT, Bare, threads
from numpush import WaitTimeout, ingest
from numpush.ingest import zmtp

ANY = "zmq+tcp://127.0.0.1:0"
LIMIT_MS = round(LIMIT * 1e3)
SIZES = [0, 1, 255, 256, 65536, 3_333_333, 20_000_001]


@pytest.fixture(scope="module", autouse=True)
def collector_of_pyzmq():
    """Start the thread that pyzmq keeps for what is sent without a copy: no test is to blame."""
    with zmq.Context() as context, context.socket(zmq.PAIR) as one, context.socket(zmq.PAIR) as two:
        port = one.bind_to_random_port("tcp://127.0.0.1")
        two.connect(f"tcp://127.0.0.1:{port}")
        one.send(bytes(1 << 17), copy=False, track=True).wait(LIMIT)


@pytest.fixture(autouse=True)
def no_thread_is_left():
    yield
    processes.eventually(lambda: not threads(), LIMIT)


@pytest.fixture(name="context")
def context_of_libzmq():
    """A context of libzmq, whose sockets go with it."""
    found = zmq.Context()
    yield found
    found.destroy(linger=0)
    opened.clear()


opened = []  #: pyzmq warns of sockets that go before they are closed


def open_socket(context, kind, **options):
    sock = context.socket(kind)
    opened.append(sock)
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


def tcp_url(link):
    return link.url.removeprefix("zmq+")


def push_by_hand(link):
    """Return a peer that has done the handshake, and says what the test wants."""
    bare = Bare(tcp_url(link))
    bare.write(zmtp.pack_greeting() + zmtp.pack_ready("PUSH"))
    bare.read(zmtp.GREETING_SIZE)
    bare.read(len(zmtp.pack_ready("PULL")))
    return bare


def drain(link):
    try:
        while True:
            link.recv(0.3)
    except WaitTimeout:
        pass


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


def until_it_arrives(out, link, obj, **options):
    """Send until a subscription has reached the publisher."""

    def arrives():
        out.send(obj, **options)
        try:
            return (link.recv(0.01),)
        except WaitTimeout:
            return None

    return processes.eventually(arrives, LIMIT)[0]
