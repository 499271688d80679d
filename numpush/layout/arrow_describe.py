"""Arrow arrays to nodes and buffers: pieces of each chunk, gathered by the one copy.

Rules and nodes stand in arrow.py. A slice carries only what it shows: of lists, only the part of
their values that its offsets mean, at every depth; of a dictionary, all labels.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .arrow_types import (
    LIST_VIEWS,
    MAX_DEPTH,
    OFFSETS,
    VIEWS,
    encode_field,
    encode_type,
    load_pyarrow,
)
from .buffer import Array, Buffer, Sink
from .schema import Node

_BYTE = np.dtype(np.uint8)
_MAX_INT32 = 2**31 - 1
#: A chunk, and the range of its values that it shows.
Range = tuple[Any, int, int]


def describe_arrow_array(values: Any, sink: Sink) -> Node:
    """Describe a pyarrow ChunkedArray."""
    if values.num_chunks > 1:
        pa = load_pyarrow()
        try:
            values = values.unify_dictionaries()
        except pa.ArrowNotImplementedError as error:
            raise sink.refuse(
                f"{values.type}[pyarrow]",
                f"in several chunks with dictionaries of their own ({error})",
                f"{sink.expression} = {sink.expression}.astype(object)",
            ) from error
    return _describe_chunks(values.type, values.chunks, sink, 0)


def _describe_chunks(kind: Any, chunks: list[Any], sink: Sink, depth: int) -> Node:
    if depth > MAX_DEPTH:
        raise sink.refuse(f"{kind}[pyarrow]", f"that nests deeper than {MAX_DEPTH}")
    pa = load_pyarrow()
    if pa.types.is_dictionary(kind):
        return _describe_dictionary(kind, chunks, sink, depth)
    code = encode_type(kind)
    if code is None:
        raise sink.refuse(
            f"{kind}[pyarrow]",
            "that has no layout",
            f"{sink.expression} = {sink.expression}.astype(object), or to its storage type",
        )
    name = code[0]
    if name in VIEWS:
        dense = getattr(pa, VIEWS[name])()
        node = _describe_chunks(dense, [chunk.cast(dense) for chunk in chunks], sink, depth)
        return {**node, "type": code}
    if name in LIST_VIEWS:
        dense = getattr(pa, LIST_VIEWS[name])(kind.value_field)
        node = _describe_chunks(dense, [_line_up(chunk, dense) for chunk in chunks], sink, depth)
        return {**node, "type": code}
    node = {"kind": "arrow", "type": code, "rows": sum(map(len, chunks))}
    if name not in ("null", "run_ends", "extension") and any(chunk.null_count for chunk in chunks):
        node["validity"] = _put_bits(chunks, 0, sink)
    fields = _describe_values(kind, name, chunks, sink, node)
    if fields is not None:
        node["fields"] = [
            encode_field(field, _describe_chunks(field.type, parts, sink, depth + 1))
            for field, parts in fields
        ]
    return node


def _describe_values(
    kind: Any, name: str, chunks: list[Any], sink: Sink, node: Node
) -> list[tuple[Any, list[Any]]] | None:
    """Put what a type has itself; give the fields of a nested one, with the chunks of each."""
    pa = load_pyarrow()
    if name in OFFSETS:
        node["offsets"], ranges = _put_offsets(name, chunks, sink)
        if name in ("list", "large_list"):
            parts = [chunk.values.slice(start, stop - start) for chunk, start, stop in ranges]
            return [(kind.value_field, parts)]
        if name == "map":
            parts = [chunk.values.slice(start, stop - start) for chunk, start, stop in ranges]
            keys, items = ([part.field(side) for part in parts] for side in (0, 1))
            return [(kind.key_field, keys), (kind.item_field, items)]
        pieces = [_bytes_of(chunk, 2)[start:stop] for chunk, start, stop in ranges]
        node["data"] = _put_pieces(pieces, sink)
    elif name == "bool_":
        node["data"] = _put_bits(chunks, 1, sink)
    elif name == "fixed_list":
        size = kind.list_size
        parts = [chunk.values.slice(chunk.offset * size, len(chunk) * size) for chunk in chunks]
        return [(kind.value_field, parts)]
    elif name == "struct":
        return [
            (kind.field(at), [chunk.field(at) for chunk in chunks]) for at in range(kind.num_fields)
        ]
    elif name == "run_ends":
        node["ends"], parts = _put_run_ends(kind, chunks, sink)
        return [(pa.field("values", kind.value_type), parts)]
    elif name == "extension":
        return [(pa.field("storage", kind.storage_type), [chunk.storage for chunk in chunks])]
    elif name != "null":
        width = kind.bit_width // 8
        pieces = [
            _bytes_of(chunk, 1)[chunk.offset * width : (chunk.offset + len(chunk)) * width]
            for chunk in chunks
        ]
        node["data"] = _put_pieces(pieces, sink)
    return None


def _line_up(chunk: Any, dense: Any) -> Any:
    """Give a list view as a list: its values in the order of its rows. pyarrow 26's cast errs."""
    pa = load_pyarrow()
    sizes = np.array(chunk.sizes, np.int64)
    gaps = np.asarray(chunk.is_null())
    sizes[gaps] = 0
    name = "list" if pa.types.is_list(dense) else "large_list"
    offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(OFFSETS[name])
    make = pa.ListArray if name == "list" else pa.LargeListArray
    mask = pa.array(gaps) if gaps.any() else None
    return make.from_arrays(pa.array(offsets), chunk.flatten(), type=dense, mask=mask)


def _describe_dictionary(kind: Any, chunks: list[Any], sink: Sink, depth: int) -> Node:
    """Describe the indices, and the labels that all chunks share by now."""
    indices = [chunk.indices for chunk in chunks]
    labels = [chunks[0].dictionary] if chunks else []
    node = _describe_chunks(kind.index_type, indices, sink, depth)
    node["dictionary"] = _describe_chunks(kind.value_type, labels, sink, depth + 1)
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
        return _put_pieces([_bits_of(chunks[0], position)], sink)
    bits = []
    for chunk in chunks:
        if len(chunk) and chunk.buffers()[position] is None:
            bits.append(np.ones(len(chunk), np.uint8))
        else:
            every = np.unpackbits(_bits_of(chunk, position), bitorder="little")
            bits.append(every[chunk.offset % 8 : chunk.offset % 8 + len(chunk)])
    joined = np.concatenate(bits) if bits else np.zeros(0, np.uint8)
    return _put_pieces([np.packbits(joined, bitorder="little")], sink)


def _bits_of(chunk: Any, position: int) -> NDArray[np.uint8]:
    """Give the bytes in which a chunk's bits stand."""
    return _bytes_of(chunk, position)[chunk.offset // 8 : -(-(chunk.offset + len(chunk)) // 8)]


def _put_offsets(name: str, chunks: list[Any], sink: Sink) -> tuple[int, list[Range]]:
    """Put offsets; those of later chunks, or of a slice, are moved. Give what they mean of each."""
    dtype = OFFSETS[name]
    offsets: list[Array] = [np.zeros(1, dtype)]
    ranges, base = [], 0
    for chunk in chunks:
        if not len(chunk):
            continue
        own = np.frombuffer(chunk.buffers()[1], dtype)[chunk.offset : chunk.offset + len(chunk) + 1]
        start, stop = int(own[0]), int(own[-1])
        ranges.append((chunk, start, stop))
        if start == 0 and len(ranges) == 1:
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
    return _put_pieces(offsets, sink), ranges


def _put_run_ends(kind: Any, chunks: list[Any], sink: Sink) -> tuple[int, list[Any]]:
    """Put the ends of runs, counted from the first row shown; give the values of each chunk."""
    dtype = np.dtype(kind.run_end_type.to_pandas_dtype())
    most = np.iinfo(dtype).max
    ends: list[Array] = []
    values, base = [], 0
    for chunk in chunks:
        first, count = chunk.find_physical_offset(), chunk.find_physical_length()
        own = np.asarray(chunk.run_ends.slice(first, count)).astype(np.int64)
        own = np.minimum(own - chunk.offset, len(chunk)) + base
        base += len(chunk)
        if base > most:
            raise sink.refuse(
                f"{kind}[pyarrow]", f"with more rows in several chunks than {dtype} can count"
            )
        ends.append(own.astype(dtype))
        values.append(chunk.values.slice(first, count))
    return _put_pieces(ends, sink), values
