"""From Arrow data in memory: tables, record batches, readers, and what exports them (polars, DuckDB)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from ..layout.arrow_types import load_pyarrow
from .columns import Column
from .pour import pour

if TYPE_CHECKING:
    from ..sdataframe import SDataFrame

__all__ = ["BatchSource", "from_arrow"]


def from_arrow(
    data: Any,
    *,
    dtype_backend: Any = None,
    name: str | None = None,
    threads: int | None = None,
    progress: bool = False,
) -> SDataFrame:
    """Make a shared frame of Arrow data: what ``table.to_pandas()`` gives, but in shared memory.

    One copy, from Arrow's buffers into the segment. A table stays the caller's. Of a reader or an
    iterable the length is not known, so its batches are collected first, as Arrow has them, and each
    is let go when it is written: at most the data itself as Arrow has it, beside the frame.

    Parameters
    ----------
    data : pyarrow.Table, RecordBatch or RecordBatchReader, iterable of RecordBatch
        Or any object with ``__arrow_c_stream__``. Metadata that pandas wrote restores the index, the
        labels and the dtypes.
    dtype_backend : "numpy_nullable" or "pyarrow", optional
        As for pandas' readers.
    threads : int, optional
        That copy. By default one for each core, at most 8.
    progress : bool
        Show a tqdm bar.

    Raises
    ------
    TypeError : *data* is no Arrow data; or a column would hold Python objects that cannot be shared:
        the message names it and the remedy.
    ValueError : no batch came, so there is no schema; or the batches differ in theirs.
    ImportError : pyarrow is missing.
    SegmentFull, SegmentExists
    """
    source = _source_of(data)
    del data
    return pour(source, dtype_backend=dtype_backend, name=name, threads=threads, progress=progress)


def _source_of(data: Any) -> BatchSource:
    pa = load_pyarrow()
    if not isinstance(data, pa.RecordBatch) and hasattr(data, "__arrow_c_array__"):
        data = pa.record_batch(data)
    if isinstance(data, pa.RecordBatch):
        return BatchSource(data.schema, [data])
    if isinstance(data, pa.Table):
        batches = data.to_batches()
        if not batches:  # its dictionaries count all the same
            firsts = [c.chunk(0) if c.num_chunks else pa.array([], c.type) for c in data.columns]
            batches = [pa.RecordBatch.from_arrays(firsts, schema=data.schema)]
        return BatchSource(data.schema, batches)
    if not isinstance(data, pa.RecordBatchReader) and hasattr(data, "__arrow_c_stream__"):
        data = pa.RecordBatchReader.from_stream(data)
    if isinstance(data, pa.RecordBatchReader):
        return BatchSource(data.schema, list(data))
    if isinstance(data, str | bytes | dict) or not isinstance(data, Iterable):
        raise TypeError(
            f"a pyarrow Table, RecordBatch, RecordBatchReader or an iterable of batches wanted, "
            f"{type(data).__name__} found"
        )
    batches = list(data)
    for each in batches:
        if not isinstance(each, pa.RecordBatch):
            raise TypeError(f"record batches wanted, {type(each).__name__} found")
        if not each.schema.equals(batches[0].schema):
            raise ValueError(
                f"batches of one schema wanted, found {batches[0].schema} and {each.schema}"
            )
    if not batches:
        raise ValueError(
            "no batch came, so there is no schema; pass a RecordBatchReader or a Table"
        )
    return BatchSource(batches[0].schema, batches)


class BatchSource:
    """Record batches in memory; each is a piece."""

    is_free = True

    def __init__(self, schema: Any, batches: list[Any], what: str = "Arrow data") -> None:
        self.schema = schema
        self.what = what
        self._batches: list[Any] = batches
        self._rows: list[int | None] = [batch.num_rows for batch in batches]

    def rows(self) -> list[int | None]:
        return list(self._rows)

    def claim(self, column: Column, i: int) -> None:
        for piece, batch in enumerate(self._batches):
            column.n_null[piece] = batch.column(i).null_count

    def bundles(self, piece: int, fields: list[int]) -> list[list[int]]:
        return [fields]

    def read(self, piece: int, fields: list[int]) -> Iterator[list[Any]]:
        batch = self._batches[piece]
        yield [batch.column(i) for i in fields]

    def release(self, piece: int) -> None:
        self._batches[piece] = None

    @contextlib.contextmanager
    def errors(self) -> Iterator[None]:
        yield
