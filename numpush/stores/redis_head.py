"""How an object lies on a Redis server: the names of its keys, and the bytes of its head. docs/stores.md.

    NS:head:{KEY}           prologue, record, and the body where that is small
    NS:part:{KEY}:GEN:N     bytes N * chunk to (N + 1) * chunk of the body, the last one shorter
    NS:spare:{KEY}:CHUNK:N  what was such a part, of CHUNK bytes: room for one of the next generation
    NS:events               a stream of what was put and deleted

    prologue   48 bytes     magic, version, CRC-32 of all of the head that comes after it, bytes of the
                            record, bytes of a chunk (0: the body follows the record), generation, bytes
                            of the body

(1) Parts are written once. A generation is a UUID of its own, so a part has the bytes that the head of its
    generation means, or is gone.
(2) What a head says is checked before it is used; StoreDamaged says what was wrong.
(3) '%', '{' and '}' of a key are percent-encoded, so that what is between braces, by which a cluster
    chooses the node, is the same for all keys of an object, and never empty.
"""

from __future__ import annotations

import re
import struct
import zlib
from typing import Any, NamedTuple
from urllib.parse import unquote

from ..layout import SchemaError, unpack
from ..record import Record, read_record
from .errors import StoreDamaged

__all__ = ["Head", "Names", "encode_head", "read_head"]

MAGIC = b"\x89NPR"
VERSION = 1
_PROLOGUE = struct.Struct("<4sIIII16sQ4x")
_SUMMED = 12  #: what the CRC-32 covers begins here
_MAX_PARTS = 1 << 24
_ESCAPES = {ord("%"): "%25", ord("{"): "%7B", ord("}"): "%7D"}
_SPACE = re.compile(r"[\w.:/@+-]{1,100}", re.ASCII)


class Head(NamedTuple):
    """A head, checked.

    Attributes
    ----------
    record : of the object
    generation : 32 hexadecimal digits
    chunk : bytes of a part, or 0 for a body that is in the head
    size : bytes of the body
    body : the body, where it is in the head
    """

    record: Record
    generation: str
    chunk: int
    size: int
    body: memoryview

    @property
    def n_parts(self) -> int:
        return -(-self.size // self.chunk) if self.chunk else 0

    def length_of(self, n: int) -> int:
        """Return the bytes of part *n*."""
        return min(self.chunk, self.size - n * self.chunk)


def encode_head(record: bytes, generation: str, chunk: int, size: int, body: bytes = b"") -> bytes:
    """Return the bytes of a head."""
    prologue = _PROLOGUE.pack(
        MAGIC, VERSION, 0, len(record), chunk, bytes.fromhex(generation), size
    )
    rest = prologue[_SUMMED:] + record + body
    return prologue[:8] + struct.pack("<I", zlib.crc32(rest)) + rest


def read_head(head: bytes, what: str) -> Head:
    """Read and check a head; rule (2).

    Raises
    ------
    StoreDamaged
    """
    if len(head) < _PROLOGUE.size or head[:4] != MAGIC:
        raise StoreDamaged(f"{what}: no head of numpush's: it begins with {head[:8]!r}")
    _, version, crc, length, chunk, generation, size = _PROLOGUE.unpack_from(head)
    if version != VERSION:
        raise StoreDamaged(f"{what}: version {VERSION} wanted, {version} found")
    found = zlib.crc32(memoryview(head)[_SUMMED:])
    if found != crc:
        raise StoreDamaged(f"{what}: the head has CRC-32 {found:#x}, {crc:#x} wanted")
    wanted = _PROLOGUE.size + length + (0 if chunk else size)
    if len(head) != wanted or (chunk and -(-size // chunk) > _MAX_PARTS):
        raise StoreDamaged(
            f"{what}: {len(head)} bytes of head, a record of {length}, {size} in parts of {chunk}"
        )
    body = memoryview(head)[_PROLOGUE.size + length :]
    try:
        record = read_record(unpack(head[_PROLOGUE.size : _PROLOGUE.size + length]), size)
    except SchemaError as error:
        raise StoreDamaged(f"{what}: {error}") from error
    return Head(record, generation.hex(), chunk, size, body)


class Names:
    """The names of the server's keys in a namespace.

    Raises
    ------
    TypeError, ValueError : it cannot be one.
    """

    def __init__(self, namespace: Any) -> None:
        if not isinstance(namespace, str):
            raise TypeError(f"namespace is a str; {type(namespace).__name__} found")
        if not _SPACE.fullmatch(namespace):
            raise ValueError(
                f"namespace {namespace!r:.120}: 1 to 100 letters, digits or any of _.:/@+- wanted"
            )
        self._heads = f"{namespace}:head:{{"
        self._parts = f"{namespace}:part:{{"
        self._spares = f"{namespace}:spare:{{"
        self.events = f"{namespace}:events"

    def head(self, key: str) -> bytes:
        return f"{self._heads}{key.translate(_ESCAPES)}}}".encode()

    def part(self, key: str, generation: str, n: int) -> bytes:
        return f"{self._parts}{key.translate(_ESCAPES)}}}:{generation}:{n}".encode()

    def spare(self, key: str, chunk: int, n: int) -> bytes:
        return f"{self._spares}{key.translate(_ESCAPES)}}}:{chunk}:{n}".encode()

    def parts(self, key: str, head: Head) -> list[bytes]:
        """Return the names of all parts of an object."""
        return [self.part(key, head.generation, n) for n in range(head.n_parts)]

    def pattern_of_heads(self, prefix: str) -> bytes:
        """Return what the heads of all keys with a prefix match (as SCAN matches)."""
        return _quoted(self._heads + prefix.translate(_ESCAPES)) + b"*}"

    def pattern_of_parts(self, key: str) -> bytes:
        """Return what the parts of an object match, of whatever generation."""
        return _quoted(f"{self._parts}{key.translate(_ESCAPES)}}}:") + b"*"

    def key_of(self, head: bytes) -> str | None:
        """Return the key of a head's name; None: it is none that we made."""
        try:
            name = head.decode()
        except UnicodeDecodeError:
            return None
        key = unquote(name[len(self._heads) : -1])
        return key if self.head(key) == head else None


def _quoted(text: str) -> bytes:
    return re.sub(r"([\\*?\[\]^-])", r"\\\1", text).encode()
