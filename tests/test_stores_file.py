"""file://: every way of reading, mapped files, damage, killed writers, full disks."""

from __future__ import annotations

import errno
import multiprocessing
import os
import runpy
import shutil
import signal
import subprocess
import threading
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import processes
from layout_samples import N, assert_same, naming
from numpush import SArray, SDataFrame, stores
from numpush.stores.file_io import IO
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

    def test_wrong_options_are_named(self, tmp_path):
        for options in ({"io": "mapp"}, {"threads": 0}, {"timeout": 0}, {"timeout": float("inf")}):
            with pytest.raises(ValueError, match=str(next(iter(options.values())))):
                stores.open(tmp_path, **options)

    def test_a_read_that_hangs_is_given_up(self, tmp_path, monkeypatch):
        """A pipe stands for the file of a server that is gone: reading it waits."""
        release = threading.Event()
        real = os.preadv

        def hang(fd, buffers, offset):
            release.wait(30)
            return real(fd, buffers, offset)

        with stores.open(tmp_path, timeout=0.2) as store:
            store.put("a", BIG)
            monkeypatch.setattr(os, "preadv", hang)
            start = time.monotonic()
            with pytest.raises(stores.StoreUnavailable, match=r"0\.2 s"):
                store.get("a")
            assert time.monotonic() - start < 20
            release.set()
            monkeypatch.undo()
            until = time.monotonic() + 20
            while any(t.name == "numpush-read" for t in threading.enumerate()):
                assert time.monotonic() < until
                time.sleep(0.01)
            assert np.array_equal(store.get("a"), BIG)


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
                (errno.EIO, stores.StoreUnavailable),
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
def test_a_full_disk_leaves_what_was_there(tmp_path):
    if os.geteuid() != 0:
        pytest.skip("needs root, to mount a small file system")
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8m", "numpush-test", tmp_path],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        pytest.skip(f"cannot mount a file system here: {done.stderr.strip()}")
    try:
        with stores.open(tmp_path) as store:
            store.put("a", np.arange(1000))
            with pytest.raises(stores.StoreFull, match="'a'"):
                store.put("a", BIG)
            assert store.get("a").tolist() == list(range(1000))
            assert os.listdir(tmp_path) == ["a.npush"]
            assert store.stat("a").more["total"] == 8 << 20
    finally:
        subprocess.run(["umount", tmp_path], check=True)


def peak():
    """Return the most memory that this process had since it was last asked."""
    with open("/proc/self/status") as lines:
        found = next(line for line in lines if line.startswith("VmHWM"))
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")
    return int(found.split()[1]) << 10


def test_nothing_is_copied_on_the_way(tmp_path):
    with stores.open(tmp_path) as store:
        frame = SDataFrame(pd.DataFrame(np.ones((500_000, 20))))
        peak()
        before = peak()
        store.put("f", frame)
        assert peak() - before < 20 << 20
        other = store.get("f")
        assert peak() - before < (80 + 20) << 20
        store.get("f", into=other)
        assert peak() - before < (80 + 20) << 20
