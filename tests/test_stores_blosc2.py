"""blosc2://: files that blosc2 opens, files of its users, parts, damage, the GIL, full disks."""

from __future__ import annotations

import contextlib
import errno
import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import threading
import time
import zlib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import processes
from blosc2_samples import BIG, FRAME, GOLDEN, RNG, open_store
from layout_samples import N
from numpush import SArray, SDataFrame, blosc2_chunks, stores
from numpush.stores import blosc2_file, blosc2_reading
from numpush.stores.blosc2_store import Blosc2Store
from numpush.stores.crc32 import combine

blosc2 = pytest.importorskip("blosc2", reason="needs blosc2")


class TestParts:
    def test_only_the_chunks_of_a_part_are_decompressed(self, tmp_path, monkeypatch):
        frame = pd.DataFrame(RNG.random((20_000, 3)), columns=["a", "b", "c"]).assign(n=1)
        with open_store(tmp_path, chunk=1 << 14, threads=1) as store:
            store.put("a", BIG)
            store.put("f", frame)
            sizes = []
            real = blosc2_reading.Frame.do

            def count(self, job, buffers):
                sizes.append(job.size)
                real(self, job, buffers)

            monkeypatch.setattr(blosc2_reading.Frame, "do", count)
            part = store.get("a", rows=slice(100_000, 100_010))
            assert sizes == [80]
            assert np.array_equal(part, BIG[100_000:100_010])
            sizes.clear()
            part = store.get("f", columns=["b"], rows=slice(2048, 4096)).to_pandas()
            assert sizes == [1 << 14]
            pd.testing.assert_frame_equal(part, frame[["b"]][2048:4096])
            sizes.clear()
            store.get("f", columns=["c", "a"])
            assert sum(sizes) == 2 * 160_000

    def test_nothing_is_copied_on_the_way(self, tmp_path):
        frame = SDataFrame(pd.DataFrame(np.tile(np.arange(500_000.0)[:, None], 20)))
        array = SArray(np.tile(np.arange(1 << 20), 10))
        with open_store(tmp_path, sync=False, threads=2) as store:
            for obj in (frame, array):
                store.put("warm", obj)
                processes.peak_memory()
                before = processes.peak_memory()
                store.put("k", obj)
                assert processes.peak_memory() - before < 24 << 20
                other = store.get("k")
                assert processes.peak_memory() - before < (80 + 24) << 20
                store.get("k", into=other)
                assert processes.peak_memory() - before < (80 + 24) << 20


def golden():
    return runpy.run_path(str(GOLDEN / "write_blosc2.py"))["objects"]()


@pytest.mark.parametrize("name", ["array", "zeros", "zstd", "frame", "series"])
def test_golden_files_stay_readable(name):
    obj, _ = golden()[name]
    with open_store(GOLDEN / "blosc2") as store:
        found = store.get(name)
    if isinstance(obj, np.ndarray):
        assert found.dtype == obj.dtype
        assert np.array_equal(found, obj)
    elif isinstance(obj, pd.Series):
        pd.testing.assert_series_equal(found.to_pandas(), obj)
    else:
        pd.testing.assert_frame_equal(found.to_pandas(), obj)


def is_equal(found, obj):
    if isinstance(obj, np.ndarray):
        return np.array_equal(found, obj)
    return found.to_pandas().equals(obj)


class TestDamage:
    OBJECTS = (
        ("a.b2nd", np.arange(300) % 7 * 1.5),
        ("f.b2z", pd.DataFrame({"x": np.arange(30.0), "t": [f"s{i % 7}" for i in range(30)]})),
    )

    @pytest.mark.parametrize(("file", "obj"), OBJECTS, ids=["array", "frame"])
    def test_every_byte_is_checked_or_does_not_count(self, tmp_path, file, obj):
        path, found = tmp_path / file, {}
        with open_store(tmp_path, sync=False, threads=1) as store:
            store.put(file[0], obj)
            whole = path.read_bytes()
            for at in range(len(whole)):
                damaged = bytearray(whole)
                damaged[at] ^= 0x41
                path.write_bytes(damaged)
                try:
                    assert is_equal(store.get(file[0]), obj), at
                except stores.StoreDamaged as error:
                    found[at] = str(error)
                with contextlib.suppress(stores.StoreDamaged):
                    store.stat(file[0])
        assert len(found) > len(whole) / 3
        assert all(f"'{file[0]}'" in message for message in found.values())

    @pytest.mark.parametrize(("file", "obj"), OBJECTS, ids=["array", "frame"])
    def test_every_length_but_its_own_is_damage(self, tmp_path, file, obj):
        path = tmp_path / file
        with open_store(tmp_path, sync=False) as store:
            store.put(file[0], obj)
            whole = path.read_bytes()
            for length in [*range(0, len(whole), 41), len(whole) - 1]:
                path.write_bytes(whole[:length])
                with pytest.raises(stores.StoreDamaged):
                    store.get(file[0])
        path.write_bytes(whole + b"x")
        with open_store(tmp_path) as store:
            if file == "a.b2nd":
                with pytest.raises(stores.StoreDamaged, match="bytes"):
                    store.get("a")
            else:  # of a zip it would be a comment
                assert is_equal(store.get("f"), obj)

    def test_a_checksum_finds_a_bit_of_the_data_also_in_a_part(self, tmp_path):
        with open_store(tmp_path, chunk=1 << 14) as store:
            store.put("a", BIG)
            path = tmp_path / "a.b2nd"
            whole = bytearray(path.read_bytes())
            whole[len(whole) // 2] ^= 1
            path.write_bytes(whole)
            with pytest.raises(stores.StoreDamaged, match="CRC-32"):
                store.get("a")
            half = len(BIG) // 2
            with pytest.raises(stores.StoreDamaged, match="CRC-32"):
                store.get("a", rows=slice(half - 90_000, half + 90_000))
            assert np.array_equal(store.get("a", rows=slice(0, 5000)), BIG[:5000])

    @pytest.mark.parametrize("who", ["ours", "theirs"])
    def test_damage_that_no_checksum_finds_never_crashes(self, tmp_path, who):
        """In a process of its own: what would be written to a wrong place would be its end."""
        done = subprocess.run(
            [sys.executable, "-X", "faulthandler", __file__, str(tmp_path), who],
            capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert int(done.stdout) > 20

    def test_lengths_that_lie_are_found_before_anything_is_written(self):
        data = np.arange(1000.0)
        chunk = blosc2_chunks.compress(data, blosc2_chunks.parameters("lz4", 8))
        memory = np.full(8000 + 4096, 7, np.uint8)
        for at, value in ((4, 16_000), (4, 7992), (4, -1), (8, 0), (8, 1 << 30), (12, 99)):
            lying = bytearray(chunk)
            lying[at : at + 4] = value.to_bytes(4, "little", signed=True)
            with pytest.raises(blosc2_chunks.BadChunk):
                blosc2_chunks.decompress(bytes(lying), memory[:8000])
        for size in (0, 80, 7992, 8008):
            with pytest.raises(blosc2_chunks.BadChunk, match="announced"):
                blosc2_chunks.decompress(chunk, memory[:size])
        for length in (0, 16, 31, len(chunk) - 1):
            with pytest.raises(blosc2_chunks.BadChunk, match="a chunk of"):
                blosc2_chunks.decompress(chunk[:length], memory[:8000])
        for at, value in ((31, 0x08), (2, 0xD5), (16, 160)):  # lazy, a plug-in, a plug-in's filter
            lying = bytearray(chunk)
            lying[at] = value
            with pytest.raises(blosc2_chunks.BadChunk, match="not read"):
                blosc2_chunks.decompress(bytes(lying), memory[:8000])
        read_only = memory[:8000].view()
        read_only.flags.writeable = False
        with pytest.raises(ValueError, match="read-only"):
            blosc2_chunks.decompress(chunk, read_only)
        assert (memory == 7).all()
        blosc2_chunks.decompress(chunk, memory[:8000])
        assert np.array_equal(memory[:8000].view(float), data)
        assert (memory[8000:] == 7).all()

    def test_a_record_that_wants_more_than_there_is_gets_no_memory(self, tmp_path, monkeypatch):
        """A frame whose record, with a CRC-32 that holds, tells of a member of 1 TiB."""
        frame = pd.DataFrame({"x": np.zeros(1000)})
        real = blosc2_file.pack

        def lie(fields):
            if "buffers" in fields:
                fields = {**fields, "buffers": [1 << 40]}
            return real(fields)

        monkeypatch.setattr(blosc2_file, "pack", lie)
        with open_store(tmp_path) as store:
            store.put("f", frame)
            monkeypatch.undo()
            with pytest.raises(stores.StoreDamaged, match=r"'x\.b2nd'.*1099511627776 bytes wanted"):
                store.get("f")

    def test_a_file_that_is_cut_short_meanwhile(self, tmp_path, monkeypatch):
        with open_store(tmp_path, threads=2) as store:
            store.put("a", BIG)
            real = os.preadv

            def cut(fd, buffers, offset):
                os.truncate(tmp_path / "a.b2nd", 10_000)
                return real(fd, buffers, offset)

            monkeypatch.setattr(os, "preadv", cut)
            with pytest.raises(stores.StoreDamaged, match="shorter"):
                store.get("a")


class TestThreads:
    def test_blosc2_keeps_the_gil_as_it_was_told_when_nobody_works(self, tmp_path):
        def is_released():
            now = blosc2.set_releasegil(False)
            blosc2.set_releasegil(now)
            return now

        assert not is_released()
        with blosc2_chunks.without_gil():
            assert is_released()
            with blosc2_chunks.without_gil():
                pass
            assert is_released()
            pid = os.fork()
            if not pid:
                os._exit(1 if is_released() else 0)
            assert os.waitpid(pid, 0)[1] == 0
            assert is_released()
        assert not is_released()
        blosc2.set_releasegil(True)
        try:
            with open_store(tmp_path) as store:
                store.put("a", BIG)
                store.get("a")
            assert is_released()
        finally:
            blosc2.set_releasegil(False)

    def test_an_error_of_one_thread_ends_all(self, tmp_path, monkeypatch):
        with open_store(tmp_path, chunk=4096, threads=4) as store:
            store.put("a", BIG)
            real = blosc2_chunks.decompress

            def fail(chunk, target):
                if threading.current_thread() is not threading.main_thread():
                    raise blosc2_chunks.BadChunk("made up")
                time.sleep(0.001)
                real(chunk, target)

            monkeypatch.setattr(blosc2_chunks, "decompress", fail)
            with pytest.raises(stores.StoreDamaged, match="made up"):
                store.get("a")
            assert not [t for t in threading.enumerate() if t.name.startswith("numpush-")]

    def test_ctrl_c_ends_a_read_and_leaves_no_thread(self, tmp_path, monkeypatch):
        with open_store(tmp_path, chunk=4096, threads=3) as store:
            store.put("a", BIG)
            real, n = blosc2_reading.Frame.do, []

            def slow(self, job, buffers):
                n.append(1)
                if len(n) == 50:
                    os.kill(os.getpid(), signal.SIGINT)
                time.sleep(0.002)
                real(self, job, buffers)

            monkeypatch.setattr(blosc2_reading.Frame, "do", slow)
            with pytest.raises(KeyboardInterrupt):
                store.get("a")
            assert not [t for t in threading.enumerate() if t.name.startswith("numpush-")]
            monkeypatch.undo()
            assert np.array_equal(store.get("a"), BIG)


class TestOptions:
    def test_wrong_options_are_named(self, tmp_path):
        for options in (
            {"codec": "gzip"},
            {"filter": "delta"},
            {"level": 10},
            {"threads": 0},
            {"chunk": 100},
        ):
            with pytest.raises(ValueError, match=str(next(iter(options.values())))):
                open_store(tmp_path, **options)
        with pytest.raises(ValueError, match="absolute"):
            stores.open("blosc2://relative")

    def test_a_missing_library_names_the_extra(self, tmp_path, monkeypatch):
        monkeypatch.setitem(sys.modules, "blosc2", None)
        with pytest.raises(ImportError, match=r"numpush\[blosc2\]"):
            open_store(tmp_path)

    def test_stat_tells_how_much_it_shrank(self, tmp_path):
        with open_store(tmp_path) as store:
            store.put("a", BIG)
            stat = store.stat("a")
            assert (stat.format, stat.nbytes) == ("b2nd", BIG.nbytes)
            assert stat.stored == os.path.getsize(tmp_path / "a.b2nd")
            assert stat.more["ratio"] == round(BIG.nbytes / stat.stored, 2) > 1.5


class TestWriting:
    def test_an_error_of_the_disk_leaves_what_was_there(self, tmp_path, monkeypatch):
        with open_store(tmp_path) as store:
            store.put("a", np.arange(3))
            for name, code, kind in (
                ("fsync", errno.ENOSPC, stores.StoreFull),
                ("pwritev", errno.EDQUOT, stores.StoreFull),
                ("pwritev", errno.EIO, stores.StoreUnavailable),
            ):

                def fail(*args, code=code):
                    raise OSError(code, os.strerror(code))

                monkeypatch.setattr(os, name, fail)
                with pytest.raises(kind, match="'a'"):
                    store.put("a", BIG)
                monkeypatch.undo()
                assert store.get("a").tolist() == [0, 1, 2]
                assert os.listdir(tmp_path) == ["a.b2nd"]

    def test_the_other_form_of_a_key_goes_when_it_is_replaced(self, tmp_path):
        with open_store(tmp_path) as store:
            for obj, files in ((FRAME, ["k.b2z"]), (BIG, ["k.b2nd"]), (FRAME["x"], ["k.b2z"])):
                store.put("k", obj)
                assert os.listdir(tmp_path) == files
            store.delete("k")
            assert os.listdir(tmp_path) == []

    def test_two_who_put_an_array_and_a_frame_by_one_key_leave_one_of_them(
        self, tmp_path, monkeypatch
    ):
        real = Blosc2Store._drop
        children = []

        def slow(self, key, suffixes):
            if not children:  # who is forked while the folder is locked does not keep it locked
                children.append(
                    multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
                )
                children[0].start()
            time.sleep(0.2)
            return real(self, key, suffixes)

        monkeypatch.setattr(Blosc2Store, "_drop", slow)
        with open_store(tmp_path) as store:
            writers = [
                threading.Thread(target=store.put, args=("k", obj)) for obj in (BIG[:9], FRAME)
            ]
            for writer in writers:
                writer.start()
            for writer in writers:
                writer.join(30)
            assert not any(writer.is_alive() for writer in writers)
            assert len(os.listdir(tmp_path)) == 1
            assert len(store.get("k")) in (9, N)
        children[0].kill()
        children[0].join()

    @pytest.mark.crash
    def test_killed_writers_leave_one_or_the_other(self, tmp_path):
        ones, twos = np.ones(300_003), pd.DataFrame({"x": np.full(500_003, 2.0)})
        with open_store(tmp_path, sync=False) as store:
            store.put("k", ones)
            rng = np.random.default_rng(1)
            for _ in range(40):
                writer = multiprocessing.get_context("fork").Process(
                    target=write_for_ever, args=(store, ones, twos)
                )
                writer.start()
                time.sleep(rng.uniform(0.005, 0.1))
                os.kill(writer.pid, signal.SIGKILL)
                writer.join()
                found = store.get("k")
                if isinstance(found, SArray):
                    assert np.array_equal(found, ones)
                else:
                    pd.testing.assert_frame_equal(found.to_pandas(), twos)
        with open_store(tmp_path) as store:
            store.put("k", twos)  # the first put of a store sweeps
        assert os.listdir(tmp_path) == ["k.b2z"]


def write_for_ever(store, ones, twos):
    while True:
        store.put("k", twos)
        store.put("k", ones)


@pytest.mark.system
def test_a_full_disk_leaves_what_was_there(small_disk):
    folder = small_disk("2m")
    with open_store(folder) as store:
        store.put("a", np.arange(1000))
        for obj in (RNG.random(900_000), pd.DataFrame({"x": RNG.random(900_000)})):
            with pytest.raises(stores.StoreFull, match="'a'"):
                store.put("a", obj)
            assert store.get("a").tolist() == list(range(1000))
            assert os.listdir(folder) == ["a.b2nd"]


def test_checksums_of_two_ranges_make_that_of_both():
    for _ in range(50):
        one, two = (RNG.bytes(int(RNG.integers(0, 3000))) for _ in range(2))
        assert combine(zlib.crc32(one), zlib.crc32(two), len(two)) == zlib.crc32(one + two)


def damage(folder, who):
    """Read files with damage of which no checksum tells; return how many were refused."""
    rng, n_refused = np.random.default_rng(7), 0
    with open_store(folder, checksum=False, sync=False, chunk=4096, threads=1) as store:
        if who == "ours":
            store.put("a", np.cumsum(rng.integers(0, 9, 2000)))
        else:
            blosc2.asarray(
                rng.integers(0, 99, (40, 50)), chunks=(16, 20), blocks=(4, 7),
                urlpath=f"{folder}/a.b2nd", mode="w",
            )  # fmt: skip
        path = Path(folder) / "a.b2nd"
        whole = path.read_bytes()
        for _ in range(1500):
            damaged = bytearray(whole)
            at, n = int(rng.integers(0, len(whole) - 9)), int(rng.choice([1, 2, 4, 8]))
            damaged[at : at + n] = rng.bytes(n) if rng.random() < 0.5 else b"\xff" * n
            path.write_bytes(damaged)
            try:
                store.get("a")
            except (stores.StoreDamaged, MemoryError):
                n_refused += 1
    return n_refused


if __name__ == "__main__":
    print(damage(sys.argv[1], sys.argv[2]))
