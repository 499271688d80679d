"""Columns that stay as Arrow has them: strings, and those of an ArrowDtype.

ArrowColumn writes the buffers of an Arrow array (layout/arrow.py): validity bits, offsets, data. Its
chunks' offsets are moved to where their text lies. TextColumn writes strings that pandas keeps as
Python objects, which each process makes of offsets, UTF-8 and a byte for what is missing
(layout/strings.py); so none is made here.

Where each piece's text starts follows from the bytes of all pieces before it, which must be known:
from the file's own statistics, or from a survey.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from .. import _pandas
from ..layout.arrow_types import encode_type, load_pyarrow
from ..layout.schema import Node
from ..layout.sketch import Sketch, Slot
from .columns import Array, ClaimFailed, Column
from .pages import Pages

__all__ = ["ArrowColumn", "TextColumn", "is_flat"]

_INT32 = np.dtype("<i4")
_INT64 = np.dtype("<i8")


def is_text(kind: Any) -> bool:
    """Whether an Arrow type has offsets and bytes, or views of bytes."""
    types = load_pyarrow().types
    return bool(
        types.is_string(kind)
        or types.is_large_string(kind)
        or types.is_string_view(kind)
        or types.is_binary(kind)
        or types.is_large_binary(kind)
    )


def is_flat(kind: Any) -> bool:
    """Whether ArrowColumn can write an Arrow type."""
    types = load_pyarrow().types
    if types.is_string_view(kind) or encode_type(kind) is None:
        return False
    return is_text(kind) or bool(
        types.is_primitive(kind) or types.is_decimal(kind) or types.is_fixed_size_binary(kind)
    )


def with_offsets(chunk: Any) -> Any:
    """Give an array of a type with offsets, in place of one of views."""
    pa = load_pyarrow()
    return chunk.cast(pa.large_string()) if pa.types.is_string_view(chunk.type) else chunk


def read_offsets(chunk: Any) -> Array:
    """Give the offsets of a chunk of text, one more than it has rows; they go up.

    Raises
    ------
    ValueError : they do not, or end beyond the text.
    """
    _, offsets, data = chunk.buffers()
    wide = str(chunk.type).startswith("large_")
    if offsets is None or not offsets.size:
        return np.zeros(len(chunk) + 1, _INT32)
    every: Array = np.frombuffer(offsets, _INT64 if wide else _INT32)
    own = every[chunk.offset : chunk.offset + len(chunk) + 1]
    size = 0 if data is None else data.size
    if (
        len(own) != len(chunk) + 1
        or own[0] < 0
        or own[-1] > size
        or bool((own[1:] < own[:-1]).any())
    ):
        raise ValueError("offsets of strings that go up within their text wanted, others found")
    return own


class _OffsetColumn(Column):
    """What has offsets: how long its text is, and where each piece of it goes."""

    offset_dtype: np.dtype[Any] = _INT64
    has_text = True

    def __init__(self, label: Any, field: Any, dtype: Any) -> None:
        super().__init__(label, field, dtype)
        self._at: dict[int, int] = {}  # where each piece's next text goes
        self._stop: dict[int, int] = {}  # and where its last must end
        self._offsets = self._data = -1

    def is_known(self, piece: int) -> bool:
        return not self.has_text or piece in self.n_bytes

    def survey(self, piece: int, chunk: Any) -> None:
        super().survey(piece, chunk)
        if self.has_text:
            own = read_offsets(with_offsets(chunk))
            self.n_bytes[piece] = self.n_bytes.get(piece, 0) + int(own[-1]) - int(own[0])

    def _reserve_text(self, sketch: Sketch) -> dict[str, int]:
        at = 0
        for piece in sorted(self.n_bytes):
            self._at[piece] = at
            at += self.n_bytes[piece]
            self._stop[piece] = at
        if at > np.iinfo(self.offset_dtype).max:
            raise TypeError(
                f"column {self.label!r} has {at} bytes of text, too much for the 32-bit offsets of "
                f"{self.field.type}; cast it to large_{self.field.type}"
            )
        self._offsets = sketch.reserve((sketch.n_rows + 1) * self.offset_dtype.itemsize)
        self._data = sketch.reserve(at)
        return {"offsets": self._offsets, "data": self._data}

    def _add(self, sketch: Sketch, position: int | None, node: Node) -> Node | None:
        """Put *node*, in that of a string if it is one, where it is to stand; give it if nowhere."""
        if isinstance(self.dtype, pd.StringDtype):
            storage, missing = _pandas.string_flavour(self.dtype)
            kind = node["kind"]
            node = {"kind": "string", "storage": storage, "missing": missing, kind: node}
        if position is None:
            return node
        sketch.add_node(position, node)
        return None

    def _start_text(self, pages: Pages) -> None:
        pages.put(self._offsets, 0, np.zeros(1, self.offset_dtype))

    def _write_text(self, pages: Pages, piece: int, row: int, chunk: Any) -> None:
        if not len(chunk):
            return
        chunk = with_offsets(chunk)
        own = read_offsets(chunk)
        start, stop = int(own[0]), int(own[-1])
        at = self._at.get(piece, 0)
        if at + stop - start > self._stop.get(piece, 0):
            raise ClaimFailed(f"column {self.label!r}: more text than there was to be")
        size = self.offset_dtype.itemsize
        moved = own[1:].astype(self.offset_dtype)
        moved += at - start
        pages.put(self._offsets, (row + 1) * size, moved)
        if stop > start:
            text = np.frombuffer(chunk.buffers()[2], np.uint8)
            pages.put(self._data, at, text[start:stop])
        self._at[piece] = at + stop - start

    def finish_piece(self, piece: int) -> None:
        if self.has_text and self._at.get(piece) != self._stop.get(piece):
            raise ClaimFailed(f"column {self.label!r}: less text than there was to be")


class ArrowColumn(_OffsetColumn):
    """pandas strings over Arrow, and flat ArrowDtypes."""

    def __init__(self, label: Any, field: Any, dtype: Any) -> None:
        super().__init__(label, field, dtype)
        pa = load_pyarrow()
        self._is_string = isinstance(dtype, pd.StringDtype)
        kind = pa.large_string() if self._is_string else field.type
        self._kind = kind
        self.has_text = is_text(kind)
        self._is_bool = pa.types.is_boolean(kind)
        self._width = 0 if self.has_text or self._is_bool else kind.bit_width // 8
        if self.has_text and not str(kind).startswith("large_"):
            self.offset_dtype = _INT32
        self._validity = -1
        self._n_pieces = -1

    def sketch(self, sketch: Sketch, position: int | None) -> Node | None:
        n = sketch.n_rows
        node: Node = {"kind": "arrow", "type": encode_type(self._kind), "rows": n}
        # Bits for what a reader did not count cost an eighth of a byte each.
        if not self._all_present():
            self._validity = node["validity"] = sketch.reserve(-(-n // 8))
        if self.has_text:
            node.update(self._reserve_text(sketch))
        elif self._is_bool:
            self._data = node["data"] = sketch.reserve(-(-n // 8))
        else:
            self._data = node["data"] = sketch.reserve(n * self._width)
        return self._add(sketch, position, node)

    def _all_present(self) -> bool:
        if not self.field.nullable and not self.n_null:
            return True
        return self._n_pieces == len(self.n_null) and not any(self.n_null.values())

    def expect(self, n_pieces: int) -> None:
        """Say how many pieces there are: if the missing values of all are known, that is all."""
        self._n_pieces = n_pieces

    def place(self, slots: dict[int, dict[str, Slot]], position: int | None, pages: Pages) -> None:
        for bits in (self._validity, self._data if self._is_bool else -1):
            if bits >= 0:
                pages.clear(bits)
        if self.has_text:
            self._start_text(pages)

    def write(self, pages: Pages, piece: int, row: int, chunk: Any) -> None:
        if self._validity >= 0:
            pages.put_bits(self._validity, row, chunk.is_valid().to_numpy(zero_copy_only=False))
        elif chunk.null_count:
            raise ClaimFailed(f"column {self.label!r}: missing values, where none were to be")
        if self.has_text:
            self._write_text(pages, piece, row, chunk)
        elif self._is_bool:
            values = chunk.fill_null(False) if chunk.null_count else chunk
            pages.put_bits(self._data, row, values.to_numpy(zero_copy_only=False))
        elif len(chunk):
            width = self._width
            raw = np.frombuffer(chunk.buffers()[1], np.uint8)
            own = raw[chunk.offset * width : (chunk.offset + len(chunk)) * width]
            pages.put(self._data, row * width, own)


class TextColumn(_OffsetColumn):
    """Strings that pandas keeps as Python objects: object columns, and "python" storage."""

    def __init__(self, label: Any, field: Any, dtype: Any) -> None:
        super().__init__(label, field, dtype)
        self._missing = -1
        self.gap = (
            1  #: what an object column has for what is missing, by its number: None, or 2: NaN
        )

    def sketch(self, sketch: Sketch, position: int | None) -> Node | None:
        node: Node = {"kind": "text", "rows": sketch.n_rows, **self._reserve_text(sketch)}
        self._missing = node["missing"] = sketch.reserve(sketch.n_rows)
        return self._add(sketch, position, node)

    def place(self, slots: dict[int, dict[str, Slot]], position: int | None, pages: Pages) -> None:
        self._start_text(pages)

    def write(self, pages: Pages, piece: int, row: int, chunk: Any) -> None:
        # The string dtypes make of a gap what they have for that.
        gaps = chunk.is_null().to_numpy(zero_copy_only=False).view(np.uint8)
        pages.put(self._missing, row, gaps * np.uint8(self.gap))
        self._write_text(pages, piece, row, chunk)
