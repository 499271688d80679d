"""Nodes and buffers to Arrow arrays: the buffers are handed to Arrow as they are.

Rules and nodes stand in arrow.py. What nested arrays hold is built first; their own lengths, and both
ends of their offsets, are then checked against it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .arrow_types import (
    MAX_DEPTH,
    MAX_ROWS,
    OFFSETS,
    VIEWS,
    decode_type,
    load_pyarrow,
    make_extension,
    read_code,
    read_field,
)
from .schema import Node, SchemaError, found, read_int, read_list, read_node
from .source import Source

_BYTE = np.dtype(np.uint8)
_MAX_INT32 = 2**31 - 1

#: (name, nullable, metadata, array) of each field
Fields = list[tuple[str, bool, dict[bytes, bytes] | None, Any]]


def rebuild_arrow_array(value: object, source: Source, *, strings: bool = False) -> Any:
    """Build a pyarrow Array over its buffers; no copy, whose buffers' bases are ours.

    Parameters
    ----------
    strings : bool
        Only large_string may come.
    """
    result = _build(value, source, 0)
    if strings and result.type != load_pyarrow().large_string():
        raise SchemaError(f"schema 'type': large_string wanted, {found(str(result.type))}")
    if source.validate:
        result.validate(full=True)
    return result


def _build(value: object, source: Source, depth: int) -> Any:
    if depth > MAX_DEPTH:
        raise SchemaError(f"schema 'arrow': at most {MAX_DEPTH} nested nodes wanted, more found")
    node = read_node(value, "'arrow'")
    if node.get("kind") != "arrow":
        raise SchemaError(f"schema 'arrow': an Arrow node wanted, {found(node.get('kind'))}")
    n_rows = read_int(node, "rows", 0, MAX_ROWS)
    name = read_code(node.get("type"))[0]
    validity = None
    if node.get("validity") is not None:
        validity = _bitmap(node["validity"], n_rows, source, "'validity'")
    builder = _NESTED.get(name)
    if builder is not None:
        return builder(node, n_rows, validity, source, depth)
    result = _build_flat(node, n_rows, validity, source)
    if "dictionary" not in node:
        return result
    pa = load_pyarrow()
    labels = _build(node["dictionary"], source, depth + 1)
    if not pa.types.is_integer(result.type):
        raise SchemaError(f"schema 'type': integer indices wanted, {found(name)}")
    ordered = node.get("ordered") is True
    return pa.DictionaryArray.from_arrays(result, labels, ordered=ordered, safe=source.validate)


def _build_flat(node: Node, n_rows: int, validity: Any, source: Source) -> Any:
    pa = load_pyarrow()
    kind = decode_type(node["type"])
    name = node["type"][0]
    if name in VIEWS:
        dense = getattr(pa, VIEWS[name])()
        data = _variable(node, OFFSETS[VIEWS[name]], n_rows, source)
        array = _wrap(dense, n_rows, [validity, *data])
        array.validate(full=True)  # views are made of the offsets now, O(n) in any case
        return array.cast(kind)
    if name == "null":
        return _wrap(kind, n_rows, [None], nulls=n_rows)
    if name in OFFSETS:
        return _wrap(kind, n_rows, [validity, *_variable(node, OFFSETS[name], n_rows, source)])
    if name == "bool_":
        return _wrap(kind, n_rows, [validity, _bitmap(node.get("data"), n_rows, source, "'data'")])
    shape = (n_rows * kind.bit_width // 8,)
    return _wrap(kind, n_rows, [validity, source.array(node.get("data"), _BYTE, shape, "'data'")])


def _wrap(
    kind: Any, n_rows: int, raws: list[Any], children: list[Any] | None = None, nulls: int = -1
) -> Any:
    """Make an array of a type over buffers. pyarrow checks what it can at once (rule (2))."""
    pa = load_pyarrow()
    buffers = [None if raw is None else pa.py_buffer(raw) for raw in raws]
    if raws[0] is None and nulls < 0:
        nulls = 0
    return pa.Array.from_buffers(kind, n_rows, buffers, nulls, children=children)


def _bitmap(reference: object, n_rows: int, source: Source, what: str) -> NDArray[np.uint8]:
    return source.array(reference, _BYTE, (-(-n_rows // 8),), what)


def _variable(
    node: Node, dtype: np.dtype[Any], n_rows: int, source: Source
) -> list[NDArray[np.uint8]]:
    offsets = source.array(node.get("offsets"), dtype, (n_rows + 1,), "'offsets'")
    data = source.take(node.get("data"), "'data'")
    _check_ends(offsets, data.nbytes)
    return [offsets.view(np.uint8), data]


def _check_ends(offsets: NDArray[Any], size: int) -> None:
    if int(offsets[0]) != 0 or int(offsets[-1]) != size:
        raise SchemaError(
            f"schema 'offsets': 0 and {size} at the ends wanted, "
            f"{int(offsets[0])} and {int(offsets[-1])} found"
        )


# Nested types.


def _fields(node: Node, source: Source, depth: int, count: int | None = None) -> Fields:
    items = read_list(node, "fields")
    if count is not None and len(items) != count:
        raise SchemaError(f"schema 'fields': {count} wanted, {len(items)} found")
    made = []
    for item in items:
        name, is_nullable, metadata, inner = read_field(item)
        made.append((name, is_nullable, metadata, _build(inner, source, depth + 1)))
    return made


def _field(name: str, is_nullable: bool, metadata: Any, array: Any) -> Any:
    return load_pyarrow().field(name, array.type, is_nullable, metadata)


def _check_length(array: Any, n_rows: int) -> None:
    if len(array) != n_rows:
        raise SchemaError(f"schema 'fields': {n_rows} values wanted, {len(array)} found")


def _build_list(node: Node, n_rows: int, validity: Any, source: Source, depth: int) -> Any:
    """Build a list or list view, of 32 or 64 bits."""
    pa = load_pyarrow()
    (field,) = _fields(node, source, depth, 1)
    values = field[3]
    name = node["type"][0]
    offsets = source.array(node.get("offsets"), OFFSETS[name], (n_rows + 1,), "'offsets'")
    _check_ends(offsets, len(values))
    kind = getattr(pa, "list_" if name == "list" else name)(_field(*field))
    raws = [validity, offsets.view(np.uint8)]
    if name.endswith("view"):
        raws = [validity, offsets[:-1].view(np.uint8), np.diff(offsets).view(np.uint8)]
    return _wrap(kind, n_rows, raws, [values])


def _build_map(node: Node, n_rows: int, validity: Any, source: Source, depth: int) -> Any:
    pa = load_pyarrow()
    keys, items = _fields(node, source, depth, 2)
    n_items = len(keys[3])
    _check_length(items[3], n_items)
    offsets = source.array(node.get("offsets"), OFFSETS["map"], (n_rows + 1,), "'offsets'")
    _check_ends(offsets, n_items)
    code = node["type"]
    if len(code) != 2 or type(code[1]) is not bool or keys[1] or keys[3].null_count:
        raise SchemaError(f"schema 'type': ['map', sorted] with keys wanted, {found(code)}")
    kind = pa.map_(_field(*keys), _field(*items), code[1])
    entries = pa.struct([kind.key_field, kind.item_field])
    pairs = _wrap(entries, n_items, [None], [keys[3], items[3]])
    return _wrap(kind, n_rows, [validity, offsets.view(np.uint8)], [pairs])


def _build_fixed(node: Node, n_rows: int, validity: Any, source: Source, depth: int) -> Any:
    (field,) = _fields(node, source, depth, 1)
    code = node["type"]
    if len(code) != 2 or type(code[1]) is not int or not 0 <= code[1] <= _MAX_INT32:
        raise SchemaError(f"schema 'type': ['fixed_list', size] wanted, {found(code)}")
    _check_length(field[3], n_rows * code[1])
    kind = load_pyarrow().list_(_field(*field), code[1])
    return _wrap(kind, n_rows, [validity], [field[3]])


def _build_struct(node: Node, n_rows: int, validity: Any, source: Source, depth: int) -> Any:
    fields = _fields(node, source, depth)
    for field in fields:
        _check_length(field[3], n_rows)
    kind = load_pyarrow().struct([_field(*field) for field in fields])
    return _wrap(kind, n_rows, [validity], [field[3] for field in fields])


def _build_run_ends(node: Node, n_rows: int, validity: Any, source: Source, depth: int) -> Any:
    pa = load_pyarrow()
    (field,) = _fields(node, source, depth, 1)
    code = node["type"]
    if len(code) != 2 or code[1] not in ("int16", "int32", "int64"):
        raise SchemaError(f"schema 'type': ['run_ends', int] wanted, {found(code)}")
    n_runs = len(field[3])
    ends = source.array(node.get("ends"), np.dtype(code[1]), (n_runs,), "'ends'")
    if (int(ends[-1]) if n_runs else 0) != n_rows:
        raise SchemaError(f"schema 'ends': {n_rows} as the last wanted, another found")
    places = _wrap(getattr(pa, code[1])(), n_runs, [None, ends.view(np.uint8)])
    return pa.RunEndEncodedArray.from_arrays(places, field[3])


def _build_extension(node: Node, n_rows: int, validity: Any, source: Source, depth: int) -> Any:
    (field,) = _fields(node, source, depth, 1)
    storage, code = field[3], node["type"]
    _check_length(storage, n_rows)
    if len(code) != 2:
        raise SchemaError(f"schema 'type': ['extension', name] wanted, {found(code)}")
    kind = make_extension(code[1], storage.type)
    if kind.storage_type != storage.type:
        raise SchemaError(f"schema 'type': {kind.storage_type} wanted, {found(str(storage.type))}")
    return load_pyarrow().ExtensionArray.from_storage(kind, storage)


_NESTED: dict[str, Callable[[Node, int, Any, Source, int], Any]] = {
    **dict.fromkeys(("list", "large_list", "list_view", "large_list_view"), _build_list),
    "map": _build_map,
    "fixed_list": _build_fixed,
    "struct": _build_struct,
    "run_ends": _build_run_ends,
    "extension": _build_extension,
}
