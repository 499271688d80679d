"""numpush.adapters.dask between hosts, and when workers and links die. Needs root and namespaces.

Two hosts are network namespaces joined by a veth, each with a /dev/shm of its own (dask_hosts.py): the
scheduler and a worker on the first, two workers on the second, each with a nanny.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import dask_hosts
import processes

WHY_NO_HOSTS = dask_hosts.why_no_hosts()
pytestmark = [
    pytest.mark.system,
    pytest.mark.leaves_processes,
    pytest.mark.skipif(bool(WHY_NO_HOSTS), reason=WHY_NO_HOSTS or "it can"),
]

LIMIT = 180.0
NAMESPACE = "nptest-hosts"

PREAMBLE = f"""
import sys, os, signal, time
sys.path.insert(0, {str(Path(__file__).parent)!r})
import numpy as np, pandas as pd
from distributed import Client, wait
import dask_tasks as tasks
from numpush.adapters import dask as adapter

adapter.install(share_from=1 << 16)
client = Client(sys.argv[1], timeout=60)
client.wait_for_workers(3, timeout=60)
client.upload_file(tasks.__file__)
workers = {{w["name"]: a for a, w in client.scheduler_info()["workers"].items()}}

def on(name, function, *args):
    return client.submit(function, *args, workers=workers[name], pure=False)
"""


class Cluster:
    def __init__(self, hosts: tuple[dask_hosts.Host, dask_hosts.Host], log: Path) -> None:
        self.hosts = hosts
        self.log = log
        self.address = dask_hosts.start_cluster(hosts, (1, 2), log=log)

    def start(self, code: str) -> subprocess.Popen[str]:
        """Start a client on the first host, that ends by printing "done"."""
        return subprocess.Popen(
            self.hosts[0].command(
                sys.executable, "-c", PREAMBLE + textwrap.dedent(code), self.address
            ),
            env={**os.environ, **dask_hosts.ENV}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def run(self, code: str) -> None:
        self.finish(self.start(code))

    def finish(self, client: subprocess.Popen[str]) -> None:
        try:
            out, errors = client.communicate(timeout=LIMIT)
        finally:
            client.kill()
            client.wait()
        assert out.splitlines()[-1:] == ["done"], f"{out}\n{errors}\n{self.log.read_text()[-9000:]}"

    def segments(self, host: int) -> list[str]:
        return [name for name in self.hosts[host].shm() if ".seg." in name]


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    monkeypatch.setenv("NUMPUSH_NAMESPACE", NAMESPACE)
    with dask_hosts.two_hosts() as hosts:
        cluster = Cluster(hosts, tmp_path / "log")
        yield cluster
        for host in hosts:
            for child in reversed(host.started):
                child.send_signal(signal.SIGKILL if child is host.started[0] else signal.SIGTERM)
            for child in host.started:
                child.wait(LIMIT)
            host.run(sys.executable, "-m", "numpush", "gc")
            assert not [name for name in host.shm() if name.startswith(NAMESPACE)]


def test_a_frame_crosses_once_and_is_handed_on_there(cluster):
    cluster.run("""
    for make in (tasks.make_frame, tasks.make_mixed, tasks.make_array):
        there = on("a0", make)
        landed = on("b0", tasks.segment_of, there).result()
        assert landed is not None, make
        assert landed != on("a0", tasks.segment_of, there).result()
        client.run(lambda dask_worker: dask_worker.transfer_incoming_log.clear())
        assert on("b1", tasks.segment_of, there).result() == landed
        found, expected = on("b1", lambda x: x, there).result(), make()
        assert (found == expected).all(axis=None)
        del there
    print("done")
    """)


def test_shared_partitions_lie_once_on_each_host(cluster):
    cluster.run("""
    import dask.dataframe as dd
    frame = tasks.make_frame(1)
    ddf = adapter.share(dd.from_pandas(frame, npartitions=3))
    wait(ddf)
    from distributed import futures_of
    for future in futures_of(ddf):
        for name in ("a0", "b0", "b1"):
            assert on(name, lambda p: type(p).__name__, future).result() == "SDataFrame"
        assert on("b0", tasks.name_of, future).result() == on("b1", tasks.name_of, future).result()
    assert np.isclose(ddf.a.sum().compute(), frame.a.sum())
    print("done")
    """)


def test_a_worker_that_is_killed_in_the_middle(cluster):
    cluster.run("""
    def part(i):
        time.sleep(0.05)
        return np.full(200_000, float(i))
    def both(a, b):
        time.sleep(0.05)
        return a + b
    parts = client.map(part, range(16), pure=False)
    sums = [client.submit(both, parts[i], parts[-1 - i], pure=False) for i in range(16)]
    pid = client.run(os.getpid)
    time.sleep(0.7)
    def kill(pid=pid[workers["b0"]]):
        os.kill(pid, signal.SIGKILL)
    client.run(kill, workers=[workers["b1"]])
    for found in client.gather(sums):
        assert (found == 15).all()
    client.wait_for_workers(3, timeout=60)  # its nanny has started another
    client.restart()
    client.wait_for_workers(3, timeout=60)
    again = client.submit(part, 3).result()
    assert (again == 3).all()
    print("done")
    """)


def test_a_link_that_is_cut_in_the_middle(cluster, tmp_path):
    ready = tmp_path / "ready"
    client = cluster.start(f"""
    def part(i):
        time.sleep(0.1)
        return np.full(2_000_000, float(i))
    parts = client.map(part, range(12), pure=False)
    sums = client.map(lambda a, b: a + b, parts, parts[::-1], pure=False)
    time.sleep(0.6)
    open({str(ready)!r}, "w").close()
    for future in sums:
        assert (future.result(120)[::1000] == 11).all()
    print("done")
    """)
    try:
        processes.eventually(lambda: ready.exists() or client.poll() is not None, LIMIT)
        cluster.hosts[1].run("ip", "link", "set", "eth0", "down")
    except BaseException:
        client.kill()
        raise
    cluster.finish(client)
    cluster.hosts[1].run("ip", "link", "set", "eth0", "up")


def test_a_whole_cluster_that_is_killed_leaves_nothing_for_long(cluster):
    cluster.run("""
    client.gather([on(n, tasks.segment_of, on("a0", tasks.make_frame)) for n in ("a0", "b0", "b1")])
    kept = [on(n, tasks.make_frame, i) for i, n in enumerate(("a0", "b0", "b1"))]
    wait(kept)
    client.run(lambda dask_worker: None)
    pids = client.run(os.getpid)
    os.system("sync")
    assert any(".seg." in f for f in os.listdir("/dev/shm"))
    print("done", flush=True)
    os._exit(0)
    """)
    for host in cluster.hosts:
        for child in host.started:
            child.kill()  # the nannies; their workers end with them
    processes.eventually(lambda: not any(_users(host) for host in cluster.hosts), LIMIT)


def _users(host: Any) -> list[int]:
    """Return the pids of the processes that have this host's network, but for its holder."""
    mine = os.readlink(f"/proc/{host.pid}/ns/net")
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            if os.readlink(f"/proc/{pid}/ns/net") == mine and int(pid) != host.pid:
                found.append(int(pid))
        except OSError:
            continue
    return found
