"""arrow://, parquet://, csv://: frames in files of these formats, arrays beside them as .npy files.

(1) Others read what we write, and we read what they wrote, without a word of numpush's in it but one: the
    metadata of a Series says that it is one.
(2) A key is the path of a file without its suffix. Where there is a table and an array of one key,
    which is so while one replaces the other, the table counts.
"""

from __future__ import annotations

import contextlib
import json
from abc import abstractmethod
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ..filling.damage import naming_damage
from ..layout.arrow_types import load_pyarrow
from .describing import stat_of
from .errors import StoreDamaged
from .fetching import fetch
from .folders import open_folder
from .in_memory import InMemory
from .npy_file import NpyFile, write_npy
from .store import Stat, Store

__all__ = ["TableStore"]

_ARRAY = ".npy"
_MARK = b"numpush.form"
Tell = Callable[[int], None]


class TableStore(Store):
    """Files of one format in a folder: of this machine, or of any that fsspec reaches.

    Parameters
    ----------
    url : str
        ``FORMAT:///DIR``, or ``FORMAT+PROTOCOL://..``, as in ``parquet+s3://bucket/prefix``: what
        comes after the plus is fsspec's.
    storage_options : dict, optional
        For fsspec.
    """

    _suffixes: tuple[str, ...]  #: of tables; the first is what we write
    _format: str

    def __init__(
        self, url: str, *, storage_options: dict[str, Any] | None = None, **options: Any
    ) -> None:
        if storage_options is not None:
            options["storage_options"] = storage_options
        super().__init__(url, **options)
        load_pyarrow()
        self._folder = open_folder(url, storage_options or {})

    # -- what a format does

    def _prepare(self, frame: Any, form: str) -> Any:
        """Return what `_write` takes, or refuse a frame, before there is a file.

        *form* "series": the frame is a Series' one column; "unnamed": of one without a name.
        """
        return _to_table(frame, form)

    @abstractmethod
    def _write(self, out: Any, prepared: Any, tell: Tell) -> None:
        """Write a frame to a binary file."""

    @abstractmethod
    def _read(
        self,
        source: Any,
        columns: list[Any] | None,
        rows: slice | None,
        name: str | None,
        tell: Tell,
    ) -> tuple[Any, str]:
        """Read a shared frame from a path or a binary file; and its form."""

    @abstractmethod
    def _look(self, source: Any) -> tuple[Any, int | None, str]:
        """Return an empty frame of the file's columns, its rows where known, and its form."""

    # -- Store

    def _put(self, key: str, obj: Any, tell: Tell) -> None:
        if isinstance(obj, np.ndarray):
            others = [key + suffix for suffix in self._suffixes]
            with self._naming_file_errors(key, is_put=True):
                self._folder.replace(key + _ARRAY, lambda out: write_npy(out, obj), others)
            tell(obj.nbytes)
            return
        frame, form = _frame_of(obj)
        prepared = self._prepare(frame, form)
        with self._naming_file_errors(key, is_put=True):
            path = self._find(key, self._suffixes) or key + self._suffixes[0]
            self._folder.replace(path, lambda out: self._write(out, prepared, tell), [key + _ARRAY])

    def _find(self, key: str, suffixes: tuple[str, ...]) -> str | None:
        for suffix in suffixes:
            if self._folder.size(key + suffix) is not None:
                return key + suffix
        return None

    @contextlib.contextmanager
    def _source(self, key: str) -> Iterator[tuple[Any, bool]]:
        """Open the file of a key: a path or a file object, and whether it is a table; rule (2)."""
        with self._naming_file_errors(key):
            for _ in range(3):  # it may be replaced by one of the other kind just now
                path = self._find(key, (*self._suffixes, _ARRAY))
                if path is None:
                    raise self._missing(key)
                try:
                    source = self._folder.read(path)
                except FileNotFoundError:
                    continue
                is_table = not path.endswith(_ARRAY)
                break
            else:
                raise self._missing(key)
            try:
                with naming_damage(self._what(key), self._format):
                    yield source, is_table
            except ValueError as error:
                if isinstance(
                    error.__cause__, ValueError | OSError | load_pyarrow().ArrowException
                ):
                    raise StoreDamaged(str(error)) from error
                raise
            finally:
                if not isinstance(source, str):
                    source.close()

    def _get(
        self,
        key: str,
        into: Any,
        columns: list[Any] | None,
        rows: slice | None,
        name: str | None,
        tell: Tell,
    ) -> Any:
        with self._source(key) as (source, is_table):
            what = self._what(key)
            if not is_table:
                with contextlib.closing(NpyFile(source, what)) as stored:
                    return fetch(
                        stored, into=into, columns=columns, rows=rows, name=name, progress=tell
                    )
            if rows is not None and (not isinstance(rows, slice) or rows.step not in (None, 1)):
                raise TypeError(f"rows are a slice without a step; {rows!r} found")
            frame, form = self._read(source, columns, rows, name, tell)
        if form:
            from ..sseries import SSeries

            if form == "unnamed":
                frame.columns = [None]
            frame = SSeries._over(frame)
        return frame if into is None else fetch(InMemory(frame, what), into=into)

    def _keys(self, prefix: str) -> list[str]:
        found = set()
        for path in self._folder.paths():
            for suffix in (*self._suffixes, _ARRAY):
                if path.endswith(suffix) and path.startswith(prefix):
                    found.add(path.removesuffix(suffix))
        return [key for key in found if key.startswith(prefix)]

    def _delete(self, key: str) -> None:
        n = 0
        with self._naming_file_errors(key):
            for suffix in (_ARRAY, *reversed(self._suffixes)):
                with contextlib.suppress(FileNotFoundError):
                    self._folder.delete(key + suffix)
                    n += 1
        if not n:
            raise self._missing(key)

    def _stat(self, key: str) -> Stat:
        with self._source(key) as (source, is_table):
            if not is_table:
                size = self._folder.size(key + _ARRAY) or 0
                with contextlib.closing(NpyFile(source, self._what(key))) as stored:
                    return stat_of(key, stored, size, "npy")
            path = self._find(key, self._suffixes)
            size = self._folder.size(path) or 0 if path else 0
            empty, n_rows, form = self._look(source)
        dtypes = {label: str(dtype) for label, dtype in empty.dtypes.items()}
        if form:
            return Stat(
                key, "series", (n_rows,), str(empty.dtypes.iloc[0]), None, size, self._format
            )
        return Stat(key, "frame", (n_rows, len(dtypes)), dtypes, None, size, self._format)

    def _close(self) -> None:
        pass  # nothing stays open


def _frame_of(obj: Any) -> tuple[Any, str]:
    """Return what is to be written as a frame, and the form that it had."""
    import pandas as pd

    if isinstance(obj, pd.Series):
        if obj.name is None:
            return obj.to_frame("values"), "unnamed"
        return obj.to_frame(), "series"
    if not isinstance(obj, pd.DataFrame):
        raise TypeError(f"a {type(obj).__name__} is no ndarray, DataFrame or Series")
    return obj, ""


def _to_table(frame: Any, form: str) -> Any:
    """Return an Arrow table of a frame, with pandas' metadata: no copy of numbers without gaps.

    Raises
    ------
    TypeError : a column has no form in Arrow; names it.
    """
    pa = load_pyarrow()
    try:
        table = pa.Table.from_pandas(frame)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError, ValueError) as error:
        raise TypeError(
            f"this has no form in Arrow: {error}; convert the column, or drop it"
        ) from error
    if form:
        table = table.replace_schema_metadata(
            {**(table.schema.metadata or {}), _MARK: form.encode()}
        )
    return table


def with_rows_named(table: Any, start: int) -> Any:
    """Return a table that begins at row *start* of a whole, so that a RangeIndex says so."""
    said = dict(table.schema.pandas_metadata or {"columns": [], "column_indexes": []})
    levels = said.get("index_columns") or [{"kind": "range", "name": None, "start": 0, "step": 1}]
    if len(levels) != 1 or not isinstance(levels[0], dict):
        return table
    step = levels[0]["step"]
    first = levels[0]["start"] + start * step
    level = {**levels[0], "start": first, "stop": first + len(table) * step}
    packed = json.dumps({**said, "index_columns": [level]}).encode()
    return table.replace_schema_metadata({**(table.schema.metadata or {}), b"pandas": packed})


def form_of(schema: Any) -> str:
    """Return "series" or "unnamed" if an Arrow schema is that of a Series of ours, else ""."""
    said = (schema.metadata or {}).get(_MARK, b"")
    for form in ("series", "unnamed"):
        if said == form.encode() and schema.names:
            return form
    return ""


def choose_fields(schema: Any, columns: list[Any] | None, what: str) -> list[str] | None:
    """Return the names of the fields that columns are, those of the index with them.

    Raises
    ------
    ValueError, TypeError : there is no such column.
    """
    if columns is None:
        return None
    from ..filling.plan import Plan
    from .fetching import find_columns

    plan = Plan(schema, None)
    positions = find_columns(plan.labels, columns, what)
    fields = {position: field for field, position in plan.positions.items()}
    return [schema.names[fields[at]] for at in positions] + [schema.names[i] for i in plan.index]
