"""Guarantee 4 of DESIGN.md, section 3: a fork at any moment leaves a child with usable data.

And descriptors do not grow with the number of segments.
"""

from __future__ import annotations

import gc
import os
import signal
import threading
import time
from multiprocessing.reduction import ForkingPickler

import numpy as np
import pytest

import numpush
import processes
from numpush import SArray
from numpush.shm import life, naming, node
from numpush.shm.segment import N_SLOTS

N = 3333


def check_everything(a):
    """Use *a* in every way, in a child."""
    a[1] += 1
    with a.lock(timeout=20) as guard:
        assert not guard.owner_died
    with a.lock_range(slice(0, 9), timeout=20):
        pass
    message = ForkingPickler.dumps(a[2:])
    mine = SArray(a)
    name = a.name
    a[0] = mine.sum()
    b = ForkingPickler.loads(message)
    del a, message
    gc.collect()
    assert b[0] == 2
    numpush.attach(name)


class TestRawFork:
    def test_a_child_uses_what_its_parent_had(self):
        a = SArray(np.arange(N))
        assert processes.run_forked(check_everything, a) == 0
        assert (a[1], a[0]) == (2, np.arange(N).sum() + 1)

    def test_the_child_keeps_the_segment_when_the_parent_lets_go(self):
        a = SArray(np.zeros(N), name="kept-by-child")
        reader, writer = os.pipe()
        pid = processes.fork(wait_then_check, reader, a)
        del a
        gc.collect()
        numpush.gc()
        b = numpush.attach("kept-by-child")
        os.write(writer, b"x")
        assert processes.wait(pid) == 0
        assert b[0] == 5
        for fd in (reader, writer):
            os.close(fd)

    def test_grandchildren_too(self):
        a = SArray(np.zeros(N))
        assert processes.run_forked(fork_again, a, 4) == 0
        assert a[0] == 5

    def test_a_child_that_ends_by_os_exit_is_swept(self):
        a = SArray(np.zeros(N))
        for _ in range(9):
            assert processes.run_forked(SArray, a) == 0
        processes.collect_garbage()
        assert len(processes.files()) == 1
        assert [h.pid for o in numpush.segments() for h in o.holders] == [os.getpid()]

    def test_dead_children_do_not_fill_the_table(self):
        a = SArray(np.zeros(N), name="many-dead")
        for _ in range(N_SLOTS + 5):
            assert processes.run_forked(int) == 0
        reader, writer = os.pipe()
        pid = processes.fork(wait_then_check, reader, a)
        assert len(numpush.segments()[0].holders) < N_SLOTS
        del a
        gc.collect()
        os.write(writer, b"x")
        assert processes.wait(pid) == 0
        for fd in (reader, writer):
            os.close(fd)

    def test_each_process_has_its_own_node(self):
        SArray(np.zeros(1))
        mine = life.node()
        reader, writer = os.pipe()

        def say():
            assert life.node().pid == os.getpid()
            os.write(writer, f"{life.node().id}".encode())

        assert processes.run_forked(say) == 0
        assert int(os.read(reader, 99)) != mine.id
        assert node.is_alive(mine.id)
        for fd in (reader, writer):
            os.close(fd)

    def test_a_killed_parent_does_not_look_alive_through_its_child(self):
        reader, writer = os.pipe()
        parent = processes.fork(fork_and_die, writer)
        assert processes.wait(parent) == -9
        parent_node, child = map(int, os.read(reader, 99).split())
        processes.eventually(lambda: not node.is_alive(parent_node))  # once the child has begun
        processes.collect_garbage()
        assert not os.path.exists(naming.path(naming.node_file(parent_node)))
        os.kill(child, signal.SIGKILL)
        processes.eventually(lambda: not os.path.exists(f"/proc/{child}"))
        for fd in (reader, writer):
            os.close(fd)

    def test_a_lock_held_by_the_parent_is_not_the_childs(self):
        a = SArray(np.zeros(N))
        with a.lock as guard:
            assert processes.run_forked(cannot_unlock, a, guard) == 0
            assert a.lock.holder()[0] == os.getpid()
        part = a.lock_range(slice(0, 5))
        assert processes.run_forked(cannot_unlock_range, a, part) == 0
        part.unlock()

    def test_a_failed_fork_leaves_nothing(self, monkeypatch):
        a = SArray(np.zeros(N))
        life._before_fork()
        life._after_fork_in_parent()
        processes.collect_garbage()
        assert len(processes.files()) == 1
        del a


def wait_then_check(fd, a):
    os.read(fd, 1)
    a[0] = 5
    numpush.attach(a.name)


def fork_again(a, n):
    with a.lock(timeout=20):
        a[0] += 1
    if n:
        assert processes.run_forked(fork_again, a, n - 1) == 0


def fork_and_die(writer):
    a = SArray(np.zeros(N))
    parent = life.node().id
    pid = processes.fork(time.sleep, 60)
    os.write(writer, f"{parent} {pid}".encode())
    os.kill(os.getpid(), signal.SIGKILL)
    del a


def cannot_unlock(a, guard):
    with pytest.raises(numpush.LockError):
        guard.unlock()
    with pytest.raises(numpush.LockTimeout, match=f"process {os.getppid()}"):
        a.lock(timeout=0.01)


def cannot_unlock_range(a, part):
    with pytest.raises(numpush.LockError, match="not locked by"):
        part.unlock()
    with pytest.raises(numpush.LockTimeout, match=f"process {os.getppid()}"):
        a.lock_range(slice(4, 9), timeout=0.01)


class TestForkAmongThreads:
    def test_a_fork_while_other_threads_attach_and_detach(self):
        stop = threading.Event()
        a = SArray(np.zeros(N))
        failed = []

        def churn(seed):
            rng = np.random.default_rng(seed)
            try:
                while not stop.is_set():
                    mine = [SArray(np.zeros(rng.integers(1, 3 << 17))) for _ in range(3)]
                    message = ForkingPickler.dumps(mine[0])
                    numpush.attach(mine[1].handle, "ro")
                    ForkingPickler.loads(message)
                    numpush.gc()
            except BaseException as error:
                failed.append(error)

        threads = [threading.Thread(target=churn, args=(i,)) for i in range(3)]
        for thread in threads:
            thread.start()
        try:
            for _ in range(40):
                assert processes.run_forked(check_in_child, a) == 0
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        assert failed == []
        assert a[1] == 40

    def test_a_fork_in_a_thread(self):
        a = SArray(np.zeros(N))
        codes = []
        thread = threading.Thread(
            target=lambda: codes.append(processes.run_forked(check_in_child, a))
        )
        thread.start()
        thread.join()
        assert codes == [0]

    def test_a_child_keeps_no_descriptor_of_the_parents_work(self):
        """A dead process's node locked by a sweep that was going on would look alive for ever."""
        stop = threading.Event()

        def churn():
            while not stop.is_set():
                processes.run_forked(leave_a_corpse)
                numpush.gc()
                SArray(np.zeros(3 << 17))

        threads = [threading.Thread(target=churn) for _ in range(2)]
        for thread in threads:
            thread.start()
        try:
            for _ in range(60):
                assert processes.run_forked(has_one_descriptor) == 0
        finally:
            stop.set()
            for thread in threads:
                thread.join()


def leave_a_corpse():
    leave_a_corpse.keep = SArray(np.zeros(9))


def has_one_descriptor():
    mine = naming.path(naming.node_file(life.node().id))
    opened = [
        target
        for target in (entry.split(": ", 1)[1] for entry in processes.descriptors())
        if naming.NAMESPACE in target
    ]
    assert opened == [mine], opened


def check_in_child(a):
    with a.lock(timeout=20):
        a[1] += 1
    assert ForkingPickler.loads(ForkingPickler.dumps(a))[1] == a[1]
    del a
    b = SArray(np.ones(99))
    assert b.sum() == 99


class TestDescriptors:
    def test_their_number_does_not_grow_with_the_segments(self):
        before = len(processes.descriptors())
        keep = [SArray(np.full(9, i)) for i in range(300)]
        views = [numpush.attach(a.handle, "ro") for a in keep]
        assert len(processes.descriptors()) == before
        assert [int(v[0]) for v in views] == list(range(300))

    def test_every_process_has_one(self, ctx):
        out = ctx.Queue()
        keep = [SArray(np.full(9, i)) for i in range(20)]
        child = ctx.Process(target=count_descriptors, args=(keep, out))
        child.start()
        assert out.get(timeout=processes.LIMIT) == 1
        assert processes.join(child) == [0]


def count_descriptors(keep, out):
    out.put(sum(naming.NAMESPACE in entry for entry in processes.descriptors()))
