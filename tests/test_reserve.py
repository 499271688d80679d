"""Reserving memory: huge pages where whole ones fit, and small ones where they are not to be had."""

from __future__ import annotations

import os
import resource
import secrets
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import numpush
from numpush.ffi import map as ffi_map
from numpush.shm import naming
from numpush.shm.reserve import HUGE_PAGE, reserve

SMALL = 4096


@pytest.fixture
def fd() -> Iterator[int]:
    name = f"{naming.NAMESPACE}.reserve-{secrets.token_hex(4)}"
    fd = ffi_map.open(name, create=True)
    os.unlink(f"/dev/shm/{name}")
    yield fd
    os.close(fd)


def huge_bytes(address: int) -> int:
    """Return how much of the mapping at *address* is mapped by huge pages."""
    lines = iter(Path("/proc/self/smaps").read_text().splitlines())
    for line in lines:
        if line.startswith(f"{address:x}-"):
            break
    for line in lines:
        if line.startswith("ShmemPmdMapped:"):
            return int(line.split()[1]) << 10
    raise AssertionError(f"no mapping at {address:#x}")


@pytest.mark.parametrize("start", [0, SMALL, HUGE_PAGE, HUGE_PAGE + SMALL])
@pytest.mark.parametrize("size", [SMALL, 4 << 20, (37 << 20) + SMALL])
def test_all_is_reserved_and_zero_and_what_was_there_stays(fd: int, start: int, size: int) -> None:
    os.pwrite(fd, b"x" * start, 0)
    reserve(fd, start + size, start)
    st = os.fstat(fd)
    assert (st.st_size, st.st_blocks * 512) == (start + size, start + size)
    data = np.fromfile(f"/proc/self/fd/{fd}", np.uint8)
    assert (data[:start] == ord("x")).all()
    assert not data[start:].any()


def test_huge_pages_are_mapped_as_such_behind_a_header(fd: int) -> None:
    if not reserve(fd, 32 * HUGE_PAGE):
        pytest.skip("this kernel has no huge pages to give now")
    size = 32 * HUGE_PAGE - SMALL
    address = ffi_map.map(fd, SMALL, size, ffi_map.RW)
    memory = np.frombuffer(ffi_map.buffer(address, size), np.uint8)
    memory[:: SMALL * 8] = 1
    assert huge_bytes(address) == 31 * HUGE_PAGE  # but for that of the header
    assert memory.sum() == len(memory[:: SMALL * 8])
    del memory
    ffi_map.unmap(address, size)


def test_no_room_is_said_before_a_store_could_fail(fd: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8 << 20, hard))
    try:
        with pytest.raises(OSError, match="File too large"):
            reserve(fd, 16 << 20)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


WITHOUT = """
import ctypes, sys
PR_SET_THP_DISABLE = 41
assert ctypes.CDLL(None).prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0) == 0
import numpy as np
import numpush
data = np.arange(3 << 20, dtype=float)
for _ in range(2):
    shared = numpush.SArray(data)
    assert (shared == data).all()
    print(shared._segment().is_fresh, shared._mapping().is_hot)
    del shared
    numpush.gc()
assert not numpush.SArray.zeros(3 << 20).any()
"""


def test_where_huge_pages_are_not_to_be_had_small_ones_serve() -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT], capture_output=True, text=True, timeout=60
    )
    assert (done.stderr, done.returncode) == ("", 0)
    assert done.stdout == "True False\n" * 2


def test_a_big_array_through_both_kinds_of_pages() -> None:
    data = np.arange((5 << 20) + 3, dtype=np.int64)
    for made in (numpush.SArray(data), numpush.SArray.zeros(len(data), int)):
        made[...] = data
        again = numpush.attach(made.handle, mode="cow")
        again[::1000] = -1
        assert (made == data).all()
        assert (numpush.attach(made.handle, mode="ro") == data).all()
        del made, again
        numpush.gc()
