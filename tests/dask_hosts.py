"""Two hosts for Dask on one machine: network namespaces joined by a veth, each with a /dev/shm of its own.

A host is a process that holds its namespaces (of networks and mounts), and what is started in it; all go
with the `with` block. Needs root, iproute2 and util-linux.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

__all__ = ["Host", "two_hosts", "why_no_hosts"]

LIMIT = 60.0
PORT = 8786
#: Dask notices a cut link after so long, instead of half a minute.
ENV = {
    "DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT": "5s",
    "DASK_DISTRIBUTED__COMM__TIMEOUTS__TCP": "12s",
    "DASK_DISTRIBUTED__ADMIN__TICK__LIMIT": "1h",
    "PYTHONWARNINGS": "ignore",
}


class Host:
    """A host named *name* with the address 10.77.0.*number*."""

    def __init__(self, name: str, number: int, shm: str = "4g") -> None:
        self.name = name
        self.address = f"10.77.0.{number}"
        self.started: list[subprocess.Popen[str]] = []
        self._holder = subprocess.Popen(
            ["unshare", "--mount", "--net", "sh", "-c",
             f"mount -t tmpfs -o size={shm} tmpfs /dev/shm && echo ready && exec sleep infinity"],
            stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert self._holder.stdout is not None
        assert self._holder.stdout.readline() == "ready\n"
        self.folder = tempfile.mkdtemp(prefix="dask-")

    @property
    def pid(self) -> int:
        return self._holder.pid

    def command(self, *words: str) -> list[str]:
        """Return what runs a command here."""
        return ["nsenter", "--target", str(self.pid), "--mount", "--net", *words]

    def run(self, *words: str) -> str:
        """Run a command here; return what it prints."""
        return subprocess.run(
            self.command(*words), check=True, capture_output=True, text=True, timeout=LIMIT
        ).stdout

    def start(self, *arguments: str, log: Path | None = None, **env: str) -> subprocess.Popen[str]:
        """Start Python with *arguments* here."""
        with open(os.devnull if log is None else log, "a") as file:
            child = subprocess.Popen(
                self.command(sys.executable, *arguments),
                env={**os.environ, **ENV, **env}, stdout=file, stderr=file, text=True,
            )  # fmt: skip
        self.started.append(child)
        return child

    def shm(self) -> list[str]:
        """Return the names in its /dev/shm."""
        return os.listdir(f"/proc/{self.pid}/root/dev/shm")

    def close(self) -> None:
        for child in reversed(self.started):
            child.kill()
            child.wait(LIMIT)
        self._holder.kill()
        self._holder.wait(LIMIT)
        assert self._holder.stdout is not None
        self._holder.stdout.close()
        shutil.rmtree(self.folder, ignore_errors=True)  # a killed worker leaves its own there


def why_no_hosts() -> str:
    """Return why there can be no such hosts here; "": there can."""
    if os.geteuid() != 0:
        return "not root: no namespaces of networks"
    probe = "mount -t tmpfs tmpfs /dev/shm && ip link add probe0 type veth peer name probe1"
    try:
        done = subprocess.run(
            ["unshare", "--mount", "--net", "sh", "-c", probe],
            capture_output=True, text=True, timeout=LIMIT, check=False,
        )  # fmt: skip
    except OSError as error:
        return str(error)
    return done.stderr.strip() if done.returncode else ""


@contextlib.contextmanager
def two_hosts() -> Iterator[tuple[Host, Host]]:
    """Give two hosts that reach each other."""
    with contextlib.ExitStack() as stack:
        hosts = [Host(name, number) for name, number in (("a", 1), ("b", 2))]
        for host in hosts:
            stack.callback(host.close)
        a, b = hosts
        a.run(*f"ip link add eth0 type veth peer name eth0 netns {b.pid}".split())
        for host in hosts:
            host.run("ip", "address", "add", f"{host.address}/24", "dev", "eth0")
            host.run("ip", "link", "set", "eth0", "up")
            host.run("ip", "link", "set", "lo", "up")
        yield a, b


def start_cluster(
    hosts: tuple[Host, Host], workers: tuple[int, int], *, adapter: bool = True, log: Path | None = None,
    memory_limit: str = "0",
) -> str:  # fmt: skip
    """Start a scheduler on the first host and workers on both; return the scheduler's address."""
    a = hosts[0]
    address = f"tcp://{a.address}:{PORT}"
    preload = ["--preload", "numpush.adapters.dask"] if adapter else []
    a.start(
        "-m", "distributed.cli.dask_scheduler", "--host", a.address, "--port", str(PORT),
        "--no-dashboard", log=log,
    )  # fmt: skip
    for host, n in zip(hosts, workers, strict=True):
        for i in range(n):
            host.start(
                "-m", "distributed.cli.dask_worker", address, "--host", host.address,
                "--nthreads", "1", "--name", f"{host.name}{i}", "--no-dashboard",
                "--memory-limit", memory_limit, "--local-directory", host.folder, *preload,
                log=log,
            )  # fmt: skip
    return address
