"""From Feather and Arrow IPC files: mapped into memory, so that uncompressed data is copied but once."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from importlib import import_module
from typing import TYPE_CHECKING, Any

from .. import _pandas
from ..layout.arrow_types import load_pyarrow
from .arrow_source import BatchSource
from .columns import Column
from .damage import find_name, naming_damage
from .pour import pour

if TYPE_CHECKING:
    from ..sdataframe import SDataFrame

__all__ = ["read_feather"]

_MAGIC = b"ARROW1"


def read_feather(
    path: Any,
    *,
    columns: list[str] | None = None,
    dtype_backend: Any = None,
    name: str | None = None,
    threads: int | None = None,
    progress: bool = False,
) -> SDataFrame:
    """Read a Feather (Arrow IPC) file into a shared frame: what ``pandas.read_feather`` gives.

    The file is mapped: beside the frame, what is uncompressed takes no memory of its own, and of
    compressed files each thread has one record batch at a time, which is decompressed twice.
    Stream files and Feather's version 1 are read whole first, as Arrow has them.

    Parameters
    ----------
    path : str, path, or binary file object
    columns, dtype_backend : as for pandas.read_feather
    name, threads, progress : as for `read_parquet`

    Raises
    ------
    FileNotFoundError
    ValueError : the file is damaged, or of another format; names the path.
    TypeError : a column would hold Python objects that cannot be shared; names it, and the remedy.
    ImportError : pyarrow is missing.
    SegmentFull, SegmentExists
    """
    load_pyarrow()
    _pandas.register_arrow_types()
    path, what = find_name(path)
    with naming_damage(what, "Feather"):
        source = _open(path, columns, what)
    with contextlib.closing(source):
        return pour(
            source, dtype_backend=dtype_backend, name=name, threads=threads, progress=progress
        )


def _open(path: Any, columns: list[str] | None, what: str) -> _FeatherSource:
    pa = load_pyarrow()
    file = pa.memory_map(path) if isinstance(path, str) else pa.PythonFile(path, mode="r")
    try:
        start = file.read(8)
        file.seek(0)
        if start.startswith(_MAGIC):
            return _FeatherSource(file, columns, what)
        if start.startswith(b"FEA1"):
            table = import_module("pyarrow.feather").read_table(file, columns=columns)
        else:
            table = pa.ipc.open_stream(file).read_all()
            if columns is not None:
                table = table.select(columns)
        return _FeatherSource(file, columns, what, table)
    except BaseException:
        if isinstance(path, str):
            file.close()
        raise


class _FeatherSource:
    """The record batches of a file; each thread has a reader of its own."""

    is_free = True  # but for compressed ones, which are decompressed again rather than kept

    def __init__(self, file: Any, columns: list[str] | None, what: str, table: Any = None) -> None:
        self.what = what
        self._file = file
        self._local = threading.local()
        self._buffer: Any = None
        self._table: BatchSource | None = None
        if table is not None:
            self._table = BatchSource(table.schema, table.to_batches(), what)
            self.schema = table.schema
            return
        #: a file object has one position, which all readers move
        self._file_lock: contextlib.AbstractContextManager[Any] = threading.Lock()
        if isinstance(file, load_pyarrow().MemoryMappedFile):
            self._buffer = file.read_buffer()
            self._file_lock = contextlib.nullcontext()
        reader = self._reader(None)
        self.schema = reader.schema
        self._n = reader.num_record_batches
        self._fields = list(range(len(self.schema)))
        if columns is not None:
            self._fields = [self._field(each) for each in columns]
            fields = [self.schema.field(i) for i in self._fields]
            self.schema = load_pyarrow().schema(fields, self.schema.metadata)

    def _field(self, name: str) -> int:
        i = int(self.schema.get_field_index(name))
        if i < 0:
            raise KeyError(
                f"{self.what}: no column {name!r}, or several; there are {self.schema.names}"
            )
        return i

    def _reader(self, fields: list[int] | None) -> Any:
        """Give a reader of some fields, for this thread."""
        pa = load_pyarrow()
        key = None if fields is None else tuple(fields)
        known = getattr(self._local, "reader", None)
        if known is None or known[0] != key:
            source = self._file if self._buffer is None else pa.BufferReader(self._buffer)
            options = pa.ipc.IpcReadOptions(included_fields=fields, use_threads=False)
            known = self._local.reader = key, pa.ipc.open_file(source, options=options)
        return known[1]

    def close(self) -> None:
        self._buffer = self._table = None
        self._local = threading.local()
        if isinstance(self._file, load_pyarrow().MemoryMappedFile):
            self._file.close()

    def rows(self) -> list[int | None]:
        return [None] * self._n if self._table is None else self._table.rows()

    def claim(self, column: Column, i: int) -> None:
        if self._table is not None:
            self._table.claim(column, i)

    def bundles(self, piece: int, fields: list[int]) -> list[list[int]]:
        return [fields]

    def read(self, piece: int, fields: list[int]) -> Iterator[list[Any]]:
        if self._table is not None:
            yield from self._table.read(piece, fields)
            return
        wanted = sorted({self._fields[i] for i in fields})
        with self._file_lock:
            batch = self._reader(wanted).get_batch(piece)
        batch.validate()
        yield [batch.column(wanted.index(self._fields[i])) for i in fields]

    def release(self, piece: int) -> None:
        if self._table is not None:
            self._table.release(piece)

    def errors(self) -> contextlib.AbstractContextManager[None]:
        return naming_damage(self.what, "Feather")
