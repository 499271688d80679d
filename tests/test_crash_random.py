"""Kill processes at random moments, hundreds of times, over all start methods. Seeded."""

from __future__ import annotations

import functools
import multiprocessing
import os
import signal
import time
from multiprocessing.reduction import ForkingPickler

import numpy as np
import pytest

import numpush
import processes
from numpush import SArray
from numpush.shm import naming

pytestmark = pytest.mark.crash

N = 999
BIG = 3 << 17


def live(handle, seed, mailbox=None):
    """Do everything in a loop, until killed."""
    rng = np.random.default_rng(seed)
    a = numpush.attach(handle)
    mine = []
    while True:
        what = rng.integers(0, 9)
        if what == 0:
            mine.append(SArray(np.arange(rng.integers(1, N))))
        elif what == 1:
            mine.append(SArray(np.zeros(BIG)))
        elif what == 2:
            mine.clear()
        elif what == 3:
            with a.lock as guard:
                if guard.owner_died:
                    a[1] = a[0]
                assert a[0] == a[1]
                a[0] += 1
                a[1] += 1
        elif what == 4:
            with a.lock_range(slice(2, 4)) as part:
                if part.owner_died:
                    a[3] = a[2]
                assert a[2] == a[3]
                a[2] += 1
                a[3] += 1
        elif what == 5:
            with a.update():
                a[4:] += 1
        elif what == 6 and mine:
            message = ForkingPickler.dumps(mine[-1])
            if mailbox is not None:
                mailbox.send_bytes(message)
            else:
                ForkingPickler.loads(message)
        elif what == 7:
            numpush.attach(handle, "ro")
        elif what == 8:
            numpush.gc()


def has_moved(a, x, y):
    return a[0] > x and a[2] > y


def check(a):
    with a.lock(timeout=20) as guard:
        assert a[0] == a[1] or guard.owner_died
        a[1] = a[0]
    with a.lock_range(slice(2, 4), timeout=20) as part:
        assert a[2] == a[3] or part.owner_died
        a[3] = a[2]
    assert a.version % 2 or (a[4:] == a[4]).all()
    with a.update(timeout=20):
        a[4:] = 0
    processes.collect_garbage()
    assert processes.files() == {naming.SEGMENT + a.name}
    assert [h.pid for o in numpush.segments() for h in o.holders] == [os.getpid()]


@pytest.mark.parametrize("seed", range(10))
def test_one_process_at_a_time_at_forty_random_moments(seed):
    rng = np.random.default_rng(seed)
    a = SArray(np.zeros(N, "i8"))
    for i in range(40):
        pid = processes.fork(live, a.handle, seed * 1000 + i)
        time.sleep(rng.uniform(0, 0.02))
        os.kill(pid, signal.SIGKILL)
        assert processes.wait(pid) == -9
        check(a)


@pytest.mark.parametrize("seed", range(3))
def test_three_of_four_at_a_time(seed):
    """The one that lives goes on, and finds what the others left."""
    rng = np.random.default_rng(100 + seed)
    a = SArray(np.zeros(N, "i8"))
    for i in range(12):
        survivor = processes.fork(live, a.handle, i)
        pids = [processes.fork(live, a.handle, 1000 * seed + 10 * i + k) for k in range(3)]
        for pid in pids:
            time.sleep(rng.uniform(0, 0.02))
            os.kill(pid, signal.SIGKILL)
            assert processes.wait(pid) == -9
        processes.eventually(functools.partial(has_moved, a, int(a[0]), int(a[2])))
        os.kill(survivor, signal.SIGKILL)
        assert processes.wait(survivor) == -9
        check(a)


def test_children_of_every_start_method(start_method):
    ctx = multiprocessing.get_context(start_method)
    rng = np.random.default_rng(7)
    a = SArray(np.zeros(N, "i8"))
    for i in range(20 if start_method == "fork" else 6):
        children = [ctx.Process(target=live, args=(a.handle, 10 * i + k)) for k in range(2)]
        for child in children:
            child.start()
        if start_method == "fork":
            time.sleep(rng.uniform(0, 0.02))
        else:  # they take a while to be born
            time.sleep(rng.uniform(0.3, 1.0))
        for child in children:
            child.kill()
        assert processes.join(*children) == [-9, -9]
        check(a)


def test_receivers_of_a_killed_senders_messages():
    a = SArray(np.zeros(N, "i8"))
    for i in range(30):
        reader, writer = multiprocessing.Pipe(duplex=False)
        pid = processes.fork(live, a.handle, i, writer)
        writer.close()
        got = []
        kill_after = 1 + i % 5
        try:
            while True:
                got.append(ForkingPickler.loads(reader.recv_bytes()))
                if len(got) == kill_after:
                    os.kill(pid, signal.SIGKILL)
        except (EOFError, OSError):
            pass
        assert processes.wait(pid) == -9
        assert len(got) >= kill_after
        for b in got:
            assert (b == (np.arange(len(b)) if len(b) < BIG else 0)).all()
        del got, b
        reader.close()
        check(a)
