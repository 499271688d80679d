"""ffi/mutex.py and ffi/futex.py in anonymous shared memory. What users see is in test_locks.py."""

from __future__ import annotations

import errno
import mmap
import os
import signal
import threading

import numpy as np
import pytest

import processes
from numpush.ffi import mutex

MS = 1_000_000  #: nanoseconds


@pytest.fixture
def memory():
    """A page that forked children share, and its address."""
    page = mmap.mmap(-1, 4096)
    array = np.frombuffer(page, np.uint32)
    yield array
    del array


@pytest.fixture
def ref(memory):
    ref = mutex.at(memory.ctypes.data)
    mutex.init(ref)
    return ref


class TestMutex:
    def test_lock_and_unlock(self, ref):
        assert mutex.lock(ref, 0) == 0
        assert mutex.holder(ref) == threading.get_native_id()
        assert mutex.unlock(ref) == 0
        assert mutex.holder(ref) == 0

    def test_twice_is_a_deadlock_and_is_said_so(self, ref):
        assert mutex.try_lock(ref) == 0
        assert mutex.lock(ref, 0) in (-errno.EDEADLK, -errno.EBUSY)
        assert mutex.lock(ref, 5 * MS) == -errno.EDEADLK
        assert mutex.unlock(ref) == 0
        assert mutex.unlock(ref) == -errno.EPERM

    def test_another_thread_waits_for_its_time(self, ref):
        answers = []

        def attempt():
            answers.extend([mutex.lock(ref, 0), mutex.lock(ref, 20 * MS), mutex.unlock(ref)])

        assert mutex.lock(ref, 0) == 0
        thread = threading.Thread(target=attempt)
        thread.start()
        thread.join()
        assert answers == [-errno.EBUSY, -errno.EBUSY, -errno.EPERM]
        assert mutex.unlock(ref) == 0

    def test_the_death_of_the_holder_is_told_once(self, ref):
        for _ in range(3):
            assert processes.run_forked(lock_and_die, ref) == -9
        assert mutex.lock(ref, 0) == mutex.OWNER_DIED
        assert mutex.unlock(ref) == 0
        assert mutex.lock(ref, 0) == 0
        assert mutex.unlock(ref) == 0

    def test_it_excludes(self, ref, memory):
        pids = [processes.fork(count, ref, memory) for _ in range(4)]
        assert [processes.wait(pid) for pid in pids] == [0] * 4
        assert memory[100] == 8000


def lock_and_die(ref):
    assert mutex.lock(ref, 0) >= 0
    os.kill(os.getpid(), signal.SIGKILL)


def count(ref, memory):
    for _ in range(2000):
        while mutex.lock(ref, 50 * MS):
            pass
        memory[100] += 1
        assert mutex.unlock(ref) == 0
