"""What a message of ZeroMQ means: docs/wire.md, "ZeroMQ". Not where its frames come from.

    numpush     prologue and header of wire.py; then a frame for each buffer
    array       {"dtype": .., "shape": ..} in JSON, as in pyzmq's documentation; then its data
    raw         every frame is an array of its own, of the dtype and shape that the receiver knows

Before the first two, a topic may stand in a frame of its own.

(1) No more of a frame than a topic may have is read before it is known what it is, so data goes straight
    to its place.
(2) An object of the first two forms appears when its message is whole, and not if there is more in it
    than was announced.
"""

from __future__ import annotations

import functools
import json
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import DTypeLike

from ..layout import Schema, describe
from . import wire
from .errors import FrameError
from .landing import Landing
from .wire import Incoming

__all__ = ["MAX_TOPIC", "Form", "Frames", "Reader"]

MAX_TOPIC = 4 << 10  #: bytes of a topic, or of an array's description in JSON
_MAX_DIMENSIONS = 32  #: as the layout codec's

#: What str(array.dtype) gives, and codes of NumPy: no commas, no Python objects.
_DTYPE = re.compile(
    r"bool|u?int(?:8|16|32|64)|float(?:16|32|64|96|128)|complex(?:64|128|192|256)"
    r"|(?:datetime|timedelta)64(?:\[\d{0,9}[A-Za-z]{1,2}\])?"
    r"|[<>|=]?(?:b1|[iu][1248]|f(?:[248]|12|16)|c(?:8|16|24|32)|[SUV]\d{1,9}"
    r"|[mM]8(?:\[\d{0,9}[A-Za-z]{1,2}\])?)",
    re.ASCII,
)

Take = Callable[[Incoming, Callable[[], memoryview], Callable[[Landing], None]], Any]


class Frames(Protocol):
    """The frames of messages, one after the other.

    Attributes
    ----------
    size : bytes of the frame that has come
    has_more : another one of its message follows
    """

    size: int
    has_more: bool

    def advance(self) -> None:
        """Have the next frame of the message come."""

    def peek(self, size: int) -> memoryview:
        """Return its first bytes."""

    def read(self) -> memoryview:
        """Return all of it; valid until the next call."""

    def pour(self, landing: Landing, i: int) -> None:
        """Put it where buffer *i* belongs."""


@dataclass(frozen=True)
class Form:
    """What a receiver knows of raw frames, and whether it wants topics.

    Attributes
    ----------
    dtype : of the items
    shape : with at most one -1, for what the length gives
    has_topics : give (topic, object) instead of the object
    """

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    has_topics: bool

    @classmethod
    def of(cls, dtype: DTypeLike, shape: int | tuple[int, ...], topics: bool) -> Form:
        """Check what a caller says.

        Raises
        ------
        TypeError : a dtype that holds Python objects, or no dtype at all.
        ValueError : the shape is none, or has more than one -1.
        """
        found = np.dtype(dtype)
        sizes = (shape,) if isinstance(shape, int) else tuple(int(n) for n in shape)
        if min(sizes, default=0) < -1 or sizes.count(-1) > 1 or len(sizes) > _MAX_DIMENSIONS:
            raise ValueError(f"shape {shape!r}: sizes of 0 or more wanted, and at most one -1")
        if not found.itemsize:
            raise ValueError(f"dtype {found}: items of at least one byte wanted")
        _schema(found, tuple(max(n, 0) for n in sizes))
        return cls(found, sizes, topics)

    def announce(self, size: int) -> Incoming:
        """Return what a raw frame of *size* bytes is.

        Raises
        ------
        FrameError : it is not of the shape.
        """
        n_items, rest = divmod(size, self.dtype.itemsize)
        shape = self.shape
        if -1 in shape:
            known = math.prod(n for n in shape if n != -1)
            n_free = n_items // known if known else 0
            shape = tuple(n_free if n == -1 else n for n in shape)
        if rest or math.prod(shape) != n_items:
            raise FrameError(
                f"message: a frame of shape {self.shape} {self.dtype} wanted, {size} bytes found"
            )
        return _announce(self.dtype, shape, size)


@functools.lru_cache(maxsize=1024)
def _schema(dtype: np.dtype[Any], shape: tuple[int, ...]) -> Schema:
    """Describe a C-ordered array, without its memory."""
    return describe(np.broadcast_to(np.empty((), dtype), shape))[0]


def _announce(dtype: np.dtype[Any], shape: tuple[int, ...], size: int) -> Incoming:
    return Incoming(_schema(dtype, shape), [size], size, None, "")


def read_description(data: bytes) -> Incoming | None:
    """Read the first frame of pyzmq's recipe; None: it is something else.

    Raises
    ------
    FrameError : it describes what is no array of plain items.
    """
    if data[:1] != b"{":
        return None
    try:
        fields = json.loads(data)
    except (ValueError, RecursionError):
        return None
    if type(fields) is not dict or not {"dtype", "shape"} <= fields.keys():
        return None
    code, shape = fields["dtype"], fields["shape"]
    if type(code) is not str or not _DTYPE.fullmatch(code):
        raise FrameError(f"description 'dtype': that of plain items wanted, {code!r:.40} found")
    if (
        type(shape) is not list
        or len(shape) > _MAX_DIMENSIONS
        or not all(type(n) is int and 0 <= n < 1 << 63 for n in shape)
    ):
        raise FrameError(f"description 'shape': a list of sizes wanted, {shape!r:.40} found")
    try:
        dtype = np.dtype(code)
        size = math.prod(shape) * dtype.itemsize
        if not dtype.itemsize or size >= 1 << 63:
            raise ValueError("items of at least one byte wanted, and less than 2**63 bytes of them")
        return _announce(dtype, tuple(shape), size)
    except (TypeError, ValueError) as error:
        raise FrameError(f"description: {code} of shape {shape!r:.40}: {error}") from error


class Reader:
    """Reads messages.

    Parameters
    ----------
    frames : where they come from
    form : of raw frames
    take : receives an object that is announced, as Receiver._take
    put_down : is given what has landed, and its bytes, as Receiver._put_down
    """

    def __init__(
        self, frames: Frames, form: Form, take: Take, put_down: Callable[[Any, int], None]
    ) -> None:
        self._frames = frames
        self._form = form
        self._take = take
        self._put_down = put_down
        self._last: tuple[int, Incoming] | None = None

    def read(self) -> None:
        """Read a message, whose first frame has come.

        Raises
        ------
        FrameError : it is not what it says.
        """
        frames = self._frames
        topic = b""
        found = self._look()
        if isinstance(found, bytes):  # a topic, if more than raw frames follow it
            topic = found
            frames.advance()
            found = self._look()
            if not isinstance(found, Incoming):
                self._land_bytes(topic)
        if isinstance(found, Incoming):
            self._land(found, topic)
            return
        if isinstance(found, bytes):
            self._land_bytes(found)
        else:
            self._land_raw()
        while frames.has_more:
            frames.advance()
            self._land_raw()

    def _look(self) -> Incoming | bytes | None:
        """Receive a frame that announces an object, or that is small enough for a topic: its bytes."""
        frames = self._frames
        if frames.size >= wire.PROLOGUE_SIZE and frames.peek(len(wire.MAGIC)) == wire.MAGIC:
            return self._read_head()
        if frames.size > MAX_TOPIC or not frames.has_more:
            return None
        data = bytes(frames.read())
        return read_description(data) or data

    def _read_head(self) -> Incoming:
        frames = self._frames
        prologue = wire.read_prologue(frames.peek(wire.PROLOGUE_SIZE))
        if prologue.kind != wire.OBJECT:
            raise FrameError(f"message: kind {prologue.kind} is nothing that ZeroMQ carries")
        wanted = wire.PROLOGUE_SIZE + prologue.padded_header_size
        if frames.size != wanted:
            raise FrameError(f"message: a head of {wanted} bytes announced, {frames.size} found")
        header = frames.read()[wire.PROLOGUE_SIZE :][: prologue.header_size]
        incoming = wire.read_header(header, prologue.body_size)
        if incoming.chunk:
            raise FrameError("header 'codec': none over ZeroMQ")
        return incoming

    def _land(self, incoming: Incoming, topic: bytes) -> None:
        """Receive the frames of an object that was announced; rule (2)."""
        frames, sizes = self._frames, incoming.sizes
        if not sizes:
            self._check_end(0, 0)

        def advance(i: int) -> None:
            if not frames.has_more:
                raise FrameError(f"message: {len(sizes)} buffers announced, {i} came")
            frames.advance()
            if frames.size != sizes[i]:
                raise FrameError(f"buffer {i}: {sizes[i]} bytes announced, {frames.size} found")
            self._check_end(i + 1, len(sizes))

        def read() -> memoryview:
            advance(0)
            return frames.read()

        def receive(landing: Landing) -> None:
            for i in range(len(sizes)):
                advance(i)
                frames.pour(landing, i)

        self._finish(self._take(incoming, read, receive), incoming.size, topic)

    def _check_end(self, n: int, wanted: int) -> None:
        if n == wanted and self._frames.has_more:
            raise FrameError(f"message: {wanted} buffers announced, more came")

    def _land_raw(self) -> None:
        frames = self._frames
        if self._last is None or self._last[0] != frames.size:  # mostly they are all of one size
            self._last = frames.size, self._form.announce(frames.size)
        incoming = self._last[1]
        obj = self._take(incoming, frames.read, lambda landing: frames.pour(landing, 0))
        self._finish(obj, incoming.size)

    def _land_bytes(self, data: bytes) -> None:
        """Have a frame land that was read to see what it is."""

        def receive(landing: Landing) -> None:
            landing.fill_buffer(0, memoryview(data))

        incoming = self._form.announce(len(data))
        obj = self._take(incoming, lambda: memoryview(data), receive)
        self._finish(obj, incoming.size)

    def _finish(self, obj: Any, size: int, topic: bytes = b"") -> None:
        self._put_down((topic, obj) if self._form.has_topics else obj, size)
