"""The memory that is being filled: a segment that nobody else sees yet, and stores into its buffers.

(1) Into fresh small pages a store is a pwrite: a /dev/shm without room (only possible with
    reserve=False) answers that with an error, not SIGBUS. Beside the decoding it made no difference in
    time to stores through the mapping, where those into warm memory and huge pages go.
(2) Stores of several threads do not overlap, but for bits, which are or-ed under a lock.
(3) `finish` lets others attach. Until then the segment goes with the last reference to us.
"""

from __future__ import annotations

import errno
import os
import threading
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import blocks
from ..copying import copy_all
from ..layout import Schema
from ..layout.buffer import Buffer
from ..shm.errors import SegmentFull

__all__ = ["Pages"]

Array = NDArray[Any]
_WRITE_FROM = 64 << 10  #: bytes; a smaller store costs less by the mapping than a system call


class Pages:
    """A segment for *buffers*, of which those without pieces are to be filled by `put`."""

    def __init__(
        self, schema: Schema, buffers: list[Buffer], *, name: str | None, reserve: bool = True
    ) -> None:
        sizes = [buffer.nbytes for buffer in buffers]
        self.segment, self._token, self._raw = blocks.allocate(
            schema, sizes, name=name, reserve=reserve
        )
        mapping = self.segment.mappings["rw"]
        self._to_file = self.segment.data_offset - mapping.address
        self._is_fresh = self.segment.is_fresh
        self._takes_writes = self._is_fresh and not mapping.is_hot
        self._lock = threading.Lock()
        self._fd = -1
        copy_all([pair for buffer, raw in zip(buffers, self._raw) for pair in buffer.copies(raw)])

    def __enter__(self) -> Pages:
        self._opened = self.segment.opened()
        self._fd = self._opened.__enter__()
        return self

    def __exit__(self, *exc: object) -> None:
        self._fd = -1
        self._opened.__exit__(None, None, None)

    def put(self, buffer: int, offset: int, values: Array) -> None:
        """Store a 1-D array *offset* bytes into a buffer.

        Raises
        ------
        SegmentFull : the memory was not reserved, and there is none any more.
        """
        if not values.flags.c_contiguous:
            values = np.ascontiguousarray(values)
        data = values.view(np.uint8)
        target = self._raw[buffer][offset : offset + data.nbytes]
        if target.nbytes != data.nbytes:
            raise IndexError(
                f"{data.nbytes} bytes at {offset} of a buffer of {self._raw[buffer].nbytes}"
            )
        if self._takes_writes and data.nbytes >= _WRITE_FROM:
            self._write(data, target.__array_interface__["data"][0] + self._to_file)
        else:
            target[...] = data

    def _write(self, data: NDArray[np.uint8], offset: int) -> None:
        view = data.data
        while view:
            try:
                n = os.pwrite(self._fd, view, offset)
            except OSError as error:
                if error.errno not in (errno.ENOSPC, errno.ENOMEM):
                    raise
                name = self.segment.name
                raise SegmentFull(
                    f"segment {name!r}: shared memory ran out while it was filled: none had been "
                    f"reserved",
                    name,
                ) from error
            view, offset = view[n:], offset + n

    def put_bits(self, buffer: int, start: int, bits: Array) -> None:
        """Store truth values as the bits from *start* on of a bitmap that was `clear`-ed; rule (2)."""
        lead = start % 8
        padded = np.concatenate([np.zeros(lead, np.bool_), bits]) if lead else bits
        packed = np.packbits(padded, bitorder="little")
        first = start // 8
        with self._lock:
            self._raw[buffer][first : first + len(packed)] |= packed

    def clear(self, buffer: int, byte: int = 0) -> None:
        """Set every byte of a buffer. Fresh pages are zero already."""
        if byte or not self._is_fresh:
            self._raw[buffer][...] = byte

    def fill(self, buffer: int, value: int) -> None:
        """Set every 64-bit integer of a buffer."""
        self._raw[buffer].view(np.int64)[...] = value

    def finish(self) -> Any:
        """Let others attach; return the shared frame."""
        from ..sdataframe import from_segment

        self.segment.commit()
        token, self._token, self._raw = self._token, None, []
        return from_segment(self.segment, token, "rw")
