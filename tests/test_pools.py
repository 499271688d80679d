"""Shared arrays through every pool: as arguments, as results, in containers, by handle."""

from __future__ import annotations

import importlib
import multiprocessing
import os
import signal
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import pytest

import numpush
import processes
from numpush import SArray

N = 3333
PLAIN = np.arange(N * 3).reshape(N, 3)


def describe(a):
    """Say what arrived, and write into it."""
    found = type(a).__name__, a.shape, int(a.sum())
    a[0] = -1
    return found


def describe_nested(nested):
    return describe(nested["list"][0]), type(nested["view"]).__name__, int(nested["view"].sum())


def make(n):
    return SArray(np.arange(n))


def make_nested(n):
    a = SArray(np.arange(n))
    return [a, {"view": a[1::2]}, (a.T, "text")]


def give_back(a):
    return a[1:]


def double_then_exit(a, out):
    a *= 2
    out.put(a)
    out.close()
    out.join_thread()
    os.kill(os.getpid(), signal.SIGTERM)


def check_arguments(call):
    a = SArray(PLAIN)
    assert call(describe, a) == ("SArray", (N, 3), PLAIN.sum())
    assert (a[0] == -1).all()
    view = a[1::2, 1:]
    assert call(describe, view)[:2] == ("SArray", view.shape)
    assert (a[1] == [3, -1, -1]).all()
    b = SArray(PLAIN)
    found = call(describe_nested, {"list": [b], "view": b[5:]})
    assert found == (("SArray", (N, 3), PLAIN.sum()), "SArray", PLAIN[5:].sum())


def check_results(call):
    a = call(make, N)
    assert type(a) is SArray
    assert a.sum() == N * (N - 1) // 2
    nested = call(make_nested, N)
    assert np.shares_memory(nested[0], nested[1]["view"])
    assert nested[2][0][-1] == N - 1
    b = SArray(PLAIN)
    back = call(give_back, b)
    assert np.shares_memory(back, b)


CHECKS = [check_arguments, check_results]


@pytest.mark.parametrize("check", CHECKS)
class TestStandardLibrary:
    def test_pool(self, ctx, check):
        with ctx.Pool(2) as pool:
            check(lambda f, x: pool.apply(f, (x,)))
            check(lambda f, x: pool.map(f, [x])[0])
            check(lambda f, x: next(pool.imap_unordered(f, [x])))
            pool.close()
            pool.join()

    def test_process_pool_executor(self, ctx, check):
        with ProcessPoolExecutor(2, mp_context=ctx) as executor:
            check(lambda f, x: executor.submit(f, x).result(processes.LIMIT))
            check(lambda f, x: next(executor.map(f, [x])))


def test_a_queue_and_a_child_that_is_terminated_at_once(ctx):
    out = ctx.Queue()
    a = SArray(PLAIN)
    child = ctx.Process(target=double_then_exit, args=(a, out))
    child.start()
    b = out.get(timeout=processes.LIMIT)
    assert processes.join(child) == [-signal.SIGTERM]
    numpush.gc()
    assert np.shares_memory(a, b)
    assert (b == PLAIN * 2).all()


def test_pipes_both_ways(ctx):
    here, there = ctx.Pipe()
    child = ctx.Process(target=echo, args=(there,))
    child.start()
    a = SArray(PLAIN)
    for view in (a, a[3:], a.T, a[:, 0], a[::-1]):
        here.send(view)
        back = here.recv()
        assert back.__array_interface__ == view.__array_interface__
    here.send(None)
    assert processes.join(child) == [0]
    here.close()
    there.close()


def echo(connection):
    while (received := connection.recv()) is not None:
        connection.send(received)


def test_a_manager_carries_handles():
    a = SArray(PLAIN)
    with multiprocessing.Manager() as manager:
        box = manager.dict(a=a)
        got = box["a"]
        assert np.shares_memory(got, a)
        del box


def test_a_thousand_tasks_leave_no_lease(ctx):
    a = SArray(PLAIN)
    with ctx.Pool(2) as pool:
        sums = pool.map(np.sum, np.array_split(a, 500), chunksize=1)
        pool.close()
        pool.join()
    assert sum(sums) == PLAIN.sum()
    assert [o.leases for o in numpush.segments()] == [0]


# loky and joblib, whose workers stay for the next test; imported before or after numpush.

THIRD_PARTY = """
import sys
if sys.argv[1] == "before":
    import {module}
import numpy as np, numpush
from numpush import SArray
if sys.argv[1] == "after":
    SArray(np.arange(3))
    import {module}
import test_pools

def main():
    {body}

if __name__ == "__main__":
    main()
    print("done")
"""

BODIES = {
    "loky": """
    executor = loky.get_reusable_executor(2)
    for check in test_pools.CHECKS:
        check(lambda f, x: executor.submit(f, x).result(60))
    executor.shutdown(wait=True)
""",
    "joblib": """
    for backend in ("loky", "multiprocessing"):
        with joblib.Parallel(2, backend=backend) as parallel:
            for check in test_pools.CHECKS:
                check(lambda f, x: parallel([joblib.delayed(f)(x)])[0])
    from joblib.externals.loky import get_reusable_executor
    get_reusable_executor().shutdown(wait=True)
""",
}


@pytest.mark.parametrize("order", ["before", "after"])
@pytest.mark.parametrize("module", BODIES)
def test_loky_and_joblib_carry_handles_whoever_is_imported_first(module, order, tmp_path):
    if importlib.util.find_spec(module) is None:
        pytest.skip(f"{module} is not installed")
    script = tmp_path / "script.py"
    script.write_text(THIRD_PARTY.format(module=module, body=BODIES[module].strip()))
    namespace = processes.new_namespace()
    code = (
        f"import runpy, sys; sys.path.insert(0, {str(processes.HERE)!r});"
        f"runpy.run_path({str(script)!r}, run_name='__main__')"
    )
    # joblib and loky warn of things of their own; what counts is what is said of us.
    done = processes.run_script(
        code, order, namespace=namespace, PYTHONPATH=str(processes.HERE), PYTHONWARNINGS="default"
    )
    assert done.stdout.strip() == "done", done.stderr
    assert "numpush" not in done.stderr, done.stderr
    # A worker that is stopped by a signal leaves its node for the next sweep.
    processes.run_script("import numpush; numpush.gc()", namespace=namespace)
    left = processes.files_of(namespace)
    assert not any(".seg." in f or ".warm." in f for f in left), left
    for f in left:
        os.unlink(processes.SHM / f)
