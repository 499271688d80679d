"""One segment as this process sees it: its header, its mappings, and the steps of its life.

The header (with the table of users) is always mapped for reading and writing, once; the data is
mapped apart, once per mode, so that `ro` and `cow` are the kernel's promise and the robust mutexes
in the header have one address. The file descriptor is closed at once: mappings need none.

This module knows the file; which segments this process has, and when a view dies, is registry.py's.

A segment is created in steps that another process can watch, or that a kill can interrupt:

    open (O_EXCL) - flock - reserve - header with our slot, magic last - describe - fill - commit

Until magic is stored, the flock tells a sweep that the creator is alive; afterwards its slot does.
A name shows something complete from `commit` on, and nothing before.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
import time
from collections.abc import Iterator

from ..ffi import Ref
from ..ffi import map as _map
from ..ffi import mutex as _mutex
from ..ffi import seg as _seg
from . import descriptor, naming, space, table
from .errors import SegmentDamaged, SegmentError, SegmentExists, SegmentNotFound
from .header import PAGE, Header
from .mapping import MODES, Mapping
from .reserve import reserve as _reserve

__all__ = ["Segment", "unlink_queue"]

#: As many processes as a big machine's pools have may use one segment; a slot is 16 bytes.
N_SLOTS = max(192, 4 * (os.cpu_count() or 1))
#: Big segments get room for a longer description, so that freed ones can be used again for frames.
_BIG = 1 << 20
_BIG_DESC = 8192


def round_up(n: int, to: int = PAGE) -> int:
    return -(-n // to) * to


class Segment:
    """A segment that this process has mapped. Made by `create`, `attach` and `claim` only."""

    __slots__ = (
        "__weakref__",
        "capacity",
        "closed",
        "data_offset",
        "data_size",
        "desc",
        "has_arrays",
        "identity",
        "inode",
        "is_fresh",
        "is_reserved",
        "looked_at",
        "mappings",
        "n_slots",
        "name",
        "node",
        "ref",
    )

    def __init__(self, name: str, inode: int, data_offset: int, capacity: int) -> None:
        self.name = name
        self.inode = inode
        self.data_offset = data_offset
        self.capacity = capacity
        self.ref: Ref = None
        self.mappings: dict[str, Mapping] = {}
        self.n_slots = 0
        self.identity = 0
        self.data_size = 0
        self.desc = b""
        self.node = 0  #: ours, while we are in its table
        self.is_fresh = False  #: made here, of pages that nobody has touched: they are zero
        self.is_reserved: bool | None = None  #: no store can fail; None: nobody has looked
        self.looked_at = 0.0  #: when table.evict_dead last looked (time.monotonic)
        self.closed = False
        #: arrays were made over it by their handles, as long as it has views
        self.has_arrays = False

    def _map_header(self, fd: int) -> None:
        address = _map.map(fd, 0, self.data_offset, _map.RW)
        self.mappings["header"] = Mapping(self, "header", address, self.data_offset)
        self.ref = _seg.at(address)

    def _take_mappings(self, old: Segment) -> None:
        """Use the mappings of an earlier segment in the same file: its pages are faulted in."""
        self.ref = old.ref
        for key, mapping in old.mappings.items():
            if mapping.start:  # an extent of what the file was before
                mapping.unmap()
                continue
            mapping.segment = self
            mapping.keeper = None
            self.mappings[key] = mapping
        old.mappings = {}

    # -- create

    @classmethod
    def create(
        cls, name: str, desc_size: int, data_size: int, node: int, *, reserve: bool
    ) -> Segment:
        """Make the file, with its header and our slot, BUILDING, `rw`-mapped.

        Raises OSError (ENOSPC) when there is no room; then nothing is left of it.
        """
        slots_end = _seg.SLOTS_OFFSET + N_SLOTS * _seg.SLOT_SIZE
        room_for_desc = max(desc_size, _BIG_DESC) if data_size >= _BIG else desc_size
        data_offset = round_up(slots_end + room_for_desc)
        # One byte more than asked: an empty view at the end still lies in its own mapping.
        capacity = data_offset + round_up(data_size + 1)
        fd = cls._open_new(name)
        try:
            is_huge = False
            if reserve:
                is_huge = _reserve(fd, capacity)
            else:
                _map.reserve(fd, data_offset)
                os.ftruncate(fd, capacity)
            self = cls(name, os.fstat(fd).st_ino, data_offset, capacity)
            self._map_header(fd)
            self.n_slots = N_SLOTS
            self.node = node
            self.is_fresh = True
            try:
                _seg.init(
                    self.ref,
                    capacity=capacity,
                    data_offset=data_offset,
                    n_slots=N_SLOTS,
                    node=node,
                    pid=os.getpid(),
                )
                fcntl.flock(fd, fcntl.LOCK_UN)  # by close alone it would last as long as a mapping
                mapping = self.map("rw", fd)
                mapping.is_hot = is_huge  # few faults fill its page tables
                if not reserve and data_size >= _BIG and space.asks_for_huge_pages():
                    _map.huge(mapping.address, mapping.size)
            except BaseException:
                self.unmap()
                raise
        except BaseException:
            os.unlink(naming.path(naming.segment_file(name)))
            raise
        finally:
            descriptor.close(fd)
        return self

    @staticmethod
    def _open_new(name: str) -> int:
        file = naming.segment_file(name)
        while True:
            try:
                fd = descriptor.open_shm(file, create=True)
            except FileExistsError:
                raise SegmentExists(
                    f"segment {name!r} exists already; attach to it, choose another name, or "
                    f"remove it with `numpush rm {name}`",
                    name,
                ) from None
            fcntl.flock(fd, fcntl.LOCK_EX)
            if os.fstat(fd).st_nlink:
                return fd
            descriptor.close(fd)  # a sweep came between open and flock and took it for an orphan

    def claim(self, name: str, file: str, node: int) -> bool:
        """Take warm memory (mapped by `open_warm`) for a new segment *name*; False: too late.

        Afterwards it is BUILDING, ours, and its file has the new name.
        """
        if not _seg.claim(self.ref, self.n_slots, node, os.getpid()):
            return False
        self.node = node
        self.closed = False
        try:
            # link + unlink rather than rename: it must not replace a segment that has the name
            os.link(naming.path(file), naming.path(naming.segment_file(name)))
        except FileExistsError:
            os.unlink(naming.path(file))
            raise SegmentExists(f"segment {name!r} exists already", name) from None
        os.unlink(naming.path(file))
        self.name = name
        return True

    def describe(self, desc: bytes, data_size: int) -> None:
        """Say what the segment holds, while it is BUILDING."""
        offset = _seg.SLOTS_OFFSET + self.n_slots * _seg.SLOT_SIZE
        if (
            offset + len(desc) > self.data_offset
            or data_size >= self.capacity - self.data_offset + 1
        ):
            raise ValueError(
                f"segment {self.name!r}: {len(desc)} bytes of description and {data_size} of data "
                f"do not fit into {self.data_offset - offset} and "
                f"{self.capacity - self.data_offset}"
            )
        self.identity = secrets.randbits(64)
        self.desc = desc
        self.data_size = data_size
        header = self.mappings["header"]
        memoryview(_map.buffer(header.address, header.size))[offset : offset + len(desc)] = desc
        _seg.describe(
            self.ref,
            identity=self.identity,
            data_size=data_size,
            desc_offset=offset,
            desc_size=len(desc),
            created_ns=time.time_ns(),
        )

    @contextlib.contextmanager
    def opened(self) -> Iterator[int]:
        """Open the file for a while, to write to it."""
        fd = self._open(self.name)
        try:
            yield fd
        finally:
            descriptor.close(fd)

    def commit(self) -> None:
        """Let others attach."""
        _seg.commit(self.ref)

    # -- attach

    @classmethod
    def attach(
        cls, name: str, node: int, identity: int | None, sender: int, idle: dict[int, Segment]
    ) -> tuple[Segment, int]:
        """Map the header of an existing segment and enter its table.

        *idle* are segments, by inode, whose mappings nobody uses: if the file was one of them
        before, they are used again. Returns the segment and an open descriptor, to map the data by
        and to close.
        """
        fd = cls._open(name)
        try:
            head = Header.read(fd, name)
            self = cls._over(fd, name, head, idle)
            try:
                table.join(self, node, head.identity if identity is None else identity, sender)
                self._read(Header.read(fd, name))
            except BaseException:
                if self.node and _seg.leave(self.ref, self.n_slots, node, keep_warm=False):
                    self.remove(name)
                self.unmap()
                raise
        except BaseException:
            descriptor.close(fd)
            raise
        return self, fd

    @classmethod
    def _over(cls, fd: int, name: str, head: Header, idle: dict[int, Segment]) -> Segment:
        self = cls(name, os.fstat(fd).st_ino, head.data_offset, head.capacity)
        self.n_slots = head.n_slots
        old = idle.pop(self.inode, None)
        # An inode's number may be used again for another file, but then it is not linked here.
        if old is not None and old.mappings and old.is_same_file(fd):
            self._take_mappings(old)
            return self
        if old is not None:
            old.unmap()
        self._map_header(fd)
        return self

    def is_same_file(self, fd: int) -> bool:
        """Whether our header mapping is of the open file *fd*, not of one unlinked before it."""
        return bytes(_map.buffer(self.mappings["header"].address, 128)) == os.pread(fd, 128, 0)

    @classmethod
    def open_warm(cls, file: str, idle: dict[int, Segment]) -> Segment | None:
        """Map warm memory, to be claimed; None: it is gone, or not ours to take."""
        try:
            fd = descriptor.open(naming.path(file), os.O_RDWR | os.O_NOFOLLOW)
        except OSError:
            return None
        try:
            head = Header.read(fd, file)
            self = cls._over(fd, file, head, idle)
            self.map("rw", fd)
        except SegmentError:
            return None
        finally:
            descriptor.close(fd)
        return self

    @staticmethod
    def _open(name: str) -> int:
        try:
            return descriptor.open_shm(naming.segment_file(name))
        except FileNotFoundError:
            raise SegmentNotFound(
                f"segment {name!r}: never created, or nobody uses it any more", name
            ) from None
        except OSError as error:
            if error.errno in (errno.EACCES, errno.ELOOP, errno.EISDIR, errno.EINVAL):
                raise SegmentDamaged(
                    f"segment {name!r} is not a file that this user made", name
                ) from error
            raise

    def _read(self, head: Header) -> None:
        """Take over what the header says, now that we are in the table and it cannot change."""
        header = self.mappings["header"]
        buf = memoryview(_map.buffer(header.address, header.size))
        self.desc = bytes(buf[head.desc_offset : head.desc_offset + head.desc_size])
        self.data_size = head.data_size

    # -- map

    def map(self, mode: str, fd: int | None = None) -> Mapping:
        """Map the data in *mode*, once. Without *fd* the file is opened by name."""
        found = self.mappings.get(mode)
        if found is not None:
            return found
        opened = self._open(self.name) if fd is None else fd
        size = self.capacity - self.data_offset
        try:
            address = _map.map(opened, self.data_offset, size, MODES[mode])
        finally:
            if fd is None:
                descriptor.close(opened)
        mapping = self.mappings[mode] = Mapping(self, mode, address, size)
        return mapping

    def unmap(self) -> None:
        """Unmap all of it. Nothing may refer to it any more.

        But for the header, if a thread of ours still holds the mutex in it: the kernel could not
        tell others of our death, and they would wait for ever.
        """
        if "header" in self.mappings and self.holds_lock():
            del self.mappings["header"]
        for mapping in self.mappings.values():
            mapping.unmap()
        self.mappings.clear()

    def holds_lock(self) -> bool:
        """Whether a thread of this process holds the mutex."""
        tid = _mutex.holder(_seg.data_mutex(self.ref))
        return tid != 0 and os.path.exists(f"/proc/self/task/{tid}")

    # -- leave

    def remove(self, name: str, *, free: bool = True) -> None:
        """Unlink a segment that is DEAD; *free*: take its pages from those that still map them.

        A mapping kept for reuse elsewhere would hold the memory until its process looks again.
        """
        file = naming.path(naming.segment_file(name))
        with contextlib.suppress(OSError):
            unlink_queue(name)
            if naming.is_random(name) and not (free and _seg.joins(self.ref)):
                os.unlink(file)
                return
            fd = descriptor.open(file, os.O_RDWR | os.O_NOFOLLOW)
            try:
                # The name may be somebody else's by now; all who unlink one hold this lock.
                fcntl.flock(fd, fcntl.LOCK_EX)
                st = os.fstat(fd)
                if st.st_ino == self.inode and st.st_nlink:
                    os.unlink(file)
                    if free and not _seg.has_unlisted(self.ref):
                        _map.punch(fd, self.data_offset, st.st_size - self.data_offset)
            finally:
                descriptor.close(fd)

    @property
    def state(self) -> int:
        return _seg.state(self.ref)

    def is_current(self) -> bool:
        """Whether the memory still holds what it held when we attached."""
        return self.state == _seg.LIVE and _seg.identity(self.ref) == self.identity


def unlink_queue(name: str) -> None:
    """Unlink the message queue that goes with segment *name*, if one does."""
    queue = naming.queue_of(name)
    if queue is not None:
        import posix_ipc

        with contextlib.suppress(posix_ipc.ExistentialError):
            posix_ipc.unlink_message_queue(queue)
