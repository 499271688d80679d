"""Checks of what the kernel does: its version, flock, robust mutexes, splice, TIPC."""

from __future__ import annotations

import errno
import fcntl
import os
import platform
import secrets
import signal
import socket

from ...ffi import map as _map
from ...ffi import mutex as _mutex
from ...ffi import seg as _seg
from ...shm import naming
from ..remedies import as_root
from .finding import Finding, scratch

__all__ = ["check_kernel", "check_liveness", "check_robust_mutex", "check_splice", "check_tipc"]

_PAGE = os.sysconf("SC_PAGESIZE")
_AF_TIPC = 30  # socket.AF_TIPC is there only when Python was built with the header


def check_kernel() -> Finding:
    """The kernel's version, and whether it populates memory in one call (5.14)."""
    found = f"{platform.system()} {platform.release()} {platform.machine()}"
    with scratch(_PAGE) as fd:
        address = _map.map(fd, 0, _PAGE, _map.RW)
        try:
            rc = _map.populate(address, _PAGE, write=True)
        finally:
            _map.unmap(address, _PAGE)
    if rc:
        return Finding(
            "note",
            f"{found}: no MADV_POPULATE_WRITE, a first touch costs more",
            "# use Linux 5.14 or later",
        )
    return Finding("ok", found)


def check_liveness() -> Finding:
    """flock in /dev/shm: how a process proves that it is alive."""
    name = f"{naming.NAMESPACE}.doctor.{secrets.token_hex(8)}"
    first = _map.open(name, create=True)
    try:
        second = os.open(naming.path(name), os.O_RDWR | os.O_CLOEXEC)
        try:
            fcntl.flock(first, fcntl.LOCK_EX)
            try:
                fcntl.flock(second, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return Finding("ok", f"flock works in {naming.DIR}")
            return Finding(
                "fail", f"flock in {naming.DIR} does not exclude", "# use a Linux kernel"
            )
        finally:
            os.close(second)
    finally:
        os.close(first)
        os.unlink(naming.path(name))


def check_robust_mutex() -> Finding:
    """A robust mutex whose holder is killed: the next one must be told."""
    size = -(-_seg.SLOTS_OFFSET // _PAGE) * _PAGE + _PAGE
    with scratch(size) as fd:
        address = _map.map(fd, 0, size, _map.RW)
        try:
            ref = _seg.at(address)
            _seg.init(ref, capacity=size, data_offset=size, n_slots=1, node=1, pid=os.getpid())
            mutex = _seg.data_mutex(ref)
            child = os.fork()
            if child == 0:
                try:
                    _mutex.try_lock(mutex)
                    os.kill(os.getpid(), signal.SIGKILL)
                finally:
                    os._exit(1)  # never two doctors
            os.waitpid(child, 0)
            rc = _mutex.lock(mutex, 1_000_000_000)
            if rc >= 0:
                _mutex.unlock(mutex)
        finally:
            _map.unmap(address, size)
    if rc == _mutex.OWNER_DIED:
        return Finding("ok", "a holder was killed, the next was told")
    why = "the next waited in vain" if rc == -errno.EBUSY else f"the next got {rc}"
    return Finding(
        "fail", f"a holder was killed, {why}", "# use a Linux kernel (gVisor has no robust futexes)"
    )


def check_splice() -> Finding:
    """splice(2) from a pipe into tmpfs: how data goes from a socket into a segment."""
    wanted = b"numpush" * 100
    reader, writer = os.pipe()
    try:
        os.write(writer, wanted)
        with scratch(_PAGE) as fd:
            os.splice(reader, fd, len(wanted), offset_dst=0)
            got = os.pread(fd, len(wanted), 0)
    except OSError as error:
        return Finding(
            "note",
            f"no ({error.strerror}): io='auto' receives by recv alone",
            "# use a Linux kernel",
        )
    finally:
        os.close(reader)
        os.close(writer)
    if got != wanted:
        return Finding("fail", f"{len(got)} of {len(wanted)} bytes went from a pipe to tmpfs")
    return Finding("ok", "io='auto' receives by it into fresh small pages, by recv into others")


def check_tipc() -> Finding:
    """TIPC sockets, for tipc:// URLs."""
    try:
        socket.socket(_AF_TIPC, socket.SOCK_STREAM).close()
    except OSError as error:
        return Finding("note", f"no ({error.strerror}): no tipc:// URLs", as_root("modprobe tipc"))
    return Finding("ok", "sockets can be made")
