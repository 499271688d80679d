"""ffi/map.py: reserve, map, give back."""

from __future__ import annotations

import ctypes
import errno
import faulthandler
import os
import resource
import secrets
import signal
import stat

import pytest

import processes
from numpush.ffi import map as ffi_map
from numpush.shm import naming

SIZE = 3 * 4096


@pytest.fixture
def file():
    name = f"{naming.NAMESPACE}.map-{secrets.token_hex(4)}"
    fd = ffi_map.open(name, create=True)
    yield name, fd
    os.close(fd)
    os.unlink(f"/dev/shm/{name}")


def test_open_makes_a_private_file_that_is_not_inherited(file):
    name, fd = file
    st = os.fstat(fd)
    assert (stat.S_IMODE(st.st_mode), st.st_size) == (0o600, 0)
    assert os.get_inheritable(fd) is False
    with pytest.raises(FileExistsError):
        ffi_map.open(name, create=True)
    again = ffi_map.open(name)
    assert os.fstat(again).st_ino == st.st_ino
    os.close(again)
    with pytest.raises(FileNotFoundError):
        ffi_map.open(name + "x")


def test_reserve_finds_the_pages(file):
    _, fd = file
    ffi_map.reserve(fd, SIZE)
    assert os.fstat(fd).st_size == SIZE
    assert os.fstat(fd).st_blocks * 512 >= SIZE


def test_reserve_says_when_it_cannot(file):
    assert processes.run_forked(reserve_too_much, file[1]) == 0


def reserve_too_much(fd):
    """By a limit of ours: to use up the machine's memory would end other processes."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192))
    with pytest.raises(OSError, match="File too large"):
        ffi_map.reserve(fd, SIZE)


def test_modes(file):
    _, fd = file
    ffi_map.reserve(fd, SIZE)
    where = {m: ffi_map.map(fd, 0, SIZE, m) for m in (ffi_map.RW, ffi_map.RO, ffi_map.COW)}
    rw, ro, cow = (memoryview(ffi_map.buffer(a, SIZE)) for a in where.values())
    rw[5] = 1
    assert (ro[5], cow[5]) == (1, 1)
    cow[5] = 2
    rw[6] = 3
    assert (rw[5], ro[5], cow[5], cow[6]) == (1, 1, 2, 0)
    assert processes.run_forked(store, where[ffi_map.RO]) == -signal.SIGSEGV
    del rw, ro, cow
    for address in where.values():
        ffi_map.unmap(address, SIZE)


def store(address):
    faulthandler.disable()
    ctypes.memset(address, 1, 1)


def test_populate_huge_and_punch(file):
    _, fd = file
    ffi_map.reserve(fd, SIZE)
    address = ffi_map.map(fd, 0, SIZE, ffi_map.RW)
    assert ffi_map.populate(address, SIZE, write=True) in (0, -errno.EINVAL)
    assert ffi_map.huge(address, SIZE) <= 0
    memory = memoryview(ffi_map.buffer(address, SIZE))
    memory[:] = b"x" * SIZE
    ffi_map.punch(fd, 4096, 4096)
    assert (memory[0], memory[4096], memory[8192]) == (120, 0, 120)
    del memory
    ffi_map.unmap(address, SIZE)


def test_mapping_nonsense_is_an_error(file):
    _, fd = file
    with pytest.raises(OSError, match="Invalid argument"):
        ffi_map.map(fd, 7, SIZE, ffi_map.RW)
    with pytest.raises(OSError, match="Bad file descriptor"):
        ffi_map.map(-1, 0, SIZE, ffi_map.RW)
