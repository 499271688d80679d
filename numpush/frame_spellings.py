"""Every pandas spelling that writes to a frame, and which way of writing each one takes.

    cells of one column        df.loc[rows, 'a'] = ..  df.at[..] = ..         write_cells
    whole columns, labels      df['a'] = ..  df[['a', 'b']] = ..  insert      write_columns
    anything else in place     df.loc[rows] = ..  df[mask] = ..  update       write_frame

and every method with an `inplace` parameter, found by looking. One that a new pandas brings is
written the last way, which is right for any, if slower. What writes in none of these ways is
noticed by the frame's `_mgr`.
"""

from __future__ import annotations

import functools
import inspect
import sys
import weakref
from collections.abc import Callable, Iterator
from typing import Any, ClassVar, NamedTuple

import numpy as np
import pandas as pd
from pandas.api import types

from . import _managers, _pandas
from .frame_writes import (
    assign_column,
    replace_structure,
    write_cell,
    write_cells,
    write_columns,
    write_frame,
)
from .shm.errors import SharedStructureError

__all__ = [
    "Indexed",
    "SharedAttrs",
    "WritesInPlace",
    "in_place_methods",
    "make_indexers",
    "set_attrs",
    "use_up",
    "write_in_place",
]

#: Methods that, in place, put other columns, rows or labels where the old were.
_REPLACING = {
    *("drop", "drop_duplicates", "dropna", "eval", "query", "rename", "rename_axis"),
    *("reset_index", "set_index", "sort_index", "sort_values"),
}
#: Those that look up names where they are called.
_EVALUATING = {"eval", "query"}


def use_up(value: Any) -> Any:
    """Make an iterator a list: what writes is run twice."""
    if types.is_iterator(value):
        return list(value)
    return value


def _find_label(index: pd.Index, label: Any) -> int | None:
    """Give the position of the one row or column that a label means, or None."""
    if type(label) is not str and not (types.is_scalar(label) and types.is_hashable(label)):
        return None
    if isinstance(index, pd.MultiIndex):
        return None
    try:
        position = index.get_loc(label)
    except (KeyError, TypeError):
        return None
    return position if isinstance(position, int) else None


class _Setter:
    """What the indexers of a shared frame have in common: they read as pandas' do."""

    obj: Any
    name: str
    axis: Any = None

    def __setitem__(self, key: Any, value: Any) -> None:
        frame, name, axis = self.obj, self.name, self.axis
        window = frame._window
        operation = f"sdf.{name}[..] = .."
        position = None
        is_pair = type(key) is tuple and len(key) == 2 and axis is None
        if is_pair:
            columns, index = window.axes
            position = self._find_column(columns, key[1])
            if position is not None and types.is_scalar(value):
                row = self._find_row(index, key[0])
                if row is not None and write_cell(window, operation, position, row, value):
                    return
        if isinstance(key, tuple):
            key = tuple(map(use_up, key))
        else:
            key = use_up(key)

        def write(writer: Any) -> None:
            indexer = getattr(writer, name)
            if axis is not None:
                indexer = indexer(axis=axis)
            indexer[key] = value

        if position is not None or (axis is None and _is_all_or_nothing(frame, key, value)):
            write_cells(window, operation, write, position)
        else:
            value = use_up(value)
            write_frame(window, operation, write)

    def _find_column(self, columns: pd.Index, key: Any) -> int | None:
        """Give the position of the one column that *key* means, or None: it is not that simple."""
        raise NotImplementedError

    def _find_row(self, index: pd.Index, key: Any) -> int | None:
        """Give the position of the one row that *key* means, or None: it is not that simple."""
        raise NotImplementedError


def _is_all_or_nothing(frame: Any, key: Any, value: Any) -> bool:
    """Whether pandas can only write all or nothing: one value, one NumPy block, no new columns."""
    if callable(key) or not types.is_scalar(value):
        return False
    if isinstance(key, tuple) and not (len(key) == 2 and isinstance(key[1], slice)):
        return False
    blocks = _managers.blocks_of(_managers.manager_of(frame))
    values = _managers.values_of(blocks[0]) if len(blocks) == 1 else None
    return type(values) is np.ndarray and values.dtype != object


class _Labels(_Setter):
    def _find_column(self, columns: pd.Index, key: Any) -> int | None:
        return _find_label(columns, key)

    def _find_row(self, index: pd.Index, key: Any) -> int | None:
        return _find_label(index, key) if type(key) is int or type(key) is str else None


class _Positions(_Setter):
    def _find_column(self, columns: pd.Index, key: Any) -> int | None:
        return _find_position(columns, key)

    def _find_row(self, index: pd.Index, key: Any) -> int | None:
        return _find_position(index, key)


def _find_position(index: pd.Index, key: Any) -> int | None:
    if not types.is_integer(key):
        return None
    n = len(index)
    position = int(key)
    position += n * (position < 0)
    return position if 0 <= position < n else None


def make_indexers(labels: type, positions: type) -> dict[str, Any]:
    """Make pandas' indexers, which set as *labels* or *positions* do."""
    return {
        "loc": type("_Loc", (labels, _managers.LocIndexer), {}),
        "iloc": type("_ILoc", (positions, _managers.ILocIndexer), {}),
        "at": type("_At", (labels, _managers.AtIndexer), {}),
        "iat": type("_IAt", (positions, _managers.IAtIndexer), {}),
    }


class Indexed:
    """The indexers of a shared frame or series. Comes before pandas' class among the bases."""

    _indexers: ClassVar[dict[str, Any]]  #: of `make_indexers`

    @property
    def loc(self) -> Any:
        return self._indexers["loc"]("loc", self)

    @property
    def iloc(self) -> Any:
        return self._indexers["iloc"]("iloc", self)

    @property
    def at(self) -> Any:
        return self._indexers["at"]("at", self)

    @property
    def iat(self) -> Any:
        return self._indexers["iat"]("iat", self)


class WritesInPlace(Indexed):
    """The methods of DataFrame that write. Comes before it among the bases."""

    _window: Any
    columns: Any
    _indexers = make_indexers(_Labels, _Positions)

    def __setitem__(self, key: Any, value: Any) -> None:
        window = self._window
        if callable(key):
            key = key(self)
        key = use_up(key)
        operation = f"sdf[{key!r}] = .." if types.is_scalar(key) else "sdf[..] = .."
        is_one = not isinstance(value, pd.DataFrame) and len(window)
        position = _find_label(window.axes[0], key) if is_one else None
        if position is not None and assign_column(window, key, position, value):
            return

        def write(frame: Any) -> None:
            frame[key] = value

        value = use_up(value)
        if _selects_cells(key):
            write_frame(window, operation, write)
        else:
            write_columns(window, operation, write)

    def __delitem__(self, key: Any) -> None:
        def write(frame: Any) -> None:
            del frame[key]

        write_columns(self._window, f"del sdf[{key!r}]", write)

    def pop(self, item: Any) -> Any:
        return write_columns(self._window, f"pop({item!r})", lambda frame: frame.pop(item))

    def insert(self, loc: Any, column: Any, value: Any, *args: Any, **kwargs: Any) -> None:
        def write(frame: Any) -> None:
            frame.insert(loc, column, value, *args, **kwargs)

        write_columns(self._window, f"insert({column!r})", write)

    def isetitem(self, loc: Any, value: Any) -> None:
        write_columns(self._window, f"isetitem({loc!r})", lambda frame: frame.isetitem(loc, value))

    def update(self, *args: Any, **kwargs: Any) -> None:
        """As DataFrame.update, which takes values from another frame, in place.

        (The context manager for changes that others see wholly or not at all is `updating`.)
        """
        write_frame(self._window, "update()", lambda frame: frame.update(*args, **kwargs))

    def _set_axis(self, axis: Any, labels: Any) -> None:
        name = "index" if axis == 1 else "columns"
        write_columns(
            self._window,
            f"sdf.{name} = ..",
            lambda frame: _managers.set_axis(frame, axis, labels),
        )

    def _set_value(self, index: Any, col: Any, value: Any, takeable: bool = False) -> None:
        indexer = self.iat if takeable else self.at
        indexer[index, col] = value


def _selects_cells(key: Any) -> bool:
    """Whether ``df[key] = ..`` writes into columns, rather than replacing them."""
    if isinstance(key, slice | pd.DataFrame) or getattr(key, "ndim", 1) == 2:
        return True
    if isinstance(key, pd.Series | np.ndarray | pd.Index | list):
        return types.is_bool_dtype(np.asarray(key).dtype) or (
            isinstance(key, pd.Series) and types.is_bool_dtype(key.dtype)
        )
    return False


class InPlaceMethod(NamedTuple):
    """A method with `inplace`, and where that stands among its arguments."""

    name: str
    method: Any
    at: int
    warn: Any  #: what to call, where `inplace` is passed, with self, True and the name; or None

    def asks(self, args: Any, kwargs: Any) -> bool:
        """Whether `inplace` is true."""
        inplace = args[self.at] if len(args) > self.at else kwargs.get("inplace", False)
        return inplace is True

    def warns(self, args: Any, kwargs: Any) -> bool:
        """Whether `inplace` is passed, and pandas warns of that."""
        return self.warn is not None and ("inplace" in kwargs or len(args) > self.at)


def in_place_methods(cls: Any) -> Iterator[InPlaceMethod]:
    """Yield each method with `inplace`."""
    for name in dir(cls):
        method = inspect.getattr_static(cls, name)
        if name.startswith("_") or not inspect.isfunction(method):
            continue
        parameters = list(inspect.signature(method).parameters)
        if "inplace" in parameters:
            warn = _pandas.warn_of_inplace(cls) if _pandas.warns_of_inplace(method) else None
            yield InPlaceMethod(name, method, parameters.index("inplace") - 1, warn)


def write_in_place(
    found: InPlaceMethod, way: Callable[[Any, str, Callable[[Any], Any]], Any]
) -> Any:
    """Have a method write to shared memory where its `inplace` is true.

    Parameters
    ----------
    way : callable
        Called with the shared object, what was asked of it, and what does that to a plain one.
    """
    name, method = found.name, found.method

    @functools.wraps(method)
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        if name in _EVALUATING:
            caller = sys._getframe(1)
            kwargs.setdefault("local_dict", caller.f_locals)
            kwargs.setdefault("global_dict", caller.f_globals)
        if found.warns(args, kwargs):
            found.warn(self, True, name)
        if not found.asks(args, kwargs):
            return method(self, *args, **kwargs)

        def change(plain: Any) -> Any:
            _pandas.mute_inplace(plain)
            result = method(plain, *args, **kwargs)
            return self if result is plain else result

        return way(self, f"{name}(inplace=True)", change)

    return call


def _write_cells(self: Any, operation: str, change: Callable[[Any], Any]) -> Any:
    return write_frame(self._window, operation, change)


def _replace_columns(self: Any, operation: str, change: Callable[[Any], Any]) -> Any:
    return write_columns(self._window, operation, change)


for _found in in_place_methods(pd.DataFrame):
    _way = _replace_columns if _found.name in _REPLACING else _write_cells
    setattr(WritesInPlace, _found.name, write_in_place(_found, _way))
_pandas.mute_inplace(WritesInPlace)
_pandas.attribute_warnings()


class SharedAttrs(dict[Any, Any]):
    """The attrs of a shared frame: changing them changes the frame's. Copies of it are plain."""

    def __init__(self, attrs: dict[Any, Any], frame: Any) -> None:
        super().__init__(attrs)
        self._frame = weakref.ref(frame)

    def _change(self, name: str, *args: Any, **kwargs: Any) -> Any:
        frame = self._frame()
        if frame is None:
            raise SharedStructureError("these attrs are of a shared frame that is gone")
        changed = dict(frame.attrs)
        result = getattr(changed, name)(*args, **kwargs)
        frame.attrs = changed
        return result

    def __copy__(self) -> dict[Any, Any]:
        return dict(self)

    def __deepcopy__(self, memo: Any) -> dict[Any, Any]:
        from copy import deepcopy

        return deepcopy(dict(self), memo)

    def __reduce_ex__(self, protocol: Any) -> Any:
        return dict, (dict(self),)


for _name in ("__setitem__", "__delitem__", "clear", "pop", "popitem", "setdefault", "update"):
    setattr(SharedAttrs, _name, functools.partialmethod(SharedAttrs._change, _name))


def set_attrs(window: Any, attrs: dict[Any, Any]) -> None:
    """Do ``sdf.attrs = attrs``."""
    if dict(window.store.attrs) != attrs:
        replace_structure(window, lambda frame: setattr(frame, "attrs", attrs))
