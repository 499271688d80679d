"""SSeries: a pandas Series whose data lies in shared memory.

It is an SDataFrame of one column, whose label is its name, seen as a Series: pandas' own code for
series runs on that column, on the frame that SDataFrame's ways of writing make for it
(frame_writes.py). So values of fixed width are written in place, anything else becomes a new
generation, and what is derived is plain and private, for the same reasons as there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import pandas as pd

from . import _managers, _pandas, transport
from .frame_spellings import Indexed, in_place_methods, make_indexers, use_up, write_in_place
from .frame_store import Window
from .frame_writes import write_cells, write_columns
from .handle import SeriesHandle
from .sarray import SArray
from .sdataframe import SDataFrame, receive_frame
from .shared_pandas import SharedPandas
from .shm.mapping import Mapping

__all__ = ["SSeries"]

_Series: Any = pd.Series


def receive_series(*fields: Any) -> SSeries:
    """Make the series that a handle means; *fields* and errors as of `receive_frame`."""
    return SSeries._over(receive_frame(*fields))


class _Setter:
    """What the indexers of a shared series have in common: they read as pandas' do."""

    obj: Any
    name: str

    def __setitem__(self, key: Any, value: Any) -> None:
        key, value, name = use_up(key), use_up(value), self.name
        self.obj._write(
            f"ss.{name}[..] = ..", lambda series: getattr(series, name).__setitem__(key, value)
        )


class SSeries(SharedPandas, Indexed, _Series):  # type: ignore[misc]  # pandas has no types here
    """A Series in shared memory, made by one copy.

    Parameters
    ----------
    data, index, dtype, name : as for pandas.Series
        A Series, or whatever makes one. *name* is the series' own.

    Raises
    ------
    TypeError : there is no layout for its values.
    SegmentFull : shared memory has no room for it.

    Notes
    -----
    Locks, news, `access`, `handle`, `partitions`, `updating`, `snapshot` and `compact` are those of
    SDataFrame; the segment's name is ``handle.name``. ``ss.column()`` is its memory as an SArray.

    Examples
    --------
    >>> from numpush import SSeries
    >>> ss = SSeries([1.5, 2.5, 3.5], name="x")
    >>> ss[1] = 9.0
    >>> ss += 1
    >>> ss.tolist(), type(ss * 2).__name__
    ([2.5, 10.0, 4.5], 'Series')
    """

    _internal_names: ClassVar[list[str]] = [*_Series._internal_names, "_frame", "_seen"]
    _internal_names_set: ClassVar[set[str]] = set(_internal_names)
    _handle_type = SeriesHandle
    _receive = staticmethod(receive_series)
    _indexers = make_indexers(_Setter, _Setter)
    _frame: SDataFrame

    def __init__(
        self, data: Any = None, index: Any = None, dtype: Any = None, name: Any = None
    ) -> None:
        if isinstance(data, pd.Series) and index is dtype is name is None:
            series = data
        else:
            series = pd.Series(data, index, dtype, name)
        self._show(SDataFrame(frame_of(series)))

    def _show(self, frame: SDataFrame) -> None:
        """Be the one column of *frame*. Instead of Series.__init__."""
        object.__setattr__(self, "_frame", frame)
        self._forget()
        _managers.init_frame(self, unique_labels=False)

    @classmethod
    def _over(cls, frame: SDataFrame) -> SSeries:
        self = cls.__new__(cls)
        self._show(frame)
        return self

    # -- where it lies

    @property
    def _mgr(self) -> Any:
        whole = self._frame._mgr
        seen, manager, blocks, names = self._seen
        if seen is not whole:
            manager = _managers.only_column(whole, tracked=True)
            blocks = _managers.blocks_of(manager)
            self._window.store.history.own.update(blocks)
            names = list(manager.axes[0].names)
            object.__setattr__(self, "_seen", (whole, manager, blocks, names))
        elif _managers.blocks_of(manager) is not blocks:  # written to behind our back
            self._forget()
            changed = _managers.series_of(manager)
            self._write("this operation", lambda series: series.__setitem__(slice(None), changed))
            return self._mgr
        elif list(manager.axes[0].names) != names:  # as in ss.index.name = ..
            self._forget()
            renamed = list(manager.axes[0].names)
            manager.axes[0].names = names
            self._frame.index.names = renamed
            return self._mgr
        return manager

    @_mgr.setter
    def _mgr(self, manager: Any) -> None:
        if manager is self._seen[1]:
            return
        values = _managers.series_of(manager)

        def replace(series: Any) -> None:
            series._mgr = values._mgr

        self._replace("this operation", replace)

    def _forget(self) -> None:
        """Have `_mgr` look anew."""
        object.__setattr__(self, "_seen", (None, None, None, None))

    @property
    def _name(self) -> Any:
        return self._frame.columns[0]

    @_name.setter
    def _name(self, name: Any) -> None:
        if name is not self._name:
            columns = pd.Index([name], dtype=object, tupleize_cols=False)
            self._frame.columns = columns

    @property
    def name(self) -> Any:
        """The name of the series, as pandas has it; that of the segment is ``handle.name``."""
        return self._name

    @name.setter
    def name(self, name: Any) -> None:
        _Series.name.fset(self, name)

    @property
    def attrs(self) -> Any:
        """What is told of the series, for every process: a dict. Setting an item changes it."""
        return self._frame.attrs

    @attrs.setter
    def attrs(self, value: Any) -> None:
        self._frame.attrs = value

    @property
    def _window(self) -> Window:
        return self._frame._window

    def _mapping(self) -> Mapping:
        return self._frame._mapping()

    def partitions(self, n: int) -> list[SSeries]:
        """Return *n* series of consecutive rows of this one; see SDataFrame.partitions."""
        return [SSeries._over(part) for part in self._frame.partitions(n)]

    def column(self) -> SArray:
        """Return its memory as an SArray; see SDataFrame.column."""
        return self._frame.column(self._name)

    def compact(self) -> int:
        """Copy all data into one place, and free what was before: see SDataFrame.compact."""
        self._forget()
        return self._frame.compact()

    def to_pandas(self) -> pd.Series:
        """Return a plain Series with a copy of the data, private to this process."""
        _ = self._mgr  # what was done behind our back is done properly now
        made: pd.Series = _managers.only_series(self._frame.to_pandas())
        return made

    def _repr_html_(self) -> str | None:
        """What a notebook shows: the series as text; and its segment, who uses it, and its lock."""
        from . import notebook

        return notebook.series_html(self)

    # -- writing

    def _write(self, operation: str, change: Callable[[Any], Any]) -> Any:
        """Run pandas' code for values that may fit where they are."""
        return write_cells(self._window, operation, _on_series(change), 0)

    def _replace(self, operation: str, change: Callable[[Any], Any]) -> Any:
        """Run pandas' code that puts other values, rows or labels where the old were."""
        return write_columns(self._window, operation, _on_series(change))

    def __setitem__(self, key: Any, value: Any) -> None:
        key, value = use_up(key), use_up(value)
        self._write("ss[..] = ..", lambda series: series.__setitem__(key, value))

    def __delitem__(self, key: Any) -> None:
        self._replace(f"del ss[{key!r}]", lambda series: series.__delitem__(key))

    def pop(self, item: Any) -> Any:
        return self._replace(f"pop({item!r})", lambda series: series.pop(item))

    def update(self, other: Any) -> None:
        """As Series.update, in place. (The context manager is `updating`.)"""
        self._write("update()", lambda series: series.update(other))

    def _set_axis(self, axis: Any, labels: Any) -> None:
        self._replace("ss.index = ..", lambda series: _managers.set_axis(series, axis, labels))

    # -- what pandas asks for

    @property
    def _constructor(self) -> Any:
        return pd.Series

    @property
    def _constructor_expanddim(self) -> Any:
        return pd.DataFrame

    def _constructor_from_mgr(self, mgr: Any, axes: Any) -> Any:
        return _managers.series_of(mgr)

    def _constructor_expanddim_from_mgr(self, mgr: Any, axes: Any) -> Any:
        return _managers.frame_of(mgr)


def _on_series(change: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Make what changes a series change a frame of one column."""

    def write(frame: Any) -> Any:
        series = _managers.only_series(frame)
        result = change(series)
        _managers.put_series(frame, series)
        return None if result is series else result

    return write


for _found in in_place_methods(pd.Series):
    setattr(SSeries, _found.name, write_in_place(_found, SSeries._replace))
_pandas.mute_inplace(SSeries)


def frame_of(series: pd.Series) -> pd.DataFrame:
    """Return a series as the frame of one column that it is kept as. No copy."""
    frame: pd.DataFrame = series.to_frame(0)
    frame.columns = pd.Index([series.name], dtype=object, tupleize_cols=False)
    frame.attrs = dict(series.attrs)
    return frame


def share_series(series: pd.Series) -> SSeries:
    """Put a Series into shared memory."""
    return series if isinstance(series, SSeries) else SSeries(series)


transport.register(SSeries, SSeries._reduce_to_handle)
transport.tell_loky()
