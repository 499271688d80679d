"""The locks of an array: its mutex, version and seqlock. They outlive their holders.

Range locks and the read/write lock are in test_range.py, the C layer's mutex in test_mutex.py.
"""

from __future__ import annotations

import gc
import os
import signal
import threading
import time

import numpy as np
import pytest

import numpush
import processes
from numpush import SArray, errors

N = 333


@pytest.fixture
def a():
    return SArray(np.zeros(N, "i8"))


@pytest.fixture
def pipe():
    ends = os.pipe()
    yield ends
    for fd in ends:
        os.close(fd)


def hold(a, writer):
    """Lock, say so, and stay."""
    with a.lock:
        a[0] += 1
        os.write(writer, b"x")
        while True:
            signal.pause()


def hold_in_a_child(a, pipe):
    pid = processes.fork(hold, a, pipe[1])
    assert os.read(pipe[0], 1) == b"x"
    return pid


def kill(pid):
    os.kill(pid, signal.SIGKILL)
    assert processes.wait(pid) == -9


class TestMutex:
    def test_it_excludes_other_processes(self, a):
        pids = [processes.fork(count, a, 300) for _ in range(4)]
        assert [processes.wait(pid) for pid in pids] == [0] * 4
        assert a[0] == a[N - 1] == 1200

    def test_it_excludes_other_threads(self, a):
        threads = [threading.Thread(target=count, args=(a, 300)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert a[0] == a[N - 1] == 1200

    def test_it_excludes_children_of_every_start_method(self, ctx, a):
        children = [ctx.Process(target=count, args=(a, 100)) for _ in range(2)]
        for child in children:
            child.start()
        assert processes.join(*children) == [0, 0]
        assert a[0] == a[N - 1] == 200

    def test_whoever_comes_after_a_killed_holder_is_told_once(self, a, pipe):
        kill(hold_in_a_child(a, pipe))
        with a.lock(timeout=5) as guard:
            assert guard.owner_died
            assert a.lock.owner_died
        for _ in range(2):
            with a.lock(timeout=5) as guard:
                assert not guard.owner_died
                assert not a.lock.owner_died

    def test_a_waiter_is_told_when_the_holder_dies(self, a, pipe):
        pid = hold_in_a_child(a, pipe)
        told = []
        thread = threading.Thread(target=lambda: told.append(lock_and_tell(a)))
        thread.start()
        time.sleep(0.1)
        kill(pid)
        thread.join(processes.LIMIT)
        assert told == [True]

    def test_a_repairer_that_dies_too_is_reported_to_the_next(self, a, pipe):
        for _ in range(5):
            kill(hold_in_a_child(a, pipe))
        with a.lock(timeout=5) as guard:
            assert guard.owner_died
        assert a[0] == 5

    def test_a_thread_that_ends_with_the_lock_held_is_reported(self, a):
        thread = threading.Thread(target=lambda: keep.append(a.lock.lock()))
        keep = []
        thread.start()
        thread.join()
        with a.lock(timeout=5) as guard:
            assert guard.owner_died

    def test_locking_twice_in_one_thread_is_an_error_at_once(self, a):
        with a.lock:
            with pytest.raises(errors.LockError, match="this thread holds its lock already"):
                a.lock.lock()
            with pytest.raises(errors.LockError, match="already"), a.lock:
                pass
        with a.lock:
            pass

    def test_unlocking_what_is_not_locked_is_an_error(self, a):
        with pytest.raises(errors.LockError, match="does not hold"):
            a.lock.unlock()
        guard = a.lock.lock()
        guard.unlock()
        with pytest.raises(errors.LockError, match="does not hold"):
            guard.unlock()

    def test_another_thread_cannot_unlock(self, a):
        caught = []

        def unlock():
            try:
                a.lock.unlock()
            except errors.LockError as error:
                caught.append(str(error))

        with a.lock:
            thread = threading.Thread(target=unlock)
            thread.start()
            thread.join()
        assert "does not hold" in caught[0]

    def test_a_timeout_names_the_holder(self, a, pipe):
        pid = hold_in_a_child(a, pipe)
        for timeout in (0, 0.02):
            with pytest.raises(errors.LockTimeout, match=rf"within {timeout} s.*process {pid}\b"):
                a.lock(timeout=timeout)
        assert a.lock.holder() == (pid, pid)
        assert f"process {pid}" in repr(a.lock)
        kill(pid)

    def test_a_free_lock_has_no_holder(self, a):
        assert a.lock.holder() is None
        assert repr(a.lock).endswith("free>")
        with a.lock:
            assert a.lock.holder() == (os.getpid(), threading.get_native_id())

    def test_ctrl_c_interrupts_the_waiting(self, a, pipe):
        pid = hold_in_a_child(a, pipe)
        child = processes.fork(wait_for_ctrl_c, a, pipe[1])
        assert os.read(pipe[0], 1) == b"y"
        time.sleep(0.1)
        os.kill(child, signal.SIGINT)
        assert processes.wait(child) == 0
        kill(pid)

    def test_every_view_has_the_same_lock(self, a):
        with a[5:].lock, pytest.raises(errors.LockError, match="already"):
            numpush.attach(a.handle, "ro").lock.lock()

    def test_a_read_only_view_can_lock(self, a):
        ro = numpush.attach(a.handle, "ro")
        with ro.lock as lock:
            assert not lock.owner_died

    def test_an_exception_unlocks(self, a):
        with pytest.raises(ZeroDivisionError), a.lock:
            1 / 0  # noqa: B018
        with a.lock(timeout=0):
            pass

    def test_two_arrays_have_two_locks(self, a, pipe):
        b = SArray(np.zeros(N))
        with a.lock, b.lock:
            kill(processes.fork(hold, SArray(np.zeros(1)), pipe[1]))

    @pytest.mark.parametrize("n", [9, 1 << 18])
    def test_a_lock_that_nobody_can_unlock_any_more_does_no_harm(self, n):
        """Its guard is gone, its array is gone, its memory is used again."""
        assert processes.run_forked(lose_locks, n) == 0


def lose_locks(n):
    keep = SArray(np.zeros(1))
    for _ in range(20):
        SArray(np.zeros(n)).lock.lock()
        SArray(np.zeros(n)).lock_range(slice(0, 2))
        gc.collect()
        b = SArray(np.zeros(n))
        with keep.lock, b.lock(timeout=1) as guard:
            assert not guard.owner_died
        del b, guard
    os.kill(os.getpid(), signal.SIGKILL) if keep[0] else None


def count(a, n):
    for _ in range(n):
        with a.lock:
            a[0] += 1
            a[N - 1] += 1
            assert a[0] == a[N - 1]


def lock_and_tell(a):
    with a.lock as lock:
        return lock.owner_died


def wait_for_ctrl_c(a, writer):
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.write(writer, b"y")
    with pytest.raises(KeyboardInterrupt):
        a.lock.lock()


class TestVersion:
    def test_a_notice_wakes_who_waits(self, a, pipe):
        seen = a.version
        pid = processes.fork(wait_for_news, a, seen, pipe[1])
        assert os.read(pipe[0], 1) == b"w"
        a[3] = 7
        assert a.notify() == seen + 2
        assert processes.wait(pid) == 0

    def test_news_before_the_waiting_is_not_missed(self, a):
        seen = a.version
        a.notify()
        assert a.wait(seen, timeout=0) == seen + 2

    def test_no_news_is_a_timeout(self, a):
        with pytest.raises(errors.WaitTimeout, match=r"still version 0 after 0\.01 s"):
            a.wait(0, timeout=0.01)

    def test_ctrl_c_interrupts_the_waiting(self, a, pipe):
        child = processes.fork(wait_for_news_and_ctrl_c, a, pipe[1])
        assert os.read(pipe[0], 1) == b"y"
        time.sleep(0.1)
        os.kill(child, signal.SIGINT)
        assert processes.wait(child) == 0

    def test_many_waiters_all_wake(self, a, pipe):
        pids = [processes.fork(wait_for_news, a, 0, pipe[1]) for _ in range(8)]
        for _ in pids:
            os.read(pipe[0], 1)
        a[3] = 7
        a.notify()
        assert [processes.wait(pid) for pid in pids] == [0] * 8


def wait_for_news(a, seen, writer):
    os.write(writer, b"w")
    assert a.wait(seen, timeout=30) == seen + 2
    assert a[3] == 7


def wait_for_news_and_ctrl_c(a, writer):
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.write(writer, b"y")
    with pytest.raises(KeyboardInterrupt):
        a.wait(a.version)


class TestUpdateAndSnapshot:
    def test_a_snapshot_is_never_torn(self, a, pipe):
        pid = processes.fork(keep_updating, a, pipe[1])
        os.read(pipe[0], 1)
        for _ in range(300):
            copy = a.snapshot(timeout=30)
            assert type(copy) is np.ndarray
            assert copy.min() == copy.max()
        kill(pid)

    def test_an_update_raises_the_version_by_two(self, a):
        with a.update() as b:
            assert b is a
            assert a.version == 1
            a += 1
        assert a.version == 2
        assert a.snapshot().sum() == N

    def test_a_failing_update_leaves_an_even_version(self, a):
        with pytest.raises(ZeroDivisionError), a.update():
            1 / 0  # noqa: B018
        assert a.version == 2
        a.snapshot(timeout=1)

    def test_the_update_after_a_killed_one_makes_the_version_even_again(self, a, pipe):
        pid = processes.fork(update_and_stay, a, pipe[1])
        os.read(pipe[0], 1)
        kill(pid)
        assert a.version % 2
        with pytest.raises(errors.LockError, match="died in the middle of an update"):
            a.snapshot()
        with a.update(timeout=5):
            assert a.lock.owner_died
            a[...] = 4
        assert a.version % 2 == 0
        assert set(a.snapshot(timeout=5)) == {4}

    def test_a_snapshot_waits_for_an_update_until_its_deadline(self, a, pipe):
        pid = processes.fork(update_and_stay, a, pipe[1])
        os.read(pipe[0], 1)
        with pytest.raises(errors.WaitTimeout, match="still version"):
            a.snapshot(timeout=0.05)
        kill(pid)

    def test_an_update_waits_for_the_lock(self, a, pipe):
        pid = hold_in_a_child(a, pipe)
        with pytest.raises(errors.LockTimeout), a.update(timeout=0.01):
            pass
        assert a.version == 0
        kill(pid)


def keep_updating(a, writer):
    os.write(writer, b"x")
    while True:
        with a.update():
            for i in range(N):
                a[i] += 1


def update_and_stay(a, writer):
    with a.update():
        a[: N // 2] = 3
        os.write(writer, b"x")
        while True:
            signal.pause()
