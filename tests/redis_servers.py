"""Real Redis servers for tests: on a Unix socket and a TCP port, killed and started again at will.

A server ends with the process that started it, even when that is killed.
"""

from __future__ import annotations

import contextlib
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis

LIMIT = 30.0  #: seconds that a server may take to start
BINARY = shutil.which("redis-server")
_DIE_WITH_US = """
import ctypes, os, sys
ctypes.CDLL(None).prctl(1, 9)  # PR_SET_PDEATHSIG, SIGKILL
os.execv(sys.argv[1], sys.argv[1:])
"""


class Server:
    """A server that runs in *folder*; each start has the same ports and, with *keeps*, the same data."""

    def __init__(self, folder: Path, *options: str, keeps: bool = False) -> None:
        if BINARY is None:
            pytest.skip("there is no redis-server on PATH")
        self.folder = folder
        self.socket = f"{folder}/redis.sock"
        self.port = free_port()
        self.url = f"redis+unix://{self.socket}"
        self.tcp = f"redis://127.0.0.1:{self.port}"
        kept = ("--appendonly", "yes", "--appendfsync", "always") if keeps else ("--save", "")
        self._command = [
            *(BINARY, "--bind", "127.0.0.1", "--port", str(self.port), "--dir", str(folder)),
            *("--unixsocket", self.socket, *kept, *options),
        ]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> Server:
        with open(self.folder / "log", "ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _DIE_WITH_US, *self._command], stdout=log, stderr=log
            )
        until = time.monotonic() + LIMIT
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > until:
                self.kill()
                pytest.fail(f"the server did not start:\n{(self.folder / 'log').read_text()}")
            time.sleep(0.01)
        return self

    def _answers(self) -> bool:
        with redis.Redis(unix_socket_path=self.socket) as client:
            try:
                return bool(client.ping())
            except redis.AuthenticationError:
                return True
            except (redis.ConnectionError, redis.ResponseError):
                return False

    def kill(self, how: int = signal.SIGKILL) -> None:
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(LIMIT)
            self._process = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @contextmanager
    def client(self) -> Iterator[redis.Redis]:
        with redis.Redis(unix_socket_path=self.socket) as client:
            yield client


@contextmanager
def running(folder: Path, *options: str, keeps: bool = False) -> Iterator[Server]:
    """Give a server that runs within."""
    server = Server(folder, *options, keeps=keeps).start()
    try:
        yield server
    finally:
        server.kill()


@contextmanager
def cluster(folder: Path, n: int = 3) -> Iterator[list[Server]]:
    """Give the nodes of a cluster, each of which has a part of the slots."""
    with contextlib.ExitStack() as stack:
        nodes = []
        for i in range(n):
            (folder / str(i)).mkdir()
            options = ("--cluster-enabled", "yes", "--cluster-port", str(free_port()))
            options += ("--cluster-node-timeout", "2000", "--cluster-require-full-coverage", "no")
            nodes.append(stack.enter_context(running(folder / str(i), *options)))
        edges = [16384 * i // n for i in range(n + 1)]
        bus = [int(node._command[node._command.index("--cluster-port") + 1]) for node in nodes]
        for node, first, last in zip(nodes, edges, edges[1:]):
            with node.client() as client:
                client.execute_command("CLUSTER ADDSLOTSRANGE", first, last - 1)
                for other, port in zip(nodes, bus):
                    client.execute_command("CLUSTER MEET", "127.0.0.1", other.port, port)
        until = time.monotonic() + LIMIT
        for node in nodes:
            with node.client() as client:
                wanted = {"cluster_state": "ok", "cluster_known_nodes": str(n)}
                wanted["cluster_slots_assigned"] = "16384"
                while wanted.items() - (found := client.execute_command("CLUSTER INFO")).items():
                    if time.monotonic() > until:
                        pytest.fail(f"the cluster does not form: {found}")
                    time.sleep(0.05)
        yield nodes


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def has_tls() -> bool:
    """Whether the server was built with TLS."""
    if BINARY is None:
        return False
    done = subprocess.run(
        [BINARY, "--port", "0", "--tls-port", "none"], capture_output=True, text=True, timeout=LIMIT
    )
    return "bad directive" not in (done.stdout + done.stderr).lower()


class Proxy:
    """Stands between clients and a server, and does harm to what the server says.

    Attributes
    ----------
    harm : (data, count) -> bytes to hand on; b"" closes the connection, None keeps silent from then on.
        *count* is what came on this connection before
    """

    def __init__(self, server: Server) -> None:
        self._server = server
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"redis://127.0.0.1:{self._listener.getsockname()[1]}"
        self.harm: Callable[[bytes, int], bytes | None] = unharmed
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.socket(socket.AF_UNIX)
            server.connect(self._server.socket)
            for pair in ((client, server, False), (server, client, True)):
                thread = threading.Thread(target=self._hand_on, args=pair)
                self._threads.append(thread)
                thread.start()

    def _hand_on(self, source: socket.socket, sink: socket.socket, is_reply: bool) -> None:
        count, is_silent = 0, False
        with source, contextlib.suppress(OSError):
            while data := source.recv(65536):
                harmed = self.harm(data, count) if is_reply else data
                count += len(data)
                is_silent = is_silent or harmed is None
                if not is_silent and not harmed:
                    break
                if harmed and not is_silent:
                    sink.sendall(harmed)
            with contextlib.suppress(OSError):
                sink.shutdown(socket.SHUT_RDWR)
            with contextlib.suppress(OSError):
                source.shutdown(socket.SHUT_RDWR)

    def __enter__(self) -> Proxy:
        return self

    def __exit__(self, *error: object) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(LIMIT)


def unharmed(data: bytes, count: int) -> bytes:
    return data
