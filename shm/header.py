"""The numbers at the start of a segment, checked against each other and the file before any is used.

The offsets are those of ffi/csrc/npush_seg.h. What is read here is read once: who attaches passes
these numbers on and does not look at the header's again.
"""

from __future__ import annotations

import os
import stat
import struct
from typing import NamedTuple

from ..ffi import seg as _seg
from .errors import LayoutMismatch, SegmentDamaged, SegmentNotFound

__all__ = ["PAGE", "Header"]

PAGE = os.sysconf("SC_PAGESIZE")
_HEAD = struct.Struct("<8sIIQQQQIIQQIIq")
_MAGIC = b"\0pushseg"


class Header(NamedTuple):
    """The numbers at the start of a segment, checked against each other and the file."""

    state: int
    capacity: int
    data_offset: int
    data_size: int
    desc_offset: int
    desc_size: int
    n_slots: int
    identity: int
    creator: int
    creator_pid: int
    created_ns: int

    @classmethod
    def read(cls, fd: int, name: str) -> Header:
        """Read and check the header of the open file *fd*. One fstat and one pread.

        Raises
        ------
        SegmentDamaged : not ours, not private, not a segment, or numbers out of bounds.
        SegmentNotFound : its creator has not finished it.
        LayoutMismatch : made by a build with another layout version.
        """
        st = os.fstat(fd)
        if not stat.S_ISREG(st.st_mode) or st.st_uid != os.geteuid() or st.st_mode & 0o077:
            raise SegmentDamaged(
                f"segment {name!r}: wanted a file of uid {os.geteuid()} with mode 0600, "
                f"found uid {st.st_uid}, mode {stat.filemode(st.st_mode)}",
                name,
            )
        raw = os.pread(fd, _HEAD.size, 0)
        if len(raw) < _HEAD.size or raw[:8] == bytes(8):
            raise SegmentNotFound(f"segment {name!r} is not finished", name)
        magic, layout, *numbers, _n_joins, created_ns = _HEAD.unpack(raw)
        if magic != _MAGIC:
            raise SegmentDamaged(
                f"segment {name!r}: magic {_MAGIC!r} wanted, {magic!r} found", name
            )
        if layout != _seg.LAYOUT:
            raise LayoutMismatch(
                f"segment {name!r}: layout {_seg.LAYOUT} wanted, {layout} found; "
                "run the same numpush on both sides",
                name,
            )
        head = cls._make([*numbers, created_ns])
        head._check(st.st_size, name)
        return head

    def _check(self, file_size: int, name: str) -> None:
        slots_end = _seg.SLOTS_OFFSET + self.n_slots * _seg.SLOT_SIZE
        claims = [
            ("state", _seg.BUILDING <= self.state <= _seg.DEAD, self.state),
            ("capacity", self.capacity <= file_size, f"{self.capacity} in a file of {file_size}"),
            ("n_slots", 0 < self.n_slots <= 1 << 20, self.n_slots),
            (
                "data_offset",
                self.data_offset % PAGE == 0 and slots_end <= self.data_offset < self.capacity,
                self.data_offset,
            ),
            ("data_size", self.data_size < self.capacity - self.data_offset + 1, self.data_size),
            (
                "description",
                not self.desc_size
                or slots_end <= self.desc_offset <= self.data_offset - self.desc_size,
                f"{self.desc_size} bytes at {self.desc_offset}",
            ),
        ]
        for what, holds, found in claims:
            if not holds:
                raise SegmentDamaged(f"segment {name!r}: {what} out of bounds: {found}", name)
