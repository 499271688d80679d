"""Where an object lands: a segment of its own, or, being small, a place in one with its neighbours.

(1) Nobody sees an object before it is whole, its checksums hold and its schema was validated: a
    segment is committed then, and goes by itself when it is dropped before.
(2) While bytes come, no local variable of the receiving thread holds the segment's memory, only the
    `Landing` does, which `abandon` empties: a child forked at that moment keeps nothing of it.
(3) Nothing is imported by a receiving thread: see `load`.
(4) With no room in shared memory the receiver waits, and the sender with it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import blocks
from ..code.signed import SignedCode
from ..layout import SchemaError, describe, rebuild
from ..record import check_sums, reveal
from ..sarray import SArray
from ..shm import space
from ..shm.errors import SegmentFull
from ..shm.segment import Segment
from . import compress
from .errors import FrameError
from .stream import SocketStream
from .wire import SMALL, Incoming

__all__ = ["Arena", "Landing", "check_size", "load", "validate", "wait_for_room"]

Raw = NDArray[np.uint8]

_ARENA = 1 << 20
_ALIGNMENT = 64
_LOOK_EVERY = 0.05  #: seconds between two tries to get memory


def load() -> None:
    """Import what landing needs, pandas included, before there is a thread that lands something.

    A child that is forked while another thread imports a module waits for ever for that module.
    """
    import pandas as pd

    from .. import attaching, sseries

    describe(pd.DataFrame({"text": ["a"]}))  # has the codec import its modules
    del attaching, sseries


def check_size(size: int, max_bytes: int | None) -> None:
    """Refuse what could never be taken, before any memory is.

    Raises
    ------
    FrameError : more than *max_bytes*, or than shared memory can hold when it is empty.
    """
    if max_bytes is not None and size > max_bytes:
        raise FrameError(f"an object of {size} bytes announced, at most {max_bytes} (max_bytes)")
    if size <= SMALL:
        return
    total = space.room(size).total
    if size > total:
        raise FrameError(
            f"an object of {space.human(size)} announced, all of shared memory has "
            f"{space.human(total)}"
        )


def wait_for_room(make: Callable[[], Any], patience: float, is_closed: Callable[[], bool]) -> Any:
    """Call *make* until there is memory for what it makes.

    Raises
    ------
    SegmentFull : there was none for *patience* seconds.
    """
    until = time.monotonic() + patience
    while True:
        try:
            return make()
        except SegmentFull:
            if time.monotonic() > until or is_closed():
                raise
        time.sleep(_LOOK_EVERY)


class Landing:
    """An object on its way into a segment of its own."""

    def __init__(self, incoming: Incoming) -> None:
        self.incoming = incoming
        self._starts = [start for start, _ in blocks.place(incoming.sizes)[0]]
        self._segment: Segment | None
        self._segment, self._token, self._raw = blocks.allocate(incoming.schema, incoming.sizes)

    def receive(self, stream: SocketStream, progress: Callable[[int], None]) -> None:
        """Have the body come; rule (2)."""
        assert self._segment is not None
        if self.incoming.chunk:
            for i in range(len(self._raw)):
                compress.receive(stream, self, i, progress)
        elif self.incoming.size:
            stream.pour(self._segment, self.incoming.size, progress)

    def receive_buffer(self, i: int, stream: SocketStream, progress: Callable[[int], None]) -> None:
        """Have buffer *i* come alone; rule (2)."""
        assert self._segment is not None
        stream.pour(self._segment, self.incoming.sizes[i], progress, self._starts[i])

    def fill_buffer(self, i: int, data: memoryview) -> None:
        """Copy *data* to buffer *i*, of its size."""
        assert self._segment is not None
        if len(data):
            blocks.fill(self._segment, [(self._raw[i], np.frombuffer(data, np.uint8))])

    def buffer(self, i: int) -> Raw:
        """Return the memory of buffer *i*."""
        return self._raw[i]

    def finish(self) -> Any:
        """Let others see the object, and return it; rule (1).

        Raises
        ------
        FrameError : a checksum does not hold, or the schema does not fit.
        """
        incoming = self.incoming
        try:
            check_sums(incoming, self._raw)
        except SchemaError as error:
            raise FrameError(str(error)) from error
        validate(incoming, self._raw)
        if incoming.form == "code":
            return SignedCode(self._raw[0])
        segment, token = self._segment, self._token
        assert segment is not None
        self.abandon()
        return reveal(incoming, segment, token)

    def abandon(self) -> None:
        """Let go of the memory."""
        self._segment = self._token = None
        self._raw = []


def validate(incoming: Incoming, raw: list[Raw]) -> Any:
    """Build the object as a stranger's schema says, all of it checked, and return it.

    Raises
    ------
    FrameError : the schema is damaged, or does not fit its buffers.
    """
    try:
        return rebuild(incoming.schema, raw, validate=True)
    except SchemaError as error:
        raise FrameError(f"header: {error}") from error


class Arena:
    """Segments of 1 MiB that small arrays lie in, one behind the other."""

    def __init__(self) -> None:
        self._memory: SArray | None = None
        self._end = 0
        self._form: tuple[Incoming, Any] | None = (
            None  #: the last one, and what ndarray() makes of it
        )

    @staticmethod
    def takes(incoming: Incoming) -> bool:
        """Whether an object is a small array, sent as it is."""
        return (
            0 < incoming.size <= SMALL
            and not incoming.chunk
            and incoming.checksums is None
            and not incoming.form
            and incoming.schema["kind"] == "ndarray"
        )

    def land(self, incoming: Incoming, body: memoryview) -> SArray:
        """Copy a small array to its place, and return it.

        Raises
        ------
        FrameError : the schema is damaged, or does not fit the buffer.
        SegmentFull : there is no room for another segment.
        """
        start = -(-self._end // _ALIGNMENT) * _ALIGNMENT
        memory = self._memory
        if memory is None or start + incoming.size > len(memory):
            memory = self._memory = SArray.empty(_ARENA, np.uint8)
            start = 0
        place = memory.view(np.ndarray)[start : start + incoming.size]
        place[:] = body
        self._end = start + incoming.size
        if self._form is not None and self._form[0] is incoming:  # it was validated then
            shape, dtype, strides = self._form[1]
            return np.ndarray.__new__(SArray, shape, dtype, place, 0, strides)
        array: SArray = validate(incoming, [place]).view(SArray)
        # A bool is looked at each time: not all bytes are one.
        is_any = array.dtype != bool
        self._form = (incoming, (array.shape, array.dtype, array.strides)) if is_any else None
        return array

    def abandon(self) -> None:
        """Let go of the segment; what lies in it keeps it."""
        self._memory = self._form = None
        self._end = 0
