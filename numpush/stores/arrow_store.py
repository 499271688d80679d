"""arrow://: frames as Arrow IPC files, which Feather's version 2 is."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from ..filling import from_arrow, read_feather
from ..layout.arrow_types import load_pyarrow
from .table_store import TableStore, choose_fields, form_of, with_rows_named

__all__ = ["ArrowStore"]

_BATCH = 1 << 20  #: rows; a batch is what a thread reads at one time
Tell = Callable[[int], None]


class ArrowStore(TableStore):
    """``arrow:///DIR``: tables are .arrow files; .feather files of others are read, too.

    Parameters
    ----------
    url, storage_options : as for `.TableStore`
    compression : {None, 'lz4', 'zstd'}
        None: files that can be mapped, and are read the fastest.
    """

    _suffixes = (".arrow", ".feather")
    _format = "Arrow"

    def __init__(self, url: str, *, compression: str | None = None, **options: Any) -> None:
        if compression not in (None, "lz4", "zstd"):
            raise ValueError(f"compression {compression!r}: None, 'lz4' or 'zstd' wanted")
        super().__init__(url, **options)
        self._options["compression"] = self._compression = compression

    def _write(self, out: Any, prepared: Any, tell: Tell) -> None:
        pa = load_pyarrow()
        options = pa.ipc.IpcWriteOptions(compression=self._compression)
        with pa.ipc.new_file(out, prepared.schema, options=options) as writer:
            for batch in prepared.to_batches(max_chunksize=_BATCH):
                writer.write_batch(batch)
                tell(batch.nbytes)

    def _read(
        self,
        source: Any,
        columns: list[Any] | None,
        rows: slice | None,
        name: str | None,
        tell: Tell,
    ) -> tuple[Any, str]:
        with _opened(source) as reader:
            schema = reader.schema
            fields = choose_fields(schema, columns, "the file")
            if rows is not None:
                frame = from_arrow(_rows(reader, fields, rows), name=name)
        if rows is None:
            if not isinstance(source, str):
                source.seek(0)
            frame = read_feather(source, columns=fields, name=name)
        tell(int(frame.memory_usage(index=False).sum()))
        return frame, form_of(schema)

    def _look(self, source: Any) -> tuple[Any, int | None, str]:
        with _opened(source) as reader:
            schema = reader.schema
            return schema.empty_table().to_pandas(), sum(_counts(reader)), form_of(schema)


@contextlib.contextmanager
def _opened(source: Any) -> Iterator[Any]:
    pa = load_pyarrow()
    if not isinstance(source, str):
        yield pa.ipc.open_file(pa.PythonFile(source, mode="r"))
        return
    with pa.memory_map(source) as file:
        yield pa.ipc.open_file(file)


def _rows(reader: Any, fields: list[str] | None, rows: slice) -> Any:
    """Return a table of the rows, over the batches that have some of them."""
    counts = _counts(reader)
    start, stop, _ = rows.indices(sum(counts))
    batches, first = [], 0
    for i, count in enumerate(counts):
        low, high = max(start, first), min(stop, first + count)
        if low < high:
            batches.append(reader.get_batch(i).slice(low - first, high - low))
        first += count
    table = load_pyarrow().Table.from_batches(batches, reader.schema)
    return with_rows_named(table if fields is None else table.select(fields), start)


def _counts(reader: Any) -> list[int]:
    return [reader.get_batch(i).num_rows for i in range(reader.num_record_batches)]
