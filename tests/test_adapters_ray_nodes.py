"""The adapter for Ray: nodes that share a /dev/shm, a driver that is killed, a client.

Each test has a cluster of its own, in processes of their own: Ray has one per process.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time

import pytest

import processes

pytest.importorskip("ray", reason="Ray is not installed: make test-ray")

pytestmark = pytest.mark.ray

GONE = 20.0  #: seconds after its end in which what a job had is gone: docs/scaling-out.md

START = """
import os, sys
import numpy as np
import ray
from ray.cluster_utils import Cluster
import numpush.adapters.ray
import ray_tasks
from numpush import SArray, SDataFrame

cluster = Cluster()
for name in sys.argv[1:]:
    node = cluster.add_node(
        num_cpus=1, object_store_memory=100 << 20, resources={name: 1}, include_dashboard=False
    )
ray.init(
    cluster.address,
    log_to_driver=False,
    logging_level="ERROR",
    runtime_env={"worker_process_setup_hook": "numpush.adapters.ray.install"},
)
numpush.adapters.ray.install()

def run(where, function, *args):
    task = ray.remote(function).options(num_cpus=0, resources={where: 0.1})
    return ray.get(task.remote(*args), timeout=60)
"""

TWO_NODES = (
    START
    + """
array = SArray(np.zeros(3_333))
ref = ray.put(array)
for i, where in enumerate(["first", "second"]):
    assert run(where, ray_tasks.names, [array]) == [array.name]
    assert run(where, ray_tasks.add_to, ref, i)[0] == "SArray"
assert array[:3].tolist() == [1.0, 1.0, 0.0]  # one memory: both wrote into it
made = run("second", ray_tasks.make_all, 100)
[frame] = made["frame"]
assert run("first", ray_tasks.set_column, frame, "new", 1) == "SDataFrame"
assert frame["new"].sum() == 100
cluster.remove_node(node)
array[0] = 7.0
assert run("first", ray_tasks.total, [array, frame["x"]][0]) == 8.0
assert frame["s"].iloc[99] == "row 99"  # the node that made it is gone
print("done", flush=True)
ray.shutdown()
cluster.shutdown()
"""
)

KILLED = (
    START
    + """
array, frame = SArray(np.zeros(3_333)), SDataFrame({"x": np.zeros(3_333)})
refs = [ray.put(array), ray.put([frame, array[5:]])]
holder = ray.remote(ray_tasks.Holder).options(num_cpus=0).remote()
ray.get(holder.keep.remote(array))
results = [ray.remote(ray_tasks.make).options(num_cpus=0).remote(100) for _ in range(3)]
ray.wait(results, num_returns=3)
print("at work", flush=True)
input()
"""
)


CLIENT = """
import socket, sys
import numpy as np
import ray
from ray.cluster_utils import Cluster
import numpush.adapters.ray
import ray_tasks
from numpush import SArray

with socket.create_server(("127.0.0.1", 0)) as free:
    port = free.getsockname()[1]
cluster = Cluster()
cluster.add_node(
    num_cpus=1, object_store_memory=100 << 20, include_dashboard=False, ray_client_server_port=port
)
ray.init(f"ray://127.0.0.1:{port}", log_to_driver=False, logging_level="ERROR")
try:
    numpush.adapters.ray.install()
except RuntimeError as error:
    print(error)
kind, total = ray.get(ray.remote(ray_tasks.kind_and_total).remote(SArray(np.ones(10))))
print(kind, total, flush=True)
ray.shutdown()
cluster.shutdown()
"""


@pytest.fixture
def start(monkeypatch):
    """Give what starts a driver, with names for its nodes; at the end all that it started is ended."""
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    monkeypatch.setenv("PYTHONPATH", str(processes.HERE))
    monkeypatch.setenv("NUMPUSH_WARM_BYTES", "0")
    namespace = processes.new_namespace()
    monkeypatch.setenv("NUMPUSH_NAMESPACE", namespace)
    with tempfile.TemporaryDirectory(prefix="ray", ignore_cleanup_errors=True) as folder:
        monkeypatch.setenv("RAY_TMPDIR", folder)

        def run(script, *nodes):
            driver = subprocess.Popen(
                [sys.executable, "-c", script, *nodes],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            )  # fmt: skip
            driver.namespace = namespace
            started.append(driver)
            return driver

        started = []
        yield run
        for driver in started:
            driver.kill()
            driver.communicate(timeout=processes.LIMIT)
        kill_those_in(folder)


def kill_those_in(folder):
    """Kill who has *folder* in its environment: a killed driver's raylets are nobody's children."""
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/environ", "rb") as file:
                is_there = f"RAY_TMPDIR={folder}\0".encode() in file.read()
            if is_there:
                os.kill(int(pid), signal.SIGKILL)
        except OSError:
            continue


def segments(namespace):
    return {f for f in processes.files_of(namespace) if ".seg." in f}


def test_nodes_that_share_a_dev_shm_work_on_the_same_memory(start):
    driver = start(TWO_NODES, "first", "second")
    out, errors = driver.communicate(timeout=3 * processes.LIMIT)
    assert out == "done\n", errors
    processes.eventually(lambda: not segments(driver.namespace), GONE)


def test_a_killed_drivers_segments_are_gone(start):
    driver = start(KILLED, "first")
    if driver.stdout.readline() != "at work\n":
        pytest.fail(driver.communicate(timeout=processes.LIMIT)[1])
    assert len(segments(driver.namespace)) == 5
    driver.kill()
    driver.wait()
    killed = time.monotonic()
    processes.eventually(lambda: not segments(driver.namespace), GONE)
    assert time.monotonic() - killed < GONE


def test_a_client_is_told_to_submit_its_script_and_its_arrays_go_by_value(start, monkeypatch):
    pytest.importorskip("grpc", reason="Ray's client needs grpcio: make test-ray")
    # Ray forks with grpc's threads running, and its epoll does not survive that everywhere.
    monkeypatch.setenv("GRPC_ENABLE_FORK_SUPPORT", "0")
    monkeypatch.setenv("GRPC_POLL_STRATEGY", "poll")
    out, errors = start(CLIENT).communicate(timeout=2 * processes.LIMIT)
    [refused, arrived] = out.splitlines() or [errors, ""]
    assert "this is a client (ray://); submit the script as a job" in refused
    assert arrived == "ndarray 10.0"
