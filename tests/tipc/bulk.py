"""Many bytes there and back over a TIPC stream: `bulk.py echo|check TYPE INSTANCE BYTES`.

`echo` splices what comes into a file in /dev/shm and sends it back from there by sendfile; its Python sees
no byte of it. `check` sends, and compares.
"""

from __future__ import annotations

import hashlib
import os
import socket
import struct
import sys
import tempfile

import numpy as np

from numpush.ingest import topology

LIMIT = 60.0  #: seconds that one call may wait
STREAM_LIMIT = struct.pack("@ll", int(LIMIT), 0)


def limit_waiting(connection: socket.socket) -> socket.socket:
    """Have calls on a blocking socket fail after LIMIT; a timeout of Python's would make it non-blocking."""
    for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
        connection.setsockopt(socket.SOL_SOCKET, option, STREAM_LIMIT)
    return connection


def echo(service: int, instance: int, n: int) -> None:
    """Take *n* bytes from one peer into a file in /dev/shm and send them back from it."""
    name = (socket.TIPC_ADDR_NAMESEQ, service, instance, instance, socket.TIPC_CLUSTER_SCOPE)
    with limit_waiting(socket.socket(socket.AF_TIPC, socket.SOCK_STREAM)) as listener:
        listener.listen()  # first: with bind the name is known, and who calls then must not be refused
        listener.bind(name)
        connection, _ = listener.accept()
    out, into = os.pipe()
    with limit_waiting(connection), tempfile.TemporaryFile(dir="/dev/shm") as file:
        received = 0
        while received < n:
            piece = os.splice(connection.fileno(), into, n - received)
            assert piece, f"the peer went after {received} of {n} bytes"
            received += piece
            while piece:
                piece -= os.splice(out, file.fileno(), piece)
        sent = 0
        while sent < n:
            sent += os.sendfile(connection.fileno(), file.fileno(), sent, n - sent)
        assert connection.recv(1) == b"", "more than was said"
    os.close(out)
    os.close(into)


def check(service: int, instance: int, n: int) -> None:
    """Send *n* bytes to an `echo`, wherever it is, and see that the same come back."""
    data = np.random.default_rng(n).bytes(n)
    assert topology.wait_published(service, instance, LIMIT), f"no {service}:{instance}"
    with limit_waiting(socket.socket(socket.AF_TIPC, socket.SOCK_STREAM)) as connection:
        connection.connect((socket.TIPC_ADDR_NAME, service, instance, 0, socket.TIPC_CLUSTER_SCOPE))
        connection.sendall(data)
        back = connection.recv(n, socket.MSG_WAITALL)
        assert (len(back), hashlib.sha256(back).digest()) == (n, hashlib.sha256(data).digest())
        connection.shutdown(socket.SHUT_RDWR)  # the peer reads the end; after a close, ECONNRESET


if __name__ == "__main__":
    {"echo": echo, "check": check}[sys.argv[1]](*map(int, sys.argv[2:]))
