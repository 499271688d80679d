"""The adapter for Ray, in a cluster of two nodes: who receives what, and how long it lives.

The second node runs in a mount namespace, with a /dev/shm of its own, and in a pid namespace, where
all of it is killed with its first process. That takes root, or a machine that lets users do so.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import processes
import ray_tasks
from numpush import SArray, SDataFrame, SSeries
from numpush.shm import naming

ray = pytest.importorskip("ray", reason="Ray is not installed: make test-ray")

import numpush.adapters.ray  # noqa: E402  # it, too, wants Ray
from numpush.adapters.ray import passing  # noqa: E402

pytestmark = [
    pytest.mark.ray,
    # Ray leaves sockets and files of its logs to the garbage collector.
    pytest.mark.filterwarnings("ignore:unclosed (file|.*socket):ResourceWarning"),
]

N = 3_333
LIMIT = 10.0  #: seconds in which what nobody refers to is gone: docs/scaling-out.md
OTHER_NODE = """
mount -t tmpfs -o size=400m none /dev/shm
export RAY_TMPDIR=/dev/shm  # where it notes which cluster this machine is in
exec "$0" -m ray.scripts.scripts start --block --address="$1" \\
    --num-cpus=2 --resources='{"other": 1}' --object-store-memory=100000000
"""


def segments(shm=processes.SHM):
    return {f for f in os.listdir(shm) if f.startswith(f"{naming.NAMESPACE}.seg.")}


@pytest.fixture(scope="module", autouse=True)
def cluster():
    before, nodes = segments(), processes.files()
    patch = pytest.MonkeyPatch()
    folder = tempfile.TemporaryDirectory(prefix="ray")  # short: it holds sockets
    patch.setenv("RAY_TMPDIR", folder.name)  # where Ray notes which cluster this machine is in
    patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    patch.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    patch.setenv("PYTHONPATH", str(processes.HERE))
    patch.setenv("NUMPUSH_WARM_BYTES", "0")
    from ray.cluster_utils import Cluster

    started = Cluster()
    started.add_node(
        num_cpus=2,
        object_store_memory=100 << 20,
        resources={"here": 1},
        include_dashboard=False,
        # Ray finds out soon that a node is gone.
        _system_config={"health_check_period_ms": 500, "health_check_failure_threshold": 2},
    )
    ray.init(
        started.address,
        log_to_driver=False,
        logging_level="ERROR",
        runtime_env={"worker_process_setup_hook": "numpush.adapters.ray.install"},
    )
    try:
        numpush.adapters.ray.install()
        yield started
    finally:
        ray.shutdown()
        started.shutdown()
        patch.undo()
        folder.cleanup()
    # Nobody sweeps here but what the keepers left behind to do it.
    processes.eventually(lambda: not segments() - before, 2 * LIMIT)
    processes.eventually(
        lambda: {f for f in processes.files() if ".node." in f} <= nodes, 2 * LIMIT
    )


@pytest.fixture(scope="module")
def other(cluster):
    """The second node's process; its files are in its `shm`."""
    node = subprocess.Popen(
        ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc",
         "sh", "-ec", OTHER_NODE, sys.executable, cluster.address],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    try:
        processes.eventually(
            lambda: "other" in ray.cluster_resources() or node.poll() is not None, processes.LIMIT
        )
        if node.poll() is not None:
            pytest.skip(f"no node with another /dev/shm here: {node.stdout.read()}")
        [child] = Path(f"/proc/{node.pid}/task/{node.pid}/children").read_text().split()
        node.first = int(child)  # with it, all of the namespace ends
        node.shm = Path(f"/proc/{child}/root/dev/shm")
        yield node
    finally:
        node.kill()
        node.communicate(timeout=processes.LIMIT)


@pytest.fixture(autouse=True)
def _nothing_is_left(cluster, request):
    """In place of conftest.py's: workers and their nodes stay, from test to test."""
    before = segments()
    yield
    if "leaves_segments" in request.fixturenames:
        return
    request.node.funcargs.clear()
    gc.collect()
    processes.eventually(lambda: not segments() - before, LIMIT)


# Actors that live on: what one sent that ends soon after is held for a minute.


@pytest.fixture(scope="module")
def holder(cluster):
    return actor()


@pytest.fixture(scope="module")
def async_holder(cluster):
    return actor(ray_tasks.AsyncHolder)


@pytest.fixture
def leaves_segments():
    """For what is held longer than a test can wait."""


def run(function, *args, **options):
    task = ray.remote(function).options(num_cpus=0, **{"resources": {"here": 0.5}, **options})
    return ray.get(task.remote(*args), timeout=processes.LIMIT)


def actor(cls=ray_tasks.Holder, where="here"):
    resources = {where: 0.01}
    return ray.remote(cls).options(num_cpus=0, resources=resources).remote()


# -- one node


def test_a_task_writes_into_the_array_that_it_is_given():
    array = SArray(np.zeros(N))
    add_to = ray.remote(ray_tasks.add_to).options(resources={"here": 0.01})
    kinds = ray.get([add_to.remote(array, i) for i in range(20)])
    assert {kind for kind, _ in kinds} == {"SArray"}
    assert array[:20].tolist() == [1.0] * 20
    assert not array[20:].any()


def test_views_partitions_and_series_write_through():
    array = SArray(np.zeros((4, N)))
    frame = SDataFrame(pd.DataFrame({"x": np.zeros(N), "y": np.arange(N)}))
    series = SSeries(pd.Series(np.zeros(N)))
    run(ray_tasks.add_to, array[1:3].T, (0, 1))
    assert array[2, 0] == 1.0
    for i, part in enumerate(frame.partitions(3)):
        assert run(ray_tasks.set_column, part, "x", float(i)) == "SDataFrame"
    assert frame["x"].iloc[0] == 0.0
    assert frame["x"].iloc[-1] == 2.0
    run(ray_tasks.set_column, frame, "new", "text")
    assert frame["new"].tolist() == ["text"] * N
    run(ray_tasks.add_to, series, 0)
    assert series[0] == 1.0


def test_one_object_is_received_any_number_of_times():
    array = SArray(np.zeros(N))
    ref = ray.put({"deep": [array, array[5:]], "also": 1})
    for i in range(3):
        found = ray.get(ref)["deep"]
        assert [each.name for each in found] == [array.name] * 2
        found[1][0] = i
        assert array[5] == i
    name = array.name
    del array, found
    gc.collect()
    time.sleep(1.5)
    assert run(ray_tasks.names, ray.get(ref)["deep"]) == [name] * 2


def test_results_are_shared_whatever_they_are_in():
    made = run(ray_tasks.make_all, 100)
    array, [frame], series = made["array"], made["frame"], made["series"]
    assert type(array) is SArray
    assert type(frame) is SDataFrame
    assert type(series) is SSeries
    assert frame["s"].iloc[99] == "row 99"
    run(ray_tasks.add_to, array, 7)
    assert array[7] == 2.0


def test_a_task_sends_on_what_it_received_and_what_it_put():
    array = SArray(np.zeros(N))
    run(ray_tasks.forward, array, ray_tasks.add_to)
    assert array[0] == 1.0
    [ref] = run(ray_tasks.put, array)
    del array
    gc.collect()
    assert ray.get(ref)[0] == 1.0


def test_a_generator_gives_shared_arrays(holder):
    refs = list(holder.sums.options(num_returns="streaming").remote(3))
    found = [ray.get(ref) for ref in refs]
    assert [type(each) for each in found] == [SArray] * 3
    assert [each[0] for each in found] == [0.0, 1.0, 2.0]
    del refs


def test_an_async_actor_sends_and_returns(holder, async_holder):
    array = SArray(np.zeros(N))
    returned = ray.get(async_holder.forward.remote(array, holder))
    assert returned.name == array.name
    assert array[0] == 1.0
    ray.get(holder.keep.remote(None))


def test_a_worker_that_nobody_told_sends_by_handle_once_it_has_received_one(holder):
    array = SArray(np.zeros(N))
    ray.get(holder.forget_serializers.remote())
    returned = ray.get(holder.echo.remote(array))
    assert type(returned) is SArray
    assert returned.name == array.name


def test_private_changes_and_copies_go_by_value():
    array = SArray(np.zeros(N))
    private = numpush.attach(array.handle, mode="cow")
    private[0] = 5
    assert run(ray_tasks.kind_and_total, private) == ("ndarray", 5.0)
    frame = SDataFrame(pd.DataFrame({"x": [1.0, 2.0]}))
    private = numpush.attach(frame.handle, mode="cow")
    private.loc[0, "x"] = 5.0
    assert run(ray_tasks.kind_and_total, private) == ("DataFrame", 7.0)
    assert frame["x"].tolist() == [1.0, 2.0]


def test_what_is_no_object_of_rays_goes_by_value():
    """A function's closure, and what the user pickles."""
    array = SArray(np.ones(N))
    loaded = ray.cloudpickle.loads(ray.cloudpickle.dumps(array))
    assert type(loaded) is np.ndarray
    assert run(lambda: (type(array).__name__, float(array.sum()))) == ("ndarray", float(N))


# -- lifetimes


def test_a_result_outlives_a_worker_that_ends_after_its_task(leaves_segments):
    make = ray.remote(max_calls=1)(ray_tasks.make).options(num_cpus=0, resources={"here": 0.1})
    refs = [make.remote(N, float(i)) for i in range(2)]
    ray.wait(refs, num_returns=2)
    time.sleep(2)
    assert [ray.get(ref)[0] for ref in refs] == [0.0, 1.0]


def test_what_an_actor_returned_outlives_it_however_it_ends(leaves_segments):
    """Of one that is killed at once Ray forgets that its result has a tag, or not: 60 s are left."""
    holders = [actor() for _ in range(3)]
    pids = ray.get([holder.pid.remote() for holder in holders])
    refs = [holder.make.remote(N) for holder in holders]  # they keep a view
    ray.wait(refs, num_returns=3)
    os.kill(pids[0], signal.SIGKILL)
    time.sleep(0.2)
    os.kill(pids[1], signal.SIGKILL)
    with contextlib.suppress(ray.exceptions.RayError):
        ray.get(holders[2].end.remote())
    processes.eventually(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in pids), LIMIT)
    time.sleep(2)  # Ray, and the keeper, have noticed
    arrays = ray.get(refs)
    assert [array.sum() for array in arrays] == [N] * 3
    assert run(ray_tasks.total, arrays) == 3 * N


def test_what_many_put_goes_with_the_references():
    array = SArray(np.ones(N))
    refs = [ray.put(array) for _ in range(20)] + [
        ray.put(SArray(np.ones(i + 1))) for i in range(10)
    ]
    name = array.name
    del array
    gc.collect()
    time.sleep(1)
    assert ray.get(refs[0]).name == name
    assert len(segments()) >= 11
    del refs


def test_a_killed_worker_takes_only_its_own_along():
    array = SArray(np.ones(N))
    with pytest.raises(ray.exceptions.WorkerCrashedError):
        run(ray_tasks.waste, N, max_retries=0)
    assert run(ray_tasks.total, array) == N  # and what it made is gone: the fixture looks


def test_a_keeper_that_is_killed_loses_what_it_alone_had_and_is_there_again(caplog):
    array = SArray(np.ones(N))
    ref, lost = ray.put(array), ray.put(SArray(np.ones(N)))
    kill_our_keeper(caplog)
    assert ray.get(ref).name == array.name  # we have it
    other = SArray(np.ones(N))
    assert run(ray_tasks.total, other) == N
    processes.eventually(lambda: is_lost(lost), LIMIT)


def kill_our_keeper(caplog):
    caplog.set_level(logging.CRITICAL, "ray._private.serialization")  # a record keeps our frames
    ray.kill(passing._keeper(passing._where()), no_restart=False)


def has_ended(actor):
    try:
        ray.get(actor.__ray_ready__.remote())
    except ray.exceptions.ActorDiedError:
        return True
    return False


def is_lost(ref):
    try:
        ray.get(ref)
    except Exception as error:
        return "SegmentNotFound" in str(error)
    return False


# -- errors


def test_what_is_missing_is_said():
    code = "import sys; sys.modules['ray'] = None; import numpush.adapters.ray as r; r.install()"
    assert 'pip install "numpush[ray]"' in processes.run_script(code).stderr
    code = "import warnings; warnings.simplefilter('ignore'); import numpush.adapters.ray as r; r.install()"
    assert (
        "RuntimeError: Ray is not initialized: call ray.init()" in processes.run_script(code).stderr
    )


def test_a_driver_without_install_is_told_by_its_workers():
    where = ("ffff0000", passing._where()[1])
    with pytest.raises(RuntimeError, match=r"call numpush.adapters.ray.install\(\) in its"):
        passing._keeper(where)


# -- two nodes


def test_another_node_gets_a_copy_in_shared_memory_of_its_own(other):
    array = SArray(np.arange(N, dtype=float))
    ref = ray.put(array[3:])
    first, second = actor(where="other"), actor(where="other")
    name = ray.get(first.keep.remote(ref))
    assert [f for f in segments(other.shm) if name in f]
    assert name != array.name
    assert ray.get(second.keep.remote(ref)) == name  # one for all of the node
    ray.get(first.add.remote(0))
    assert ray.get(second.total.remote()) == array[3:].sum() + 1
    assert array[3] == 3.0
    del first, second, ref
    processes.eventually(lambda: not segments(other.shm), LIMIT)


def test_frames_and_results_of_another_node_arrive_by_value(other):
    made = run(ray_tasks.make_all, 100, resources={"other": 0.1})
    array, [frame], series = made["array"], made["frame"], made["series"]
    assert type(array) is SArray
    assert type(frame) is SDataFrame
    assert type(series) is SSeries
    assert frame["s"].iloc[99] == "row 99"
    assert series.sum() == 4950
    processes.eventually(lambda: not segments(other.shm), LIMIT)
    frame["x"] = 1.0
    assert run(ray_tasks.set_column, frame, "y", 2, resources={"other": 0.1}) == "SDataFrame"
    assert "y" not in frame.columns
    back = run(ray_tasks.set_column, frame, "y", 2)
    assert back == "SDataFrame"
    assert frame["y"].sum() == 200


def test_nodes_go_on_when_the_drivers_keeper_was_killed(other, caplog):
    """Ray ends those of the other nodes with it."""
    options = {"resources": {"other": 0.1}}
    array = SArray(np.ones(N))
    assert run(ray_tasks.make, N, **options).sum() == N  # we know the other's, and it knows ours
    assert run(ray_tasks.total, array, **options) == N
    ours = passing._where()
    [theirs] = [k for where, k in passing._keepers.items() if where != ours]
    kill_our_keeper(caplog)
    processes.eventually(lambda: has_ended(theirs), LIMIT)
    assert run(ray_tasks.make, N, 2.0, **options).sum() == 2 * N
    assert run(ray_tasks.total, array, **options) == N


def test_what_a_node_had_is_lost_with_it(other, caplog):
    caplog.set_level(logging.CRITICAL, "ray._private.serialization")
    make = ray.remote(ray_tasks.make).options(num_cpus=0, resources={"other": 0.1})
    lost = make.remote(N)
    assert ray.wait([lost], timeout=processes.LIMIT)[0] == [lost]
    os.kill(other.first, signal.SIGKILL)
    other.wait(processes.LIMIT)  # until all of it is dead
    with pytest.raises(ray.exceptions.RaySystemError, match="SegmentNotFound"):
        ray.get(lost)
