"""Guarantee 3 of DESIGN.md, section 3: a handle in flight keeps its segment alive.

It does so while its sender lives, and for a grace period after the sender's death.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.reduction import ForkingPickler

import numpy as np
import pytest

import numpush
import processes
from numpush import SArray, errors

N = 3333
SUM = N * (N - 1) // 2


def leases():
    """Return the leases of every segment, by name."""
    return {o.name: o.leases for o in numpush.segments() if o.leases}


def send_temporary(out, n=1):
    for i in range(n):
        out.put(SArray(np.arange(N) + i))


def send_raw(writer):
    writer.send_bytes(ForkingPickler.dumps(SArray(np.arange(N))))
    writer.close()


def send_and_die(writer):
    send_raw(writer)
    os.kill(os.getpid(), signal.SIGKILL)


def make(i):
    return SArray(np.arange(N) + i)


def make_nested(i):
    return {"a": [make(i), (make(i),)], "view": make(i)[1::2]}


class TestWhileTheSenderLives:
    def test_a_sent_handle_outlives_its_arrays(self):
        for hold in (0.0, 60.0):
            reader, writer = multiprocessing.Pipe(duplex=False)
            writer.send(SArray(np.arange(N)))
            gc.collect()
            processes.collect_garbage(hold)
            assert list(leases().values()) == [1]
            assert reader.recv().sum() == SUM
            assert leases() == {}
            reader.close()
            writer.close()

    def test_each_copy_sent_counts_and_each_received_is_given_back(self):
        a = SArray(np.arange(N))
        messages = [ForkingPickler.dumps(a) for _ in range(5)]
        assert leases() == {a.name: 5}
        name = a.name
        del a
        for i, message in enumerate(messages):
            b = ForkingPickler.loads(message)
            assert b.sum() == SUM
            assert leases() == ({name: 4 - i} if i < 4 else {})
            del b
        with pytest.raises(errors.SegmentNotFound, match=name):
            ForkingPickler.loads(messages[0])

    def test_a_message_opened_twice_does_no_harm(self):
        a = SArray(np.arange(N))
        message = bytes(ForkingPickler.dumps(a))
        ForkingPickler.dumps(a)
        for _ in range(3):
            assert ForkingPickler.loads(message).sum() == SUM
        assert leases() == {}
        assert np.shares_memory(ForkingPickler.loads(message), a)

    def test_the_queue_may_be_long(self):
        ctx = multiprocessing.get_context("fork")
        out = ctx.Queue()
        child = ctx.Process(target=send_temporary, args=(out, 200))
        child.start()
        for i in range(200):
            assert out.get(timeout=processes.LIMIT)[0] == i
        assert processes.join(child) == [0]
        assert leases() == {}

    def test_a_view_travels_with_its_parent(self, ctx):
        out = ctx.Queue()
        child = ctx.Process(target=send_view, args=(out,))
        child.start()
        view = out.get(timeout=processes.LIMIT)
        assert processes.join(child) == [0]
        np.testing.assert_array_equal(view, np.arange(N * 3).reshape(N, 3)[::-7, 1])


def send_view(out):
    out.put(SArray(np.arange(N * 3).reshape(N, 3))[::-7, 1])


class TestAfterTheSendersDeath:
    @pytest.mark.parametrize("sender", [send_raw, send_and_die])
    def test_a_sender_may_exit_at_once(self, ctx, sender):
        reader, writer = ctx.Pipe(duplex=False)
        child = ctx.Process(target=sender, args=(writer,))
        child.start()
        writer.close()
        message = reader.recv_bytes()
        assert processes.join(child) == [0 if sender is send_raw else -9]
        processes.collect_garbage(60)
        assert list(leases().values()) == [1]
        assert ForkingPickler.loads(message).sum() == SUM
        reader.close()

    def test_the_sweep_of_another_process_keeps_to_the_grace_period_too(self):
        ctx = multiprocessing.get_context("fork")
        reader, writer = ctx.Pipe(duplex=False)
        child = ctx.Process(target=send_raw, args=(writer,))
        child.start()
        message = reader.recv_bytes()
        processes.join(child)
        assert processes.run_forked(numpush.gc) == 0
        done = processes.run_script(
            "import numpush; numpush.gc()", namespace=numpush.shm.naming.NAMESPACE
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert ForkingPickler.loads(message).sum() == SUM
        for end in (reader, writer):
            end.close()

    def test_when_the_grace_period_is_over_the_segment_goes(self, ctx):
        reader, writer = ctx.Pipe(duplex=False)
        child = ctx.Process(target=send_and_die, args=(writer,))
        child.start()
        message = reader.recv_bytes()
        processes.join(child)
        processes.collect_garbage(60)  # its death is noted
        time.sleep(0.05)
        processes.collect_garbage(0.01)
        assert processes.files() == set()
        with pytest.raises(errors.SegmentNotFound, match="nobody uses it any more"):
            ForkingPickler.loads(message)
        reader.close()
        writer.close()

    def test_the_grace_period_runs_from_the_first_look_at_the_dead(self):
        """Its death is noted once; later sweeps do not make it younger."""
        reader, writer = multiprocessing.Pipe(duplex=False)
        assert processes.run_forked(send_and_die, writer) == -9
        processes.collect_garbage(60)
        deadline = time.monotonic() + processes.LIMIT
        while processes.files():
            processes.collect_garbage(0.2)
            assert time.monotonic() < deadline
            time.sleep(0.01)
        reader.close()
        writer.close()

    def test_a_sender_that_received_and_left_the_segment_still_leases_it(self, ctx):
        """The slot of a process holds its lease also when it attached, left and came back."""
        out = ctx.Queue()
        child = ctx.Process(target=send_leave_and_come_back, args=(out,))
        child.start()
        a = out.get(timeout=processes.LIMIT)
        assert processes.join(child) == [0]
        processes.collect_garbage(60)
        assert out.get(timeout=processes.LIMIT).sum() == SUM
        assert a.sum() == SUM


def send_leave_and_come_back(out):
    a = SArray(np.arange(N))
    name = a.name
    out.put(a)
    out.put(a)
    del a
    others = [SArray(np.zeros(9)) for _ in range(100)]
    del others  # more than stay mapped
    time.sleep(0.2)
    numpush.attach(name)


class TestAMainProcessThatEndsInGoodOrder:
    BODIES = {
        "children that read nothing": (
            "q = ctx.Queue(); p = ctx.Process(target=time.sleep, args=(.3,)); p.start()\n"
            "for i in range(9): q.put(SArray(np.arange(N)))\n"
        ),
        "a pool that is terminated with work left": (
            # Workers that never take work: terminating a Pool whose workers are sending results
            # can hang in multiprocessing itself, with plain arrays too.
            "pool = ctx.Pool(2, time.sleep, (99,)); a = [SArray(np.arange(N)) for _ in range(50)]\n"
            "r = pool.map_async(np.sort, a); time.sleep(.05); pool.terminate(); pool.join()\n"
        ),
        "results that nobody fetched": (
            "pool = ctx.Pool(2); r = [pool.apply_async(SArray, (np.arange(N),)) for _ in range(9)]\n"
            "[each.wait() for each in r]; pool.terminate(); pool.join()\n"
        ),
        "a killed worker": (
            "q = ctx.Queue(); p = ctx.Process(target=time.sleep, args=(99,)); p.start()\n"
            "q.put(SArray(np.arange(N))); time.sleep(.1); p.kill(); p.join()\n"
            "q.put(SArray(np.arange(N))) if 0 else None\n"
        ),
        "an executor that is shut down": (
            "from concurrent.futures import ProcessPoolExecutor as E\n"
            "e = E(2, mp_context=ctx); f = [e.submit(SArray, np.arange(N)) for _ in range(9)]\n"
            "e.shutdown(cancel_futures=True)\n"
        ),
    }

    @pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
    def test_leaves_no_lease_of_its_own(self, start_method, body):
        namespace = processes.new_namespace()
        code = (
            "import multiprocessing, sys, time\nimport numpy as np\nfrom numpush import SArray\n"
            f"N = {N}\nif __name__ == '__main__':\n"
            f"    ctx = multiprocessing.get_context({start_method!r})\n    exec({body!r})\n"
        )
        done = processes.run_script(code, namespace=namespace)
        assert done.stderr == ""
        # What workers sent, not the main process, holds for the grace period.
        if "results" in body or "executor" in body or "SArray, " in body:
            processes.sweep(namespace)
        assert processes.files_of(namespace) == set()


class TestPools:
    def test_results_arrive_though_the_worker_exits_at_once(self, ctx):
        with ctx.Pool(2, maxtasksperchild=1) as pool:
            for i, a in enumerate(pool.imap(make, range(6))):
                numpush.gc()
                assert a.sum() == SUM + N * i
            pool.close()
            pool.join()

    def test_nested_results_arrive(self, ctx):
        with ctx.Pool(1) as pool:
            got = pool.apply(make_nested, (3,))
            pool.close()
            pool.join()
        np.testing.assert_array_equal(got["a"][1][0], np.arange(N) + 3)
        np.testing.assert_array_equal(got["view"], (np.arange(N) + 3)[1::2])
        assert leases() == {}

    def test_an_executors_results_outlive_it(self, ctx):
        with ProcessPoolExecutor(1, mp_context=ctx) as executor:
            futures = [executor.submit(make, i) for i in range(5)]
        numpush.gc()
        assert [int(f.result()[0]) for f in futures] == list(range(5))
        assert leases() == {}

    def test_a_message_that_cannot_be_pickled_leaves_a_lease_only_until_its_sender_ends(self):
        a = SArray(np.arange(N))
        with pytest.raises(Exception, match="pickle"):
            ForkingPickler.dumps([a, lambda: 0])
        name = a.name
        del a
        assert leases() == {name: 1}
        assert processes.run_forked(numpush.remove, name) == 0
