"""Range locks and the read/write lock: overlap, sharing, order, and what the dead leave."""

from __future__ import annotations

import os
import signal
import threading
import time

import numpy as np
import pytest

import numpush
import processes
from numpush import SArray, errors

N = 999


@pytest.fixture
def a():
    return SArray(np.zeros((N, 3), "i8"))


@pytest.fixture
def pipe():
    ends = os.pipe()
    yield ends
    for fd in ends:
        os.close(fd)


def hold(a, writer, key, shared=False):
    with a.lock_range(key, shared=shared):
        os.write(writer, b"x")
        while True:
            signal.pause()


def hold_in_a_child(a, pipe, key, shared=False):
    pid = processes.fork(hold, a, pipe[1], key, shared)
    assert os.read(pipe[0], 1) == b"x"
    return pid


def kill(pid):
    os.kill(pid, signal.SIGKILL)
    assert processes.wait(pid) == -9


def states(a):
    return next(o.range_locks for o in numpush.segments() if o.name == a.name)


class TestOverlap:
    @pytest.mark.parametrize(
        ("held", "asked", "is_free"),
        [
            (slice(0, 10), slice(10, 20), True),
            (slice(0, 10), slice(9, 20), False),
            (slice(5, 6), slice(None), False),
            (5, 6, True),
            (5, 5, False),
            ((slice(0, 9), 0), (slice(0, 9), 1), False),  # columns lie in one range of bytes
            ((3, 1), (3, 2), True),
            (slice(20, 10, -1), slice(0, 11), True),
            (slice(20, 10, -1), slice(0, 12), False),
            (..., 0, False),
            (-1, N - 1, False),
        ],
    )
    def test_only_what_overlaps_waits(self, a, pipe, held, asked, is_free):
        pid = hold_in_a_child(a, pipe, held)
        if is_free:
            a.lock_range(asked, timeout=0).unlock()
        else:
            with pytest.raises(errors.LockTimeout, match=rf"process {pid}\b"):
                a.lock_range(asked, timeout=0)
        kill(pid)

    def test_readers_share_and_keep_a_writer_out(self, a, pipe):
        pids = [hold_in_a_child(a, pipe, slice(0, 50), shared=True) for _ in range(3)]
        with a.lock_range(slice(0, 50), shared=True, timeout=0):
            pass
        with pytest.raises(errors.LockTimeout):
            a.lock_range(slice(49, 60), timeout=0)
        for pid in pids:
            kill(pid)
        with a.lock_range(slice(49, 60), timeout=5) as guard:
            assert not guard.owner_died  # readers tear nothing

    def test_it_excludes(self, a):
        pids = [processes.fork(count_rows, a, seed) for seed in range(4)]
        assert [processes.wait(pid) for pid in pids] == [0] * 4
        assert a[:, 0].sum() == 4 * 150
        assert (a[:, 0] == a[:, 2]).all()

    def test_a_view_locks_its_own_part(self, a, pipe):
        pid = hold_in_a_child(a[10:20], pipe, slice(0, 5))
        a.lock_range(slice(0, 10), timeout=0).unlock()
        a.lock_range(slice(15, 20), timeout=0).unlock()
        with pytest.raises(errors.LockTimeout):
            a.lock_range(12, timeout=0)
        kill(pid)

    def test_what_makes_a_copy_cannot_be_locked(self, a):
        with pytest.raises(TypeError, match="wanted ints and slices"):
            a.lock_range([1, 2])
        with pytest.raises(IndexError):
            a.lock_range(N)

    def test_a_zero_dimensional_array_can_be_locked(self):
        a = SArray(np.array(5))
        with a.lock_range(()), pytest.raises(errors.LockError, match="already"):
            a.lock_range(...)

    def test_an_empty_part_can_be_locked(self, a):
        with a.lock_range(slice(0, 0)):
            pass


def count_rows(a, seed):
    rng = np.random.default_rng(seed)
    for _ in range(150):
        i = int(rng.integers(0, 9))
        with a.lock_range(slice(i, i + 1 + int(rng.integers(0, 3)))):
            a[i, 0] += 1
            a[i, 2] += 1
            assert a[i, 0] == a[i, 2]


class TestUse:
    def test_locking_ones_own_range_is_an_error_at_once(self, a):
        with a.lock_range(slice(0, 9)):
            with pytest.raises(errors.LockError, match="not re-entrant"):
                a.lock_range(slice(8, 20))
            a.lock_range(slice(9, 20)).unlock()

    def test_a_reader_that_wants_to_write_is_told(self, a):
        with a.lock_range(slice(0, 9), shared=True), pytest.raises(errors.LockError):
            a.lock_range(slice(0, 9))

    def test_unlocking_twice_is_an_error(self, a):
        guard = a.lock_range(0)
        guard.unlock()
        with pytest.raises(errors.LockError, match="not locked by this guard"):
            guard.unlock()

    def test_a_refused_lock_leaves_no_entry(self, a, pipe):
        pid = hold_in_a_child(a, pipe, slice(0, 9))
        for _ in range(100):
            with pytest.raises(errors.LockTimeout):
                a.lock_range(0, timeout=0)
        assert len(states(a)) == 1
        kill(pid)

    def test_sixty_four_entries_are_all_there_are(self, a):
        guards = [a.lock_range(i) for i in range(64)]
        with pytest.raises(errors.LockTimeout, match="all 64 range locks"):
            a.lock_range(100, timeout=0.01)
        guards.pop().unlock()
        guards.append(a.lock_range(100, timeout=5))
        for guard in guards:
            guard.unlock()
        assert states(a) == ()

    def test_a_waiter_for_an_entry_gets_one_when_one_is_given_up(self, a):
        guards = [a.lock_range(i) for i in range(64)]
        got = []
        thread = threading.Thread(target=lambda: got.append(a.lock_range(500, timeout=30)))
        thread.start()
        time.sleep(0.1)
        guards.pop().unlock()
        thread.join(processes.LIMIT)
        assert len(got) == 1
        for guard in guards + got:
            guard.unlock()

    def test_ctrl_c_interrupts_the_waiting(self, a, pipe):
        pid = hold_in_a_child(a, pipe, slice(0, 9))
        child = processes.fork(wait_for_ctrl_c, a, pipe[1])
        assert os.read(pipe[0], 1) == b"y"
        time.sleep(0.1)
        os.kill(child, signal.SIGINT)
        assert processes.wait(child) == 0
        assert len(states(a)) == 1
        kill(pid)


def wait_for_ctrl_c(a, writer):
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.write(writer, b"y")
    with pytest.raises(KeyboardInterrupt):
        a.lock_range(0)


class TestOrder:
    def test_a_waiting_writer_is_not_overtaken_by_readers(self, a, pipe):
        reader = a.lock_range(slice(0, 9), shared=True)
        writer = processes.fork(write_once, a, pipe[1])
        processes.eventually(lambda: any(e.state == "waiting" for e in states(a)))
        with pytest.raises(errors.LockTimeout, match=rf"process {writer} is before us"):
            a.lock_range(slice(0, 9), shared=True, timeout=0)
        reader.unlock()
        assert os.read(pipe[0], 1) == b"w"
        assert processes.wait(writer) == 0

    def test_a_writer_gets_through_a_stream_of_readers(self, a):
        pids = [processes.fork(keep_reading, a) for _ in range(3)]
        for _ in range(5):
            a.lock_range(slice(0, 9), timeout=30).unlock()
        for pid in pids:
            kill(pid)

    def test_a_dead_waiter_is_forgotten(self, a, pipe):
        reader = a.lock_range(slice(0, 9), shared=True)
        writer = processes.fork(write_once, a, pipe[1])
        processes.eventually(lambda: any(e.state == "waiting" for e in states(a)))
        kill(writer)
        with pytest.raises(errors.LockError):  # we read it, but wait behind nobody
            a.lock_range(slice(0, 9), timeout=5)
        thread = threading.Thread(target=lambda: a.lock_range(2, shared=True, timeout=9).unlock())
        thread.start()
        thread.join(processes.LIMIT)
        reader.unlock()
        assert states(a) == ()


def write_once(a, writer):
    with a.lock_range(slice(0, 9)) as guard:
        assert not guard.owner_died
        os.write(writer, b"w")


def keep_reading(a):
    while True:
        with a.lock_range(slice(0, 9), shared=True):
            time.sleep(0.001)


class TestTheDead:
    def test_who_locks_after_a_dead_writer_is_told_until_one_took_over(self, a, pipe):
        kill(hold_in_a_child(a, pipe, slice(10, 20)))
        for _ in range(2):
            with a.lock_range(slice(0, 12), shared=True, timeout=5) as guard:
                assert guard.owner_died  # a reader cannot repair
        with a.lock_range(slice(10, 20), timeout=5) as guard:
            assert guard.owner_died
        with a.lock_range(slice(10, 20), timeout=5) as guard:
            assert not guard.owner_died

    @pytest.mark.parametrize(
        ("taken", "left", "clean"),
        [
            (slice(0, 15), [slice(15, 20)], [slice(10, 15), slice(20, 30)]),
            (slice(15, 30), [slice(10, 15)], [slice(15, 20), slice(0, 10)]),
            (slice(12, 14), [slice(10, 12), slice(14, 20)], [slice(12, 14)]),
            (slice(0, 30), [], [slice(10, 20)]),
        ],
    )
    def test_only_what_was_taken_over_is_clean(self, a, pipe, taken, left, clean):
        kill(hold_in_a_child(a, pipe, slice(10, 20)))
        with a.lock_range(taken, timeout=5) as guard:
            assert guard.owner_died
        for keys, died in ((clean, False), (left, True)):
            for key in keys:
                with a.lock_range(key, shared=True, timeout=5) as guard:
                    assert guard.owner_died is died

    def test_a_repairer_that_dies_too_leaves_the_mark(self, a, pipe):
        for _ in range(4):
            kill(hold_in_a_child(a, pipe, slice(10, 20)))
        with a.lock_range(slice(10, 20), timeout=5) as guard:
            assert guard.owner_died
        assert states(a) == ()

    def test_a_waiter_is_told_when_the_holder_dies(self, a, pipe):
        pid = hold_in_a_child(a, pipe, slice(10, 20))
        told = []
        thread = threading.Thread(target=lambda: told.append(lock_and_tell(a)))
        thread.start()
        time.sleep(0.1)
        kill(pid)
        thread.join(processes.LIMIT)
        assert told == [True]

    def test_many_dead_fill_no_table(self, a, pipe):
        """Each dies inside the same range: their marks do not add up."""
        for _ in range(80):
            kill(hold_in_a_child(a, pipe, slice(0, 9)))
        with a.lock_range(slice(0, 9), timeout=5) as guard:
            assert guard.owner_died

    def test_entries_of_the_dead_are_found_when_the_table_is_full(self, a, pipe):
        """64 dead readers hold all entries: the next to lock anything must get one."""
        pid = processes.fork(hold_many, a, pipe[1])
        assert os.read(pipe[0], 1) == b"x"
        kill(pid)
        a.lock_range(slice(500, 600), timeout=20).unlock()

    def test_marks_of_the_dead_do_not_use_up_the_table(self, a):
        """Marks are joined when there is no room: what lies between is told too, never less."""
        for i in range(70):
            assert processes.run_forked(die_inside, a, 10 * i) == -9
        for i in range(70):
            with a.lock_range(10 * i, shared=True, timeout=20) as guard:
                assert guard.owner_died
        with a.lock_range(slice(None), timeout=20) as guard:
            assert guard.owner_died
        assert states(a) == ()


def die_inside(a, key):
    with a.lock_range(key, timeout=20):
        os.kill(os.getpid(), signal.SIGKILL)


def hold_many(a, writer):
    keep = [a.lock_range(i, shared=True) for i in range(64)]
    os.write(writer, b"x")
    while keep:
        signal.pause()


def lock_and_tell(a):
    with a.lock_range(slice(0, 30)) as guard:
        return guard.owner_died


class TestReadersAndWriter:
    def test_readers_share_and_a_writer_is_alone(self, a, pipe):
        lock = a.rwlock
        with lock.read(), pytest.raises(errors.LockError):
            lock.write(timeout=0)
        pid = hold_in_a_child(a, pipe, slice(None))
        for lock_it in (a.rwlock.read, a.rwlock.write):
            with pytest.raises(errors.LockTimeout, match=str(pid)):
                lock_it(timeout=0.01)
        kill(pid)
        with a.rwlock.write(timeout=5) as guard:
            assert guard.owner_died
        with a.rwlock.read(timeout=5) as guard:
            assert not guard.owner_died

    def test_nobody_reads_a_half_written_array(self, a):
        pids = [processes.fork(f, a) for f in (write_whole, write_whole, read_whole, read_whole)]
        assert [processes.wait(pid) for pid in pids] == [0] * 4


def write_whole(a):
    for i in range(60):
        with a.rwlock.write(timeout=30):
            for row in a:
                row += i


def read_whole(a):
    for _ in range(60):
        with a.rwlock.read(timeout=30):
            assert a.min() == a.max()
