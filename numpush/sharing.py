"""`share`: put whatever can be into shared memory, inside containers too.

(1) An object is shared once, however often it comes in one call; what is shared already stays as it is.
(2) Containers are rebuilt, of the same type, and only those in which something changed; other leaves are
    kept as they are.
(3) pandas and scipy are not imported here: whoever has an object of theirs has imported them.
"""

from __future__ import annotations

import copy
import dataclasses
import sys
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np

from .sarray import SArray
from .shm.errors import SegmentError

__all__ = ["share"]

#: The arrays of each scipy.sparse format. Others (lil, dok) have none.
_SPARSE_PARTS = {
    "csr": ("data", "indices", "indptr"),
    "csc": ("data", "indices", "indptr"),
    "bsr": ("data", "indices", "indptr"),
    "coo": ("data",),
    "dia": ("data", "offsets"),
}


def share(obj: Any) -> Any:
    """Return *obj* with its data in shared memory, so that it travels as handles.

    An ndarray becomes an SArray, a DataFrame an SDataFrame, a Series an SSeries; a scipy.sparse matrix
    or array one of the same class over SArrays. In dicts, lists, tuples, namedtuples and dataclasses
    (of subclasses too) those are replaced, however deep; everything else is kept as it is, and so is
    what is shared already. Each is one copy.

    Raises
    ------
    TypeError : *obj*, or something in it, holds Python objects, which cannot be shared; the message
        says where, and what to do. Or there is nothing in it that could be.
    SegmentFull : shared memory has no room for it.

    Examples
    --------
    >>> import numpy as np
    >>> from numpush import share
    >>> params = share({"weights": [np.ones((2, 3)), np.zeros(3)], "rate": 0.1})
    >>> [type(w).__name__ for w in params["weights"]], params["rate"]
    (['SArray', 'SArray'], 0.1)
    """
    return _Sharing().visit(obj, "", is_top=True)


class _Sharing:
    """One call: what was shared in it, by the id of what it was made from."""

    def __init__(self) -> None:
        self._done: dict[int, tuple[Any, Any]] = {}  # the first keeps the id from being used again
        self._open: set[int] = set()  # containers that we are in

    def visit(self, obj: Any, path: str, *, is_top: bool = False) -> Any:
        found = self._done.get(id(obj))
        if found is not None:
            return found[1]
        make = self._find(obj)
        if make is None:
            if is_top:
                raise TypeError(
                    f"{type(obj).__name__} cannot be shared; pass an ndarray, a DataFrame, a Series, a "
                    f"scipy.sparse matrix, or a dict, list, tuple or dataclass of these"
                )
            return obj
        if id(obj) in self._open:
            raise TypeError(f"{_where(path)} contains itself; share its parts instead")
        self._open.add(id(obj))
        try:
            shared = make(obj, path)
        finally:
            self._open.discard(id(obj))
        self._done[id(obj)] = obj, shared
        return shared

    def _find(self, obj: Any) -> Callable[[Any, str], Any] | None:
        if isinstance(obj, SArray):
            return self._share_sarray
        if isinstance(obj, np.ndarray):
            return self._share_array
        pandas = sys.modules.get("pandas")
        if pandas is not None and isinstance(obj, pandas.DataFrame):
            return self._share_frame
        if pandas is not None and isinstance(obj, pandas.Series):
            return self._share_series
        sparse = sys.modules.get("scipy.sparse")
        if sparse is not None and sparse.issparse(obj):
            return self._share_sparse
        if isinstance(obj, dict):
            return self._share_dict
        if isinstance(obj, list | tuple):
            return self._share_sequence
        if dataclasses.is_dataclass(obj) and not isinstance(obj, type):
            return self._share_dataclass
        return None

    # -- leaves

    def _share_sarray(self, array: SArray, path: str) -> Any:
        """Keep an SArray; but one of private memory (some NumPy functions make such) is a plain one."""
        try:
            array.name  # noqa: B018  # it asks for the segment
        except SegmentError:
            return self._share_array(array, path)
        return array

    def _share_array(self, array: Any, path: str) -> SArray:
        shared: SArray = _at(path, lambda: SArray(array))
        return shared

    def _share_frame(self, frame: Any, path: str) -> Any:
        from .sdataframe import SDataFrame

        return frame if isinstance(frame, SDataFrame) else _at(path, lambda: SDataFrame(frame))

    def _share_series(self, series: Any, path: str) -> Any:
        if find_spec(f"{__package__}.sseries") is None:
            raise TypeError(
                f"{_where(path)} is a Series, which cannot be shared alone; share s.to_frame()"
            )
        make = import_module(f"{__package__}.sseries").share_series
        return _at(path, lambda: make(series))

    def _share_sparse(self, matrix: Any, path: str) -> Any:
        parts = _SPARSE_PARTS.get(matrix.format)
        if parts is None:
            raise TypeError(
                f"{_where(path)} is a {type(matrix).__name__}, whose data is no arrays; share "
                f"{path or 'm'}.tocsr()"
            )
        arrays = {name: self.visit(getattr(matrix, name), f"{path}.{name}") for name in parts}
        coords = None
        if matrix.format == "coo":
            coords = tuple(
                self.visit(each, f"{path}.coords[{i}]") for i, each in enumerate(_coords(matrix))
            )
            if all(a is b for a, b in zip(coords, _coords(matrix), strict=True)) and (
                arrays["data"] is matrix.data
            ):
                return matrix
        elif all(array is getattr(matrix, name) for name, array in arrays.items()):
            return matrix
        shared = _bare(matrix)
        for name, array in arrays.items():
            setattr(shared, name, array)
        if coords is not None:
            _set_coords(shared, coords)
        return shared

    # -- containers

    def _share_dict(self, items: dict[Any, Any], path: str) -> Any:
        shared = {key: self.visit(value, f"{path}[{key!r}]") for key, value in items.items()}
        if all(shared[key] is value for key, value in items.items()):
            return items
        if type(items) is dict:
            return shared
        made = copy.copy(items)  # its default factory, and what else it has
        made.update(shared)
        return made

    def _share_sequence(self, items: Any, path: str) -> Any:
        shared = [self.visit(value, f"{path}[{i}]") for i, value in enumerate(items)]
        if all(a is b for a, b in zip(shared, items)):
            return items
        if type(items) is list or type(items) is tuple:
            return type(items)(shared)
        if isinstance(items, tuple):
            make = getattr(items, "_make", None)
            return make(shared) if make is not None else tuple.__new__(type(items), shared)
        made = copy.copy(items)
        made[:] = shared
        return made

    def _share_dataclass(self, obj: Any, path: str) -> Any:
        shared = {
            field.name: self.visit(getattr(obj, field.name), f"{path}.{field.name}")
            for field in dataclasses.fields(obj)
            if hasattr(obj, field.name)
        }
        if all(value is getattr(obj, name) for name, value in shared.items()):
            return obj
        made = copy.copy(obj)  # not its constructor: that may do anything
        for name, value in shared.items():
            object.__setattr__(made, name, value)  # frozen ones too
        return made


def _at(path: str, make: Callable[[], Any]) -> Any:
    """Call *make*; a TypeError says where in the object it was."""
    try:
        return make()
    except TypeError as error:
        if not path:
            raise
        raise TypeError(f"{_where(path)}: {error}; or leave it out") from error


def _where(path: str) -> str:
    return f"obj{path}" if path else "the object"


def _bare(matrix: Any) -> Any:
    """Copy a sparse matrix without its data: the same class, shape and flags over the same arrays."""
    bare = object.__new__(type(matrix))
    bare.__dict__.update(matrix.__dict__)
    return bare


def _coords(matrix: Any) -> tuple[Any, ...]:
    coords = getattr(matrix, "coords", None)
    return (matrix.row, matrix.col) if coords is None else tuple(coords)


def _set_coords(matrix: Any, coords: tuple[Any, ...]) -> None:
    if hasattr(matrix, "coords"):
        matrix.coords = coords
    else:  # scipy before 1.13
        matrix.row, matrix.col = coords
