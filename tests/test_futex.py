"""ffi/futex.py: sleeping on a word of shared memory."""

from __future__ import annotations

import mmap
import time

import numpy as np
import pytest

import processes
from numpush.ffi import futex

MS = 1_000_000  #: nanoseconds


@pytest.fixture
def word():
    """A word that forked children share."""
    array = np.frombuffer(mmap.mmap(-1, 4096), np.uint32)
    yield array
    del array


def test_a_word_that_differs_already_does_not_wait(word):
    assert futex.wait(futex.at(word.ctypes.data), 1, 60_000 * MS)


def test_the_time_passes(word):
    assert not futex.wait(futex.at(word.ctypes.data), 0, 5 * MS)


def test_post_adds_one_and_wakes_every_sleeper(word):
    ref = futex.at(word.ctypes.data)
    pids = [processes.fork(sleep, word) for _ in range(5)]
    processes.eventually(lambda: word[1] >= 0)
    time.sleep(0.1)
    futex.post(ref)
    assert [processes.wait(pid) for pid in pids] == [0] * 5
    assert futex.load(ref) == 1


def test_wake_wakes_as_many_as_asked(word):
    ref = futex.at(word.ctypes.data)
    pids = [processes.fork(futex.wait, ref, 0, 20_000 * MS) for _ in range(3)]
    woken = 0
    while woken < 3:
        woken += futex.wake(ref, 1)
        time.sleep(0.005)
    assert [processes.wait(pid) for pid in pids] == [0] * 3
    assert futex.wake(ref, 1) == 0


def sleep(word):
    ref = futex.at(word.ctypes.data)
    while futex.load(ref) == 0:
        assert futex.wait(ref, 0, 20_000 * MS)
