"""Links for tests: over each transport, and by hand, byte by byte."""

from __future__ import annotations

import contextlib
import functools
import secrets
import socket
import ssl
import threading
from collections.abc import Iterator
from typing import Any

import trustme

from numpush import ingest
from numpush.ingest.hello import shake_hands
from numpush.ingest.url import parse

LIMIT = 30.0  #: seconds that anything may take on a busy machine
TRANSPORTS = ("tcp", "tcp6", "tls", "unix", "abstract")
TIPC_TRANSPORTS = ("tipc", "tipc+seqpacket", "tipc+rdm")  #: where the kernel has it: tests/tipc


@functools.cache
def contexts() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Return what a server and a client need for TLS."""
    authority = trustme.CA()
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(server)
    client = ssl.create_default_context()
    authority.configure_trust(client)
    return server, client


def url_of(transport: str, folder: Any) -> str:
    if transport in TIPC_TRANSPORTS:
        return f"{transport}://18951:{secrets.randbits(32)}"
    return {
        "tcp": "tcp://127.0.0.1:0",
        "tcp6": "tcp://[::1]:0",
        "tls": "tls+tcp://127.0.0.1:0",
        "unix": f"unix://{folder}/link.sock",
        "abstract": f"unix://@numpush-test-{secrets.token_hex(8)}",
    }[transport]


def options_of(transport: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the options of the listening and the connecting end."""
    if transport != "tls":
        return {}, {}
    server, client = contexts()
    return {"ssl": server}, {"ssl": client}


@contextlib.contextmanager
def link(transport: str, folder: Any, **options: Any) -> Iterator[tuple[Any, Any]]:
    """Give a listener and a connection to it."""
    for_listen, for_connect = options_of(transport)
    with (
        ingest.listen(url_of(transport, folder), **for_listen, **options) as listener,
        ingest.connect(listener.url, **for_connect, **options) as connection,
    ):
        yield listener, connection


class Bare:
    """A connected socket (TCP, TLS, unix) that says what a test wants it to say."""

    def __init__(self, url: str) -> None:
        address = parse(url)
        self.sock = socket.socket(address.family)
        self.sock.settimeout(LIMIT)
        self.sock.connect(address.sockaddr)
        if address.scheme == "tls+tcp":
            _, client = contexts()
            self.sock = client.wrap_socket(self.sock, server_hostname=address.host)

    def greet(self, key: bytes | None = None) -> Bare:
        """Do the handshake of a connecting end."""
        shake_hands(self, key, is_listening=False)
        return self

    def read(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            more = self.sock.recv(size - len(data))
            if not more:
                raise ConnectionError(f"the end after {data!r}")
            data += more
        return data

    def read_all(self) -> bytes:
        """Read until the other end closes."""
        data = b""
        with contextlib.suppress(ConnectionResetError):
            while more := self.sock.recv(1 << 16):
                data += more
        return data

    def write(self, data: bytes) -> None:
        self.sock.sendall(data)

    def __enter__(self) -> Bare:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()


def threads() -> set[str]:
    """Return the names of the threads that links have."""
    return {each.name for each in threading.enumerate() if each.name.startswith("numpush ")}
