"""How many bytes of text each column of each row group has, as a Parquet file itself says.

Since format 2.11 a file may say so (SizeStatistics.unencoded_byte_array_data_bytes; pyarrow 20 and later
do); pyarrow 26 does not show it. So its footer, which is Thrift's compact protocol, is read here, as
far as that needs. It saves decoding every string twice.

A footer that cannot be understood says nothing, and neither does a large one: this takes about a
second for 4 MB.

Source: parquet.thrift (FileMetaData 4 > RowGroup 1 > ColumnChunk 3 > ColumnMetaData 16 > 1), and
thrift-compact-protocol.md.
"""

from __future__ import annotations

import io
from typing import Any

__all__ = ["read_text_sizes"]

_MOST = 4 << 20
_MAX_DEPTH = 16

_TRUE, _FALSE, _BYTE, _DOUBLE, _BINARY, _LIST, _SET, _STRUCT = 1, 2, 3, 7, 8, 9, 10, 12
_INTS = (4, 5, 6)


def read_text_sizes(metadata: Any) -> list[list[int | None]]:
    """Give, for each row group, the bytes of text of each leaf column, or None; [] if unknown."""
    if metadata.serialized_size > _MOST:
        return []
    out = io.BytesIO()
    metadata.write_metadata_file(out)
    raw = out.getvalue()
    try:
        footer, _ = _read_struct(raw[4:-8], 0, 0)  # between two "PAR1" and a length
        return [[_size_of(chunk) for chunk in group[1]] for group in footer[4]]
    except (AttributeError, IndexError, KeyError, TypeError, ValueError):
        return []


def _size_of(chunk: Any) -> int | None:
    size = chunk[3].get(16, {}).get(1)
    return size if type(size) is int and size >= 0 else None


def _read_varint(raw: bytes, at: int) -> tuple[int, int]:
    result = shift = 0
    while True:
        byte = raw[at]
        at += 1
        result |= (byte & 127) << shift
        if byte < 128:
            return result, at
        shift += 7
        if shift > 63:
            raise ValueError("a varint of more than 64 bits")


def _read_int(raw: bytes, at: int) -> tuple[int, int]:
    n, at = _read_varint(raw, at)
    return (n >> 1) ^ -(n & 1), at


def _read_value(raw: bytes, at: int, kind: int, depth: int) -> tuple[Any, int]:
    if kind in (_TRUE, _FALSE):
        return kind == _TRUE, at
    if kind == _BYTE:
        return raw[at], at + 1
    if kind in _INTS:
        return _read_int(raw, at)
    if kind == _DOUBLE:
        return None, at + 8
    if kind == _BINARY:
        n, at = _read_varint(raw, at)
        return None, at + n
    if kind in (_LIST, _SET):
        return _read_list(raw, at, depth + 1)
    if kind == _STRUCT:
        return _read_struct(raw, at, depth + 1)
    raise ValueError(f"kind {kind}")


def _read_list(raw: bytes, at: int, depth: int) -> tuple[list[Any], int]:
    head = raw[at]
    at += 1
    n, kind = head >> 4, head & 15
    if n == 15:
        n, at = _read_varint(raw, at)
    if n > len(raw):
        raise ValueError(f"a list of {n} items")
    items = []
    for _ in range(n):
        if kind in (_TRUE, _FALSE):  # in a list they take a byte
            item, at = raw[at] == _TRUE, at + 1
        else:
            item, at = _read_value(raw, at, kind, depth)
        items.append(item)
    return items, at


def _read_struct(raw: bytes, at: int, depth: int) -> tuple[dict[int, Any], int]:
    if depth > _MAX_DEPTH:
        raise ValueError("nested too deep")
    fields: dict[int, Any] = {}
    number = 0
    while True:
        head = raw[at]
        at += 1
        if head == 0:
            return fields, at
        if head >> 4:
            number += head >> 4
        else:
            number, at = _read_int(raw, at)
        fields[number], at = _read_value(raw, at, head & 15, depth)
