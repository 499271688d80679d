"""file://: every way of reading, mapped files, damage, killed writers, full disks."""

from __future__ import annotations

import errno
import multiprocessing
import os
import pickle
import runpy
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import processes
from layout_samples import N, assert_same, naming
from numpush import SArray, SDataFrame, stores
from numpush.stores.file_io import IO, map_file
from numpush.stores.replacing import replacing, sweep

GOLDEN = Path(__file__).parent / "golden"
BIG = np.arange(3_333_333.0)  # several pieces, the last one odd
FRAME = pd.DataFrame(
    {"x": np.arange(N) / 3, "n": np.arange(N), "text": [f"s{i}" for i in range(N)]}
)


def golden_objects():
    return runpy.run_path(str(GOLDEN / "write_wire.py"))["objects"]()


class TestReading:
    @pytest.mark.parametrize("io", [each for each in IO if each != "copy_file_range"])
    @pytest.mark.parametrize("threads", [None, 1, 3])
    def test_every_way_gives_the_same(self, tmp_path, io, threads):
        with stores.open(tmp_path, io=io, threads=threads) as store:
            store.put("a", BIG)
            store.put("f", FRAME)
            for _ in range(2):  # into fresh memory, then into warm
                assert np.array_equal(store.get("a"), BIG)
            assert np.array_equal(store.get("a", rows=slice(7, 2_000_001)), BIG[7:2_000_001])
            pd.testing.assert_frame_equal(store.get("f").to_pandas(), FRAME)
            pd.testing.assert_frame_equal(
                store.get("f", columns=["n", "x"]).to_pandas(), FRAME[["n", "x"]]
            )
            array = SArray.zeros(BIG.shape)
            assert np.array_equal(store.get("a", into=array), BIG)

    def test_copy_file_range_works_or_says_what_to_do(self, tmp_path):
        with stores.open(tmp_path, io="copy_file_range") as store:
            store.put("a", BIG)
            found = []
            error = None
            try:
                found = store.get("a")
            except stores.StoreUnsupported as caught:
                error = str(caught)
            assert "io='read'" in error if error else np.array_equal(found, BIG)

    def test_threads_that_end_before_others_start_close_nothing_of_others(self, tmp_path):
        """The one that ends last closes the file, once: a second time may hit a file of somebody else."""
        with stores.open(tmp_path, threads=4) as store:
            store.put("a", FRAME)  # many small pieces: the first thread may have them all
            wrong = []

            def reopen():  # takes the lowest free number, time and again
                while not is_over:
                    fd = os.open(os.devnull, os.O_RDONLY)
                    time.sleep(0)
                    try:
                        os.close(fd)
                    except OSError as error:
                        wrong.append(error)

            is_over = []
            thread = threading.Thread(target=reopen)
            thread.start()
            try:
                for _ in range(300):
                    store.get("a")
            finally:
                is_over.append(True)
                thread.join()
            assert wrong == []

    def test_wrong_options_are_named(self, tmp_path):
        for options in ({"io": "mapp"}, {"threads": 0}, {"timeout": 0}, {"timeout": float("inf")}):
            with pytest.raises(ValueError, match=str(next(iter(options.values())))):
                stores.open(tmp_path, **options)

    @pytest.mark.parametrize("io", ["read", "splice"])
    def test_a_read_that_hangs_is_given_up_and_its_memory_is_nobodys(
        self, tmp_path, monkeypatch, io
    ):
        """The call waits, as it does in the kernel when a server is gone, and writes when it comes back."""
        release, n_hung = threading.Event(), []
        name = "preadv" if io == "read" else "splice"
        real = getattr(os, name)

        def hang(*args, **options):
            n_hung.append(1)
            release.wait(60)
            return real(*args, **options)

        with stores.open(tmp_path, timeout=0.2, threads=2, io=io) as store:
            store.put("a", BIG)
            monkeypatch.setattr(os, name, hang)
            with pytest.raises(stores.StoreUnavailable, match=r"0\.2 s \(timeout=\)"):
                store.get("a")
            assert n_hung
            monkeypatch.undo()
            others = [SArray.zeros(BIG.shape) for _ in range(3)]  # may get memory that was let go
            release.set()
            wait_for_readers()
            assert not any(other.any() for other in others)
            assert np.array_equal(store.get("a"), BIG)

    def test_a_file_that_does_not_open_is_given_up(self, tmp_path):
        """A FIFO without a writer stands for it: open(2) waits, really."""
        with stores.open(tmp_path, timeout=0.2) as store:
            os.mkfifo(tmp_path / "a.npush")
            for call in (store.get, store.stat, lambda key: store.get(key, mode="mmap")):
                with pytest.raises(stores.StoreUnavailable, match=r"'a'.*\(timeout=\)"):
                    call("a")
            assert store.keys() == ["a"]
            os.close(os.open(tmp_path / "a.npush", os.O_WRONLY))  # they go on, and find no file
            wait_for_readers()

    def test_a_timeout_that_is_not_reached_changes_nothing(self, tmp_path):
        with stores.open(tmp_path, timeout=60) as store:
            store.put("a", BIG)
            try:
                raise LookupError("of the caller, who is handling it")
            except LookupError:
                assert np.array_equal(store.get("a"), BIG)
            assert store.stat("a").shape == BIG.shape
            with pytest.raises(stores.KeyNotFound):
                store.get("b")
            wait_for_readers()

    def test_a_directory_that_cannot_be_listed_is_an_error(self, tmp_path, monkeypatch):
        with stores.open(tmp_path) as store:
            store.put("a/b", BIG[:3])

            def fail(path):
                raise OSError(errno.EIO, os.strerror(errno.EIO), path)

            monkeypatch.setattr(os, "scandir", fail)
            with pytest.raises(stores.StoreUnavailable, match="Input/output"):
                store.keys()

    @pytest.mark.parametrize("what", ["get", "put", "timeout"])
    def test_ctrl_c_ends_a_read_and_a_write(self, tmp_path, what):
        with stores.open(tmp_path) as store:
            store.put("a", np.arange(20_000_003.0))
        child = subprocess.Popen(
            [sys.executable, "-c", INTERRUPTED, str(tmp_path), what],
            stdout=subprocess.PIPE, text=True, env=os.environ,
        )  # fmt: skip
        try:
            assert child.stdout.readline() == "ready\n"
            time.sleep(0.2)
            child.send_signal(signal.SIGINT)
            out, _ = child.communicate(timeout=processes.LIMIT)
        finally:
            child.kill()
            child.wait()
        assert out == "interrupted, and then well\n"
        assert child.returncode == 0
        assert not [each for each in os.listdir(tmp_path) if each.endswith(".writing")]


INTERRUPTED = """
import sys, threading, time, numpy as np
from numpush import stores
path, what = sys.argv[1:]
store = stores.open(path, timeout=60 if what == "timeout" else None)
array = store.get("a")
try:
    print("ready", flush=True)
    while True:
        store.put("b", array) if what == "put" else store.get("a", into=array)
except KeyboardInterrupt:
    until = time.monotonic() + 60
    while any(t.name == "numpush-read" for t in threading.enumerate()):
        assert time.monotonic() < until
        time.sleep(0.01)
    assert np.array_equal(store.get("a"), np.arange(20_000_003.0))
    store.put("b", array[:3])
    print("interrupted, and then well", flush=True)
"""


def wait_for_readers():
    until = time.monotonic() + processes.LIMIT
    while any(t.name == "numpush-read" for t in threading.enumerate()):
        assert time.monotonic() < until
        time.sleep(0.01)


class TestMapping:
    def test_an_array_over_the_files_own_pages(self, tmp_path):
        with stores.open(tmp_path) as store:
            store.put("a", BIG.reshape(3, -1))
            before = processes.files()
            array = store.get("a", mode="mmap")
            part = store.get("a", mode="mmap", rows=slice(1, 2))
            assert processes.files() == before
            assert type(array) is SArray
            assert np.array_equal(array, BIG.reshape(3, -1))
            assert np.array_equal(part, BIG.reshape(3, -1)[1:2])
            with pytest.raises(ValueError, match="read-only"):
                array[0, 0] = 1.0
            with pytest.raises(ValueError, match="WRITEABLE"):
                array.flags.writeable = True
            store.put("a", np.zeros(3))
            store.delete("a")
            assert np.array_equal(array, BIG.reshape(3, -1))  # what was mapped stays

    def test_what_cannot_be_mapped_says_so(self, tmp_path):
        with stores.open(tmp_path) as store:
            store.put("f", FRAME)
            store.put("a", BIG)
            store.put("e", np.empty((0, 3)))
            with pytest.raises(TypeError, match="for arrays"):
                store.get("f", mode="mmap")
            with pytest.raises(TypeError, match="leave out into="):
                store.get("a", mode="mmap", into=SArray(BIG))
            with pytest.raises(ValueError, match="'mmapp'"):
                store.get("a", mode="mmapp")
            assert store.get("e", mode="mmap").shape == (0, 3)
            for rows in (slice(0, 10, 2), 5, [1, 2]):
                with pytest.raises(TypeError, match="without a step"):
                    store.get("a", mode="mmap", rows=rows)
            store.put("s", np.full((), 3.0))
            with pytest.raises(TypeError, match="no rows"):
                store.get("s", mode="mmap", rows=slice(0, 1))
            assert store.get("s", mode="mmap")[()] == 3.0

    def test_a_file_system_that_shares_no_pages_is_named(self):
        """sysfs has files with a size that cannot be mapped."""
        path = next((p for p in ("/sys/kernel/mm/transparent_hugepage/enabled", "/sys/kernel/uevent_seqnum",
                                 "/sys/kernel/profiling") if os.path.exists(p)), None)  # fmt: skip
        if path is None:
            pytest.skip("no sysfs here")
        fd = os.open(path, os.O_RDONLY)
        try:
            with pytest.raises(stores.StoreUnsupported, match="leave out mode='mmap'"):
                map_file(fd, path)
        finally:
            os.close(fd)

    def test_it_travels_by_its_values(self, tmp_path):
        with stores.open(tmp_path) as store:
            store.put("a", BIG[:1000])
            back = pickle.loads(pickle.dumps(store.get("a", mode="mmap")))
            store.delete("a")
            assert np.array_equal(back, BIG[:1000])
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                assert pool.apply(np.sum, (back,)) == BIG[:1000].sum()

    def test_other_processes_open_the_store(self, tmp_path):
        with stores.open(tmp_path) as store:
            store.put("a", BIG)
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                assert pool.apply(mapped_sum, (store,)) == BIG.sum()


def mapped_sum(store):
    return float(store.get("a", mode="mmap").sum())


class TestDamage:
    def test_every_byte_of_the_head_counts(self, tmp_path):
        with stores.open(tmp_path) as store:
            store.put("f", FRAME[:20])
            path = tmp_path / "f.npush"
            whole = path.read_bytes()
            head = 32 + int.from_bytes(whole[8:12], "little")
            for at in range(head):
                damaged = bytearray(whole)
                damaged[at] ^= 0x41
                path.write_bytes(damaged)
                for call in (store.get, store.stat):
                    with pytest.raises(stores.StoreDamaged, match="'f'"):
                        call("f")

    def test_every_length_but_its_own_is_damage(self, tmp_path):
        with stores.open(tmp_path) as store:
            store.put("a", np.arange(100))
            path = tmp_path / "a.npush"
            whole = path.read_bytes()
            for length in [*range(0, len(whole), 97), len(whole) - 1]:
                path.write_bytes(whole[:length])
                with pytest.raises(stores.StoreDamaged):
                    store.get("a")
            path.write_bytes(whole + b"x")
            with pytest.raises(stores.StoreDamaged, match="wanted"):
                store.get("a")

    def test_a_checksum_finds_a_bit_of_the_data(self, tmp_path):
        with stores.open(tmp_path, checksum=True) as store:
            store.put("f", FRAME)
            path = tmp_path / "f.npush"
            whole = bytearray(path.read_bytes())
            whole[-100] ^= 1
            path.write_bytes(whole)
            with pytest.raises(stores.StoreDamaged, match="CRC-32"):
                store.get("f")
            assert store.get("f", columns=["x"])["x"].tolist() == FRAME["x"].tolist()

    def test_a_file_that_is_cut_short_meanwhile(self, tmp_path, monkeypatch):
        with stores.open(tmp_path) as store:
            store.put("a", BIG)
            real = os.preadv

            def cut(fd, buffers, offset):
                os.truncate(tmp_path / "a.npush", 100_000)
                return real(fd, buffers, offset)

            monkeypatch.setattr(os, "preadv", cut)
            with pytest.raises(stores.StoreDamaged, match="shorter"):
                store.get("a")


class TestGolden:
    """Files of tests/golden/write_npush.py."""

    def test_old_files_are_read(self, tmp_path):
        kept = tmp_path / "kept"  # not in the checkout: opening a store may write
        shutil.copytree(GOLDEN / "npush", kept)
        wanted = {
            n: obj for n, (obj, options) in golden_objects().items() if "chunk" not in options
        }
        with stores.open(kept) as store:
            assert store.keys() == sorted(wanted)
            for name, obj in wanted.items():
                with naming(name):
                    back = store.get(name)
                    if isinstance(obj, np.ndarray):
                        assert back.dtype == obj.dtype
                        assert np.array_equal(back, obj)
                    else:
                        assert_same(back.to_pandas(), obj)


class TestWriting:
    def test_an_error_of_the_disk_leaves_what_was_there(self, tmp_path, monkeypatch):
        with stores.open(tmp_path) as store:
            store.put("a", np.arange(3))

            for code, kind in (
                (errno.ENOSPC, stores.StoreFull),
                (errno.EDQUOT, stores.StoreFull),
                (errno.EIO, stores.StoreUnavailable),
                (errno.ENXIO, stores.StoreUnavailable),
            ):

                def fail(fd, code=code):
                    raise OSError(code, os.strerror(code))

                monkeypatch.setattr(os, "fsync", fail)
                with pytest.raises(kind, match="'a'"):
                    store.put("a", BIG)
                monkeypatch.undo()
                assert store.get("a").tolist() == [0, 1, 2]
                assert os.listdir(tmp_path) == ["a.npush"]

    def test_what_a_killed_writer_left_is_swept_and_a_living_ones_is_not(self, tmp_path):
        with replacing(str(tmp_path / "living")) as out:
            out.write(b"x")
            dead = tmp_path / f".dead.{'0' * 32}.writing"
            dead.write_bytes(b"half")
            mine = tmp_path / ".dead.writing"  # of somebody else's
            mine.write_bytes(b"")
            sweep(str(tmp_path))
            assert not dead.exists()
            assert mine.exists()
        assert (tmp_path / "living").read_bytes() == b"x"

    def test_a_file_that_is_taken_away_while_it_is_written_is_no_missing_key(
        self, tmp_path, monkeypatch
    ):
        with stores.open(tmp_path) as store:
            store.put("a", np.arange(3))
            real = os.fsync

            def steal(fd):
                for each in tmp_path.glob(".*.writing"):
                    each.unlink()
                real(fd)

            monkeypatch.setattr(os, "fsync", steal)
            with pytest.raises(stores.StoreUnavailable, match="'a'"):
                store.put("a", BIG)
            monkeypatch.undo()
            assert store.get("a").tolist() == [0, 1, 2]

    def test_a_put_finds_its_room_first(self, tmp_path):
        """All of it is written nevertheless: the length that is found is the one that was written."""
        with stores.open(tmp_path) as store:
            store.put("f", FRAME)
            store.put("a", BIG)
            size = (tmp_path / "a.npush").stat().st_size
            assert size == 4096 + BIG.nbytes
            assert store.stat("a").stored == size

    @pytest.mark.crash
    def test_killed_writers_leave_one_or_the_other(self, tmp_path):
        ones, twos = np.ones(1_000_003), np.full(2_000_003, 2.0)
        with stores.open(tmp_path) as store:
            store.put("k", ones)
            rng = np.random.default_rng(1)
            for _ in range(60):
                writer = multiprocessing.get_context("fork").Process(
                    target=write_for_ever, args=(store, ones, twos)
                )
                writer.start()
                time.sleep(rng.uniform(0.005, 0.12))
                os.kill(writer.pid, signal.SIGKILL)
                writer.join()
                found = store.get("k")
                assert len(found) in (1_000_003, 2_000_003)
                assert (found == (1 if len(found) == 1_000_003 else 2)).all()
        with stores.open(tmp_path) as store:
            store.put("k", ones)  # the first put of a store sweeps
        assert os.listdir(tmp_path) == ["k.npush"]


def write_for_ever(store, ones, twos):
    while True:
        store.put("k", twos)
        store.put("k", ones)


@pytest.mark.system
def test_a_full_disk_leaves_what_was_there(small_disk):
    folder = small_disk("8m")
    with stores.open(folder) as store:
        store.put("a", np.arange(1000))
        with pytest.raises(stores.StoreFull, match="'a'"):
            store.put("a", BIG)
        assert store.get("a").tolist() == list(range(1000))
        assert os.listdir(folder) == ["a.npush"]
        assert store.stat("a").more["total"] == 8 << 20


def test_nothing_is_copied_on_the_way(tmp_path):
    with stores.open(tmp_path) as store:
        frame = SDataFrame(pd.DataFrame(np.ones((500_000, 20))))
        processes.peak_memory()
        before = processes.peak_memory()
        store.put("f", frame)
        assert processes.peak_memory() - before < 20 << 20
        other = store.get("f")
        assert processes.peak_memory() - before < (80 + 20) << 20
        store.get("f", into=other)
        assert processes.peak_memory() - before < (80 + 20) << 20
