"""From a store into a segment: what is wanted of an object, each byte of it moved once.

A store gives a `Stored`: the record of an object, and a way to read ranges of its buffers. What they
are for is decided here.

(1) Nobody sees an object before it is whole, its checksums hold and its schema was validated: a
    segment is committed then, and goes by itself when an error comes before.
(2) Of columns and rows that were selected only their ranges are read (layout/selection.py). Where rows
    have no fixed width, all rows of these columns are read into private memory, and cut there.
(3) `into` is written where it lies. An error leaves it as far as it came: what it was is gone.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Container, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from .. import blocks
from ..layout import Schema, SchemaError, rebuild
from ..layout import selection as _selection
from ..layout.buffer import Buffer
from ..layout.dtype import decode_dtype
from ..layout.place import KINDS
from ..layout.schema import read_node, read_shape
from ..layout.selection import Range, Selection
from ..record import Record, reveal
from .errors import StoreDamaged

if TYPE_CHECKING:
    from ..shm.segment import Segment

__all__ = ["Piece", "Stored", "fetch", "find_columns", "row_bounds"]

Raw = NDArray[np.uint8]
Progress = Callable[[int], None]


class Piece(NamedTuple):
    """Bytes *start* to *stop* of a buffer, and where they are to lie."""

    buffer: int
    start: int
    stop: int
    target: Raw


class Stored(Protocol):
    """An object as a store has it."""

    record: Record
    #: what to call it in errors: "key 'prices' of file:///data"
    what: str

    def read(self, pieces: list[Piece], segment: Segment | None, progress: Progress) -> None:
        """Fill the targets of *pieces*, which are in the order of the buffers and of their bytes.

        *segment*, not committed, is where all targets lie, if they do; *progress* is called with
        the bytes that came, now and then.

        Raises
        ------
        KeyNotFound : it is gone, or was replaced by another meanwhile.
        StoreDamaged, StoreUnavailable
        """


def fetch(
    stored: Stored,
    *,
    into: Any = None,
    columns: list[Any] | None = None,
    rows: slice | None = None,
    name: str | None = None,
    progress: Progress = lambda n: None,
) -> Any:
    """Read an object, or a part of it: see `Store.get`."""
    record = stored.record
    with _naming(stored.what):
        selection, left = _select(stored, columns, rows)
    if into is not None:
        _fetch_into(stored, selection, left, into, progress)
        return into
    if left is not None:
        return _fetch_and_cut(stored, selection, left, name, progress)
    sizes = [buffer.nbytes for buffer in selection.buffers]
    segment, token, raw = blocks.allocate(selection.schema, sizes, name=name)
    _read(stored, selection, raw, segment, progress)
    with _naming(stored.what):
        rebuild(selection.schema, raw, validate=True)
    part = Record(selection.schema, sizes, sum(sizes), None, record.form)
    return reveal(part, segment, token)


@contextmanager
def _naming(what: str) -> Iterator[None]:
    try:
        yield
    except SchemaError as error:
        raise StoreDamaged(f"{what}: {error}") from error


def _select(
    stored: Stored, columns: list[Any] | None, rows: slice | None
) -> tuple[Selection, slice | None]:
    """Return what is to be read, and the rows that are still to be cut out of it then."""
    record = stored.record
    schema, sizes = record.schema, record.sizes
    if schema["kind"] == "ndarray":
        if columns is not None:
            raise TypeError(f"{stored.what} is an array, which has no columns")
        if rows is None:
            return _whole(record), None
        start, stop = row_bounds(rows, schema, stored.what)
        chosen = _selection.select_array(schema, sizes, start, stop)
        return chosen, None if chosen.is_cut else slice(start, stop)
    if columns is not None and record.form == "series":
        raise TypeError(f"{stored.what} is a Series, which has no columns")
    if columns is None and rows is None:
        return _whole(record), None
    known = {}
    for i in _selection.label_buffers(schema):
        if not 0 <= i < len(sizes):
            raise SchemaError(f"schema: there is no buffer {i}")
        known[i] = np.empty(sizes[i], np.uint8)
    _read_pieces(stored, [Piece(i, 0, len(raw), raw) for i, raw in known.items()])
    positions = labels = None
    if columns is not None:
        labels = _selection.read_labels(schema, known)
        positions = find_columns(labels, columns, stored.what)
        labels = labels.take(positions)
    window = None if rows is None else _bounds(rows, schema["rows"])
    chosen = _selection.select_frame(schema, sizes, known, positions, labels, window)
    return chosen, None if window is None or chosen.is_cut else slice(*window)


def _whole(record: Record) -> Selection:
    ranges = {i: [Range(i, 0, size)] for i, size in enumerate(record.sizes)}
    byte = np.dtype(np.uint8)
    return Selection(
        record.schema, [Buffer((size,), byte, [], size) for size in record.sizes], ranges, True
    )


def row_bounds(rows: Any, schema: Schema, what: str) -> tuple[int, int]:
    """Return the first row of an array that is wanted, and the one behind the last.

    Raises
    ------
    TypeError : *rows* are no slice without a step, or the array has no rows.
    """
    shape = schema.get("shape")
    if type(shape) is not list or not shape or type(shape[0]) is not int:
        raise TypeError(f"{what} is an array of shape {shape}, which has no rows")
    return _bounds(rows, shape[0])


def _bounds(rows: Any, n_rows: int) -> tuple[int, int]:
    if not isinstance(rows, slice) or rows.step not in (None, 1):
        raise TypeError(f"rows are a slice without a step, such as slice(0, 1000); {rows!r} found")
    start, stop, _ = rows.indices(n_rows)
    return start, max(start, stop)


def find_columns(labels: Any, columns: Any, what: str) -> list[int]:
    """Return the positions of columns by their labels."""
    if isinstance(columns, str) or not isinstance(columns, list | tuple):
        raise TypeError(f"columns are a list of labels; {columns!r:.80} found")
    positions: list[int] = []
    for label in columns:
        if label not in labels:
            known = ", ".join(map(repr, labels[:20])) + (", ..." if len(labels) > 20 else "")
            raise ValueError(f"{what} has no column {label!r}; it has {known}")
        where = labels.get_loc(label)
        found = [where] if isinstance(where, int) else np.arange(len(labels))[where].tolist()
        if not set(found).isdisjoint(positions):
            raise ValueError(f"column {label!r} is wanted twice")
        positions += found
    return positions


def _read(
    stored: Stored,
    selection: Selection,
    raw: list[Raw],
    segment: Segment | None,
    progress: Progress,
    *,
    targets: dict[int, list[Raw]] | None = None,
    skip: Container[int] = (),
) -> None:
    """Fill *raw* with what was selected; buffers in *targets* lie in those, in place of raw.

    Buffers that are in *skip* are left out.
    """
    pieces: list[Piece] = []
    sums = stored.record.checksums
    checks: list[tuple[int, Raw]] = []
    for i, ranges in selection.ranges.items():
        memories = targets[i] if targets is not None and i in targets else [raw[i]]
        pieces += _cut_up(ranges, memories)
        whole = len(ranges) == 1 and ranges[0][1:] == (0, stored.record.sizes[ranges[0].buffer])
        if sums is not None and whole and len(memories) == 1:
            checks.append((sums[ranges[0].buffer], memories[0]))
    for i, buffer in enumerate(selection.buffers):
        if i not in selection.ranges and i not in skip:
            for target, source in buffer.copies(raw[i]):
                np.copyto(target, source)
    pieces = [piece for piece in pieces if piece.stop > piece.start]
    stored.read(pieces, segment, progress)
    for wanted, memory in checks:
        found = zlib.crc32(memory.data)
        if found != wanted:
            raise StoreDamaged(f"{stored.what}: CRC-32 {wanted:#x} stored, {found:#x} found")


def _cut_up(ranges: list[Range], memories: list[Raw]) -> list[Piece]:
    """Pair ranges with the memory that they fill, one after the other."""
    pieces = []
    left = list(memories)
    for buffer, start, stop in ranges:
        while start < stop:
            target = left[0][: stop - start]
            pieces.append(Piece(buffer, start, start + len(target), target))
            start += len(target)
            left[0] = left[0][len(target) :]
            if not len(left[0]):
                del left[0]
    return pieces


def _read_pieces(stored: Stored, pieces: list[Piece]) -> None:
    if pieces:
        stored.read([each for each in pieces if each.stop > each.start], None, lambda n: None)


def _fetch_private(stored: Stored, selection: Selection, progress: Progress) -> Any:
    raw = [np.empty(buffer.nbytes, np.uint8) for buffer in selection.buffers]
    _read(stored, selection, raw, None, progress)
    with _naming(stored.what):
        return rebuild(selection.schema, raw, validate=True)


def _fetch_and_cut(
    stored: Stored, selection: Selection, rows: slice, name: str | None, progress: Progress
) -> Any:
    """Read all rows into private memory, and share those that are wanted; rule (2)."""
    whole = _fetch_private(stored, selection, progress)
    if isinstance(whole, np.ndarray):
        from ..sarray import SArray

        return SArray(whole[rows], name=name)
    from ..sdataframe import SDataFrame

    frame = SDataFrame(whole.iloc[rows], name=name)
    if stored.record.form == "series":
        from ..sseries import SSeries

        return SSeries._over(frame)
    return frame


def _fetch_into(
    stored: Stored, selection: Selection, left: slice | None, into: Any, progress: Progress
) -> None:
    """Write over an array or a frame; rule (3)."""
    if left is not None:
        raise TypeError(f"{stored.what}: these rows cannot be read into= something; leave it out")
    if selection.schema["kind"] == "ndarray":
        with _naming(stored.what):
            raw = [_memory_of(into, selection.schema, stored.what)]
        _read(stored, selection, raw, None, progress)
    else:
        _fetch_into_frame(stored, selection, into, progress)


def _memory_of(into: Any, schema: Schema, what: str) -> Raw:
    """Return the memory of an array that is as the schema says."""
    if not isinstance(into, np.ndarray):
        raise TypeError(f"{what} is an array: into= an ndarray wanted, {type(into).__name__} found")
    shape, dtype = read_shape(schema.get("shape"), "'shape'"), decode_dtype(schema.get("dtype"))
    plain = into.view(np.ndarray)
    if schema.get("order") != "C":
        plain, shape = plain.T, shape[::-1]
    if plain.shape != shape or plain.dtype != dtype or not plain.flags.c_contiguous:
        raise ValueError(
            f"{what}: into= {schema['shape']} {dtype} in order {schema['order']!r} wanted, "
            f"{into.shape} {into.dtype} found"
        )
    if not plain.flags.writeable:
        raise ValueError(f"{what}: into= is read-only")
    return np.ndarray((plain.nbytes,), np.uint8, plain)


def _fetch_into_frame(stored: Stored, selection: Selection, into: Any, progress: Progress) -> None:
    """Write over the columns of a shared frame or series, whose labels are to be the same."""
    from .. import _managers
    from ..sdataframe import SDataFrame
    from ..sseries import SSeries

    frame = into._frame if isinstance(into, SSeries) else into
    if not isinstance(frame, SDataFrame) or isinstance(into, SSeries) != (
        stored.record.form == "series"
    ):
        wanted = "SSeries" if stored.record.form == "series" else "SDataFrame"
        raise TypeError(f"{stored.what}: into= an {wanted} wanted, {type(into).__name__} found")
    schema = selection.schema
    nodes = [read_node(block, "'blocks'") for block in schema["blocks"]]
    if schema["arrays"] or any(key in node for node in nodes for key in KINDS):
        raise TypeError(
            f"{stored.what}: into= is for columns of NumPy's dtypes; leave it out, or select columns="
        )
    bulk = {node["data"] for node in nodes}
    raw = [
        np.empty(0 if i in bulk else each.nbytes, np.uint8)
        for i, each in enumerate(selection.buffers)
    ]
    labels = {i: ranges for i, ranges in selection.ranges.items() if i not in bulk}
    _read(stored, selection._replace(ranges=labels), raw, None, lambda n: None, skip=bulk)
    with _naming(stored.what):
        index, columns = _selection.read_axes(schema, raw)
        if not (frame.index.equals(index) and frame.columns.equals(columns)):
            raise ValueError(f"{stored.what}: into= has other labels than what is stored")
        targets = {}
        for node in nodes:
            dtype, memories = decode_dtype(node["dtype"]), []
            for position in _selection.places_of(node, dict(enumerate(raw)), len(columns)):
                values = _managers.column_values(frame._mgr, position)
                if values is None or values.dtype != dtype or not values.flags.writeable:
                    raise ValueError(
                        f"{stored.what}: into= has column {columns[position]!r} as "
                        f"{frame.dtypes.iloc[position]}, or read-only; {dtype} is stored"
                    )
                memories.append(np.ndarray((values.nbytes,), np.uint8, values))
            targets[node["data"]] = memories
    body = {i: ranges for i, ranges in selection.ranges.items() if i in bulk}
    _read(
        stored,
        selection._replace(ranges=body),
        raw,
        None,
        progress,
        targets=targets,
        skip=set(labels),
    )
