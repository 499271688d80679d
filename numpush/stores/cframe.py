"""A frame of blosc2 ("cframe"): chunks one behind the other, and what is said about them.

    header     how many bytes, of what size; "metalayers" of fixed length (b2nd: shape and dtype)
    chunks     each as blosc2 compressed it
    offsets    of the chunks from the end of the header, i64, a chunk of its own
    trailer    "vlmetalayers": what users add, each msgpack in a chunk of its own

It is what `blosc2.open` opens and `NDArray` and `SChunk` write (README_CFRAME_FORMAT.rst of c-blosc2,
version 2 of the format), and it is read and written here so that what it says is checked before blosc2
sees it, that chunks are compressed and decompressed by our threads, and that an error of the disk is one.

(1) What a header, the offsets and a trailer say is checked against the bytes that there are.
(2) An offset below 0 is no place, but a chunk of zeros, of NaNs, or of whatever: `SPECIAL`.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import blosc2_chunks
from ..blosc2_chunks import HEADER, BadChunk

__all__ = [
    "SPECIAL", "ZEROS", "CFrame", "encode_header", "encode_offsets", "encode_trailer", "full_of",
    "is_zeros", "read_cframe",
]  # fmt: skip

#: Of an offset below 0 its highest byte -> what the chunk is full of
SPECIAL = {0x81: "zeros", 0x82: "nans", 0x84: "anything"}
ZEROS = (0x81 << 56) - (
    1 << 64
)  #: the offset of a chunk of zeros, which blosc2 refuses to have stored

_MAGIC = b"\x9e\xa8b2frame\x00\xd2"
_CODECS = {"blosclz": 0, "lz4": 1, "zstd": 5}
_FILTERS = {None: 0, "shuffle": 1, "bitshuffle": 2}
_FIXED = struct.Struct(">11sixQ1x4sxqxqxixixixhxhB1x17s")
_FIRST_LAYER = 0x57  #: where the metalayers of a header begin
_TAIL = 23  #: bytes that a trailer ends in: its length, and a fingerprint that nobody writes
_HAS_VARIABLE_CHUNKS = 0x40
_HAS_VARIABLE_BLOCKS = 0x80
_MAX_HEADER = 1 << 20
_MAX_TRAILER = 256 << 20
_MAX_LAYER = 64 << 20
_MAX_CHUNK = 2**31 - 1
_MAX_CHUNKS = 1 << 24
_HEAD_GUESS = 4096


@dataclass(frozen=True)
class CFrame:
    """What a frame says of itself, checked.

    Attributes
    ----------
    start : of the first chunk in its file
    nbytes, chunk_bytes, itemsize : uncompressed
    offsets : (n,) int64, of the chunks from *start*
    end : of the chunks, from *start*
    layers, vl_layers : name -> msgpack
    """

    start: int
    nbytes: int
    chunk_bytes: int
    itemsize: int
    offsets: NDArray[np.int64]
    end: int
    layers: dict[str, bytes]
    vl_layers: dict[str, bytes]


def encode_header(
    nbytes: int,
    cbytes: int,
    rest: int,
    layers: dict[str, bytes],
    *,
    itemsize: int,
    block: int,
    chunk: int,
    has_vl_layers: bool,
    codec: str,
    level: int,
    filter: str | None,
) -> bytes:
    """Return the header of a frame of *cbytes* of chunks and *rest* bytes behind them."""
    body = _encode_layers(layers, _FIRST_LAYER)
    length = _FIRST_LAYER + len(body)
    flags = bytes(
        [0x12 if chunk else 0x13 | _HAS_VARIABLE_CHUNKS, 0, _CODECS[codec] | level << 4, 2]
    )
    filters = bytes([6, _FILTERS[filter], 0, 0, 0, 0, 0, _CODECS[codec]]).ljust(17, b"\0")
    head = bytearray(
        _FIXED.pack(
            _MAGIC, length, length + cbytes + rest, flags, nbytes, cbytes, itemsize, block,
            chunk, 1, 1, 0xC3 if has_vl_layers else 0xC2, filters,
        )
    )  # fmt: skip
    for at, code in (
        (10, 0xD2), (15, 0xCF), (24, 0xA4), (29, 0xD3), (38, 0xD3), (47, 0xD2), (52, 0xD2),
        (57, 0xD2), (62, 0xD1), (65, 0xD1), (69, 0xD8),
    ):  # fmt: skip
        head[at] = code
    return bytes(head) + body


def _encode_layers(layers: dict[str, bytes], first: int) -> bytes:
    """Return metalayers as they stand at *first*: an index of names and places, and the values."""
    names = b"".join(_name(name) + b"\xd2----" for name in layers)
    size = len(names) + (7 if first == _FIRST_LAYER else 6)  # as blosc2 counts, which is off by one
    index = b"\x93\xcd" + struct.pack(">H", size) + b"\xde" + struct.pack(">H", len(layers))
    at = first + len(index) + len(names) + 3
    index_of_names = b""
    values = b"\xdc" + struct.pack(">H", len(layers))
    for name, value in layers.items():
        index_of_names += _name(name) + b"\xd2" + struct.pack(">i", at)
        values += b"\xc6" + struct.pack(">I", len(value)) + value
        at += 5 + len(value)
    return index + index_of_names + values


def _name(name: str) -> bytes:
    packed = name.encode()
    return bytes([0xA0 | len(packed)]) + packed


def encode_offsets(offsets: list[int]) -> bytes:
    """Return the chunk that says where the chunks begin; nothing where there are none."""
    if not offsets:
        return b""
    params = blosc2_chunks.parameters("lz4", 8, filter="shuffle")
    return blosc2_chunks.compress(np.array(offsets, "<i8"), params)


def encode_trailer(layers: dict[str, bytes]) -> bytes:
    """Return the trailer with these vlmetalayers, msgpack each."""
    params = blosc2_chunks.parameters("zstd", 1, filter="shuffle")
    packed = {name: blosc2_chunks.compress(value, params) for name, value in layers.items()}
    body = b"\x94\x01" + _encode_layers(packed, 2)
    size = len(body) + _TAIL
    return body + b"\xce" + struct.pack(">I", size) + b"\xd8" + bytes(17)


def read_cframe(fd: int, at: int, size: int) -> CFrame:
    """Read what a frame says that takes *size* bytes of a file from *at* on; rule (1).

    Raises
    ------
    ValueError : it is no frame, or one of a kind that is not read; says why.
    OSError
    """
    head = _pread(fd, min(_HEAD_GUESS, size), at)
    if len(head) < _FIRST_LAYER or not head.startswith(_MAGIC):
        raise ValueError(f"no frame of blosc2: it begins with {bytes(head[:10])!r}")
    (
        _, length, total, flags, nbytes, cbytes, itemsize, _, chunk, _, _, _, _,
    ) = _FIXED.unpack_from(head)  # fmt: skip
    if total != size:
        raise ValueError(f"a frame of {total} bytes, {size} found")
    if not _FIRST_LAYER <= length <= min(size, _MAX_HEADER):
        raise ValueError(f"a header of {length} bytes")
    if flags[0] & 0x0F > 3 or flags[1] != 0:
        raise ValueError(f"flags {flags.hex()}: a contiguous frame of version 2 or 3 wanted")
    if not 0 <= cbytes <= size - length - _TAIL or not 1 <= itemsize <= _MAX_CHUNK:
        raise ValueError(f"chunks of {cbytes} bytes, items of {itemsize}")
    n_chunks = 0
    if nbytes:
        if flags[0] & (_HAS_VARIABLE_CHUNKS | _HAS_VARIABLE_BLOCKS):
            raise ValueError("chunks or blocks of variable length, which are not read")
        if nbytes < 0 or not 1 <= chunk <= _MAX_CHUNK:
            raise ValueError(f"{nbytes} bytes in chunks of {chunk}")
        n_chunks = -(-nbytes // chunk)
        if n_chunks > _MAX_CHUNKS:
            raise ValueError(f"{n_chunks} chunks, at most {_MAX_CHUNKS} are read")
    if length > len(head):
        head = _pread(fd, length, at)
    layers = _read_layers(head[:length], _FIRST_LAYER)
    offsets = _read_offsets(fd, at + length, cbytes, size - length - _TAIL, n_chunks)
    trailer = _read_trailer(fd, at, length + cbytes, size)
    vl_layers = {name: _unpack_layer(value) for name, value in trailer.items()}
    return CFrame(at + length, nbytes, chunk, itemsize, offsets, cbytes, layers, vl_layers)


def _pread(fd: int, size: int, at: int) -> bytes:
    found = os.pread(fd, size, at)
    if len(found) < size:
        raise ValueError(f"the file ends {size - len(found)} bytes before it should")
    return found


def _read_layers(raw: bytes, at: int) -> dict[str, bytes]:
    """Read the metalayers whose index stands at *at*."""
    try:
        marks, n = raw[at : at + 2] + raw[at + 4 : at + 5], struct.unpack_from(">H", raw, at + 5)[0]
        if marks != b"\x93\xcd\xde" or n > 64:
            raise ValueError(f"metalayers that begin with {raw[at : at + 7].hex()}")
        at += 7
        found = {}
        for _ in range(n):
            width = raw[at] & 0x1F
            name = raw[at + 1 : at + 1 + width].decode()
            (place,) = struct.unpack_from(">i", raw, at + 2 + width)
            at += 6 + width
            if not 0 <= place < len(raw):
                raise ValueError(f"metalayer {name!r} at {place}")
            mark, size = struct.unpack_from(">BI", raw, place)
            if mark != 0xC6 or place + 5 + size > len(raw):
                raise ValueError(f"metalayer {name!r} of {size} bytes at {place}")
            found[name] = raw[place + 5 : place + 5 + size]
    except (struct.error, IndexError) as error:
        raise ValueError(f"metalayers that end too early: {error}") from error
    return found


def _read_offsets(fd: int, start: int, cbytes: int, most: int, n: int) -> NDArray[np.int64]:
    offsets = np.zeros(n, "<i8")
    if not n:
        return offsets
    if cbytes + HEADER > most:
        raise ValueError("no room for the offsets of the chunks")
    size = int.from_bytes(_pread(fd, HEADER, start + cbytes)[12:16], "little")
    if not HEADER <= size <= most - cbytes:
        raise ValueError(f"the offsets of the chunks take {size} bytes")
    try:
        blosc2_chunks.decompress(_pread(fd, size, start + cbytes), offsets.view(np.uint8))
    except BadChunk as error:
        raise ValueError(f"the offsets of the chunks: {error}") from error
    bad = offsets[offsets > cbytes - HEADER]
    if HEADER * np.count_nonzero(offsets >= 0) > cbytes:
        raise ValueError(f"{n} chunks in {cbytes} bytes")
    if len(bad):
        raise ValueError(f"a chunk at {bad[0]}, of chunks of {cbytes} bytes")
    kinds = set(((offsets[offsets < 0] >> 56) & 0xFF).tolist())
    if not kinds <= set(SPECIAL):
        raise ValueError(f"chunks of kinds {sorted(kinds)}, which are not read")
    return offsets


def _read_trailer(fd: int, at: int, start: int, size: int) -> dict[str, bytes]:
    tail = _pread(fd, _TAIL, at + size - _TAIL)
    (length,) = struct.unpack_from(">I", tail, 1)
    if tail[0] != 0xCE or tail[5] != 0xD8 or not _TAIL <= length <= min(size - start, _MAX_TRAILER):
        raise ValueError(f"a trailer of {length} bytes")
    raw = _pread(fd, length, at + size - length)
    if raw[:2] != b"\x94\x01":
        raise ValueError(f"a trailer that begins with {raw[:2].hex()}")
    return _read_layers(raw[:-_TAIL], 2)


def _unpack_layer(value: bytes) -> bytes:
    size = int.from_bytes(value[4:8], "little", signed=True)
    if not 0 < size <= _MAX_LAYER:
        raise ValueError(f"a metalayer of {size} bytes")
    found = np.empty(size, np.uint8)
    blosc2_chunks.decompress(value, found)
    return found.tobytes()


def is_zeros(chunk: bytes) -> bool:
    """Whether a chunk is nothing but a header that says that all is zeros."""
    return len(chunk) == HEADER and chunk[31] >> 4 & 7 == 1


def full_of(kind: int, itemsize: int, target: Any) -> None:
    """Fill the place of a chunk that is no bytes in the file; rule (2)."""
    if SPECIAL[kind] == "nans" and itemsize in (4, 8):
        target.view(f"<f{itemsize}")[:] = np.nan
    else:
        target[:] = 0
