"""What the text of a CSV column is: found block by block, over the whole file, as pandas.read_csv does.

A column starts as nothing and goes up as blocks need it: int64, uint64, float64; or bool; or text.
Text stays text. Dates only where they were asked for. `is_plain` tells whether pyarrow's own reader
can convert the column (in the second pass), or `convert` here must: for signs, spaces and formats
that pandas takes and it does not.

Floats are rounded correctly, which pandas does with float_precision="round_trip"; its default may be
one bit off.
"""

from __future__ import annotations

from typing import Any

import pandas as pd

from .. import _pandas
from ..layout.arrow_types import load_pyarrow

__all__ = ["FALSE", "TRUE", "CsvColumn"]

#: What pandas takes for bools.
TRUE, FALSE = ("True", "TRUE", "true"), ("False", "FALSE", "false")
_INTEGER = r"^\s*[+-]?[0-9]+\s*$"


class CsvColumn:
    """One column of text, and what it is so far.

    Parameters
    ----------
    label : for messages
    dtype : what the caller asked for, or None
    is_date : whether parse_dates has it
    """

    def __init__(self, label: Any, dtype: Any, is_date: bool, true: list[str], false: list[str]):
        self.label = label
        self.dtype = dtype
        self.is_plain = True
        self.n_rows = self.n_null = self.n_bytes = 0
        self.kind = "text" if _is_text(dtype) else "date" if is_date else "none"
        if dtype is not None and not _is_text(dtype):
            self.kind = "category" if isinstance(dtype, pd.CategoricalDtype) else "given"
        self._true, self._false = true, false
        self._is_huge = False
        self._format: str | None = None
        self._type: Any = None  # of dates
        self._labels: dict[str, None] = {}

    # -- the first pass

    def start_again(self) -> None:
        """Count from the start; what the column is stays what it has been found to be."""
        self.n_rows = self.n_null = self.n_bytes = 0

    def look(self, text: Any) -> None:
        """Take in one block, as text or as what `reader_type` said; what is missing is null in it."""
        self.n_rows += len(text)
        self.n_null += text.null_count
        if text.type != load_pyarrow().large_string():
            return
        if len(text):
            self.n_bytes += int(load_pyarrow().compute.sum(_lengths(text)).as_py() or 0)
        if self.kind in ("text", "given") or text.null_count == len(text):
            return
        if self.kind == "category":
            self._labels.update(dict.fromkeys(text.drop_null().unique().to_pylist()))
        elif self.kind == "date":
            self._look_at_dates(text)
        else:
            self._look_at_values(text)

    def _look_at_values(self, text: Any) -> None:
        if self.kind in ("none", "int", "uint") and not _has_hex(text):
            for kind in ("int", "uint")[self.kind == "uint" :]:
                # A column with a negative number is no uint, and the other way round.
                if self._can("int" if kind == "int" else "uint", text):
                    self.kind = kind
                    return
        if self.kind != "bool" and self._can("float", text):
            if self.kind in ("none", "int", "uint"):
                self._is_huge = _all_match(text, _INTEGER)
            self.kind = "float"
            return
        is_bool = self.kind in ("none", "bool") and self._can("bool", text)
        self.kind = "bool" if is_bool else "text"

    def _can(self, kind: str, text: Any) -> bool:
        pa = load_pyarrow()
        try:
            self._convert_as(kind, text, plain=True)
            return True
        except pa.ArrowInvalid:
            pass
        if kind == "bool":
            return False
        try:
            self._convert_as(kind, text, plain=False)
        except pa.ArrowInvalid:
            return False
        self.is_plain = False
        return True

    def _look_at_dates(self, text: Any) -> None:
        pa = load_pyarrow()
        units = ("us", "ns") if _pandas.PANDAS_3 else ("ns",)
        if self._format is None and (self._type is None or self._type.tz is None):
            for unit in units[self._type is not None and self._type.unit == "ns" :]:
                try:
                    text.cast(pa.timestamp(unit))
                    self._type = pa.timestamp(unit)
                    return
                except pa.ArrowInvalid:
                    continue
        try:
            if self._format is None:
                if self._type is not None:
                    raise ValueError("two formats")
                self._format = pd.tseries.api.guess_datetime_format(text.drop_null()[0].as_py())
            if self._format is None:
                raise ValueError("no format")
            found = _parse_dates(text, self._format).type
            if self._type is not None and self._type != found:
                raise ValueError("two zones")
            self._type = found
            self.is_plain = False
        except (ValueError, TypeError, pa.ArrowException):
            self.kind, self.is_plain = "text", True  # as pandas leaves them

    # -- between them

    def arrow_type(self) -> Any:
        """Give the type that the column gets.

        Raises
        ------
        TypeError : integers that no 64 bits hold: pandas makes Python objects of them, or text.
        """
        pa = load_pyarrow()
        if self._is_huge and self.kind == "float":
            raise TypeError(
                f"column {self.label!r} has integers beyond 64 bits; say what they are to be, e.g. "
                f"dtype={{{self.label!r}: 'float64'}} or 'str'"
            )
        if self.kind == "given":
            return _type_of(self.dtype, self.label)
        if self.kind == "category":
            return pa.dictionary(pa.int32(), pa.large_string())
        if self.kind == "date":
            return self._type or pa.timestamp("us" if _pandas.PANDAS_3 else "ns")
        return {
            "none": pa.float64() if self.n_rows else pa.null(),
            "int": pa.int64(),
            "uint": pa.uint64(),
            "float": pa.float64(),
            "bool": pa.bool_(),
            "text": pa.large_string(),
        }[self.kind]

    def reader_type(self) -> Any:
        """Give the type that pyarrow's reader is to make of it in the second pass."""
        pa = load_pyarrow()
        is_own = self.kind in ("none", "category", "given") or not self.is_plain
        is_own |= self.kind == "date" and self._type is None
        return pa.large_string() if is_own else self.arrow_type()

    # -- the second pass

    def convert(self, chunk: Any) -> Any:
        """Make what the column is of what the reader made of it."""
        pa = load_pyarrow()
        wanted = self.arrow_type()
        if chunk.type == wanted:
            return chunk
        if self.kind == "none":
            return pa.nulls(len(chunk), wanted)
        if self.kind == "category":
            labels = pa.array(self._sorted_labels(), pa.large_string())
            indices = pa.compute.index_in(chunk, value_set=labels)
            ordered = bool(self.dtype.ordered)
            kind = pa.dictionary(pa.int32(), pa.large_string(), ordered)
            return pa.DictionaryArray.from_arrays(indices, labels, ordered=ordered).cast(kind)
        if self.kind == "date":
            return chunk.cast(wanted) if self._format is None else _parse_dates(chunk, self._format)
        try:
            if self.kind != "given":
                return self._convert_as(self.kind, chunk, plain=self.is_plain)
            is_numpy = not isinstance(self.dtype, pd.api.extensions.ExtensionDtype)
            if chunk.null_count and is_numpy and not pa.types.is_floating(wanted):
                raise ValueError(
                    f"column {self.label!r} has missing values, which {self.dtype} cannot hold"
                )
            if pa.types.is_boolean(wanted):
                return self._convert_as("bool", chunk, plain=False)
            return _clean(chunk).cast(wanted)
        except pa.ArrowInvalid as error:
            raise ValueError(
                f"column {self.label!r}: {self.dtype or self.kind}: {error}"
            ) from error

    def _sorted_labels(self) -> list[str]:
        given = self.dtype.categories
        return sorted(self._labels) if given is None else [str(each) for each in given]

    def _convert_as(self, kind: str, text: Any, *, plain: bool) -> Any:
        pa = load_pyarrow()
        pc = pa.compute
        if kind == "bool":
            is_true = pc.is_in(text, value_set=pa.array(self._true, text.type))
            is_false = pc.is_in(text, value_set=pa.array(self._false, text.type))
            known = pc.or_(is_true, is_false)
            if pc.sum(known).as_py() != len(text) - text.null_count:
                raise pa.ArrowInvalid("other than true and false")
            return pc.if_else(known, is_true, pa.scalar(None, pa.bool_()))
        kinds = {"int": pa.int64(), "uint": pa.uint64(), "float": pa.float64()}
        return (text if plain else _clean(text)).cast(kinds[kind])


def _lengths(text: Any) -> Any:
    return load_pyarrow().compute.binary_length(text)


def _clean(text: Any) -> Any:
    """Take away what pandas overlooks in a number: spaces around it, a plus sign."""
    pc = load_pyarrow().compute
    return pc.replace_substring_regex(pc.utf8_trim_whitespace(text), r"^\+([0-9.])", r"\1")


def _all_match(text: Any, pattern: str) -> bool:
    pc = load_pyarrow().compute
    return pc.all(pc.match_substring_regex(text, pattern)).as_py() is True


def _has_hex(text: Any) -> bool:
    pc = load_pyarrow().compute
    return pc.any(pc.match_substring(text, "x", ignore_case=True)).as_py() is True


def _parse_dates(text: Any, how: str) -> Any:
    parsed = pd.to_datetime(pd.Series(text.to_pylist(), dtype=object), format=how)
    if parsed.dtype == object:
        raise ValueError("several zones")
    return load_pyarrow().Array.from_pandas(parsed)


def _is_text(dtype: Any) -> bool:
    # pandas 2 has "U" for "str"
    return isinstance(dtype, pd.StringDtype) or getattr(dtype, "char", "") in ("O", "U")


def _type_of(dtype: Any, label: Any) -> Any:
    """Give the Arrow type of a dtype that was asked for."""
    pa = load_pyarrow()
    numpy = getattr(dtype, "numpy_dtype", dtype)
    try:
        if pd.api.types.is_numeric_dtype(dtype) or pd.api.types.is_bool_dtype(dtype):
            return pa.from_numpy_dtype(numpy)
    except (pa.ArrowNotImplementedError, TypeError):
        pass
    raise TypeError(
        f"column {label!r}: dtype {dtype} cannot be read from CSV into shared memory; read it as a "
        f"number, bool, str or category (dates: parse_dates), or use SDataFrame(pd.read_csv(..))"
    )
