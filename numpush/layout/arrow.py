"""Arrow arrays and ArrowDtype columns, over the very buffers; pyarrow loads when one is met.

Node: {"kind": "arrow", "type": code, "rows", "data": reference}, with "validity" (a bitmap) if
something is null, "offsets" for types of variable width, and "dictionary" (an arrow node) for
dictionary types. A type's code is [name, parameters...].

(1) One array comes out, whatever chunks and slices went in: pieces of the data are gathered by the
    one copy that fills the buffer. Only offsets and bitmaps that start elsewhere are made anew.
(2) The lengths of all buffers and both ends of the offsets are always checked. What lies between
    (offsets, UTF-8, indices) is O(n) and checked with `Source.validate`; compute kernels read out
    of bounds where it lies.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from .buffer import Array, Buffer, Sink
from .registry import register_kind, register_type
from .schema import Node, SchemaError, found, read_node, read_shape
from .source import Source

_BYTE = np.dtype(np.uint8)
_MAX_INT32 = 2**31 - 1

_FLAT = (
    *("bool_", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
    *("float16", "float32", "float64", "date32", "date64"),
    *("string", "large_string", "binary", "large_binary"),
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
_OFFSET: dict[str, np.dtype[Any]] = {
    "string": np.dtype("<i4"),
    "binary": np.dtype("<i4"),
    "large_string": np.dtype("<i8"),
    "large_binary": np.dtype("<i8"),
}


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


# Types.


def encode_type(kind: Any) -> list[Any] | None:
    """Give the code of an Arrow type, or None for one that has no layout (nested, views, null)."""
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
    if types.is_decimal128(kind) or types.is_decimal256(kind):
        name = "decimal128" if types.is_decimal128(kind) else "decimal256"
        return [name, kind.precision, kind.scale]
    if types.is_fixed_size_binary(kind):
        return ["fixed", kind.byte_width]
    return None


def decode_type(code: object) -> Any:
    """Give the Arrow type of a code."""
    pa = load_pyarrow()
    if type(code) is not list or not code or type(code[0]) is not str:
        raise SchemaError(f"schema 'type': [name, ...] wanted, {found(code)}")
    name, *rest = code
    if name in _FLAT and not rest:
        return getattr(pa, name)()
    factories: dict[str, tuple[Callable[..., Any], tuple[type | tuple[type, ...], ...]]] = {
        "timestamp": (pa.timestamp, (str, (str, type(None)))),
        "time32": (pa.time32, (str,)),
        "time64": (pa.time64, (str,)),
        "duration": (pa.duration, (str,)),
        "decimal128": (pa.decimal128, (int, int)),
        "decimal256": (pa.decimal256, (int, int)),
    }
    try:
        if name == "fixed" and len(rest) == 1 and type(rest[0]) is int and 0 < rest[0] < 2**28:
            return pa.binary(rest[0])
        factory, wanted = factories[name]
        if len(rest) == len(wanted) and all(map(isinstance, rest, wanted)):
            return factory(*rest)
    except (KeyError, ValueError, TypeError, OverflowError, pa.ArrowException) as error:
        raise SchemaError(f"schema 'type': {found(code)}: {error!r}") from error
    raise SchemaError(f"schema 'type': a known Arrow type wanted, {found(code)}")


# Describing: pieces of each chunk, gathered by one copy.


def describe_arrow_array(values: Any, sink: Sink) -> Node:
    """Describe a pyarrow ChunkedArray."""
    pa = load_pyarrow()
    if pa.types.is_dictionary(values.type):
        return _describe_dictionary(values, sink)
    return _describe_chunks(values.type, values.chunks, sink)


def _describe_chunks(kind: Any, chunks: list[Any], sink: Sink) -> Node:
    code = encode_type(kind)
    if code is None:
        raise sink.refuse(f"{kind}[pyarrow]", "that has no layout")
    node: Node = {"kind": "arrow", "type": code, "rows": sum(map(len, chunks))}
    if any(chunk.null_count for chunk in chunks):
        node["validity"] = _put_bits(chunks, 0, sink)
    name = code[0]
    if name in _OFFSET:
        node["offsets"], node["data"] = _put_variable(name, chunks, sink)
    elif name == "bool_":
        node["data"] = _put_bits(chunks, 1, sink)
    else:
        width = kind.bit_width // 8
        pieces = [
            _bytes_of(chunk, 1)[chunk.offset * width : (chunk.offset + len(chunk)) * width]
            for chunk in chunks
        ]
        node["data"] = _put_pieces(pieces, sink)
    return node


def _describe_dictionary(values: Any, sink: Sink) -> Node:
    values = values.unify_dictionaries()
    pa, kind = load_pyarrow(), values.type
    labels = values.chunk(0).dictionary if values.num_chunks else pa.array([], kind.value_type)
    node = _describe_chunks(kind.index_type, [chunk.indices for chunk in values.chunks], sink)
    node["dictionary"] = _describe_chunks(kind.value_type, [labels], sink)
    node["ordered"] = kind.ordered
    return node


def _bytes_of(chunk: Any, position: int) -> NDArray[np.uint8]:
    buffer = chunk.buffers()[position]
    if buffer is None or not buffer.size:
        return np.zeros(0, np.uint8)
    return np.frombuffer(buffer, np.uint8)


def _put_pieces(pieces: list[Array], sink: Sink) -> int:
    """Put pieces of one dtype one behind the other."""
    placed, at = [], 0
    for piece in pieces:
        if len(piece):
            placed.append((slice(at, at + len(piece)), piece))
            at += len(piece)
    dtype = pieces[0].dtype if pieces else _BYTE
    return sink.put(Buffer((at,), dtype, placed, at * dtype.itemsize))


def _put_bits(chunks: list[Any], position: int, sink: Sink) -> int:
    """Put bitmaps one behind the other; position 0 is validity, which a chunk may lack."""
    if len(chunks) == 1 and chunks[0].offset % 8 == 0 and chunks[0].buffers()[position]:
        chunk = chunks[0]
        raw = _bytes_of(chunk, position)
        return _put_pieces([raw[chunk.offset // 8 : -(-(chunk.offset + len(chunk)) // 8)]], sink)
    bits = []
    for chunk in chunks:
        if len(chunk) and chunk.buffers()[position] is None:
            bits.append(np.ones(len(chunk), np.uint8))
        else:
            every = np.unpackbits(_bytes_of(chunk, position), bitorder="little")
            bits.append(every[chunk.offset : chunk.offset + len(chunk)])
    joined = np.concatenate(bits) if bits else np.zeros(0, np.uint8)
    return _put_pieces([np.packbits(joined, bitorder="little")], sink)


def _put_variable(name: str, chunks: list[Any], sink: Sink) -> tuple[int, int]:
    """Put offsets and data; offsets of later chunks, or of a slice, are moved."""
    dtype = _OFFSET[name]
    offsets: list[Array] = [np.zeros(1, dtype)]
    data, base = [], 0
    for chunk in chunks:
        if not len(chunk):
            continue
        own = np.frombuffer(chunk.buffers()[1], dtype)[chunk.offset : chunk.offset + len(chunk) + 1]
        start, stop = int(own[0]), int(own[-1])
        data.append(_bytes_of(chunk, 2)[start:stop])
        if base == start == 0 and len(offsets) == 1:
            offsets = [own]
        elif base + stop - start > _MAX_INT32 and dtype.itemsize == 4:
            raise sink.refuse(
                f"{name}[pyarrow]",
                "with more than 2 GiB in several chunks, too much for its 32-bit offsets",
                f"{sink.expression} = {sink.expression}.astype(pd.ArrowDtype(pa.large_{name}()))",
            )
        else:
            offsets.append(own[1:] + dtype.type(base - start))
        base += stop - start
    return _put_pieces(offsets, sink), _put_pieces(data, sink)


# Rebuilding: buffers are handed to Arrow as they are.


def rebuild_arrow_array(value: object, source: Source, *, strings: bool = False) -> Any:
    """Build a pyarrow Array over its buffers; no copy, whose buffers' bases are ours.

    Parameters
    ----------
    strings : bool
        Only large_string may come.
    """
    pa = load_pyarrow()
    node = read_node(value, "'arrow'")
    n_rows = read_shape([node.get("rows")], "'rows'")[0]
    kind = decode_type(node.get("type"))
    if strings and kind != pa.large_string():
        raise SchemaError(f"schema 'type': large_string wanted, {found(str(kind))}")
    validity = None
    if node.get("validity") is not None:
        validity = _bitmap(node["validity"], n_rows, source, "'validity'")
    name = str(kind)
    buffers = [validity]
    if name in _OFFSET:
        buffers += _variable(node, _OFFSET[name], n_rows, source)
    elif name == "bool":
        buffers.append(_bitmap(node.get("data"), n_rows, source, "'data'"))
    else:
        shape = (n_rows * kind.bit_width // 8,)
        buffers.append(source.array(node.get("data"), _BYTE, shape, "'data'"))
    wrapped = [None if raw is None else pa.py_buffer(raw) for raw in buffers]
    nulls = 0 if validity is None else -1
    result = pa.Array.from_buffers(kind, n_rows, wrapped, nulls)
    if source.validate:
        result.validate(full=True)
    if "dictionary" not in node:
        return result
    labels_node = read_node(node["dictionary"], "'dictionary'")
    if "dictionary" in labels_node:
        raise SchemaError("schema 'dictionary': flat values wanted, a dictionary found")
    labels = rebuild_arrow_array(labels_node, source)
    if not pa.types.is_integer(kind):
        raise SchemaError(f"schema 'type': integer indices wanted, {found(name)}")
    ordered = node.get("ordered") is True
    made = pa.DictionaryArray.from_arrays(result, labels, ordered=ordered, safe=source.validate)
    return made


def _bitmap(reference: object, n_rows: int, source: Source, what: str) -> NDArray[np.uint8]:
    return source.array(reference, _BYTE, (-(-n_rows // 8),), what)


def _variable(
    node: Node, dtype: np.dtype[Any], n_rows: int, source: Source
) -> list[NDArray[np.uint8]]:
    offsets = source.array(node.get("offsets"), dtype, (n_rows + 1,), "'offsets'")
    data = source.take(node.get("data"), "'data'")
    if int(offsets[0]) != 0 or int(offsets[-1]) != data.nbytes:
        raise SchemaError(
            f"schema 'offsets': 0 and {data.nbytes} at the ends wanted, "
            f"{int(offsets[0])} and {int(offsets[-1])} found"
        )
    return [offsets.view(np.uint8), data]


def describe_arrow(array: Any, sink: Sink) -> Node:
    """Describe an ArrowExtensionArray."""
    return describe_arrow_array(array.__arrow_array__(), sink)


def rebuild_arrow(node: Node, source: Source) -> Any:
    """Build an ArrowExtensionArray over its buffers."""
    return pd.arrays.ArrowExtensionArray(rebuild_arrow_array(node, source))


register_type(pd.arrays.ArrowExtensionArray, describe_arrow)
register_kind("arrow", "array", rebuild_arrow)
