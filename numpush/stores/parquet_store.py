"""parquet://: frames as Parquet files."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

from ..filling import from_arrow, read_parquet
from .table_store import TableStore, choose_fields, form_of, with_rows_named

__all__ = ["ParquetStore"]

Tell = Callable[[int], None]


class ParquetStore(TableStore):
    """``parquet:///DIR``: tables are .parquet files.

    Parameters
    ----------
    url, storage_options : as for `.TableStore`
    compression : str
        As for pyarrow: 'snappy', 'zstd', 'lz4', 'gzip', 'none'.
    row_group_size : int
        Rows that threads decode, and ``rows=`` are chosen from, by the group.
    """

    _suffixes = (".parquet",)
    _format = "Parquet"

    def __init__(
        self,
        url: str,
        *,
        compression: str = "snappy",
        row_group_size: int = 1 << 20,
        **options: Any,
    ) -> None:
        if row_group_size < 1:
            raise ValueError(f"row_group_size {row_group_size}: at least 1 wanted")
        super().__init__(url, **options)
        self._options |= {"compression": compression, "row_group_size": row_group_size}
        self._compression, self._group = compression, row_group_size

    def _write(self, out: Any, prepared: Any, tell: Tell) -> None:
        pq = import_module("pyarrow.parquet")
        with pq.ParquetWriter(out, prepared.schema, compression=self._compression) as writer:
            for start in range(0, max(1, len(prepared)), self._group):
                part = prepared.slice(start, self._group)
                writer.write_table(part, row_group_size=self._group)
                tell(part.nbytes)

    def _read(
        self,
        source: Any,
        columns: list[Any] | None,
        rows: slice | None,
        name: str | None,
        tell: Tell,
    ) -> tuple[Any, str]:
        pq = import_module("pyarrow.parquet")
        with pq.ParquetFile(source) as file:
            schema = file.schema_arrow
            fields = choose_fields(schema, columns, "the file")
            if rows is not None:
                frame = from_arrow(_rows(file, fields, rows), name=name)
        if rows is None:
            if not isinstance(source, str):
                source.seek(0)
            frame = read_parquet(source, columns=fields, name=name)
        tell(int(frame.memory_usage(index=False).sum()))
        return frame, form_of(schema)

    def _look(self, source: Any) -> tuple[Any, int | None, str]:
        with import_module("pyarrow.parquet").ParquetFile(source) as file:
            schema = file.schema_arrow
            return schema.empty_table().to_pandas(), file.metadata.num_rows, form_of(schema)


def _rows(file: Any, fields: list[str] | None, rows: slice) -> Any:
    """Read the row groups that have some of the rows, and cut these out."""
    counts = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
    start, stop, _ = rows.indices(sum(counts))
    groups: list[int] = []
    first = skipped = 0
    for i, count in enumerate(counts):
        if max(start, first) < min(stop, first + count):
            if not groups:
                skipped = first
            groups.append(i)
        first += count
    if not groups and counts:
        groups, start, stop = [0], 0, 0  # for its categories
    table = file.read_row_groups(groups, columns=fields)
    if fields is not None:
        table = table.select(fields)
    return with_rows_named(table.slice(start - skipped, max(0, stop - start)), start)
