"""install(): the standard library's pools carry big plain objects by shared memory, and uninstall()."""

from __future__ import annotations

import importlib.util
import multiprocessing
import os
import pickle
import threading
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.reduction import ForkingPickler

import numpy as np
import pandas as pd
import pytest

import numpush
import processes
from numpush import SArray

N = 33_333
SHARE = 1 << 16
TYPES = (np.ndarray, pd.DataFrame, pd.Series)


@pytest.fixture
def installed():
    numpush.install(SHARE)
    yield
    numpush.uninstall()


def frame(n=N):
    return pd.DataFrame(
        {
            "f": np.arange(n) / 3,
            "s": [f"text {i % 77}" for i in range(n)],
            "c": pd.Categorical(np.where(np.arange(n) % 2, "odd", "even")),
            "t": pd.date_range("2020-01-01", periods=n, freq="min"),
        }
    )


def lies_in_shared_memory(array):
    address = np.asarray(array).__array_interface__["data"][0]
    with open("/proc/self/maps") as maps:
        for line in maps:
            start, stop = (int(x, 16) for x in line.split()[0].split("-"))
            if start <= address < stop:
                return "/dev/shm/" in line
    return False


def change(df):
    """Write to what arrived; say where it lay."""
    where = lies_in_shared_memory(df["f"])
    df.loc[0, "f"] = -1.0
    df["s"] = "other"
    return where, df


def make(n):
    return np.arange(n, dtype=float)


def echo(connection):
    while (received := connection.recv()) is not None:
        connection.send(received)


def put_and_end(queue):
    numpush.install(SHARE)
    queue.put(np.arange(float(N)))


def check(call, reaches_all=True):
    df = frame()
    was_shared, back = call(change, df)
    assert was_shared
    assert lies_in_shared_memory(back["f"])
    assert back.loc[0, "f"] == -1
    pd.testing.assert_frame_equal(df, frame())
    back.loc[1, "f"] = 7
    pd.testing.assert_frame_equal(df, frame())
    array = call(make, N)
    assert lies_in_shared_memory(array) or not reaches_all
    array[0] = 5
    assert array.sum() == N * (N - 1) // 2 + 5


def test_pool(installed, ctx):
    with ctx.Pool(1) as pool:
        check(lambda f, x: pool.apply(f, (x,)))
        check(lambda f, x: pool.map(f, [x])[0])
        pool.close()
        pool.join()
    assert all(o.leases == 0 for o in numpush.segments())


def test_process_pool_executor(installed, ctx):
    with ProcessPoolExecutor(1, mp_context=ctx) as executor:
        check(lambda f, x: executor.submit(f, x).result(processes.LIMIT))


def test_an_initializer_tells_workers_that_only_get_small_things():
    context = multiprocessing.get_context("spawn")
    with context.Pool(1, numpush.install, (SHARE,)) as pool:
        array = pool.apply(make, (N,))
        assert lies_in_shared_memory(array)
        pool.close()
        pool.join()


def test_process_arguments_pipes_and_queues(installed, ctx):
    here, there = ctx.Pipe()
    child = ctx.Process(target=echo, args=(there,))
    child.start()
    for thing in (np.arange(float(N)), frame(), frame()["f"], {"a": [np.ones(N)]}, frame(5)):
        here.send(thing)
        back = here.recv()
        if isinstance(thing, dict):
            back, thing = back["a"][0], thing["a"][0]
        assert type(back) is type(thing)
        np.testing.assert_array_equal(np.asarray(back), np.asarray(thing))
    here.send(None)
    assert processes.join(child) == [0]
    here.close()
    there.close()


def test_a_sender_that_has_ended(installed, ctx):
    """Its handle holds for the grace period."""
    queue = ctx.Queue()
    child = ctx.Process(target=put_and_end, args=(queue,))
    child.start()
    processes.join(child)
    numpush.gc()
    array = queue.get(timeout=processes.LIMIT)
    assert array.sum() == N * (N - 1) // 2
    queue.close()
    queue.join_thread()


def test_each_pickling_is_received_once_and_leaves_nothing(installed):
    a = np.arange(float(N))
    sent = [bytes(ForkingPickler.dumps(a)) for _ in range(3)]
    assert all(len(each) < 1000 for each in sent)
    assert sum(o.leases for o in numpush.segments()) == 3
    back = [pickle.loads(each) for each in sent]
    assert sum(o.leases for o in numpush.segments()) == 0
    back[0][0] = 5
    assert back[1][0] == 0
    assert back[2][0] == 0
    del back
    assert [o for o in numpush.segments() if o.kind != "warm"] == []


def test_two_receivers_in_one_process_do_not_share(installed):
    a = np.arange(float(N))
    one = pickle.loads(bytes(ForkingPickler.dumps(a)))
    one[:] = 0
    two = pickle.loads(bytes(ForkingPickler.dumps(a)))
    np.testing.assert_array_equal(two, a)
    assert not np.shares_memory(one, two)


def test_shared_objects_and_subclasses_keep_their_meaning(installed):
    shared = SArray(np.zeros(N))
    back = pickle.loads(bytes(ForkingPickler.dumps(shared)))
    assert np.shares_memory(back, shared)
    masked = np.ma.masked_less(np.arange(float(N)), 5)
    back = pickle.loads(bytes(ForkingPickler.dumps(masked)))
    assert type(back) is np.ma.MaskedArray
    assert back.mask.sum() == 5
    objects = pd.DataFrame({"o": [{"i": i} for i in range(N)]})
    back = pickle.loads(bytes(ForkingPickler.dumps(objects)))
    pd.testing.assert_frame_equal(back, objects)


def test_plain_pickle_knows_nothing_of_it(installed):
    assert len(pickle.dumps(np.zeros(N))) > N * 8


def test_uninstall_restores_what_was_there_and_both_may_be_called_twice():
    table = ForkingPickler._extra_reducers
    before = {cls: table.get(cls) for cls in TYPES}
    assert np.ndarray not in table

    def mine(a):
        return make, (len(a),)

    ForkingPickler.register(np.ndarray, mine)
    try:
        numpush.install(SHARE)
        numpush.install(SHARE)
        assert table[np.ndarray] is not mine
        small = pickle.loads(bytes(ForkingPickler.dumps(np.zeros(4))))
        assert small.tolist() == [0, 1, 2, 3]  # by the reducer that was there
        assert pickle.loads(bytes(ForkingPickler.dumps(np.zeros(N)))).sum() == 0
        numpush.uninstall()
        numpush.uninstall()
        assert table[np.ndarray] is mine
    finally:
        numpush.uninstall()
        table.pop(np.ndarray, None)
    assert {cls: table.get(cls) for cls in TYPES} == before
    assert len(ForkingPickler.dumps(np.zeros(N))) > N * 8


def test_what_somebody_registers_afterwards_stays(installed):
    def theirs(a):
        return make, (3,)

    table = ForkingPickler._extra_reducers
    ForkingPickler.register(np.ndarray, theirs)
    try:
        numpush.uninstall()
        assert table[np.ndarray] is theirs
    finally:
        del table[np.ndarray]


def test_install_again_changes_the_size():
    try:
        numpush.install(1 << 30)
        assert len(ForkingPickler.dumps(np.zeros(N))) > N * 8
        numpush.install(1000)
        data = bytes(ForkingPickler.dumps(np.zeros(N)))
        assert len(data) < 1000
        numpush.uninstall()
        assert pickle.loads(data).sum() == 0  # what was sent arrives all the same
        assert np.ndarray not in ForkingPickler._extra_reducers  # and installs nothing
    finally:
        numpush.uninstall()


def test_threads_may_install_and_uninstall_at_once():
    errors = []

    def work():
        try:
            for _ in range(50):
                numpush.install(SHARE)
                back = pickle.loads(bytes(ForkingPickler.dumps(np.ones(N))))
                assert back.sum() == N
                numpush.uninstall()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(processes.LIMIT)
    numpush.uninstall()
    assert errors == []
    assert not set(TYPES) & set(ForkingPickler._extra_reducers)


THIRD_PARTY = """
import {module}
import numpush
import test_install

def main():
    numpush.install(test_install.SHARE)
    {body}

if __name__ == "__main__":
    main()
    print("done")
"""

BODIES = {
    "loky": """
    executor = loky.get_reusable_executor(1)
    test_install.check(lambda f, x: executor.submit(f, x).result(60))
    executor.shutdown(wait=True)
""",
    "joblib": """
    with joblib.Parallel(2) as parallel:
        # joblib has arrays travel in files of its own; a worker knows of us with the first frame
        call = lambda f, x: parallel([joblib.delayed(f)(x)] * 2)[0]
        test_install.check(call, reaches_all=False)
    from joblib.externals.loky import get_reusable_executor
    get_reusable_executor().shutdown(wait=True)
""",
}


@pytest.mark.parametrize("module", BODIES)
def test_loky_and_joblib(module):
    if importlib.util.find_spec(module) is None:
        pytest.skip(f"{module} is not installed")
    namespace = processes.new_namespace()
    done = processes.run_script(
        THIRD_PARTY.format(module=module, body=BODIES[module].strip()),
        namespace=namespace,
        PYTHONPATH=str(processes.HERE),
        PYTHONWARNINGS="default",
    )
    assert done.stdout.strip() == "done", done.stderr
    assert "numpush" not in done.stderr, done.stderr
    processes.run_script("import numpush; numpush.gc()", namespace=namespace)
    left = processes.files_of(namespace)
    assert not any(".seg." in f or ".warm." in f for f in left), left
    for f in left:
        os.unlink(processes.SHM / f)
