"""What people call the dtypes that a schema means. For them to read: nothing is rebuilt by it."""

from __future__ import annotations

from collections import Counter
from typing import Any

from .dtype import decode_dtype
from .schema import Node, Schema

__all__ = ["column_dtypes", "dtype_name"]

#: Of array nodes that pandas calls otherwise than we do.
_KINDS = {"categorical": "category", "values": "object", "pickled": "object", "text": "string"}


def dtype_name(code: Any) -> str:
    """Return what people call the dtype that *code* of a schema means. Raises SchemaError."""
    dtype = decode_dtype(code)
    if dtype.names is not None:
        return "structured"
    return dtype.name if dtype.isnative and dtype.kind in "biufcmM" else dtype.str


def column_dtypes(schema: Schema) -> dict[str, int]:
    """Return how many columns of a frame are of each dtype, about as pandas calls it.

    Raises
    ------
    SchemaError, KeyError, TypeError, ValueError : the schema is damaged.
    """
    found: Counter[str] = Counter()
    for block in schema["blocks"]:
        found[_block_name(block)] += int(block["count"])
    for _, node in schema["arrays"]:
        found[_array_name(node)] += 1
    return dict(found)


def _block_name(block: Node) -> str:
    name = dtype_name(block["dtype"])
    if "zone" in block:
        return name.replace("]", ", zoned]")
    return "period" if "freq" in block else name


def _array_name(node: Node) -> str:
    kind = str(node["kind"])
    if kind == "ndarray":
        return dtype_name(node["dtype"])
    if kind == "masked":  # Int64 and Float32, but boolean
        name = dtype_name(node["dtype"])
        return {"b": "boolean", "u": name.replace("ui", "UI")}.get(name[0], name.capitalize())
    return _KINDS.get(kind, kind)
