"""numpush.adapters.dask on a LocalCluster of two processes: what moves, what arrives, what is left."""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator
from typing import Any

import dask
import numpy as np
import pandas as pd
import pytest
from distributed import Client, LocalCluster, wait

import dask_tasks as tasks
import numpush
import processes
from numpush.adapters import dask as adapter

pytest_plugins = ["dask_fixtures"]
# The cluster is the module's: its connections come and go as Dask likes.
pytestmark = pytest.mark.leaves_processes


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    # Dask would drop every other second what two workers have.
    keep = {"distributed.scheduler.active-memory-manager.start": False}
    with (
        dask.config.set(keep),
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0") as cluster,
        Client(cluster) as client,
    ):
        adapter.install(client)
        yield client
        adapter.uninstall()


@pytest.fixture(autouse=True)
def _forgotten(client: Client) -> Iterator[None]:
    """Wait until Dask has forgotten what a test had: on a busy machine that takes its time."""
    yield
    deadline = time.monotonic() + 30
    while segments() and time.monotonic() < deadline:
        gc.collect()
        time.sleep(0.05)


def segments() -> set[str]:
    return {f for f in processes.files() if ".seg." in f}


@pytest.mark.parametrize("make", [tasks.make_frame, tasks.make_array, tasks.make_mixed])
def test_what_moves_is_one_segment_on_both_sides(on, make):
    there = on(0, make)
    here = on(1, lambda x: x, there)
    names = [on(i, tasks.segment_of, there).result() for i in (0, 1)]
    assert names[0] is not None
    assert names[0] == names[1] == on(1, tasks.segment_of, here).result()
    assert len(segments()) == 1
    expected, found = make(), here.result()
    assert type(found) is type(expected)
    if isinstance(expected, pd.DataFrame):
        pd.testing.assert_frame_equal(found, expected)
    else:
        np.testing.assert_array_equal(found, expected)


def test_what_arrives_is_private_and_writable(on):
    there = on(0, tasks.make_array)
    assert on(1, tasks.is_writable, there).result()
    assert on(1, tasks.write, there, 5.0).result() == 40.0
    assert on(0, tasks.total, there).result() == tasks.total(tasks.make_array())
    assert on(0, tasks.write, there, 7.0).result() == 56.0
    assert on(1, tasks.write, there, 1.0).result() == 8.0


@pytest.mark.parametrize("where", [0, 1])
def test_what_was_changed_in_place_moves_as_it_is_now(on, where):
    there = on(0, tasks.make_array)
    changed = on(where, tasks.double, there)
    expected = 2 * tasks.total(tasks.make_array())
    assert on(1 - where, tasks.total, changed).result() == pytest.approx(expected)


def test_frames_in_containers_move_as_places_too(on):
    there = on(0, lambda: {"a": tasks.make_frame(1), "b": [tasks.make_array(2), 3, "x"]})
    names = [
        on(i, lambda d: (tasks.segment_of(d["a"]), tasks.segment_of(d["b"][0])), there).result()
        for i in (0, 1)
    ]
    assert names[0] == names[1]
    assert None not in names[0]
    assert on(1, lambda d: (type(d), type(d["b"]), d["b"][1:]), there).result() == (
        dict,
        list,
        [3, "x"],
    )


def test_small_objects_are_left_to_dask(on):
    there = on(0, np.arange, 100)
    assert on(1, tasks.total, there).result() == 4950
    assert not segments()


def test_objects_without_a_layout_move_all_the_same(on):
    there = on(0, lambda: np.array([{"n": i} for i in range(2_000)] * 100, dtype=object))
    assert on(1, lambda x: x[-1]["n"], there).result() == 1999
    frame = on(0, lambda: pd.DataFrame({"o": [(i,) for i in range(99_999)]}))
    assert on(1, lambda f: f["o"].iloc[-1], frame).result() == (99_998,)


@pytest.mark.parametrize("direct", [True, False])
def test_scatter_and_broadcast(client, on, direct):
    frame = tasks.make_frame(3)
    future = client.scatter(frame, direct=direct, broadcast=True)
    names = {on(i, tasks.segment_of, future).result() for i in (0, 1)}
    assert len(names) == 1
    assert None not in names
    pd.testing.assert_frame_equal(client.gather(future, direct=True), frame)
    pd.testing.assert_frame_equal(client.gather(future, direct=False), frame)


def test_segments_go_when_dask_forgets_the_key(client, on):
    there = on(0, tasks.make_frame)
    here = on(1, tasks.total, there)
    wait(here)
    assert len(segments()) == 1
    del there
    processes.eventually(lambda: not segments())
    assert here.result() > 0


@pytest.mark.parametrize("method", ["p2p", "tasks"])
def test_shuffles_are_those_of_dask(client, method):
    import dask.dataframe as dd

    # Not from_pandas: its data travels in the graph, of whose size Dask warns.
    parts = [client.submit(tasks.make_mixed, 5, 60_001), client.submit(tasks.make_mixed, 6, 40_001)]
    frame = pd.concat([tasks.make_mixed(5, 60_001), tasks.make_mixed(6, 40_001)])
    ddf = dd.from_delayed(parts, meta=frame.head(0)).repartition(npartitions=5)
    with dask.config.set({"dataframe.shuffle.method": method}):
        shuffled = ddf.shuffle("i", npartitions=4).persist()
        wait(shuffled)
        found = shuffled.compute().sort_values(["i", "a"])
        pd.testing.assert_frame_equal(found, frame.sort_values(["i", "a"]))
        n_rows = len(ddf.merge(ddf[["i", "a"]], on="i"))
    assert n_rows == len(frame) + 2 * 40_001


def test_stolen_tasks_find_their_data(client, on):
    there = on(0, tasks.make_array)
    wait(there)

    def slow(x: Any, i: int) -> tuple[int, float]:
        time.sleep(0.05)
        return tasks.pid_of(), float(x[i].sum())

    futures = client.map(slow, [there] * 24, range(24), pure=False)
    pids, sums = zip(*client.gather(futures))
    assert list(sums) == [float(row.sum()) for row in tasks.make_array()[:24]]
    assert len(set(pids)) == 2, "no task was stolen"


def test_a_worker_counts_its_part_of_what_is_shared(client, workers, on):
    def counted(dask_worker: Any) -> tuple[int, int]:
        from numpush.adapters.dask import memory

        return dask_worker.monitor.get_process_memory(), memory.share_of_segments()

    before = client.run(counted)
    there = on(0, lambda: np.ones(16 << 20))  # 128 MiB
    assert on(1, tasks.total, there).result() == on(0, tasks.total, there).result() == 16 << 20
    size = 128 << 20
    after = client.run(counted)
    shares = [after[w][1] - before[w][1] for w in workers]
    assert shares == pytest.approx([size / 2, size / 2], rel=0.01)
    # Resident memory would have grown by all of it in each.
    grown = [after[w][0] - before[w][0] for w in workers]
    assert sum(grown) < 1.5 * size

    def as_the_nanny_sees_it(dask_worker: Any) -> tuple[int, int, bool]:
        import psutil

        from numpush.adapters.dask import memory

        pid = dask_worker.process.process.pid
        is_ours = dask_worker.periodic_callbacks["memory_monitor"].callback.func is memory._monitor
        resident = psutil.Process(pid).memory_info().rss
        return resident, memory._proportional(pid), is_ours

    for resident, proportional, is_ours in client.run(as_the_nanny_sees_it, nanny=True).values():
        assert is_ours
        assert resident - proportional > size / 3

    def weight(dask_worker: Any) -> float:
        return dask_worker.data.fast.weights.get(there.key, 0)

    weights = client.run(weight)
    assert [weights[w] >= size for w in workers] == [True, False]
    assert weights[workers[1]] < size / 100


class TestSharedFrames:
    def test_a_shared_result_stays_shared(self, on):
        there = on(0, tasks.make_shared)
        names = {on(i, tasks.name_of, there).result() for i in (0, 1)}
        assert len(names) == 1
        pids = {on(i, tasks.add_under_lock, there, 10.0).result() for i in (0, 1)}
        assert len(pids) == 2
        seen = [on(i, lambda f: f.loc[0, "a"], there).result() for i in (0, 1)]
        assert seen == [tasks.make_frame().loc[0, "a"] + 20.0] * 2

    def test_arrays_and_series_too(self, on):
        array = on(0, lambda: numpush.SArray(tasks.make_array()))
        on(1, tasks.write, array, 3.0).result()
        assert on(0, lambda a: float(a[0].sum()), array).result() == 24.0
        series = on(0, lambda: numpush.SSeries(np.arange(3_333.0), name="x"))
        found = on(1, lambda s: (type(s).__name__, s.name, s.sum()), series).result()
        assert found == ("SSeries", "x", 3332 * 3333 / 2)

    def test_through_the_scheduler_go_values(self, client, on):
        shared = tasks.make_shared(7)
        future = client.scatter(shared, direct=False)
        found = on(0, lambda f: (type(f).__name__, f.handle.name), future).result()
        assert found[0] == "SDataFrame"
        assert found[1] != shared.handle.name
        back = future.result()
        assert type(back) is numpush.SDataFrame
        pd.testing.assert_frame_equal(back.to_pandas(), tasks.make_frame(7))

    def test_back_from_a_spill_they_are_shared_anew(self):
        from distributed.protocol import deserialize_bytes, serialize_bytes

        adapter.install()
        shared = (
            tasks.make_shared(2),
            numpush.SArray(tasks.make_array()),
            numpush.SSeries([1.5, 2.5]),
        )
        for each in shared:
            back = deserialize_bytes(serialize_bytes(each))
            assert type(back) is type(each)
            assert back.handle.name != each.handle.name
            np.testing.assert_array_equal(np.asarray(back), np.asarray(each))

    def test_the_partitions_of_a_shared_collection_lie_there_once(self, client, on):
        import dask.dataframe as dd

        frame = tasks.make_mixed(1)
        shared = adapter.share(dd.from_pandas(frame, npartitions=4))
        wait(shared)
        client.replicate(_futures(client, shared))
        assert len(segments()) == 4
        kinds = shared.map_partitions(lambda p: type(p).__name__, meta=(None, object)).compute()
        assert set(kinds) == {"SDataFrame"}
        pd.testing.assert_frame_equal(shared.compute(), frame)
        pd.testing.assert_series_equal(shared.a.cumsum().compute(), frame.a.cumsum())
        pd.testing.assert_series_equal(
            shared.groupby("s").a.sum().compute().sort_index(),
            frame.groupby("s").a.sum().sort_index(),
            check_index_type=False,
        )
        wide = shared.assign(z=shared.a + 1).set_index("i", sorted=True).repartition(npartitions=2)
        pd.testing.assert_frame_equal(
            wide.compute(), frame.assign(z=frame.a + 1).set_index("i"), check_freq=False
        )

    def test_kernels_and_teams_work_in_tasks(self, on):
        def fill(frame: Any) -> float:
            with numpush.Team(2) as team:
                team.run(_kernel(), len(frame), frame.column("a"), frame.column("b"))
            return float(frame["b"].sum())

        there = on(0, tasks.make_shared)
        expected = 3.0 * tasks.make_frame()["a"].sum()
        assert on(1, fill, there).result() == pytest.approx(expected)
        assert on(0, lambda f: float(f["b"].sum()), there).result() == pytest.approx(expected)

    def test_what_is_no_collection_is_refused(self):
        with pytest.raises(
            TypeError, match=r"DataFrame cannot be shared by partitions.*numpush\.share"
        ):
            adapter.share(tasks.make_frame())


def _futures(client: Client, collection: Any) -> Any:
    from distributed import futures_of

    return futures_of(collection)


def _kernel() -> Any:
    def triple(i0, i1, a, b):
        for i in range(i0, i1):
            b[i] = 3.0 * a[i]

    return numpush.kernel("const f8[:], f8[:]")(triple)


def test_what_cannot_be_pickled_by_buffers_is_a_result_all_the_same(on):
    def make() -> Any:
        frame = tasks.make_frame()
        frame.attrs["f"] = lambda: 3  # only cloudpickle takes it
        return frame, [frame]

    there = on(0, make)
    assert on(1, lambda x: (x[0].attrs["f"](), x[1][0].shape), there).result() == (3, (33_333, 8))


def test_uninstall_reaches_the_workers(client, workers, on):
    def modules() -> list[str]:
        from distributed.comm.tcp import TCP

        return [TCP.write.__module__, TCP.read.__module__]

    assert all("numpush" in name for name in client.run(modules)[workers[0]])
    adapter.uninstall(client)
    try:
        assert not any("numpush" in name for name in client.run(modules)[workers[1]])
        there = on(0, tasks.make_frame)
        assert on(1, tasks.segment_of, there).result() is None
    finally:
        adapter.install(client)
    there = on(0, tasks.make_frame)
    assert on(0, tasks.segment_of, there).result() is not None


def test_a_negative_threshold_is_refused():
    with pytest.raises(ValueError, match="share_from=-1"):
        adapter.install(share_from=-1)
