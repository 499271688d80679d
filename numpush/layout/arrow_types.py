"""Arrow types as plain msgpack: [name, parameters...]; and pyarrow itself, loaded when it is needed.

The code of a nested type is only its head, ["list"] or ["map", keys_sorted]: what it holds are nodes of
its own, whose types follow from what is built of them. So a type is said once, and its depth is that
of the nodes. Arrow's own form of a schema (IPC, a flatbuffer) is not used: pyarrow would read one from
a stranger before we could check a number of it, and rebuild extension types that it names.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import Any

import numpy as np

from .schema import SchemaError, found

#: Nodes inside an Arrow array: lists of structs of lists ..
MAX_DEPTH = 24
#: No machine has the bytes for more rows, and sums of sizes stay within 64 bits.
MAX_ROWS = 2**48

_FLAT = (
    *("bool_", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
    *("float16", "float32", "float64", "date32", "date64", "null", "month_day_nano_interval"),
    *("string", "large_string", "binary", "large_binary", "string_view", "binary_view"),
)
#: pyarrow's str() of a type where that is not its factory's name.
_FACTORY = {
    "halffloat": "float16",
    "float": "float32",
    "double": "float64",
    "bool": "bool_",
    "date32[day]": "date32",
    "date64[ms]": "date64",
}
_DECIMALS = ("decimal32", "decimal64", "decimal128", "decimal256")
#: Types of variable width, and of their offsets.
OFFSETS: dict[str, np.dtype[Any]] = {
    **dict.fromkeys(("string", "binary", "list", "list_view", "map"), np.dtype("<i4")),
    **dict.fromkeys(
        ("large_string", "large_binary", "large_list", "large_list_view"), np.dtype("<i8")
    ),
}
#: Views lie in many buffers, in any order: they travel as their dense twin, and are made anew.
VIEWS = {"string_view": "large_string", "binary_view": "large_binary"}
LIST_VIEWS = {"list_view": "list_", "large_list_view": "large_list"}
#: Extension types without parameters, by their registered names.
_EXTENSIONS = ("arrow.uuid", "arrow.bool8", "arrow.json")


def pyarrow_here() -> bool:
    """Whether pyarrow can be imported."""
    if sys.modules.get("pyarrow") is not None:  # find_spec looks into folders, 40 us
        return True
    return find_spec("pyarrow") is not None


def load_pyarrow() -> ModuleType:
    """Import pyarrow, or say which extra has it."""
    try:
        return import_module("pyarrow")
    except ImportError as error:
        raise ImportError(
            'Arrow data needs pyarrow, which is missing: pip install "numpush[arrow]"'
        ) from error


def encode_type(kind: Any) -> list[Any] | None:
    """Give the code of an Arrow type, of a nested one its head; None for one that has no layout.

    Those are unions and extension types of one's own. A dictionary's is that of its indices.
    """
    types = load_pyarrow().types
    name = _FACTORY.get(str(kind), str(kind))
    if name in _FLAT:
        return [name]
    if types.is_timestamp(kind):
        return ["timestamp", kind.unit, kind.tz]
    if types.is_time32(kind) or types.is_time64(kind):
        return ["time32" if types.is_time32(kind) else "time64", kind.unit]
    if types.is_duration(kind):
        return ["duration", kind.unit]
    if types.is_decimal(kind):
        return [f"decimal{kind.bit_width}", kind.precision, kind.scale]
    if types.is_fixed_size_binary(kind):
        return ["fixed", kind.byte_width]
    return _encode_nested(kind, types)


def _encode_nested(kind: Any, types: Any) -> list[Any] | None:
    for name in ("list", "large_list", "list_view", "large_list_view", "struct"):
        test = getattr(types, f"is_{name}", None)  # pyarrow 15 has no views
        if test is not None and test(kind):
            return [name]
    if types.is_map(kind):
        return ["map", kind.keys_sorted]
    if types.is_fixed_size_list(kind):
        return ["fixed_list", kind.list_size]
    if types.is_run_end_encoded(kind):
        return ["run_ends", str(kind.run_end_type)]
    name = getattr(kind, "extension_name", "")
    if name in _EXTENSIONS and make_extension(name, kind.storage_type) == kind:
        return ["extension", name]
    return None


def make_extension(name: object, storage: Any) -> Any:
    """Make an extension type that pyarrow itself knows."""
    pa = load_pyarrow()
    if name not in _EXTENSIONS:
        raise SchemaError(f"schema 'type': one of {_EXTENSIONS} wanted, {found(name)}")
    if name == "arrow.json":
        return pa.json_(storage)
    return pa.uuid() if name == "arrow.uuid" else pa.bool8()


def decode_type(code: object) -> Any:
    """Give the Arrow type of the code of a flat type."""
    pa = load_pyarrow()
    name, *rest = read_code(code)
    factories: dict[str, tuple[Callable[..., Any], tuple[type | tuple[type, ...], ...]]] = {
        "timestamp": (pa.timestamp, (str, (str, type(None)))),
        "time32": (pa.time32, (str,)),
        "time64": (pa.time64, (str,)),
        "duration": (pa.duration, (str,)),
    }
    try:
        if name in _FLAT and not rest:
            return getattr(pa, name)()
        if name == "fixed" and len(rest) == 1 and type(rest[0]) is int and 0 <= rest[0] < 2**28:
            return pa.binary(rest[0])
        if name in _DECIMALS and len(rest) == 2 and all(type(part) is int for part in rest):
            return getattr(pa, name)(*rest)
        factory, wanted = factories[name]
        if len(rest) == len(wanted) and all(map(isinstance, rest, wanted)):
            return factory(*rest)
    except (KeyError, ValueError, TypeError, AttributeError, OverflowError) as error:
        raise SchemaError(f"schema 'type': {found(code)}: {error!r}") from error
    raise SchemaError(f"schema 'type': a known Arrow type wanted, {found(code)}")


def read_code(code: object) -> list[Any]:
    """Check that a type's code is a list that begins with a name."""
    if type(code) is not list or not code or type(code[0]) is not str:
        raise SchemaError(f"schema 'type': [name, ...] wanted, {found(code)}")
    return code


def read_field(value: object) -> tuple[str, bool, dict[bytes, bytes] | None, object]:
    """Check a field: its name, whether it may be null, its metadata, its node."""
    if type(value) is list and len(value) == 4:
        name, is_nullable, pairs, node = value
        if type(name) is str and type(is_nullable) is bool and (pairs is None or _is_pairs(pairs)):
            return name, is_nullable, pairs and dict(pairs), node
    raise SchemaError(f"schema 'fields': [name, nullable, metadata, node] wanted, {found(value)}")


def _is_pairs(pairs: object) -> bool:
    return type(pairs) is list and all(
        type(pair) is list and len(pair) == 2 and all(type(part) is bytes for part in pair)
        for pair in pairs
    )


def encode_field(field: Any, node: dict[str, Any]) -> list[Any]:
    """Give the code of a field of a nested type."""
    pairs = [list(pair) for pair in field.metadata.items()] if field.metadata else None
    return [field.name, field.nullable, pairs, node]
