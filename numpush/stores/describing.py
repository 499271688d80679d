"""What a store keeps of an object besides its data, and what `stat` tells of it."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..blocks import place
from ..layout import Buffer, SchemaError, pack
from ..layout import selection as _selection
from ..layout.dtype import decode_dtype
from ..layout.schema import read_int, read_shape
from ..record import checksum_of, describe_object
from .errors import StoreDamaged
from .fetching import Piece, Stored
from .store import Stat

__all__ = ["describe_fields", "describe_for_store", "stat_of"]


def describe_for_store(obj: Any, *, checksum: bool = False) -> tuple[bytes, list[Buffer], int]:
    """Return an object's record, packed; its buffers; and the bytes of these as they lie.

    Raises
    ------
    TypeError : it has no layout.
    ValueError : its attrs are too large for a record.
    """
    fields, buffers = describe_fields(obj, checksum=checksum)
    return pack(fields), buffers, place(fields["buffers"])[1]


def describe_fields(
    obj: Any, *, checksum: bool = False, c_order: bool = False
) -> tuple[dict[str, Any], list[Buffer]]:
    """Return the fields of an object's record, and its buffers; errors as of `describe_for_store`.

    *c_order*: arrays in C order, whatever they have in memory, which are copied part by part then.
    """
    fields, buffers = describe_object(obj, checksum=checksum, keep_blocks=False)
    if c_order and fields["schema"].get("order", "C") != "C":
        fields["schema"]["order"] = "C"
        buffers = [Buffer.of(obj.view(np.ndarray))]
        if checksum:
            fields["crc32"] = [checksum_of(buffer) for buffer in buffers]
    if fields["schema"]["kind"] == "frame":
        dtypes = [obj.dtype] if fields.get("as") == "series" else obj.dtypes
        fields["dtypes"] = [str(dtype) for dtype in dtypes]
    return fields, buffers


def stat_of(
    key: str, stored: Stored, size: int, form: str, more: dict[str, Any] | None = None
) -> Stat:
    """Describe an object that takes *size* bytes in its store, from its record.

    Raises
    ------
    StoreDamaged : its schema is.
    """
    record, more = stored.record, more or {}
    schema = record.schema
    dtypes: str | dict[Any, str]
    try:
        if schema["kind"] == "ndarray":
            shape = read_shape(schema.get("shape"), "'shape'")
            dtypes = str(decode_dtype(schema.get("dtype")))
            return Stat(key, "array", shape, dtypes, record.size, size, form, more)
        shape = read_int(schema, "rows"), read_int(schema, "cols")
        names = record.dtypes or ["?"] * shape[1]
        if record.form == "series":
            return Stat(key, "series", shape[:1], names[0], record.size, size, form, more)
        known = {i: np.empty(record.sizes[i], np.uint8) for i in _selection.label_buffers(schema)}
        stored.read(
            [Piece(i, 0, len(raw), raw) for i, raw in known.items() if len(raw)],
            None,
            lambda n: None,
        )
        dtypes = dict(zip(_selection.read_labels(schema, known), names))
    except (SchemaError, IndexError) as error:
        raise StoreDamaged(f"{stored.what}: {error}") from error
    return Stat(key, "frame", shape, dtypes, record.size, size, form, more)
