"""From Parquet files: threads decode row groups, a few columns at a time, each to where it belongs.

(1) What is decoded at one time is a batch of a few columns of one row group, for each thread: memory
    does not grow with the file, nor with the row groups.
(2) Missing values and the length of text come from the file's own statistics where it has them; else
    those columns are read twice (see pour.py).
(3) One plain file is streamed by ParquetFile. Directories, partitions and filters are pyarrow's
    dataset's, one row group at a time.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
from collections.abc import Iterator
from importlib import import_module
from typing import TYPE_CHECKING, Any

from .. import _pandas
from ..layout.arrow_types import load_pyarrow
from .columns import Column
from .damage import find_name, naming_damage
from .parquet_sizes import read_text_sizes
from .pour import pour

if TYPE_CHECKING:
    from ..sdataframe import SDataFrame

__all__ = ["read_parquet"]

#: Rows decoded at one time: 1 MiB of float64, the size that stores are fastest with.
_BATCH = 128 << 10
#: Columns are read together up to this many bytes of a row group, as the file says: one by one costs
#: 0.2 ms each, and with more threads there should be more than one for each.
_BUNDLE = 8 << 20


def read_parquet(
    path: Any,
    *,
    columns: list[str] | None = None,
    filters: Any = None,
    dtype_backend: Any = None,
    name: str | None = None,
    threads: int | None = None,
    progress: bool = False,
    filesystem: Any = None,
) -> SDataFrame:
    """Read Parquet into a shared frame: what ``pandas.read_parquet`` gives, decoded where it lies.

    Beside the frame it takes what its threads decode at one time, some MiB each; and, of files that
    do not say how long their strings are (those of pyarrow before 20), up to 64 MiB of columns that
    are decoded once, or the time to decode the rest of them twice.

    Parameters
    ----------
    path : str, path, or binary file object
        A file, or a directory of files, partitioned in the manner of Hive or not.
    columns, filters, filesystem, dtype_backend : as for pandas.read_parquet
    name : str, optional
        A name to attach by.
    threads : int, optional
        That decode. By default one for each core, at most 8.
    progress : bool
        Show a tqdm bar.

    Raises
    ------
    FileNotFoundError
    ValueError : the file is damaged, or no Parquet; names the path.
    TypeError : a column would hold Python objects that cannot be shared; names it, and the remedy.
    ImportError : pyarrow is missing.
    SegmentFull, SegmentExists
    """
    load_pyarrow()
    _pandas.register_arrow_types()
    path, what = find_name(path)
    source: _FileSource | _DatasetSource
    with naming_damage(what, "Parquet"):
        if _is_plain(path, filters, filesystem):
            source = _FileSource(path, columns, what)
        else:
            source = _DatasetSource(path, columns, filters, filesystem, what)
    attrs = None
    said = (source.schema.metadata or {}).get(b"PANDAS_ATTRS")
    if said is not None:
        attrs = json.loads(said)
    try:
        return pour(
            source,
            dtype_backend=dtype_backend,
            name=name,
            threads=threads,
            progress=progress,
            attrs=attrs,
        )
    finally:
        source.close()


def _is_plain(path: Any, filters: Any, filesystem: Any) -> bool:
    if filters is not None or filesystem is not None:
        return False
    if not isinstance(path, str):
        return hasattr(path, "read")
    # A file in a folder "year=2020" has one column more for pandas; what is no local file is
    # pyarrow's to understand, or to refuse.
    return os.path.isfile(path) and "=" not in os.path.dirname(path)


def _parquet() -> Any:
    return import_module("pyarrow.parquet")


def _index_fields(schema: Any) -> list[str]:
    said = schema.pandas_metadata or {}
    return [each for each in said.get("index_columns", []) if type(each) is str]


def _chosen(schema: Any, columns: list[str]) -> list[str]:
    """Give the fields that *columns* mean, and the index, as pandas reads them."""
    names = list(columns)
    return names + [
        each for each in _index_fields(schema) if each not in names and each in schema.names
    ]


class _FileSource:
    """One file. Each thread has a reader of its own."""

    is_free = False

    def __init__(self, path: Any, columns: list[str] | None, what: str) -> None:
        self.what = what
        self._path = path
        self._local = threading.local()
        self._readers: list[Any] = []
        self._lock = threading.Lock()
        # Of a file object all readers move the one position.
        self._file_lock = contextlib.nullcontext() if isinstance(path, str) else threading.Lock()
        self._metadata: Any = None
        reader = self._reader()
        self._metadata = reader.metadata
        schema = reader.schema_arrow
        if columns is not None:
            names = _chosen(schema, columns)
            fields = [schema.field(each) for each in names if each in schema.names]
            schema = load_pyarrow().schema(fields, schema.metadata)
        self.schema = schema
        if len(set(schema.names)) != len(schema.names):
            raise ValueError(f"columns of different names wanted, found {schema.names}")

    def _reader(self) -> Any:
        reader = getattr(self._local, "reader", None)
        if reader is None:
            with self._file_lock:
                if not isinstance(self._path, str):
                    self._path.seek(0)
                reader = _parquet().ParquetFile(self._path, metadata=self._metadata)
            self._local.reader = reader
            with self._lock:
                self._readers.append(reader)
        return reader

    def close(self) -> None:
        for reader in self._readers:
            if isinstance(self._path, str):
                reader.close()
        self._readers = []

    def rows(self) -> list[int | None]:
        return [self._group(i).num_rows for i in range(self._metadata.num_row_groups)]

    def _group(self, piece: int) -> Any:
        return self._metadata.row_group(piece)

    def _leaves(self) -> dict[str, int]:
        """Give the leaf column of each name that has only one."""
        found = getattr(self, "_leaf", None)
        if found is None:
            schema = self._metadata.schema
            found = {schema.column(i).path: i for i in range(len(schema))}
            self._leaf = found
            self._sizes = read_text_sizes(self._metadata) if self._has_text() else []
        return found

    def _has_text(self) -> bool:
        schema = self._metadata.schema
        return any(schema.column(i).physical_type == "BYTE_ARRAY" for i in range(len(schema)))

    def claim(self, column: Column, i: int) -> None:
        leaf = self._leaves().get(self.schema.field(i).name)
        if leaf is None:
            return
        for piece in range(self._metadata.num_row_groups):
            statistics = self._group(piece).column(leaf).statistics
            if statistics is not None and statistics.has_null_count:
                column.n_null[piece] = statistics.null_count
            n_bytes = self._sizes[piece][leaf] if self._sizes else None
            if n_bytes is not None:
                column.n_bytes[piece] = n_bytes

    def bundles(self, piece: int, fields: list[int]) -> list[list[int]]:
        leaves, group = self._leaves(), self._group(piece)
        bundles: list[list[int]] = []
        room = 0
        for i in fields:
            leaf = leaves.get(self.schema.field(i).name)
            size = _BUNDLE if leaf is None else group.column(leaf).total_uncompressed_size
            if size > room:
                bundles.append([])
                room = _BUNDLE
            bundles[-1].append(i)
            room -= size
        return bundles

    def read(self, piece: int, fields: list[int]) -> Iterator[list[Any]]:
        names = [self.schema.field(i).name for i in fields]
        reader = self._reader()
        with self._file_lock:
            batches = reader.iter_batches(
                batch_size=_BATCH, row_groups=[piece], columns=names, use_threads=False
            )
        while True:
            with self._file_lock:
                batch = next(batches, None)
            if batch is None:
                return
            # By name: a column "a" comes with the fields of another called "a.b".
            yield [batch.column(batch.schema.get_field_index(each)) for each in names]

    def release(self, piece: int) -> None:
        pass

    def errors(self) -> contextlib.AbstractContextManager[None]:
        return naming_damage(self.what, "Parquet")


class _DatasetSource:
    """Several files, partitions, filters: fragments of a pyarrow dataset, by row group."""

    is_free = False

    def __init__(
        self, path: Any, columns: list[str] | None, filters: Any, filesystem: Any, what: str
    ) -> None:
        self.what = what
        parquet = _parquet()
        whole = parquet.ParquetDataset(path, filesystem=filesystem, filters=filters)
        self._filter = (
            None
            if filters is None
            else filters
            if isinstance(filters, import_module("pyarrow.dataset").Expression)
            else parquet.filters_to_expression(filters)
        )
        schema = whole.schema
        if columns is not None:
            names = [each for each in _chosen(schema, columns) if each in schema.names]
            schema = load_pyarrow().schema([schema.field(each) for each in names], schema.metadata)
        self.schema = schema
        self._all = whole.schema
        self._pieces = [
            part for fragment in whole.fragments for part in fragment.split_by_row_group()
        ]

    def close(self) -> None:
        self._pieces = []

    def rows(self) -> list[int | None]:
        if self._filter is not None:
            return [None] * len(self._pieces)
        return [part.row_groups[0].num_rows for part in self._pieces]

    def claim(self, column: Column, i: int) -> None:
        pass

    def bundles(self, piece: int, fields: list[int]) -> list[list[int]]:
        return [fields]

    def read(self, piece: int, fields: list[int]) -> Iterator[list[Any]]:
        names = [self.schema.field(i).name for i in fields]
        scanner = self._pieces[piece].scanner(
            schema=self._all,
            columns=names,
            filter=self._filter,
            batch_size=_BATCH,
            use_threads=False,
        )
        for batch in scanner.to_batches():
            yield [batch.column(i) for i in range(len(names))]

    def release(self, piece: int) -> None:
        pass

    def errors(self) -> contextlib.AbstractContextManager[None]:
        return naming_damage(self.what, "Parquet")
