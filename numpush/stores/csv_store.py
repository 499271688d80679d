"""csv://: frames as CSV files. A CSV has no types and no index: what is read is what pandas infers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..filling import read_csv
from .table_store import TableStore

__all__ = ["CsvStore"]

Tell = Callable[[int], None]
_ROWS = 1 << 16  #: written at one time


class CsvStore(TableStore):
    """``csv:///DIR``: tables are .csv files.

    An index that is no RangeIndex is written as first columns, and comes back as columns (or with
    ``index_col=0``); a Series comes back as a frame of one column.

    Parameters
    ----------
    url, storage_options : as for `.TableStore`
    **read : as for pandas.read_csv
        For all that is read: parse_dates, dtype, index_col, sep (for what is written, too), ..
    """

    _suffixes = (".csv",)
    _format = "CSV"

    def __init__(
        self, url: str, *, storage_options: dict[str, Any] | None = None, **read: Any
    ) -> None:
        super().__init__(url, storage_options=storage_options)
        self._options |= read
        self._read_options = read

    def _prepare(self, frame: Any, form: str) -> Any:
        return frame

    def _write(self, out: Any, prepared: Any, tell: Tell) -> None:
        import pandas as pd

        frame = prepared
        has_index = not isinstance(frame.index, pd.RangeIndex) or frame.index.name is not None
        for start in range(0, max(1, len(frame)), _ROWS):
            text = frame.iloc[start : start + _ROWS].to_csv(
                sep=self._read_options.get("sep", ","), index=has_index, header=start == 0
            )
            data = text.encode()
            out.write(data)
            tell(len(data))

    def _read(
        self,
        source: Any,
        columns: list[Any] | None,
        rows: slice | None,
        name: str | None,
        tell: Tell,
    ) -> tuple[Any, str]:
        from ..sdataframe import SDataFrame
        from .fetching import find_columns

        if columns is None and rows is None:
            frame = read_csv(source, name=name, **self._read_options)
        else:
            # The types are those of the whole file, whatever part is wanted.
            whole = read_csv(source, **self._read_options)
            labels = whole.columns
            at = slice(None) if columns is None else find_columns(labels, columns, "the file")
            frame = SDataFrame(whole.to_pandas().iloc[rows or slice(None), at], name=name)
        tell(int(frame.memory_usage(index=False).sum()))
        return frame, ""

    def _look(self, source: Any) -> tuple[Any, int | None, str]:
        import pandas as pd

        return pd.read_csv(source, nrows=100, **self._read_options), None, ""
