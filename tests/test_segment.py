"""Guarantee 8 of DESIGN.md, section 3: a damaged or hostile segment is refused before it is used."""

from __future__ import annotations

import os
import random
import signal
import struct

import numpy as np
import pytest

import numpush
import numpush.layout
import processes
from numpush import SArray, errors
from numpush.ffi import seg as ffi_seg
from numpush.shm import naming
from numpush.shm.header import Header

N = 3333
U32, U64 = struct.Struct("<I"), struct.Struct("<Q")


@pytest.fixture
def path(request):
    """The file of a segment that no process has mapped: as it comes from somebody else."""
    pid = processes.fork(make_segment)
    assert processes.wait(pid) == 0
    path = processes.SHM / naming.segment_file("victim")
    yield path
    if path.is_symlink() or path.is_file():
        path.unlink()
    elif path.is_dir():
        path.rmdir()


def make_segment():
    make_segment.keep = SArray(np.arange(N), name="victim")


def damage(path, offset, data):
    with open(path, "r+b") as file:
        file.seek(offset)
        file.write(data)


def restore(path, whole):
    path.unlink(missing_ok=True)
    path.touch(0o600)
    path.write_bytes(whole)


DAMAGES = [
    # offset, bytes, error, what its message names: the wanted and the found
    (0, b"XXXXXXXX", errors.SegmentDamaged, r"magic .*pushseg.* wanted, b'XXXXXXXX' found"),
    (0, bytes(8), errors.SegmentNotFound, "not finished"),
    (8, U32.pack(1), errors.LayoutMismatch, "layout 2 wanted, 1 found"),
    (8, U32.pack(0), errors.LayoutMismatch, "layout 2 wanted, 0 found"),
    (12, U32.pack(0), errors.SegmentDamaged, "state out of bounds: 0"),
    (12, U32.pack(5), errors.SegmentDamaged, "state out of bounds: 5"),
    (12, U32.pack(1), errors.SegmentNotFound, "victim"),  # BUILDING
    (12, U32.pack(4), errors.SegmentNotFound, "victim"),  # DEAD
    (16, U64.pack(1 << 62), errors.SegmentDamaged, f"capacity out of bounds: {1 << 62} in a file"),
    (16, U64.pack(0), errors.SegmentDamaged, "data_offset"),
    (24, U64.pack(0), errors.SegmentDamaged, "data_offset out of bounds: 0"),
    (24, U64.pack(4096 + 8), errors.SegmentDamaged, "data_offset"),
    (24, U64.pack(1 << 40), errors.SegmentDamaged, "data_offset"),
    (24, U64.pack((1 << 64) - 4096), errors.SegmentDamaged, "data_offset"),
    (32, U64.pack(1 << 40), errors.SegmentDamaged, f"data_size out of bounds: {1 << 40}"),
    (32, U64.pack((1 << 64) - 1), errors.SegmentDamaged, "data_size"),
    (40, U64.pack(1 << 40), errors.SegmentDamaged, "description out of bounds: .* bytes at"),
    (40, U64.pack(0), errors.SegmentDamaged, "description"),
    (40, U64.pack((1 << 64) - 1), errors.SegmentDamaged, "description"),
    (48, U32.pack((1 << 32) - 1), errors.SegmentDamaged, "description"),
    (52, U32.pack(0), errors.SegmentDamaged, "n_slots out of bounds: 0"),
    (52, U32.pack((1 << 32) - 1), errors.SegmentDamaged, "n_slots"),
    (52, U32.pack(1 << 20), errors.SegmentDamaged, "data_offset"),
]


class TestEachFieldOfTheHeader:
    @pytest.mark.parametrize(
        ("offset", "data", "error", "words"), DAMAGES, ids=lambda x: str(x)[:24]
    )
    def test_a_damaged_one_is_refused(self, path, offset, data, error, words):
        damage(path, offset, data)
        with pytest.raises(error, match=words) as caught:
            numpush.attach("victim")
        assert caught.value.name == "victim"

    @pytest.mark.parametrize("size", [0, 1, 8, 63, 95, 96, 4095, 4096, 8192])
    def test_a_truncated_file_is_refused(self, path, size):
        os.truncate(path, size)
        with pytest.raises((errors.SegmentDamaged, errors.SegmentNotFound), match="victim"):
            numpush.attach("victim")

    def test_a_file_that_grew_is_what_it_was(self, path):
        """Whoever was killed while it added a generation leaves the file longer."""
        os.truncate(path, os.path.getsize(path) + 4096)
        assert numpush.attach("victim").sum() == numpush.attach("victim", "ro").sum()

    def test_a_damaged_description_is_refused(self, path):
        whole = path.read_bytes()
        offset, size = U64.unpack_from(whole, 40)[0], U32.unpack_from(whole, 48)[0]
        good = whole[offset : offset + size]
        for bad in (b"\xc1" * size, bytes(size), b"\xff" + good[1:], good[:-3] + b"\xdf\xff\xff"):
            restore(path, whole)  # who attached was the last user
            damage(path, offset, bad)
            with pytest.raises(errors.SegmentDamaged, match="victim"):
                numpush.attach("victim")

    def test_places_outside_of_the_data_are_refused(self, path):
        whole = path.read_bytes()
        offset, size = U64.unpack_from(whole, 40)[0], U32.unpack_from(whole, 48)[0]
        desc = numpush.layout.unpack(whole[offset : offset + size])
        for place in ([0, 1 << 40], [1 << 40, 8], [-8, 16], ["a", "b"], [0], [0, 8], [8, N * 8]):
            raw = numpush.layout.pack({**desc, "blocks": [place]})
            restore(path, whole)
            damage(path, offset, raw)
            damage(path, 48, U32.pack(len(raw)))
            with pytest.raises(errors.SegmentDamaged, match="victim"):
                numpush.attach("victim")


class TestTheFile:
    @pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
    def test_another_users_is_refused(self, path):
        os.chown(path, 12345, -1)
        with pytest.raises(errors.SegmentDamaged, match="uid 0 with mode 0600, found uid 12345"):
            numpush.attach("victim")
        numpush.gc()
        assert path.exists()  # and left alone
        with pytest.raises(errors.SegmentDamaged, match="belongs to uid 12345"):
            numpush.remove("victim")
        assert [o for o in numpush.segments() if o.name == "victim"] == []

    @pytest.mark.parametrize("mode", [0o660, 0o606, 0o644, 0o777])
    def test_one_that_others_can_open_is_refused(self, path, mode):
        path.chmod(mode)
        with pytest.raises(errors.SegmentDamaged, match="mode 0600, found"):
            numpush.attach("victim")

    def test_a_symlink_is_refused(self, path):
        path.unlink()
        os.symlink("/etc/hostname", path)
        with pytest.raises(errors.SegmentDamaged, match="not a file that this user made"):
            numpush.attach("victim")
        numpush.gc()
        assert path.is_symlink()

    def test_a_directory_is_refused(self, path):
        path.unlink()
        path.mkdir()
        with pytest.raises(errors.SegmentDamaged, match="not a file that this user made"):
            numpush.attach("victim")
        numpush.gc()
        assert numpush.segments() == []

    def test_a_fifo_does_not_block(self, path):
        path.unlink()
        os.mkfifo(path, 0o600)
        assert processes.run_forked(expect_refusal, limit=20) == 0
        assert processes.run_forked(numpush.gc, limit=20) == 0
        path.unlink()

    def test_files_that_are_no_segments_are_left_alone(self):
        files = [f"{naming.SEGMENT}x", f"{naming.NODE}zz", f"{naming.WARM}12.q", f"{naming.WARM}q"]
        for file in files:
            (processes.SHM / file).write_bytes(b"something else entirely" * 500)
        try:
            numpush.gc()
            assert numpush.segments() == []
            assert processes.files() == set(files)
        finally:
            for file in files:
                (processes.SHM / file).unlink()

    def test_a_header_that_is_whole_is_read(self, path):
        with open(path, "rb") as file:
            head = Header.read(file.fileno(), "victim")
        assert (head.state, head.data_size, head.n_slots > 100) == (ffi_seg.LIVE, N * 8, True)


def expect_refusal():
    with pytest.raises((errors.SegmentDamaged, errors.SegmentNotFound)):
        numpush.attach("victim")


def attach_damaged():
    """Whatever is in the header: an array or one of our errors."""
    try:
        a = numpush.attach("victim")
        assert a.size == 0 or a.flat[0] is not None
        a.lock_range(slice(0, 1), timeout=0.01)
        numpush.segments()
    except (errors.NumpushError, ValueError, TypeError, OSError):
        pass
    del_me = numpush.segments()
    assert isinstance(del_me, list)


@pytest.mark.parametrize("seed", range(6))
def test_random_damage_never_crashes_or_hangs(path, seed):
    """Bytes of the first 4 KiB but for the mutexes (128..319): those may take their 10 s."""
    rng = random.Random(seed)
    good = path.read_bytes()
    for _ in range(30):
        for _ in range(rng.choice([1, 1, 2, 20])):
            offset = rng.choice([rng.randrange(0, 128), rng.randrange(320, 4096)])
            damage(path, offset, bytes([rng.randrange(256)]))
        assert processes.run_forked(attach_damaged, limit=60) == 0
        restore(path, good)


@pytest.mark.crash  # it takes its 10 s, twice
@pytest.mark.parametrize("offset", [128, 144, 160])
def test_a_damaged_mutex_ends_in_an_error_after_a_while(path, offset):
    damage(path, offset, b"\x7f\x01\x02\x03")
    assert processes.run_forked(attach_damaged, limit=100) in (0, -signal.SIGKILL)
