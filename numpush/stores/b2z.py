"""A .b2z file: a zip whose members are frames of blosc2, stored as they are. `blosc2.TreeStore` opens it.

    NAME.b2nd         an array, by its name; slashes make groups
    __vlmeta__.b2f    what was said of the whole: an empty super-chunk with vlmetalayers
    embed.b2e         an empty super-chunk by which blosc2 knows a tree

(1) Members are not compressed once more, so each is read where it lies.
(2) The head of a member has its CRC-32, which is known last; it is written then. Sizes from 4 GiB on are
    in zip64 form.
"""

from __future__ import annotations

import io
import os
import struct
import zipfile
import zlib
from typing import Any, NamedTuple

from ..layout import pack
from .blosc2_writing import Output
from .cframe import encode_header, encode_trailer

__all__ = ["Member", "ZipWriter", "read_members", "write_tree_marks"]

_LOCAL = struct.Struct("<4s5H3I2H")
_CENTRAL = struct.Struct("<4s6H3I5H2I")
_END64 = struct.Struct("<4sQ2H2I4Q")
_LOCATOR = struct.Struct("<4sIQI")
_END = struct.Struct("<4s4H2IH")
_SMALL = 0xFFFFFFFF
_UTF8 = 0x800
_DATE = 0x21  #: 1980-01-01: the same object gives the same file
_VERSION = 45  #: of the format of zip files, with zip64
_MOST_MEMBERS = 1 << 20


class Member(NamedTuple):
    """Where a member's bytes lie."""

    at: int
    size: int


class ZipWriter:
    """Writes members one behind the other, and where they are at the end; rule (2)."""

    def __init__(self, out: Output) -> None:
        self._out = out
        self._entries: list[tuple[bytes, int, int, int]] = []
        self._name, self._start, self._data = b"", 0, 0

    def begin(self, name: str) -> None:
        self._name, self._start = name.encode(), self._out.end
        self._out.write(self._head(0, 0))
        self._data = self._out.end

    def finish(self, crc: int) -> None:
        size = self._out.end - self._data
        self._out.write_again(self._head(crc, size), self._start)
        self._entries.append((self._name, crc, size, self._start))

    def _head(self, crc: int, size: int) -> bytes:
        extra = struct.pack("<2H2Q", 1, 16, size, size)  # always, as its room is kept before
        return (
            _LOCAL.pack(
                b"PK\3\4", _VERSION, _UTF8, 0, 0, _DATE, crc, _SMALL, _SMALL, len(self._name),
                len(extra),
            )
            + self._name
            + extra
        )  # fmt: skip

    def close(self) -> None:
        """Write where the members are."""
        start = self._out.end
        for name, crc, size, at in self._entries:
            extra = struct.pack("<2H3Q", 1, 24, size, size, at)
            head = _CENTRAL.pack(
                b"PK\1\2", _VERSION, _VERSION, _UTF8, 0, 0, _DATE, crc, _SMALL, _SMALL, len(name),
                len(extra), 0, 0, 0, 0, _SMALL,
            )  # fmt: skip
            self._out.write(head + name + extra)
        size, end, n = self._out.end - start, self._out.end, len(self._entries)
        self._out.write(_END64.pack(b"PK\6\6", 44, _VERSION, _VERSION, 0, 0, n, n, size, start))
        self._out.write(_LOCATOR.pack(b"PK\6\7", 0, end, 1))
        few = min(n, 0xFFFF)
        self._out.write(
            _END.pack(b"PK\5\6", 0, 0, few, few, min(size, _SMALL), min(start, _SMALL), 0)
        )
        self._out.flush()


def write_tree_marks(writer: ZipWriter, out: Output, note: dict[str, Any]) -> None:
    """Write the members that make a tree of a zip; *note* is its vlmetalayer "numpush"."""
    embedded = {"embed_map": {}, "current_offset": 0}
    marks: list[tuple[str, dict[str, bytes], dict[str, bytes]]] = [
        ("__vlmeta__.b2f", {}, {"numpush": pack(note)}),
        ("embed.b2e", {"b2tree": pack({"version": 1})}, {"estore_metadata": pack(embedded)}),
    ]
    for name, layers, said in marks:
        rest = encode_trailer(said)
        frame = encode_header(
            0, 0, len(rest), layers, itemsize=1, block=0, chunk=1 << 13, has_vl_layers=True,
            codec="zstd", level=5, filter="shuffle",
        ) + rest  # fmt: skip
        writer.begin(name)
        out.write(frame)
        writer.finish(zlib.crc32(frame))


def read_members(fd: int) -> dict[str, Member]:
    """Return where the members of a zip file are.

    Raises
    ------
    ValueError : it is no zip, or a member is compressed, or lies outside of the file.
    OSError
    """
    size = os.fstat(fd).st_size
    try:
        with zipfile.ZipFile(_File(fd, size)) as archive:
            entries = archive.infolist()
    except (
        zipfile.BadZipFile, NotImplementedError, struct.error, ValueError, OverflowError, IndexError,
        EOFError,
    ) as error:  # fmt: skip
        raise ValueError(f"no zip file: {error}") from error
    if len(entries) > _MOST_MEMBERS:
        raise ValueError(f"{len(entries)} members, at most {_MOST_MEMBERS} are read")
    return {entry.filename: _locate(fd, size, entry) for entry in entries}


def _locate(fd: int, size: int, entry: zipfile.ZipInfo) -> Member:
    if entry.compress_type != zipfile.ZIP_STORED or entry.compress_size != entry.file_size:
        raise ValueError(f"member {entry.filename!r} is compressed; it is to be stored as it is")
    at = entry.header_offset
    head = os.pread(fd, _LOCAL.size, at) if 0 <= at < size else b""
    if len(head) < _LOCAL.size or head[:4] != b"PK\3\4":
        raise ValueError(f"member {entry.filename!r}: nothing at {at}")
    width, extra = struct.unpack_from("<2H", head, 26)
    start = at + _LOCAL.size + width + extra
    if start + entry.file_size > size:
        raise ValueError(f"member {entry.filename!r}: {entry.file_size} bytes at {start}")
    return Member(start, entry.file_size)


class _File(io.RawIOBase):
    """An fd that stays open, read from any place, for zipfile."""

    def __init__(self, fd: int, size: int) -> None:
        self._fd, self._size, self._at = fd, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        if base + offset < 0:
            raise ValueError(f"a place of {base + offset}")
        self._at = base + offset
        return self._at

    def readinto(self, buffer: Any) -> int:
        n = os.preadv(self._fd, [buffer], self._at)
        self._at += n
        return n
