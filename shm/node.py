"""A node: proof that a process is alive.

Each process that uses segments has one file in /dev/shm and holds flock on it until it dies; the
kernel then lets go, whatever killed it. Segments refer to their users by the file's number (64
random bits, never used twice), so neither a pid that is used again, nor a zombie, nor a container
with pids of its own can be taken for somebody else.

(1) The file is locked before its number is stored anywhere.
(2) flock belongs to the open file, which fork shares: a forked child closes its copy of its
    parent's and gets a node of its own, made and locked before the fork (see life.py).
(3) Who can lock a node's file exclusively knows that the process is dead, and is alone in cleaning
    up after it. The time of death, as far as anybody knows it, is the file's mtime, and mode 0400
    says that it has been set: neither needs room in a full /dev/shm.
(4) A node file goes when nothing refers to it.

Tried and out: a lock byte per segment in one file (the kernel keeps such locks in a list: 12 ms per
lock with 64 processes x 200 segments), one flock and one descriptor per segment (uses up
descriptors), pids with start times (wrong across pid namespaces).
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import secrets
import struct
import time
from typing import NamedTuple

from . import descriptor, naming

__all__ = [
    "Node",
    "NodeInfo",
    "info",
    "is_alive",
    "is_kept",
    "kept",
    "make",
    "mark_dead",
    "open_dead",
    "pid_of_thread",
    "process_name",
    "seconds_dead",
]

_KEPT = 0xFFFF << 48  # nodes from here on are no processes

_RECORD = struct.Struct("<8sIIq")  # magic, pid, uid, boot time in ns when it was made
_MAGIC = b"npushnod"

#: When each node was last found alive (time.monotonic), so that one look serves many segments.
_seen_alive: dict[int, float] = {}
_dead: set[int] = set()


class Node:
    """This process's own node."""

    __slots__ = ("fd", "id", "pid")

    def __init__(self, id: int, fd: int) -> None:
        self.id = id
        self.fd = fd
        self.pid = 0

    def sign(self) -> None:
        """Write who we are, for people to read. A full /dev/shm may refuse it; nothing needs it."""
        self.pid = os.getpid()
        record = _RECORD.pack(
            _MAGIC, self.pid, os.geteuid(), time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        )
        with contextlib.suppress(OSError):
            os.pwrite(self.fd, record, 0)

    def close(self, *, unlink: bool) -> None:
        """Stop being alive; with *unlink*, leave no trace, else (leases are out) the time of it."""
        if unlink:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(naming.path(naming.node_file(self.id)))
        else:
            mark_dead(self.fd)
        os.close(self.fd)
        self.fd = -1


class NodeInfo(NamedTuple):
    """What a node says of itself."""

    id: int
    pid: int  #: in the pid namespace of its process; 0: not known
    alive: bool


def kept(name: str) -> int:
    """Return the "node" that keeps a segment for *name* without any process."""
    return _KEPT | int.from_bytes(hashlib.sha256(name.encode()).digest()[:6], "big")


def is_kept(node: int) -> bool:
    return node >= _KEPT


def make() -> Node:
    """Create and lock a node. Not signed yet: it may be meant for a child to come."""
    while True:
        id = secrets.randbits(64)
        if id == 0 or is_kept(id):
            continue
        fd = descriptor.open_shm(naming.node_file(id), create=True)
        fcntl.flock(fd, fcntl.LOCK_EX)
        if os.fstat(fd).st_nlink:
            descriptor.keep(fd)
            return Node(id, fd)
        descriptor.close(fd)  # a sweep saw it between open and flock and took it for a dead one


def is_alive(node: int, *, max_age: float = 0.0) -> bool:
    """Whether the process of *node* lives, as seen at most *max_age* seconds ago.

    Four system calls, or none where a younger answer is at hand. Another user's node cannot be
    opened and counts as alive.
    """
    if is_kept(node):
        return True
    if node in _dead:
        return False
    if max_age and time.monotonic() - _seen_alive.get(node, -1e9) < max_age:
        return True
    try:
        fd = descriptor.open(naming.path(naming.node_file(node)), os.O_RDONLY)
    except FileNotFoundError:
        _note_dead(node)
        return False
    except PermissionError:
        return True
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        _seen_alive[node] = time.monotonic()
        return True
    finally:
        descriptor.close(fd)
    _note_dead(node)
    return False


def _note_dead(node: int) -> None:
    _dead.add(node)
    _seen_alive.pop(node, None)


def open_dead(node: int) -> int | None:
    """Lock a dead node's file exclusively; None: it is alive, or somebody else is cleaning up.

    Returns the descriptor; closing it lets go.
    """
    try:
        fd = descriptor.open(naming.path(naming.node_file(node)), os.O_RDONLY)
    except (FileNotFoundError, PermissionError):
        return None
    try:
        st = os.fstat(fd)
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if st.st_uid == os.geteuid() and os.fstat(fd).st_nlink:
            return fd
    except BlockingIOError:
        _seen_alive[node] = time.monotonic()
    descriptor.close(fd)
    return None


def mark_dead(fd: int) -> None:
    """Note now as the time of death, unless one is noted."""
    if os.fstat(fd).st_mode & 0o200:
        os.utime(fd)
        os.fchmod(fd, 0o400)


def seconds_dead(fd: int) -> float:
    return time.time() - os.fstat(fd).st_mtime


def pid_of_thread(tid: int) -> int:
    """Return the process that thread *tid* belongs to; 0: no such thread in our pid namespace."""
    with contextlib.suppress(OSError), open(f"/proc/{tid}/status") as file:
        for line in file:
            if line.startswith("Tgid:"):
                return int(line.split()[1])
    return 0


def process_name(pid: int) -> str:
    """Return what people call process *pid*, a Python by what it runs: "python train.py".

    "" when there is none. Two files of /proc are read. *pid* is taken for one of our pid namespace:
    what a process of another container is called is not known here.
    """
    try:
        with open(f"/proc/{pid}/comm", "rb") as file:
            name = file.read(64).removesuffix(b"\n")
        if name.startswith((b"python", b"pypy")):
            with open(f"/proc/{pid}/cmdline", "rb") as file:
                name = b" ".join([name, _program_of(file.read(4096).split(b"\0")[1:])]).strip()
    except OSError:
        return ""
    # Whoever named it may have had a terminal's escape codes in mind.
    text = name.decode(errors="replace")
    return "".join(c if c.isprintable() else "?" for c in text)[:64]


def _program_of(arguments: list[bytes]) -> bytes:
    """Return what a Python runs: the name of a script or of a module, or "-c"."""
    rest = iter(arguments)
    for word in rest:
        if word in (b"-X", b"-W"):
            next(rest, b"")
        elif word == b"-m":
            return next(rest, b"")
        elif word == b"-c" or not word.startswith(b"-"):
            return os.path.basename(word)
    return b""


def info(node: int) -> NodeInfo:
    """Read what *node* says of itself."""
    pid = 0
    with contextlib.suppress(OSError):
        fd = descriptor.open(naming.path(naming.node_file(node)), os.O_RDONLY)
        try:
            record = os.pread(fd, _RECORD.size, 0)
        finally:
            descriptor.close(fd)
        if len(record) == _RECORD.size and record.startswith(_MAGIC):
            pid = _RECORD.unpack(record)[1]
    return NodeInfo(node, pid, is_alive(node))
