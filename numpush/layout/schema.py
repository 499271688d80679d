"""The schema: what a description is made of, how it is packed, and how its fields are read.

A schema is a dict of str keys over None, bool, int, float, str, bytes, list and dict, and nothing
else: no pickle, no ext types. Its top level carries the codec's version under "v" and, like every
node below it, a "kind" that names the module which reads it. Bulk data is meant by a buffer's
index (int) or, for small labels, stands in the schema itself (bytes).

(1) A schema may come from a hostile peer. Every field is read through the functions below, which
    check type and range before the value is used for anything.
(2) Keys that a kind does not know are ignored; a change that old readers would misread raises
    VERSION.
"""

from __future__ import annotations

import reprlib
from typing import Any

import msgpack  # type: ignore[import-untyped,unused-ignore]  # stubs may be there or not

Node = dict[str, Any]
Schema = dict[str, Any]

VERSION = 2
#: Bytes a packed schema may have. 1000 columns need about 10 KB; the rest is room for attrs.
MAX_PACKED = 16 << 20
INT64_MAX = 2**63 - 1


class SchemaError(ValueError):
    """The schema is damaged, from another version, or does not fit its buffers.

    You get it from `rebuild` and `unpack`, before anything was built. An object that has no
    layout is a TypeError from `describe`; a missing pyarrow is an ImportError.
    """


def pack(schema: Schema) -> bytes:
    """Turn a schema into msgpack bytes.

    Lone surrogates in labels survive (they are legal in a Python str, so they may be labels).

    Raises
    ------
    ValueError : the schema is larger than `MAX_PACKED`; in practice, attrs are.
    TypeError : it holds something that `describe` would not have put there.
    """
    packed: bytes = msgpack.packb(schema, use_bin_type=True, unicode_errors="surrogatepass")
    if len(packed) > MAX_PACKED:
        raise ValueError(
            f"schema has {len(packed)} bytes, at most {MAX_PACKED} can travel: are attrs large?"
        )
    return packed


def unpack(packed: bytes | bytearray | memoryview) -> Schema:
    """Read a schema from msgpack bytes.

    Memory is bounded by the length of `packed`: a header that claims more elements than there
    are bytes is refused.

    Raises
    ------
    SchemaError : not msgpack, trailing bytes, too large, ext types, or not a dict.
    """
    size = len(packed)
    if size > MAX_PACKED:
        raise SchemaError(f"packed schema: at most {MAX_PACKED} bytes wanted, {size} found")
    try:
        schema = msgpack.unpackb(
            packed,
            raw=False,
            strict_map_key=True,
            unicode_errors="surrogatepass",
            ext_hook=_refuse_ext,
            max_str_len=size,
            max_bin_len=size,
            max_array_len=size,
            max_map_len=size,
            max_ext_len=0,
        )
    except SchemaError:
        raise
    except (ValueError, TypeError, RecursionError, msgpack.UnpackException) as error:
        raise SchemaError(f"packed schema: msgpack wanted, found {error!r}") from error
    if type(schema) is not dict:
        raise SchemaError(f"packed schema: a dict wanted, {type(schema).__name__} found")
    return schema


def _refuse_ext(code: int, data: bytes) -> object:
    raise SchemaError(f"packed schema: no ext types wanted, type {code} found")


def found(value: object) -> str:
    """Say what was found in a schema, in a few characters whatever its size."""
    return f"{reprlib.repr(value)} found"


def read_int(node: Node, key: str, low: int = 0, high: int = INT64_MAX) -> int:
    """Read an int between `low` and `high`, both included."""
    value = node.get(key)
    if type(value) is not int or not low <= value <= high:
        raise SchemaError(f"schema {key!r}: an int in [{low}, {high}] wanted, {found(value)}")
    return value


def read_str(node: Node, key: str) -> str:
    """Read a str."""
    value = node.get(key)
    if type(value) is not str:
        raise SchemaError(f"schema {key!r}: a str wanted, {found(value)}")
    return value


def read_choice(node: Node, key: str, choices: tuple[str, ...]) -> str:
    """Read a str that is one of `choices`."""
    value = node.get(key)
    if type(value) is not str or value not in choices:
        raise SchemaError(f"schema {key!r}: one of {choices} wanted, {found(value)}")
    return value


def read_bool(node: Node, key: str, default: bool | None = None) -> bool:
    """Read a bool; with a `default` the key may be absent."""
    value = node.get(key, default)
    if type(value) is not bool:
        raise SchemaError(f"schema {key!r}: a bool wanted, {found(value)}")
    return value


def read_list(node: Node, key: str) -> list[Any]:
    """Read a list."""
    value = node.get(key)
    if type(value) is not list:
        raise SchemaError(f"schema {key!r}: a list wanted, {found(value)}")
    return value


def read_node(value: object, what: str) -> Node:
    """Check that `value` is a dict, as nodes are."""
    if type(value) is not dict:
        raise SchemaError(f"schema {what}: a dict wanted, {found(value)}")
    return value


def read_shape(value: object, what: str) -> tuple[int, ...]:
    """Check a shape: a list of at most 32 ints, none negative (NumPy 1's limit of dimensions)."""
    if type(value) is not list or len(value) > 32:
        raise SchemaError(f"schema {what}: a list of at most 32 ints wanted, {found(value)}")
    for size in value:
        if type(size) is not int or not 0 <= size <= INT64_MAX:
            raise SchemaError(f"schema {what}: sizes in [0, 2**63) wanted, {found(size)}")
    return tuple(value)
