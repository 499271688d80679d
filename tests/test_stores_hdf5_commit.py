"""hdf5://: killed writers, full disks, forks, and readers while others write."""

from __future__ import annotations

import errno
import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time

import numpy as np
import pytest

from hdf5_samples import FRAME
from layout_samples import N, assert_same
from numpush import stores
from numpush.stores import hdf5_commit, hdf5_reading
from numpush.stores.hdf5_commit import Overlay, recover, writing

h5py = pytest.importorskip("h5py", reason='needs h5py: pip install "numpush[hdf5]"')


class TestCommits:
    def test_a_writer_that_ends_in_the_middle_leaves_what_was_there(self, tmp_path, monkeypatch):
        path = tmp_path / "a.h5"
        with stores.open(f"hdf5://{path}") as store:
            store.put("a", np.arange(N))
            before = path.read_bytes()

            def fail(*args):
                raise KeyboardInterrupt

            monkeypatch.setattr(Overlay, "commit", fail)
            with pytest.raises(KeyboardInterrupt):
                store.put("a", FRAME)
            monkeypatch.undo()
            assert path.read_bytes()[: len(before)] == before
            assert np.array_equal(store.get("a"), np.arange(N))
            store.put("b", FRAME)
            assert store.keys() == ["a", "b"]

    def test_a_journal_puts_back_what_was_written_over(self, tmp_path, monkeypatch):
        path = tmp_path / "a.h5"
        with stores.open(f"hdf5://{path}") as store:
            store.put("a", np.arange(N))
            before = path.read_bytes()
            real = os.unlink
            monkeypatch.setattr(os, "unlink", lambda p: None if "journal" in str(p) else real(p))
            store.put("a", np.arange(7))  # ends without taking its journal away
            monkeypatch.undo()
            journal = (tmp_path / "a.h5.journal").read_bytes()
            assert path.read_bytes()[: len(before)] != before
            assert np.array_equal(store.get("a"), np.arange(N))
            assert path.read_bytes() == before
            for torn in (b"", journal[:10], journal[:-1], journal[:-1] + b"\0"):
                (tmp_path / "a.h5.journal").write_bytes(torn)
                with writing(str(path)):
                    recover(str(path))
                assert not (tmp_path / "a.h5.journal").exists()
            assert path.read_bytes() == before

    def test_who_has_the_file_open_is_waited_for_and_named(self, tmp_path, monkeypatch):
        path = tmp_path / "a.h5"
        monkeypatch.setattr(hdf5_commit, "_PATIENCE", 0.3)
        with stores.open(f"hdf5://{path}") as store:
            store.put("a", np.arange(N))
            with h5py.File(path, "r") as file:
                with pytest.raises(stores.StoreUnavailable, match="close it there"):
                    store.put("a", np.zeros(3))
                assert np.array_equal(file["a"], np.arange(N))
                assert np.array_equal(store.get("a"), np.arange(N))
            store.put("a", np.zeros(3))
            assert store.get("a").tolist() == [0, 0, 0]

    def test_who_looked_before_a_change_reads_again(self, tmp_path, monkeypatch):
        """What lies at the end of the file is given back, and written over by the next put."""
        with stores.open(f"hdf5://{tmp_path}/a.h5") as store:
            store.put("k", np.ones(100_003))
            real = hdf5_reading.read_extents

            def change_first(*args, **kwargs):
                monkeypatch.undo()
                store.put("other", np.zeros(3))
                store.delete("k")
                store.put("k", np.full(100_003, 2.0))
                store.put("more", np.full(100_003, 3.0))
                return real(*args, **kwargs)

            monkeypatch.setattr(hdf5_reading, "read_extents", change_first)
            assert (store.get("k") == 2.0).all()

    def test_many_processes_read_while_one_writes(self, tmp_path):
        with stores.open(f"hdf5://{tmp_path}/a.h5", compression="gzip") as store:
            store.put("k", np.ones(100_003))
            stop = threading.Event()

            def write():
                while not stop.is_set():
                    store.put("k", np.full(200_003, 2.0))
                    store.put("k", np.ones(100_003))

            with multiprocessing.get_context("spawn").Pool(3) as pool:
                writer = threading.Thread(target=write)
                writer.start()
                try:
                    assert pool.map(read_often, [(store, 15)] * 3, chunksize=1) == [0, 0, 0]
                finally:
                    stop.set()
                    writer.join(60)

    def test_an_error_of_the_disk_leaves_what_was_there(self, tmp_path, monkeypatch):
        path = tmp_path / "a.h5"
        with stores.open(f"hdf5://{path}") as store:
            store.put("a", np.arange(3))
            for name in ("fsync", "pwrite"):
                for code, kind in (
                    (errno.ENOSPC, stores.StoreFull),
                    (errno.EIO, stores.StoreUnavailable),
                ):

                    def fail(*args, code=code):
                        raise OSError(code, os.strerror(code))

                    monkeypatch.setattr(os, name, fail)
                    with pytest.raises(kind, match="'b'"):
                        store.put("b", np.arange(300_000.0))
                    monkeypatch.undo()
                    assert store.keys() == ["a"]
                    assert store.get("a").tolist() == [0, 1, 2]
                    assert sorted(os.listdir(tmp_path)) == ["a.h5", "a.h5.lock"]

    def test_forks_while_threads_read_and_write(self, tmp_path):
        big = np.arange(200_000.0)
        with stores.open(f"hdf5://{tmp_path}/a.h5", compression="gzip") as store:
            store.put("a", big)
            stop = threading.Event()

            def work(call):
                while not stop.is_set():
                    call()

            calls = [lambda: store.get("a"), lambda: store.put("b", big)]
            threads = [threading.Thread(target=work, args=(call,)) for call in calls]
            for thread in threads:
                thread.start()
            try:
                for _ in range(10):
                    child = multiprocessing.get_context("fork").Process(target=check, args=(store,))
                    child.start()
                    child.join(60)
                    assert child.exitcode == 0
            finally:
                stop.set()
                for thread in threads:
                    thread.join(60)
            assert np.array_equal(store.get("b"), big)

    def test_a_child_of_a_writer_writes_nothing_at_its_end(self, tmp_path):
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", textwrap.dedent(FORKS), str(tmp_path / "a.h5")],
            capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        assert (done.returncode, done.stdout) == (0, "the same\n"), done.stderr

    @pytest.mark.crash
    @pytest.mark.parametrize("compression", [None, "gzip"])
    def test_killed_writers_leave_all_that_was_put(self, tmp_path, compression):
        path = tmp_path / "a.h5"
        rng = np.random.default_rng(2)
        with stores.open(f"hdf5://{path}", compression=compression) as store:
            store.put("kept/f", FRAME)
            store.put("k", np.ones(30_003))
            for i in range(60):
                writer = multiprocessing.get_context("fork").Process(
                    target=write_for_ever, args=(store,)
                )
                writer.start()
                time.sleep(rng.uniform(0.002, 0.08))
                os.kill(writer.pid, signal.SIGKILL)
                writer.join()
                found = store.get("k")
                assert len(found) in (30_003, 60_003)
                assert (found == (1 if len(found) == 30_003 else 2)).all()
                assert_same(store.get("kept/f").to_pandas(), FRAME)
                if i % 10 == 9:
                    with h5py.File(path) as file:
                        assert len(file["k"]) == len(found)


FORKS = """
    import ctypes, os, random, sys, threading, time
    import numpy as np
    from numpush import stores

    path = sys.argv[1]
    store = stores.open(f"hdf5://{path}")
    for i in range(30):
        store.put(f"x/{i}", np.arange(50.0) + i)
    random.seed(1)
    for i in range(40):
        thread = threading.Thread(target=store.put, args=(f"k/{i % 7}", np.arange(20000.0) + i))
        thread.start()
        time.sleep(random.uniform(0, 0.02))
        child = os.fork()
        if not child:
            time.sleep(0.06)
            ctypes.CDLL(None).exit(0)  # with what C libraries do at the end, and nothing of Python's
        thread.join()
        with open(path, "rb") as file:
            wanted = file.read()
        os.waitpid(child, 0)
        with open(path, "rb") as file:
            assert file.read() == wanted, i
    print("the same")
"""


def check(store):
    assert np.array_equal(store.get("a"), np.arange(200_000.0))
    store.put(f"of/{os.getpid()}", np.arange(10))


@pytest.mark.system
def test_a_full_disk_leaves_what_was_there(small_disk):
    folder = small_disk("12m")
    noise = np.random.default_rng(0).integers(0, 1 << 64, 1_600_000, "u8")
    for options in ({}, {"compression": "gzip"}):
        with stores.open(f"hdf5://{folder}/a.h5", **options) as store:
            store.put("a", np.arange(1000))
            for n in (1_600_000, 1_590_000, 1_600_000):
                with pytest.raises(stores.StoreFull, match="'b'"):
                    store.put("b", noise[:n])
                assert store.get("a").tolist() == list(range(1000))
                assert sorted(os.listdir(folder)) == ["a.h5", "a.h5.lock"]
            store.put("b", noise[:1_000_000])
            assert np.array_equal(store.get("b"), noise[:1_000_000])
            store.delete("b")
            os.unlink(folder / "a.h5")


def read_often(work):
    store, times = work
    wrong = 0
    for _ in range(times):
        found = store.get("k")
        wrong += not (found == (1 if len(found) == 100_003 else 2)).all()
    return wrong


def write_for_ever(store):
    while True:
        store.put("k", np.full(60_003, 2.0))
        store.put("k", np.ones(30_003))
