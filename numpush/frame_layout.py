"""What a write to a shared frame must leave as it is, and what is told to whom it does not.

A *layout* remembers what a block manager was: its blocks, and what each is made of. Compared with
what it is after a write, it gives the copies that make up the difference, or a SharedStructureError
that names the operation, what would change, and the remedy: on a whole frame the structure is then
replaced (frame_structure.py), on a part of one the user is told.
"""

from __future__ import annotations

import ctypes
from typing import Any, NoReturn

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from . import _arrays, _managers
from .shm.errors import SharedStructureError

__all__ = ["Copies", "Layout", "refuse_dtype", "refuse_names", "refuse_values"]

Array = NDArray[Any]
Copies = list[tuple[Array, Array]]

_REMEDY = "or change the whole frame, or a copy: part.to_pandas()"
_PART = "of a part of a shared frame, and of one with access 'cow',"


class Layout:
    """What a manager's frame looked like before a write, to compare with what it is after."""

    def __init__(self, manager: Any, source: Any = None) -> None:
        """*source* is what *manager* was made from; nobody writes to its extension arrays."""
        self.columns, self.index = _managers.axes_of(manager)
        self.blocks = _managers.blocks_of(manager)
        self._sources = self.blocks if source is None else _managers.blocks_of(source)
        self._known = {
            id(block): (
                _arrays.identity(_managers.values_of(block)),
                _arrays.object_leaf(_managers.values_of(was)),
            )
            for block, was in zip(self.blocks, self._sources, strict=True)
        }
        self._places: list[tuple[Any, int]] | None = None

    def array(self, position: int) -> Any:
        """Return the array of a column, in the source."""
        if self._places is None:
            self._places = [(None, 0)] * len(self.columns)
            for block in self._sources:
                values = _managers.values_of(block)
                for row, at in enumerate(_managers.positions_of(block)):
                    self._places[at] = values, row
        values, row = self._places[position]
        return values if values.ndim == 1 else values[row]

    def is_as_it_was(self, block: Any) -> bool:
        """Whether the block is one of ours, and nothing in it was swapped."""
        known = self._known.get(id(block))
        if known is None:
            return False
        parts, was = known
        values = _managers.values_of(block)
        if not all(x is y for x, y in zip(parts, _arrays.identity(values))):
            return False
        objects = None if was is None else _arrays.object_leaf(values)
        return was is None or objects is None or _pointers(objects) == _pointers(was)

    def _is_in_place(self, block: Any) -> bool:
        """Whether the block is another object over the same memory as one of ours."""
        values = _managers.values_of(block)
        return (
            type(values) is np.ndarray
            and values.dtype != object
            and any(
                _arrays.is_same_memory(values, _managers.values_of(mine))
                and _managers.positions_of(mine) == _managers.positions_of(block)
                for mine in self.blocks
            )
        )

    def is_untouched(self, manager: Any) -> bool:
        """Whether a manager has our blocks and axes; something in them may have been swapped."""
        columns, index = _managers.axes_of(manager)
        return (
            _managers.blocks_of(manager) is self.blocks
            and columns is self.columns
            and index is self.index
        )

    def is_same(self, manager: Any) -> bool:
        """Whether a manager is as this one was: the common case, quickly."""
        return self.is_untouched(manager) and all(map(self.is_as_it_was, self.blocks))

    def find_copies(self, manager: Any, operation: str) -> Copies:
        """Give the (target, source) pairs that make our arrays hold what *manager*'s do.

        Raises
        ------
        SharedStructureError : its structure is another one.
        """
        self._check_axes(manager, operation)
        copies: Copies = []
        for block in _managers.blocks_of(manager):
            if self.is_as_it_was(block) or self._is_in_place(block):
                continue
            values = _managers.values_of(block)
            for row, position in enumerate(_managers.positions_of(block)):
                new = values if values.ndim == 1 else values[row]
                copies += self._compare(position, new, operation)
        return copies

    def _check_axes(self, manager: Any, operation: str) -> None:
        columns, index = _managers.axes_of(manager)
        if not _is_same_index(self.columns, columns):
            raise SharedStructureError(f"{operation}: {_tell_columns(self.columns, columns)}")
        if not _is_same_index(self.index, index):
            raise SharedStructureError(f"{operation}: {_tell_rows(self.index, index)}")

    def _compare(self, position: int, new: Any, operation: str) -> Copies:
        old = self.array(position)
        leaves = _arrays.leaves(old)
        if _arrays.is_same_memory(old, new) and leaves is not None:
            return []
        others = _arrays.leaves(new)
        if not _arrays.is_same_dtype(old, new):
            refuse_dtype(operation, self.columns[position], old, new)
        if leaves is None or others is None:
            if _holds_same(old, new):
                return []
            refuse_values(operation, self.columns[position], old)
        return [
            (target, source)
            for target, source in zip(leaves, others)
            if not _arrays.is_same_memory(target, source)
        ]


def _pointers(leaf: Array) -> bytes:
    """Give the addresses of the objects in an array, to see whether any was replaced."""
    dense = np.ascontiguousarray(leaf)
    return ctypes.string_at(dense.__array_interface__["data"][0], dense.nbytes)


def _holds_same(old: Any, new: Any) -> bool:
    """Whether arrays of variable width hold the same values. O(n) where they are other objects."""
    if _arrays.is_same_memory(old, new):
        return True
    mine, other = _arrays.object_leaf(old), _arrays.object_leaf(new)
    if mine is None or other is None:
        return bool(old.equals(new))
    return mine.shape == other.shape and (
        _pointers(mine) == _pointers(other) or all(map(_is_same_object, mine, other))
    )


def _is_same_object(x: Any, y: Any) -> bool:
    """Whether two cells are equal, also by type, or both are NaN."""
    return x is y or (type(x) is type(y) and bool(x == y or (x != x and y != y)))


def _is_same_index(old: pd.Index, new: pd.Index) -> bool:
    if old is new:
        return True
    if old.is_(new):
        return list(old.names) == list(new.names)
    if not (old.identical(new) and old.dtype == new.dtype):
        return False
    if not isinstance(old, pd.MultiIndex):
        return True
    others: Any = new
    return all(x.dtype == y.dtype for x, y in zip(old.levels, others.levels))


# What is told to the user.


def _tell_columns(old: pd.Index, new: pd.Index) -> str:
    if len(old) == len(new):
        if not old.equals(new):
            changed = next(i for i in range(len(old)) if not old[i : i + 1].equals(new[i : i + 1]))
            what = f"column label {old[changed]!r} would become {new[changed]!r}"
        else:
            what = f"the columns' names or type would change: {_brief(old)} -> {_brief(new)}"
        return f"{what}, but the labels {_PART} are fixed; {_REMEDY[3:]}"
    added = [label for label in new if label not in old]
    dropped = [label for label in old if label not in new]
    parts = [f"{_brief_list(added)} would be added"] if added else []
    parts += [f"{_brief_list(dropped)} would be dropped"] if dropped else []
    what = " and ".join(parts) or f"{len(old)} columns would become {len(new)}"
    return (
        f"column {what}, but the columns {_PART} are fixed; use the operation's result "
        f"(part.assign(..), part.drop(..)), which is a plain frame, {_REMEDY}"
    )


def _tell_rows(old: pd.Index, new: pd.Index) -> str:
    if len(old) == len(new):
        return (
            f"the row labels would change: {_brief(old)} -> {_brief(new)}, but those {_PART} "
            f"are fixed; use the operation's result without inplace, {_REMEDY}"
        )
    return (
        f"{len(old)} rows would become {len(new)}, but the rows {_PART} are fixed; use "
        f"the operation's result without inplace, {_REMEDY}"
    )


def _brief(index: pd.Index) -> str:
    names = list(index.names)
    name = f", names {names}" if any(each is not None for each in names) else ""
    labels = [str(label) for label in index[:3]]
    dots = ", .." if len(index) > 3 else ""
    return f"{type(index).__name__}([{', '.join(labels)}{dots}], dtype {index.dtype}{name})"


def _brief_list(labels: list[Any]) -> str:
    dots = ", .." if len(labels) > 3 else ""
    return ", ".join(repr(label) for label in labels[:3]) + dots


def refuse_dtype(operation: str, label: Any, old: Any, new: Any) -> NoReturn:
    """Raise the SharedStructureError for values of another dtype."""
    if old.dtype == new.dtype:
        what = f"the categories of column {label!r} would change"
        remedy = (
            f"use values of its own categories, .cat.set_categories(sdf[{label!r}].cat.categories)"
        )
    else:
        what = f"column {label!r} would change from dtype {old.dtype} to {new.dtype}"
        remedy = f"convert the values, .astype({str(old.dtype)!r})"
    raise SharedStructureError(
        f"{operation}: {what}, but the dtypes {_PART} are fixed; {remedy}, {_REMEDY}"
    )


def refuse_values(operation: str, label: Any, old: Any) -> NoReturn:
    """Raise the SharedStructureError for values that have no fixed width."""
    raise SharedStructureError(
        f"{operation}: values of column {label!r} would change, whose dtype {old.dtype} has no "
        f"fixed width, so it cannot be written in place; share it as 'category', {_REMEDY}"
    )


def refuse_names(old: Any, new: Any) -> NoReturn:
    """Raise the SharedStructureError for names that were set on an index object itself."""
    raise SharedStructureError(
        f"the names of the columns and rows were set to {new[0]} and {new[1]} (undone now: "
        f"{old[0]} and {old[1]}), but the labels {_PART} are fixed; "
        f"use part.rename_axis(..), which gives a plain frame, {_REMEDY}"
    )
