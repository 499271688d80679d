"""file:// on a real MooseFS (cell.sh): copies, room, and chunkservers that die in the middle."""

from __future__ import annotations

import itertools
import os
import re
import signal
import subprocess
import threading
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from numpush import SArray, stores

pytestmark = pytest.mark.moosefs
BIG = np.arange(3_000_003.0)
LIMIT = 60  #: seconds in which everything ends, one way or the other


@pytest.fixture
def folder(tmp_path_factory):
    if "NUMPUSH_MOOSEFS" not in os.environ:
        pytest.skip("no MooseFS: tests/moosefs/cell.sh starts one")
    path = Path(
        os.environ["NUMPUSH_MOOSEFS"], tmp_path_factory.mktemp("x").name + str(time.time_ns())
    )
    path.mkdir()
    return path


def set_goal(path, n):
    subprocess.run(["mfssetgoal", str(n), path], check=True, capture_output=True, timeout=LIMIT)


class Cell:
    """The two chunkservers."""

    def __init__(self):
        self.path = Path(os.environ["MOOSEFS_CELL"])

    def pid(self, n):
        return int((self.path / f"chunkserver{n}.pid").read_text())

    def kill(self, n):
        os.kill(self.pid(n), signal.SIGKILL)

    def freeze(self, n):
        """Have it answer nobody, with its connections open: what a dead machine looks like for long."""
        os.kill(self.pid(n), signal.SIGSTOP)

    def thaw(self, n):
        os.kill(self.pid(n), signal.SIGCONT)

    def start(self, n):
        subprocess.run([self.path / "start-chunkserver", str(n)], check=True, timeout=LIMIT)


@pytest.fixture
def cell(folder):
    """Give the chunkservers, and start again those that the test killed."""
    made = Cell()
    yield made
    for n in (1, 2):
        try:
            made.thaw(n)
        except ProcessLookupError:
            made.start(n)
    set_goal(folder, 2)  # the test may have set another
    until = time.monotonic() + LIMIT
    for i in itertools.count():  # until files can be written in two copies again
        try:
            path = folder / f"probe{i}"
            path.write_bytes(b"x")
            if count_copies(path) == 2:
                return
        except OSError:
            pass
        assert time.monotonic() < until, "the cell does not recover"
        time.sleep(0.2)


def count_copies(path):
    done = subprocess.run(
        ["mfscheckfile", path], check=True, capture_output=True, text=True, timeout=LIMIT
    )
    found = re.search(r"with (\d+) cop", done.stdout)
    return int(found[1]) if found else 0


def forget_pages(path):
    """Have the kernel drop the file's pages, so that it is read from the chunkservers."""
    fd = os.open(path, os.O_RDONLY)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(fd)


def test_stat_shows_copies_and_room(folder):
    with stores.open(folder) as store:
        store.put("a", BIG[:1000])
        set_goal(folder / "a.npush", 1)
        assert store.stat("a").more["goal"] == "1"
        set_goal(folder / "a.npush", 2)
        more = store.stat("a").more
        assert more["goal"] == "2"
        assert 0 < more["free"] < more["total"]


@pytest.mark.parametrize("io", ["read", "mmap", "splice"])
def test_every_way_reads_it(folder, io):
    with stores.open(folder, io=io) as store:
        store.put("a", BIG)
        forget_pages(folder / "a.npush")
        assert np.array_equal(store.get("a"), BIG)
        assert np.array_equal(store.get("a", into=SArray.zeros(BIG.shape)), BIG)


def test_arrays_can_be_mapped(folder):
    with stores.open(folder) as store:
        store.put("a", BIG)
        array = store.get("a", mode="mmap", rows=slice(5, 1_000_000))
        assert np.array_equal(array, BIG[5:1_000_000])
        store.delete("a")
        assert array[7] == 12.0


def meanwhile(work):
    """Run *work* in a thread; return it, and where its error will stand."""
    errors = []

    def run():
        try:
            work()
        except Exception as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, errors


def test_a_chunkserver_killed_in_the_middle_of_reads_where_there_are_two_copies(folder, cell):
    with stores.open(folder) as store:
        set_goal(folder, 2)
        store.put("a", BIG)
        wait_for_copies(folder / "a.npush", 2)
        wrong = []

        def read():
            until = time.monotonic() + 4
            while time.monotonic() < until:
                forget_pages(folder / "a.npush")
                if not np.array_equal(store.get("a"), BIG):
                    wrong.append(1)

        thread, errors = meanwhile(read)
        time.sleep(1)
        cell.kill(1)
        thread.join(LIMIT)
        assert not thread.is_alive()
        assert errors == []
        assert wrong == []


def wait_for_copies(path, n):
    until = time.monotonic() + LIMIT
    while count_copies(path) != n:
        assert time.monotonic() < until
        time.sleep(0.1)


def test_both_killed_in_the_middle_of_reads_is_an_error_and_no_hang(folder, cell):
    with stores.open(folder, timeout=5) as store:
        store.put("a", BIG)

        def read():
            for _ in range(1000):
                forget_pages(folder / "a.npush")
                assert np.array_equal(store.get("a"), BIG)

        thread, errors = meanwhile(read)
        time.sleep(0.5)
        cell.kill(1)
        cell.kill(2)
        thread.join(LIMIT)
        assert not thread.is_alive()
        assert [type(error) for error in errors] == [stores.StoreUnavailable]
        assert "'a'" in str(errors[0])
        cell.start(1)
        cell.start(2)
        until = time.monotonic() + LIMIT
        while True:  # and it is all there when they are back
            try:
                forget_pages(folder / "a.npush")
                assert np.array_equal(store.get("a"), BIG)
                break
            except stores.StoreUnavailable:
                assert time.monotonic() < until


@pytest.mark.parametrize("io", ["read", "splice"])
@pytest.mark.parametrize("call", ["get", "rows", "stat"])
def test_frozen_chunkservers_are_given_up_by_our_own_deadline(folder, cell, call, io):
    """The message tells whose it was: MooseFS itself gives up later, by another error."""
    with stores.open(folder, timeout=1, io=io) as store:
        frame = pd.DataFrame({"x": BIG})
        store.put("f", frame)
        path = folder / "f.npush"
        wait_for_copies(path, 2)
        forget_pages(path)
        cell.freeze(1)
        cell.freeze(2)
        calls = {
            "get": lambda: store.get("f"),
            "rows": lambda: store.get("f", rows=slice(2_000_000, 2_000_100)),
            "stat": lambda: store.stat("f"),
        }
        with pytest.raises(stores.StoreUnavailable, match=r"'f'.*\(timeout=\)"):
            calls[call]()
        cell.thaw(1)
        cell.thaw(2)
        until = time.monotonic() + LIMIT
        while True:  # and it is all there when they are back
            try:
                assert np.array_equal(store.get("f")["x"], BIG)
                break
            except stores.StoreUnavailable:
                assert time.monotonic() < until
                time.sleep(0.2)
    while any(thread.name == "numpush-read" for thread in threading.enumerate()):
        assert time.monotonic() < until
        time.sleep(0.1)


def test_one_copy_whose_chunkserver_is_killed_is_unavailable_and_back_with_it(folder, cell):
    with stores.open(folder, timeout=10) as store:
        set_goal(folder, 1)
        store.put("a", BIG)
        path = folder / "a.npush"
        where = subprocess.run(
            ["mfsfileinfo", path], check=True, capture_output=True, text=True, timeout=LIMIT
        ).stdout
        (n,) = {int(each) for each in re.findall(r"10\.77\.0\.1([12]):", where)}
        forget_pages(path)
        cell.kill(n)
        with pytest.raises(stores.StoreUnavailable, match="'a'"):
            store.get("a")
        cell.start(n)
        until = time.monotonic() + LIMIT
        while True:
            try:
                assert np.array_equal(store.get("a"), BIG)
                break
            except stores.StoreUnavailable:
                assert time.monotonic() < until
                time.sleep(0.2)


def test_a_chunkserver_killed_in_the_middle_of_writes_where_there_are_two_copies(folder, cell):
    with stores.open(folder) as store:
        set_goal(folder, 2)
        store.put("a", BIG)

        def write():
            for i in range(4):
                store.put("a", BIG + i)

        thread, errors = meanwhile(write)
        time.sleep(1)
        cell.kill(2)
        thread.join(LIMIT)
        assert not thread.is_alive()
        found = store.get("a")
        if errors:  # MooseFS gave a write up: what was there is there
            assert [type(error) for error in errors] == [stores.StoreUnavailable]
            assert found[1] - BIG[1] in (0, 1, 2)
        else:
            assert np.array_equal(found, BIG + 3)
        assert np.array_equal(found - found[0], BIG)


def test_both_killed_in_the_middle_of_a_write_leaves_what_was_there(folder, cell):
    with stores.open(folder) as store:
        store.put("a", BIG)
        wait_for_copies(folder / "a.npush", 2)

        def write():
            for i in range(1, 100):
                store.put("a", BIG + i)

        thread, errors = meanwhile(write)
        time.sleep(1)
        cell.kill(1)
        cell.kill(2)
        thread.join(LIMIT)
        assert not thread.is_alive()
        assert [type(error) for error in errors] == [stores.StoreUnavailable]
        cell.start(1)
        cell.start(2)
        until = time.monotonic() + LIMIT
        while True:
            try:
                found = store.get("a")
                break
            except stores.StoreUnavailable:
                assert time.monotonic() < until
                time.sleep(0.2)
        assert np.array_equal(found - found[0], BIG)  # one of those put, whole
    with stores.open(folder) as store:
        store.put("b", BIG[:3])
    assert sorted(os.listdir(folder)) == ["a.npush", "b.npush"]
