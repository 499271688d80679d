"""From CSV files, in two passes of pyarrow's streaming reader, a block at a time.

The first pass finds what the columns are, how many rows there are and how long the text is; the second
stores each block where it belongs. So memory is a few blocks, whatever the size of the file. What a
first pass converted is kept while it is little (`_KEEP`), so that small files are read once.

Types are those of the whole file: the first block, as text, tells what they may be (csv_types.py). The
first pass then has pyarrow's reader convert to that. Where a later block is of another kind it stops,
and the first pass is done again with everything as text.
"""

from __future__ import annotations

import contextlib
import csv as _csv
import io
import json
from collections.abc import Iterator
from importlib import import_module
from typing import TYPE_CHECKING, Any

import pandas as pd

from ..layout.arrow_types import load_pyarrow
from .columns import Column
from .csv_types import FALSE, TRUE, CsvColumn
from .damage import find_name, naming_damage
from .pour import pour
from .text import TextColumn

if TYPE_CHECKING:
    from ..sdataframe import SDataFrame

__all__ = ["read_csv"]

#: Bytes of text that are parsed at one time. A row must fit. pyarrow reads some blocks ahead: private
#: memory was at 90 MiB at its highest, for files of 94 and of 377 MiB; with blocks of 4 MiB at 150.
_BLOCK = 1 << 20
_KEEP = 16 << 20
#: What pandas.read_csv takes for missing; in its documentation.
_MISSING = (
    *("", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN"),
    *("<NA>", "N/A", "NA", "NULL", "NaN", "None", "n/a", "nan", "null"),
)
_DEFAULTS: dict[str, Any] = {
    "sep": ",", "delimiter": None, "header": "infer", "names": None, "index_col": None,
    "usecols": None, "dtype": None, "parse_dates": None, "na_values": None,
    "keep_default_na": True, "true_values": None, "false_values": None, "skiprows": None,
    "encoding": None, "quotechar": '"', "doublequote": True, "escapechar": None,
    "compression": "infer",
}  # fmt: skip


def read_csv(
    path: Any, *, name: str | None = None, progress: bool = False, **kwargs: Any
) -> SDataFrame:
    """Read a CSV file into a shared frame: what ``pandas.read_csv`` gives for ordinary files.

    Two passes over the file, each a few blocks of 1 MiB at a time. Types are inferred over the whole
    file: int64, uint64, float64, bool, str; dates where parse_dates asks for them.

    Parameters
    ----------
    path : str, path, or binary file object that can seek
        Compressed as its suffix says (.gz, .bz2, .zst, .lz4).
    name, progress : as for `read_parquet`
    **kwargs : as for pandas.read_csv
        sep (or delimiter), header (None, 0 or "infer"), names, index_col (one column), usecols,
        dtype (numbers, bool, str, category; also one for each column), parse_dates (a list of
        columns), na_values (a value or a list), keep_default_na, true_values, false_values, skiprows
        (a number), encoding, quotechar, doublequote, escapechar, compression.

    Raises
    ------
    TypeError : another argument, or another form of these; names it and the remedy. Or a column that
        cannot be shared.
    ValueError : rows of different lengths, or a value that its dtype does not take; names the path.
    FileNotFoundError
    ImportError : pyarrow is missing.
    SegmentFull, SegmentExists
    """
    load_pyarrow()
    options = _read_options(kwargs)
    path, what = find_name(path)
    if not isinstance(path, str) and isinstance(path, io.TextIOBase):
        raise TypeError(f"{what}: a path or a binary file wanted; encode text: io.BytesIO(b'..')")
    with naming_damage(what, "CSV"):
        source = _CsvSource(path, options, what)
    return pour(source, name=name, threads=1, progress=progress)


def _refuse(key: str, value: Any, wanted: str = "") -> TypeError:
    wanted = f"{wanted} wanted; " if wanted else ""
    return TypeError(
        f"read_csv: {key}={value!r} is not understood here: {wanted}leave it out, or use "
        f"SDataFrame(pd.read_csv(path, {key}=..))"
    )


def _read_options(kwargs: dict[str, Any]) -> dict[str, Any]:
    """Check what was given; fill in pandas' defaults."""
    for key, value in kwargs.items():
        if key not in _DEFAULTS:
            raise _refuse(key, value)
    options = {**_DEFAULTS, **kwargs}
    if options["delimiter"] is not None:
        options["sep"] = options["delimiter"]
    if type(options["sep"]) is not str or len(options["sep"]) != 1:
        raise _refuse("sep", options["sep"], "one character")
    if options["header"] == "infer":
        options["header"] = 0 if options["names"] is None else None
    if options["header"] not in (None, 0) or options["header"] is False:
        raise _refuse("header", options["header"], "None, 0 or 'infer'")
    if type(options["skiprows"] or 0) is not int:
        raise _refuse("skiprows", options["skiprows"], "a number of lines")
    if type(options["index_col"]) not in (type(None), int, str):
        raise _refuse("index_col", options["index_col"], "one column")
    if isinstance(options["na_values"], dict):
        raise _refuse("na_values", options["na_values"], "a value or a list")
    dates = options["parse_dates"]
    if dates not in (None, False) and not isinstance(dates, list | tuple):
        raise _refuse("parse_dates", dates, "a list of columns")
    return options


class _CsvSource:
    """A file as one piece, read from its start each time."""

    is_free = False

    def __init__(self, path: Any, options: dict[str, Any], what: str) -> None:
        self.what = what
        self._path = path
        self._options = options
        first = self._first_row()
        self._n_fields = len(first)
        labels = self._labels(first)
        self._used = self._usecols(labels)
        dates = {_find(labels, each, "parse_dates") for each in options["parse_dates"] or ()}
        self._truth = (
            [*TRUE, *(options["true_values"] or ())],
            [*FALSE, *(options["false_values"] or ())],
        )
        self._columns = [
            CsvColumn(labels[i], self._dtype(labels, i), i in dates, *self._truth)
            for i in self._used
        ]
        self._kept: list[list[Any]] | None = []
        self._look()
        self.schema = self._schema([labels[i] for i in self._used], labels)
        self._n_rows = self._columns[0].n_rows if self._columns else 0

    # -- the first pass

    def _look(self) -> None:
        """Find out what the columns are, how many rows they have, and how long their text is."""
        pa = load_pyarrow()
        text = [pa.large_string()] * len(self._used)
        first = next(self._stream(text), [])
        for column, chunk in zip(self._columns, first):
            column.look(chunk)
        try:
            self._count([column.reader_type() for column in self._columns])
        except pa.ArrowInvalid as error:
            if "conversion error" not in str(error):
                raise
            self._count(text)

    def _count(self, kinds: list[Any]) -> None:
        n_bytes = 0
        self._kept = []
        for column in self._columns:
            column.start_again()
        for chunks in self._stream(kinds):
            for column, chunk in zip(self._columns, chunks):
                column.look(chunk)
            n_bytes += sum(chunk.nbytes for chunk in chunks)
            if n_bytes > _KEEP:
                self._kept = None
            if self._kept is not None:
                self._kept.append(chunks)

    # -- the columns

    def _first_row(self) -> list[str]:
        options = self._options
        with self._open() as raw:
            readable = io.BufferedReader(_Readable(raw))
            text = io.TextIOWrapper(readable, options["encoding"] or "utf-8-sig", newline="")
            for _ in range(options["skiprows"] or 0):
                text.readline()
            rows = _csv.reader(
                text,
                delimiter=options["sep"],
                quotechar=options["quotechar"],
                doublequote=options["doublequote"],
                escapechar=options["escapechar"],
            )
            first = next((row for row in rows if row), None)
            text.detach()
        if first is None:
            if options["names"] is None:
                raise pd.errors.EmptyDataError(f"{self.what}: no columns to parse from file")
            return list(map(str, options["names"]))
        return first

    def _labels(self, first: list[str]) -> list[Any]:
        names = self._options["names"]
        if names is not None:
            names = list(names)
            if len(names) != len(first) or len(set(names)) != len(names):
                raise _refuse("names", names, f"{len(first)} names, one for each column,")
            return names
        if self._options["header"] is None:
            return list(range(len(first)))
        seen: dict[str, int] = {}
        labels: list[Any] = []
        for i, label in enumerate(first):
            label = made = label or f"Unnamed: {i}"
            while made in seen or (made != label and made in first):
                seen[label] = seen.get(label, 0) + 1
                made = f"{label}.{seen[label]}"
            seen.setdefault(made, 0)
            labels.append(made)
        return labels

    def _usecols(self, labels: list[Any]) -> list[int]:
        wanted = self._options["usecols"]
        if wanted is None:
            return list(range(len(labels)))
        if callable(wanted):
            return [i for i, label in enumerate(labels) if wanted(label)]
        return sorted({_find(labels, each, "usecols") for each in wanted})

    def _dtype(self, labels: list[Any], i: int) -> Any:
        given = self._options["dtype"]
        if isinstance(given, dict):
            given = given.get(labels[i], given.get(i))
        return None if given is None else pd.api.types.pandas_dtype(given)

    def _schema(self, labels: list[Any], every: list[Any]) -> Any:
        """Give the Arrow schema; pandas' metadata says what Arrow's types cannot."""
        pa = load_pyarrow()
        names = [f"f{i}" for i in self._used]
        fields = [pa.field(name, column.arrow_type()) for name, column in zip(names, self._columns)]
        index = self._options["index_col"]
        at = None if index is None else _find(every, index, "index_col")
        said = [
            {
                "name": label,
                "field_name": name,
                "pandas_type": "object",
                "numpy_type": _numpy_type(column.dtype),
                "metadata": None,
            }
            for label, name, column in zip(labels, names, self._columns)
        ]
        if at is not None and at not in self._used:
            raise ValueError(f"index_col={index!r} is not among usecols")
        metadata = {
            "index_columns": [] if at is None else [f"f{at}"],
            "columns": said,
            "column_indexes": [],
        }
        return pa.schema(fields, {b"pandas": json.dumps(metadata, default=str).encode()})

    # -- reading

    def _open(self) -> contextlib.AbstractContextManager[Any]:
        pa = load_pyarrow()
        if not isinstance(self._path, str):
            self._path.seek(0)
            return contextlib.nullcontext(pa.PythonFile(self._path, mode="r"))
        how = self._options["compression"]
        opened: contextlib.AbstractContextManager[Any] = pa.input_stream(
            self._path, compression="detect" if how == "infer" else how
        )
        return opened

    def _stream(self, kinds: list[Any]) -> Iterator[list[Any]]:
        """Yield blocks of the columns used, as *kinds*."""
        csv = import_module("pyarrow.csv")
        options = self._options
        names = [f"f{i}" for i in range(self._n_fields)]
        used = [f"f{i}" for i in self._used]
        missing = list(_MISSING) if options["keep_default_na"] else []
        given = options["na_values"]
        if given is not None:
            missing += map(str, [given] if isinstance(given, str | int | float) else list(given))
        if not used:
            return
        with self._open() as file:
            try:
                reader = csv.open_csv(
                    file,
                    csv.ReadOptions(
                        column_names=names,
                        skip_rows=options["skiprows"] or 0,
                        skip_rows_after_names=0 if options["header"] is None else 1,
                        block_size=_BLOCK,
                        encoding=options["encoding"] or "utf8",
                    ),
                    csv.ParseOptions(
                        delimiter=options["sep"],
                        quote_char=options["quotechar"],
                        double_quote=options["doublequote"],
                        escape_char=options["escapechar"] or False,
                        newlines_in_values=True,
                    ),
                    csv.ConvertOptions(
                        column_types=dict(zip(used, kinds)),
                        include_columns=used,
                        null_values=missing,
                        true_values=self._truth[0],
                        false_values=self._truth[1],
                        strings_can_be_null=True,
                        quoted_strings_can_be_null=True,
                    ),
                )
            except load_pyarrow().ArrowInvalid as error:
                if "Empty CSV file" in str(error):
                    return
                raise
            for batch in reader:
                yield batch.columns

    # -- what pour.py asks

    def rows(self) -> list[int | None]:
        return [self._n_rows]

    def claim(self, column: Column, i: int) -> None:
        own = self._columns[i]
        if isinstance(column, TextColumn):
            column.gap = 2  # as pandas.read_csv has it, where to_pandas has None
        column.n_null[0] = own.n_null
        column.n_bytes[0] = own.n_bytes

    def bundles(self, piece: int, fields: list[int]) -> list[list[int]]:
        return [fields]

    def read(self, piece: int, fields: list[int]) -> Iterator[list[Any]]:
        kept, self._kept = self._kept, None
        stream: Iterator[list[Any]]
        if kept is None:
            stream = self._stream([column.reader_type() for column in self._columns])
        else:
            stream = (kept.pop(0) for _ in range(len(kept)))
        for chunks in stream:
            yield [self._columns[i].convert(chunks[i]) for i in fields]

    def release(self, piece: int) -> None:
        pass

    def errors(self) -> contextlib.AbstractContextManager[None]:
        return naming_damage(self.what, "CSV")


class _Readable(io.RawIOBase):
    """A pyarrow file as Python's io has them, left open."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._file.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


def _find(labels: list[Any], wanted: Any, key: str) -> int:
    if wanted in labels:
        return labels.index(wanted)
    if type(wanted) is int and 0 <= wanted < len(labels):
        return wanted
    raise ValueError(f"{key}: no column {wanted!r}; there are {labels}")


def _numpy_type(dtype: Any) -> str:
    is_extension = isinstance(dtype, pd.api.extensions.ExtensionDtype)
    return str(dtype) if is_extension else "object"
