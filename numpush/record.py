"""The record of an object: its schema, and of each buffer the length (and checksum).

What the wire sends and the stores keep before an object's data. It is packed by the layout codec's
msgpack; its fields: "schema", "buffers" (their lengths), "crc32" (of each, or absent), "as" ("series":
the frame of one column is a Series; "code": the bytes are signed code; else absent), and in stores
"dtypes" (names, for who only looks).

(1) It may be damaged, or come from a stranger. What is read here is checked; the schema itself is
    checked by the layout codec's `rebuild`.
"""

from __future__ import annotations

import sys
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .blocks import place
from .code.signed import SignedCode
from .layout import ALIGNMENT, Buffer, Schema, SchemaError, describe

if TYPE_CHECKING:
    from .shm.segment import Segment

__all__ = [
    "Record",
    "body_parts",
    "check_sums",
    "checksum_of",
    "describe_object",
    "read_record",
    "reveal",
]

Raw = NDArray[np.uint8]

_MAX_BUFFERS = 1 << 20
#: What is not dense is gathered in parts of so many bytes, when it is sent or summed up.
_GATHER = 4 << 20
_ZEROS = bytes(ALIGNMENT)


@dataclass(frozen=True)
class Record:
    """What is known of an object before its data is read.

    Attributes
    ----------
    schema : of the layout codec. Checked by its `rebuild`, not here
    sizes : bytes of each buffer
    size : bytes of all of them, as they lie in the segment
    checksums : the CRC-32 of each buffer, or None
    form : "series", "code", or "": what the schema says
    dtypes : names of the columns' dtypes, or None
    """

    schema: Schema
    sizes: list[int]
    size: int
    checksums: list[int] | None
    form: str
    dtypes: list[str] | None = None


def describe_object(
    obj: Any, *, checksum: bool = False, keep_blocks: bool = True
) -> tuple[dict[str, Any], list[Buffer]]:
    """Describe an object: the fields of its record, and its buffers. Copies nothing.

    Reads all of it for a *checksum*. *keep_blocks* as for `layout.describe`.

    Raises
    ------
    TypeError : it is no ndarray, DataFrame or Series, or holds Python objects that have no layout.
    """
    fields: dict[str, Any] = {}
    frame = _frame_of_series(obj)
    if frame is not None:
        obj = frame
        fields["as"] = "series"
    elif isinstance(obj, SignedCode):
        obj = np.frombuffer(obj, np.uint8)
        fields["as"] = "code"
    schema, buffers = describe(obj, keep_blocks=keep_blocks)
    if schema["kind"] not in ("ndarray", "frame"):
        raise TypeError(f"a {type(obj).__name__} is no ndarray, DataFrame or Series")
    fields["schema"], fields["buffers"] = schema, [buffer.nbytes for buffer in buffers]
    if checksum:
        fields["crc32"] = [checksum_of(buffer) for buffer in buffers]
    return fields, buffers


def body_parts(buffers: list[Buffer]) -> list[Any]:
    """Give an object's data as it will lie in a segment, part by part: each buffer at a multiple of 64.

    Parts are views of the object's own memory where that is dense.
    """
    parts: list[Any] = []
    end = 0
    for buffer in buffers:
        padding = -end % ALIGNMENT
        if padding:
            parts.append(_ZEROS[:padding])
        parts.extend(buffer.parts(_GATHER))
        end += padding + buffer.nbytes
    return parts


def checksum_of(buffer: Buffer) -> int:
    """Return the CRC-32 of a buffer."""
    crc = 0
    for part in buffer.parts(_GATHER):
        crc = zlib.crc32(part.data, crc)
    return crc


def _frame_of_series(obj: Any) -> Any:
    """Return a Series as the frame of one column that SSeries keeps it as; None: it is none."""
    pandas = sys.modules.get("pandas")
    if pandas is None or not isinstance(obj, pandas.Series):
        return None
    from .sseries import frame_of

    return frame_of(obj)


def read_record(fields: dict[str, Any], size: int) -> Record:
    """Read and check the fields of an object with *size* bytes of data; rule (1).

    Raises
    ------
    SchemaError : they are none, or their lengths do not add up to *size*.
    """
    sizes = fields.get("buffers")
    if type(sizes) is not list or len(sizes) > _MAX_BUFFERS or not _are_counts(sizes, size):
        raise SchemaError("'buffers': a list of the buffers' lengths wanted")
    schema = fields.get("schema")
    if type(schema) is not dict or schema.get("kind") not in ("ndarray", "frame"):
        raise SchemaError("'schema': that of an ndarray or a frame wanted")
    if place(sizes)[1] != size:
        raise SchemaError(f"buffers of {place(sizes)[1]} bytes announced, {size} to come")
    checksums = fields.get("crc32")
    if checksums is not None and (
        type(checksums) is not list
        or len(checksums) != len(sizes)
        or not _are_counts(checksums, (1 << 32) - 1)
    ):
        raise SchemaError("'crc32': a checksum for each buffer wanted")
    form = fields.get("as")
    if form == "series" and (schema["kind"] != "frame" or schema.get("cols") != 1):
        raise SchemaError("'as': a series is a frame of one column")
    if form == "code" and (schema["kind"] != "ndarray" or schema.get("dtype") != "|u1"):
        raise SchemaError("'as': code is an array of bytes")
    form = form if form in ("series", "code") else ""
    dtypes = fields.get("dtypes")
    if dtypes is not None and (
        type(dtypes) is not list
        or len(dtypes) != schema.get("cols")
        or not all(type(each) is str for each in dtypes)
    ):
        raise SchemaError("'dtypes': a name for each column wanted")
    return Record(schema, sizes, size, checksums, form, dtypes)


def _are_counts(values: list[Any], most: int) -> bool:
    return all(type(value) is int and 0 <= value <= most for value in values)


def check_sums(record: Record, raw: list[Raw]) -> None:
    """Check the buffers against the checksums, if there are any.

    Raises
    ------
    SchemaError : one does not hold.
    """
    for i, wanted in enumerate(record.checksums or ()):
        found = zlib.crc32(raw[i].data)
        if found != wanted:
            raise SchemaError(f"buffer {i}: CRC-32 {wanted:#x} announced, {found:#x} found")


def reveal(record: Record, segment: Segment, token: Any) -> Any:
    """Commit the segment that an object has landed in, whole and validated, and return the object."""
    from .attaching import from_segment

    segment.commit()
    obj: Any = from_segment({"schema": record.schema}, segment, token, "rw")
    if record.form == "series":
        from .sseries import SSeries

        return SSeries._over(obj)
    return obj
