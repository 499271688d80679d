"""What goes over a connection, once hello is said: docs/wire.md.

    prologue   32 bytes   magic, version, kind, bytes of the header, bytes of the data, a number
    header     msgpack    of an object: its schema, and of each buffer the length (and checksum)
    padding               zeros up to a multiple of 64, counted from the prologue
    body                  of an object: its buffers, each at a multiple of 64, as a segment has them

(1) Everything in a prologue or a header is checked before it is used; FrameError says what was wrong.
(2) No pickle is made or read.
(3) An object's body is one range of bytes just as it will lie in the segment. With a codec it is chunks
    instead: compress.py.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..blocks import place
from ..layout import ALIGNMENT, Buffer, SchemaError, pack, unpack
from ..record import Record, body_parts, describe_object, read_record
from .errors import FrameError

__all__ = [
    "ACKNOWLEDGED",
    "BYE",
    "OBJECT",
    "PROLOGUE_SIZE",
    "REFUSED",
    "SMALL",
    "Incoming",
    "Outgoing",
    "Prologue",
    "cut",
    "encode",
    "pack_signal",
    "read_header",
    "read_prologue",
]

Raw = NDArray[np.uint8]

MAGIC = b"\x89NPW"
VERSION = 1
_PROLOGUE = struct.Struct("<4sBBHIIQQ")
PROLOGUE_SIZE = _PROLOGUE.size

OBJECT = 1  #: header and body
ACKNOWLEDGED = 2  #: "number" objects are whole in the receiver's memory
REFUSED = 3  #: the header is UTF-8 text that says why the connection ends
BYE = 4  #: nothing more comes from this side
_KINDS = (OBJECT, ACKNOWLEDGED, REFUSED, BYE)

MAX_HEADER = 16 << 20  #: as the layout codec's own limit
_MAX_TEXT = 4 << 10
_ZEROS = bytes(ALIGNMENT)
#: Arrays up to this size are sent as one piece of bytes, and share segments where they land: making a
#: segment takes as long as moving 200 KiB.
SMALL = 32 << 10
_heads: dict[tuple[np.dtype[Any], tuple[int, ...]], bytes] = {}
_MAX_HEADS = 256


class Prologue(NamedTuple):
    """The fixed part of a frame."""

    kind: int
    header_size: int
    body_size: int
    number: int

    @property
    def padded_header_size(self) -> int:
        """Bytes between prologue and body."""
        return -(-(_PROLOGUE.size + self.header_size) // ALIGNMENT) * ALIGNMENT - _PROLOGUE.size


def read_prologue(data: bytes | memoryview) -> Prologue:
    """Read and check a prologue.

    Raises
    ------
    FrameError : it is none, of another version, or claims more than anybody may.
    """
    magic, version, kind, flags, header_size, reserved, body_size, number = _PROLOGUE.unpack(data)
    if magic != MAGIC:
        raise FrameError(f"frame: magic {MAGIC!r} wanted, {magic!r} found")
    if version != VERSION:
        raise FrameError(f"frame: version {VERSION} wanted, {version} found")
    if kind not in _KINDS or flags or reserved:
        raise FrameError(f"frame: kind {kind}, flags {flags}, {reserved}: none that we know")
    if header_size > (MAX_HEADER if kind == OBJECT else _MAX_TEXT):
        raise FrameError(f"frame: a header of at most {MAX_HEADER} bytes wanted, {header_size}")
    if body_size and kind != OBJECT:
        raise FrameError(f"frame: kind {kind} with a body of {body_size} bytes")
    return Prologue(kind, header_size, body_size, number)


def pack_signal(kind: int, number: int = 0, text: str = "") -> bytes:
    """Make a frame of any kind but OBJECT."""
    header = text.encode()[:_MAX_TEXT]
    padding = -(_PROLOGUE.size + len(header)) % ALIGNMENT
    return (
        _PROLOGUE.pack(MAGIC, VERSION, kind, 0, len(header), 0, 0, number)
        + header
        + _ZEROS[:padding]
    )


@dataclass(frozen=True)
class Incoming(Record):
    """An object that is announced: what its header says, checked.

    Attributes
    ----------
    chunk : bytes of a compressed chunk before compression; 0: the body is as it will lie
    """

    chunk: int = 0


def read_header(header: bytes | memoryview, size: int) -> Incoming:
    """Read and check the header of an object with *size* bytes of data.

    Raises
    ------
    FrameError : it is none, or its lengths do not add up to *size*.
    """
    try:
        fields = unpack(header)
        record = read_record(fields, size)
    except SchemaError as error:
        raise FrameError(f"header: {error}") from error
    codec, chunk = fields.get("codec"), fields.get("chunk", 0)
    if codec not in (None, "blosc2"):
        raise FrameError(f"header 'codec': 'blosc2' wanted, {codec!r:.40} found")
    if codec is None:
        chunk = 0
    elif type(chunk) is not int or not 1 <= chunk <= 1 << 30:
        raise FrameError(f"header 'chunk': between 1 byte and 1 GiB wanted, {chunk!r:.40} found")
    return Incoming(**vars(record), chunk=chunk)


@dataclass(frozen=True)
class Outgoing:
    """An object that is to be sent.

    Attributes
    ----------
    head : prologue, header and padding
    buffers : of the layout codec
    size : bytes of the body, when it is not compressed
    body : all of the body, where it is small
    """

    head: bytes
    buffers: list[Buffer]
    size: int
    body: bytes | None = None

    def parts(self) -> list[Any]:
        """Give the body, part by part: views of the object's own memory where that is dense."""
        return [self.body] if self.body is not None else body_parts(self.buffers)


def cut(parts: Iterable[Raw], size: int) -> Iterator[Raw]:
    """Cut what comes in parts into pieces of *size* bytes, and a last one."""
    gathered: list[Raw] = []
    n = 0
    for part in parts:
        at = 0
        while at < len(part):
            piece = part[at : at + size - n]
            gathered.append(piece)
            at, n = at + len(piece), n + len(piece)
            if n == size:
                yield gathered[0] if len(gathered) == 1 else np.concatenate(gathered)
                gathered, n = [], 0
    if gathered:
        yield gathered[0] if len(gathered) == 1 else np.concatenate(gathered)


def encode(obj: Any, *, checksum: bool = False, chunk: int = 0) -> Outgoing:
    """Describe an object for the wire. Copies nothing, but reads all of it for a *checksum*.

    Raises
    ------
    TypeError : it is no ndarray, DataFrame or Series, or holds Python objects that have no layout.
    ValueError : its attrs are too large for a header.
    """
    is_small = isinstance(obj, np.ndarray) and obj.nbytes <= SMALL and obj.flags.c_contiguous
    if not is_small or checksum or chunk:
        return _encode(obj, checksum, chunk)
    # Many small arrays are mostly of one kind, and describing one takes longer than sending it.
    kind = obj.dtype, obj.shape
    head = _heads.get(kind)
    if head is None:
        head = _encode(obj, False, 0).head
        if len(_heads) >= _MAX_HEADS:
            _heads.clear()
        _heads[kind] = head
    return Outgoing(head, [], obj.nbytes, obj.tobytes())


def _encode(obj: Any, checksum: bool, chunk: int) -> Outgoing:
    try:
        fields, buffers = describe_object(obj, checksum=checksum)
    except TypeError as error:
        raise TypeError(f"this cannot be sent: {error}") from error
    if chunk:
        fields["codec"], fields["chunk"] = "blosc2", chunk
    header = pack(fields)
    size = place(fields["buffers"])[1]
    prologue = _PROLOGUE.pack(MAGIC, VERSION, OBJECT, 0, len(header), 0, size, 0)
    padding = -(len(prologue) + len(header)) % ALIGNMENT
    return Outgoing(prologue + header + _ZEROS[:padding], buffers, size)
