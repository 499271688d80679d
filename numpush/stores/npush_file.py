"""The file of an object, as file:// has it: docs/stores.md.

    prologue   32 bytes   magic, version, bytes of the record, its CRC-32, where the body is, its bytes
    record     msgpack    schema, lengths of the buffers, checksums: numpush/record.py
    padding               zeros up to a page
    body                  the buffers, each at a multiple of 64, as a segment has them

(1) What a prologue or a record says is checked before it is used; StoreDamaged says what was wrong.
(2) The body begins at a page, so that it can be mapped.
"""

from __future__ import annotations

import os
import struct
import zlib
from typing import Any

from ..layout import Buffer, SchemaError, unpack
from ..record import Record, read_record
from .describing import describe_for_store
from .errors import StoreDamaged

__all__ = ["encode", "read_head"]

MAGIC = b"\x89NPF"
VERSION = 1
_PROLOGUE = struct.Struct("<4sIIIQQ")
_PAGE = 4096
_MAX_RECORD = 16 << 20


def encode(obj: Any, *, checksum: bool) -> tuple[bytes, list[Buffer], int]:
    """Describe an object: what comes before its body, its buffers, and the bytes of the body.

    Raises
    ------
    TypeError : it has no layout.
    ValueError : its attrs are too large.
    """
    record, buffers, size = describe_for_store(obj, checksum=checksum)
    start = -(-(_PROLOGUE.size + len(record)) // _PAGE) * _PAGE
    prologue = _PROLOGUE.pack(MAGIC, VERSION, len(record), zlib.crc32(record), start, size)
    return (prologue + record).ljust(start, b"\0"), buffers, size


def read_head(fd: int, what: str) -> tuple[Record, int]:
    """Read the record of a file, and where its body begins; rule (1).

    Raises
    ------
    StoreDamaged
    OSError
    """
    head = os.pread(fd, _PAGE, 0)
    if len(head) < _PROLOGUE.size or head[:4] != MAGIC:
        raise StoreDamaged(f"{what}: no file of numpush's: it begins with {head[:8]!r}")
    _, version, length, crc, start, size = _PROLOGUE.unpack_from(head)
    if version != VERSION:
        raise StoreDamaged(f"{what}: version {VERSION} wanted, {version} found")
    if length > _MAX_RECORD or start < _PROLOGUE.size + length or start % _PAGE:
        raise StoreDamaged(f"{what}: a record of {length} bytes, a body at {start}")
    if _PROLOGUE.size + length > len(head):
        head = os.pread(fd, _PROLOGUE.size + length, 0)
    packed = head[_PROLOGUE.size : _PROLOGUE.size + length]
    if len(packed) != length or zlib.crc32(packed) != crc:
        raise StoreDamaged(f"{what}: the record is damaged")
    found = os.fstat(fd).st_size
    if found != start + size:
        raise StoreDamaged(f"{what}: {start + size} bytes wanted, {found} found")
    try:
        return read_record(unpack(packed), size), start
    except SchemaError as error:
        raise StoreDamaged(f"{what}: {error}") from error
