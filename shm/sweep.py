"""Take away what dead processes left, and tell what there is.

A sweep runs when a process uses numpush for the first time, when memory is short, when a process
leaves, and for `numpush gc`. It looks for nodes whose process is dead, takes them out of the tables
of all segments, and unlinks what nobody uses any more.

(1) A node is dead when its file can be locked; the lock is kept during the sweep, so two sweeps
    never do the same node, and one that is killed is done again by the next.
(2) A dead node's leases hold for a grace period: a worker may return a result and exit.
(3) Only files of this user are touched; another user's, or what is no segment, is left alone.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from typing import NamedTuple

from ..ffi import Ref
from ..ffi import map as _map
from ..ffi import mutex as _mutex
from ..ffi import range as _range
from ..ffi import seg as _seg
from . import descriptor, naming
from . import node as _node
from .errors import LockError, SegmentDamaged, SegmentError, SegmentNotFound
from .header import Header
from .segment import unlink_queue

__all__ = ["GRACE", "Holder", "SegmentInfo", "Swept", "remove", "survey", "sweep"]

GRACE = 60.0  #: seconds that a handle's lease outlives its sender


class Holder(NamedTuple):
    """One line of a segment's table."""

    node: int
    pid: int  #: 0 for what is kept without a process (`publish(persist=True)`)
    alive: bool
    attached: bool
    leases: int


class SegmentInfo(NamedTuple):
    """A segment as ``numpush ls`` shows it."""

    name: str
    size: int  #: bytes of data
    capacity: int  #: bytes of the file, those that compact() gave back included
    state: str  #: "building", "live", "warm" or "dead"
    created_ns: int  #: time.time_ns() of its creation
    creator_pid: int
    holders: tuple[Holder, ...]
    lock_pid: int  #: who holds its mutex; 0: nobody
    lock_tid: int
    range_locks: tuple[_range.Entry, ...]
    description: bytes


class Swept(NamedTuple):
    """What a sweep took away."""

    n_segments: int = 0
    n_bytes: int = 0
    n_nodes: int = 0


_STATES = {
    _seg.BUILDING: "building",
    _seg.LIVE: "live",
    _seg.WARM: "warm",
    _seg.DEAD: "dead",
}


class _Opened(NamedTuple):
    fd: int
    ref: Ref
    head: Header
    address: int


@contextlib.contextmanager
def _opened(file: str) -> Iterator[_Opened]:
    """Map the header of *file*. Raises SegmentError (unfinished, damaged) or OSError (gone)."""
    fd = descriptor.open(naming.path(file), os.O_RDWR | os.O_NOFOLLOW)
    try:
        head = Header.read(fd, file)
        address = _map.map(fd, 0, head.data_offset, _map.RW)
        try:
            yield _Opened(fd, _seg.at(address), head, address)
        finally:
            _map.unmap(address, head.data_offset)
    finally:
        descriptor.close(fd)


def _files() -> list[str]:
    prefixes = (naming.SEGMENT, naming.WARM)
    return [file for file in os.listdir(naming.DIR) if file.startswith(prefixes)]


def sweep(*, thorough: bool = False) -> Swept:
    """Clean up after the dead. A directory listing and a lock per node when nobody is.

    With *thorough*, look at every segment even so: as after somebody removed node files by hand.
    """
    dead: dict[int, int] = {}  # node -> locked descriptor
    n_segments = n_bytes = n_nodes = 0
    try:
        for text in naming.listing(naming.NODE):
            with contextlib.suppress(ValueError):
                id = int(text, 16)
                if _node.is_alive(id):
                    continue
                fd = _node.open_dead(id)
                if fd is not None:
                    _node.mark_dead(fd)
                    dead[id] = fd
        if not dead and not thorough:
            return Swept()
        in_grace = {id for id, fd in dead.items() if _node.seconds_dead(fd) < GRACE}
        still_leased: set[int] = set()
        for file in _files():
            freed = _sweep_file(file, in_grace, still_leased)
            if freed:
                n_segments += 1
                n_bytes += freed
        for id in dead.keys() - still_leased:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(naming.path(naming.node_file(id)))
                n_nodes += 1
    finally:
        for fd in dead.values():
            descriptor.close(fd)
    return Swept(n_segments, n_bytes, n_nodes)


def _sweep_file(file: str, in_grace: set[int], still_leased: set[int]) -> int:
    """Evict dead nodes from one segment; return the bytes freed if nobody is left."""
    try:
        with _opened(file) as opened:
            _, ref, head, _ = opened
            if head.state == _seg.DEAD:
                return _unlink(file, opened)
            holders = _seg.holders(ref, head.n_slots)
            # Nobody at all: killed between giving up the last slot and saying so.
            evict = [id for id, _, _ in holders if not _node.is_alive(id, max_age=1.0)] or (
                [] if holders else [0]
            )
            for id in evict:
                if id:
                    _range.evict(ref, id)
                if _seg.evict(ref, head.n_slots, id, keep_leases=id in in_grace):
                    return _unlink(file, opened)
            still_leased.update(id for id, _, leases in _seg.holders(ref, head.n_slots) if leases)
    except SegmentNotFound:
        return _unlink_unfinished(file)
    except (SegmentError, OSError, LockError):
        pass  # not ours, damaged, or gone meanwhile
    return 0


def _unlink(file: str, opened: _Opened) -> int:
    """Unlink a DEAD segment. Who unlinks a name holds flock on its file: see Segment.remove."""
    fd, ref, head, _ = opened
    fcntl.flock(fd, fcntl.LOCK_EX)
    st = os.fstat(fd)
    if not st.st_nlink or st.st_ino != os.stat(naming.path(file)).st_ino:
        return 0
    os.unlink(naming.path(file))
    unlink_queue(file.removeprefix(naming.SEGMENT))
    if not _seg.has_unlisted(ref):
        _map.punch(fd, head.data_offset, st.st_size - head.data_offset)
    return st.st_size


def _unlink_unfinished(file: str) -> int:
    """Unlink a file without a header, unless its creator is at work: it holds flock."""
    with contextlib.suppress(OSError):
        fd = descriptor.open(naming.path(file), os.O_RDWR | os.O_NOFOLLOW)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            st = os.fstat(fd)
            has_header = os.pread(fd, 8, 0).strip(b"\0")
            if st.st_nlink and not has_header and st.st_uid == os.geteuid():
                os.unlink(naming.path(file))
                return st.st_size or 1
        finally:
            descriptor.close(fd)
    return 0


def has_leases(name: str, node: int, *, drop: bool) -> bool:
    """Whether handles that *node* sent, of segment *name*, wait to be received; *drop*: forget them."""
    file = naming.segment_file(name)
    with contextlib.suppress(SegmentError, OSError, LockError), _opened(file) as opened:
        _, ref, head, _ = opened
        if drop and _seg.evict(ref, head.n_slots, node, keep_leases=False):
            _unlink(file, opened)
        return any(id == node for id, _, _ in _seg.holders(ref, head.n_slots))
    return False


def survey() -> list[SegmentInfo]:
    """Look at every segment of this user. Opens and maps each header; waits for no table's lock."""
    found = []
    pids: dict[int, _node.NodeInfo] = {}
    for file in sorted(_files()):
        with contextlib.suppress(SegmentError, OSError, LockError), _opened(file) as opened:
            found.append(_look(file, opened, pids))
    return found


def _look(file: str, opened: _Opened, pids: dict[int, _node.NodeInfo]) -> SegmentInfo:
    fd, ref, head, _ = opened
    name = file.removeprefix(naming.SEGMENT)
    holders = []
    for id, attached, leases in _seg.holders(ref, head.n_slots, peek=True):
        if id not in pids:
            pids[id] = _node.info(id)
        holders.append(Holder(id, pids[id].pid, pids[id].alive, attached, leases))
    lock_tid = _mutex.holder(_seg.data_mutex(ref))
    return SegmentInfo(
        name=name,
        size=head.data_size,
        capacity=os.fstat(fd).st_size,
        state=_STATES[head.state],
        created_ns=head.created_ns,
        creator_pid=head.creator_pid,
        holders=tuple(holders),
        lock_pid=_node.pid_of_thread(lock_tid) if lock_tid else 0,
        lock_tid=lock_tid,
        range_locks=tuple(_range.entries(ref)),
        description=_read_description(opened),
    )


def _read_description(opened: _Opened) -> bytes:
    """Read the description of the latest generation."""
    fd, ref, head, _ = opened
    generation, offset, size, _, _ = _seg.place(ref)
    if not generation:
        return os.pread(fd, head.desc_size, head.desc_offset)
    return os.pread(fd, min(size, os.fstat(fd).st_size), head.data_offset + offset)


def remove(name: str) -> int:
    """Unlink a segment whoever uses it; return its bytes. Who has it mapped keeps the memory.

    Raises
    ------
    SegmentNotFound : there is none of that name.
    SegmentDamaged : the file is another user's.
    """
    file = naming.segment_file(name)
    try:
        st = os.stat(naming.path(file), follow_symlinks=False)
        if st.st_uid != os.geteuid():
            raise SegmentDamaged(f"segment {name!r} belongs to uid {st.st_uid}", name)
        os.unlink(naming.path(file))
        unlink_queue(name)
    except FileNotFoundError:
        raise SegmentNotFound(f"segment {name!r}: there is none", name) from None
    return st.st_size
