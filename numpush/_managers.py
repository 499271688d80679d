"""Block managers: where a frame holds its arrays, who else refers to them, and writing to them.

The private pandas names that SDataFrame needs beside those of _pandas.py and _arrays.py; nobody else
imports it. Each function says what it is and why the public way will not do. Where pandas differs:

===================  =========================================  ===============================
what                 2.2 / 2.3                                  3.x
===================  =========================================  ===============================
derived frames       views, or copies by mode.copy_on_write     copies, always
shallow copies       share the extension array objects          have views of them
caches of columns    `_item_cache`, kept empty                  none
===================  =========================================  ===============================

(1) References: every block over some memory holds the same counter, a list of weak references to
    those blocks; pandas copies before it writes when there is another than the one written to.
"""

from __future__ import annotations

import os
import pickle
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from importlib import import_module
from typing import Any

import numpy as np
import pandas as pd

from ._arrays import identity, is_same_memory, leaves, map_arrays, object_leaf
from ._pandas import PANDAS_3, Array

_pd: Any = pd
_internals: Any = import_module("pandas._libs.internals")
_managers: Any = import_module("pandas.core.internals.managers")
_indexing: Any = import_module("pandas.core.indexing")
_flags: Any = import_module("pandas.core.flags")

LocIndexer: Any = _indexing._LocIndexer
ILocIndexer: Any = _indexing._iLocIndexer
AtIndexer: Any = _indexing._AtIndexer
IAtIndexer: Any = _indexing._iAtIndexer

#: A block without memory that never dies. Memory that it "refers" to has two holders at least, so
#: copy-on-write never takes a derived frame for the sole owner and never writes to that memory.
_ANCHOR: Any = import_module("pandas.core.internals.blocks").new_block(
    np.empty((0, 0)), placement=_internals.BlockPlacement(slice(0, 0)), ndim=2
)


class InPlaceManager(_managers.BlockManager):  # type: ignore[misc]  # private
    """A block manager for writing to memory that others write to at the same time.

    Why: pandas sets cells of a column in place and then copies the whole column onto itself, which
    would undo what another process wrote to other cells meanwhile (and costs O(rows)).
    """

    def column_setitem(self, loc: int, idx: Any, value: Any, inplace_only: bool = False) -> None:
        if inplace_only:
            super().column_setitem(loc, idx, value, inplace_only=True)
            return
        column = self.iget(loc, track_ref=False)
        was = column.blocks[0].values
        values = column.setitem((idx,), value).blocks[0].values
        if not is_same_memory(was, values):
            self.iset(loc, values, inplace=True)


class Watch:
    """A block manager that others read from, and whether anybody has changed it since `watch`.

    Why: pandas' own code gets it, and `df.index.name = ..` changes the very index in it. This is
    looked at in every access to a frame, several times in most operations.
    """

    current: Any  #: the manager
    _seen: tuple[Any, ...]

    def watch(self, manager: Any) -> None:
        """Remember a manager as it is now."""
        columns, index = manager.axes
        is_flat = type(columns) is not pd.MultiIndex and type(index) is not pd.MultiIndex
        self._names = [list(axis.names) for axis in manager.axes]
        self.current = manager
        self._seen = (
            *(manager, manager.blocks, columns, index),
            *(columns._name, index._name, is_flat),
        )
        self.watch_arrays()

    def watch_arrays(self) -> None:
        """Remember what its arrays are made of now, where a cell that is set swaps that."""
        self._swappable = [
            (block.values, identity(block.values))
            for block in self._seen[1]
            if leaves(block.values) is None and object_leaf(block.values) is None
        ]

    def manager(self) -> Any:
        """Return the manager; `changed` is called first if it is not as it was.

        Raises
        ------
        Whatever `changed` does.
        """
        if not self.is_unchanged():
            self.changed(self.current)
        return self.current

    def is_unchanged(self) -> bool:
        """Whether the manager and its labels are the objects that they were, with those names."""
        manager, blocks, columns, index, columns_name, index_name, is_flat = self._seen
        axes = manager.axes
        return (
            manager.blocks is blocks
            and axes[0] is columns
            and axes[1] is index
            and columns._name is columns_name
            and index._name is index_name
            and (is_flat or self._names_now() == self._names)
        )

    def shows(self, manager: Any) -> bool:
        """Whether it is *manager* that is watched, and nobody has changed it."""
        return self.current is manager and self.is_unchanged()

    def changed(self, manager: Any) -> None:
        """Put things right, and `watch` again. For the subclass."""
        raise NotImplementedError

    def find_names(self) -> tuple[Any, Any] | None:
        """Give the names of the axes before and now, if they were changed, and set them back."""
        now = self._names_now()
        if now == self._names:
            return None
        for axis, names in zip(self._seen[2:4], self._names):
            axis.names = names
        return self._names, now

    def _names_now(self) -> list[Any]:
        return [list(axis.names) for axis in self._seen[2:4]]

    def has_swapped(self) -> bool:
        """Whether a cell of an Arrow array was set, through ``df['a'].array``."""
        return any(identity(values)[0] is not was[0] for values, was in self._swappable)


def manager_of(frame: Any) -> Any:
    """Give the block manager of a frame."""
    return frame._mgr


def blocks_of(manager: Any) -> Any:
    """Give the blocks of a manager, a tuple that is another one when they are others."""
    return manager.blocks


def block_of(manager: Any, position: int) -> Any:
    """Give the block that a column lies in."""
    return manager.blocks[manager.blknos[position]]


def positions_of(block: Any) -> list[int]:
    """Give the positions of the columns in a block, in the order of its rows."""
    positions: list[int] = block.mgr_locs.as_array.tolist()
    return positions


def axes_of(manager: Any) -> tuple[pd.Index, pd.Index]:
    """Give the columns and the rows' index, as the objects that they are."""
    columns, index = manager.axes
    return columns, index


def lists_of(manager: Any) -> list[Any]:
    """Give what holds the axes and the blocks of a manager, as the objects that they are."""
    return [manager.axes, manager.blocks]


def set_cell(manager: Any, position: int, row: int, value: Any) -> None:
    """Set one cell in place. Raises one of several errors, changing nothing, if it does not fit."""
    manager.column_setitem(position, row, value, inplace_only=True)


def frame_of(manager: Any) -> pd.DataFrame:
    """Make a frame of a block manager. Why: no public constructor takes one."""
    made: pd.DataFrame = _pd.DataFrame._from_mgr(manager, manager.axes)
    return made


def series_of(manager: Any) -> Any:
    """Make a nameless Series of a single-block manager, as a frame's `_constructor_sliced` does."""
    made = _pd.Series._from_mgr(manager, manager.axes)
    object.__setattr__(made, "_name", None)
    return made


def only_column(manager: Any, *, tracked: bool) -> Any:
    """Give the single-block manager of the one column; *tracked*: it copies what is written to."""
    return manager.iget(0, track_ref=tracked)


def only_series(frame: Any) -> Any:
    """Give the one column of a frame as a Series, which writes where the frame would."""
    manager = frame._mgr
    writes_through = isinstance(manager, InPlaceManager)
    series = series_of(only_column(manager, tracked=not writes_through))
    object.__setattr__(series, "_name", frame.columns[0])
    return series


def put_series(frame: Any, series: Any) -> None:
    """Have a frame's one column be *series*, unless it is the same memory."""
    manager = frame._mgr
    values = series._mgr.blocks[0].values
    name, label = series.name, frame.columns[0]
    has_name = name is label or (type(name) is type(label) and bool(name == label))
    if has_name and series.index is frame.index and is_same_memory(column_of(manager), values):
        return
    columns = pd.Index([series.name], dtype=object, tupleize_cols=False, name=frame.columns.name)
    made = series.to_frame(0)
    made.columns = columns
    frame._mgr = made._mgr


def column_of(manager: Any) -> Any:
    """Give the array of the one column."""
    values = manager.blocks[0].values
    return values if values.ndim == 1 else values[0]


def init_frame(frame: Any, unique_labels: bool) -> None:
    """Give a frame that was made by __new__ what DataFrame.__init__ would have, but its manager."""
    flags = _flags.Flags(frame, allows_duplicate_labels=not unique_labels)
    object.__setattr__(frame, "_flags", flags)
    if not PANDAS_3:
        object.__setattr__(frame, "_item_cache", _NoCache())


class _NoCache(dict[Any, Any]):
    """What pandas 2 finds no column in. A kept one would be of an earlier generation, and keep it."""

    def __setitem__(self, label: Any, series: Any) -> None:
        pass


def share_manager(manager: Any, references: list[Any]) -> None:
    """Anchor the memory of a manager: nothing derived from it will ever write to it.

    Parameters
    ----------
    references : list
        The reference counters of the blocks, from the first call for the same memory; empty then,
        and filled here. With them, who derived from an earlier manager is still known.
    """
    if references:
        for block, counter in zip(manager.blocks, references, strict=True):
            block.refs = counter
            counter.add_reference(block)
    else:
        for block in manager.blocks:
            block.refs.add_reference(_ANCHOR)
            references.append(block.refs)
    for axis in manager.axes:
        counter = getattr(axis, "_references", None)
        if counter is not None:
            counter.add_reference(_ANCHOR)
    _keep_blocks(manager)


def view_manager(manager: Any, start: int, stop: int) -> Any:
    """Give a manager of some rows of a shared one, with blocks of its own, in the same order."""
    if start == 0 and stop == len(manager.axes[1]):
        view = manager.copy(deep=False)  # its labels share their hash tables
    else:
        view = manager.get_slice(slice(start, stop), axis=1)
    _keep_blocks(view)
    if not PANDAS_3:
        for block in view.blocks:
            block.values = map_arrays(block.values, _itself)
    return view


def _itself(array: Array) -> Array:
    return array


def copy_shallow(manager: Any) -> Any:
    """Give a manager over the same memory that copies what is written to (copy-on-write)."""
    return manager.copy(deep=False)


def make_writable(manager: Any, place: Any) -> Any:
    """Give an InPlaceManager over `place(array)` for each array of another, without references.

    Axes are the same objects, so the hash tables of their labels are shared.
    """
    blocks = tuple(
        type(block)(map_arrays(block.values, place), placement=block.mgr_locs, ndim=2)
        for block in manager.blocks
    )
    made = InPlaceManager(blocks, list(manager.axes), verify_integrity=False)
    _keep_blocks(made)
    return made


def copy_writable(manager: Any, blocks: Any) -> Any:
    """Give an InPlaceManager of the same axes over *blocks*, those that it was made with."""
    made = InPlaceManager(blocks, list(manager.axes), verify_integrity=False)
    _keep_blocks(made)
    return made


def _keep_blocks(manager: Any) -> None:
    """Have pandas take the blocks for consolidated, as they are but for byte orders."""
    manager._known_consolidated = manager._is_consolidated = True


def find_derived(references: list[Any], own: Any) -> list[Any]:
    """Give the blocks and indexes that refer to the memory of shared blocks, but for our own."""
    found = []
    for counter in references:
        counter.has_reference()  # drops those that died, which pandas lets pile up
        for reference in counter.referenced_blocks:
            holder = reference()
            if holder is None or holder is _ANCHOR:
                continue
            if isinstance(holder, pd.Index) or holder not in own:
                found.append(holder)
    return found


def values_of(holder: Any) -> Any:
    """Give the array of a block or index."""
    return getattr(holder, "_data" if isinstance(holder, pd.Index) else "values")


def detach(holder: Any) -> None:
    """Give a derived block or index a copy of its values, of its own."""
    values = values_of(holder)
    if hasattr(values, "_pa_array"):  # copies of Arrow arrays share their buffers
        values = pickle.loads(pickle.dumps(values, 4))
    else:
        values = map_arrays(values, np.copy)
    counter = _internals.BlockValuesRefs()
    if _is_index(holder):
        holder._data = values
        holder._cache = {}
        counter.add_index_reference(holder)
        holder._references = counter
        return
    holder.values = values
    holder.refs = counter
    counter.add_reference(holder)
    cache = getattr(holder, "_cache", None)
    if cache:
        cache.pop("array_values", None)


def _is_index(holder: Any) -> bool:
    return isinstance(holder, pd.Index)


def has_copy_on_write() -> bool:
    """Whether derived frames are copies in effect: always in 3, by option in 2."""
    return PANDAS_3 or pd.get_option("mode.copy_on_write") is True


def copying_on_write() -> Any:
    """Give a context in which derived frames are copies in effect."""
    return nullcontext() if PANDAS_3 else _switched_on()


@contextmanager
def _switched_on() -> Iterator[None]:
    """Switch the option of pandas 2 on, which is one for all threads: so one at a time."""
    with _option_lock, pd.option_context("mode.copy_on_write", True):
        yield


_option_lock = threading.RLock()


def _renew_lock() -> None:
    """A thread that held it does not exist in the child of a fork."""
    global _option_lock
    _option_lock = threading.RLock()


os.register_at_fork(after_in_child=_renew_lock)


def column_array(frame: Any, value: Any) -> Any:
    """Give the array that `frame[label] = value` would store: aligned, broadcast, converted."""
    array, _ = frame._sanitize_column(value)
    return array


def set_axis(frame: Any, axis: int, labels: Any) -> None:
    """Set the labels of an axis in place."""
    frame._set_axis(axis, labels)


def forget_cached(holder: Any) -> None:
    """Drop what an index, block or manager keeps of what it computed: it computes that again."""
    holder._reset_cache()
    for name in ("_dtypes_cache", "_interleaved_dtype"):  # of a manager, from pandas 3.1 on
        if hasattr(holder, name):
            setattr(holder, name, None)


def column_values(manager: Any, position: int) -> Array | None:
    """Give a column's memory as a NumPy array; None where it is more, or something else."""
    block = manager.blocks[manager.blknos[position]]
    values = block.values
    if not isinstance(values, np.ndarray):
        if not isinstance(values.dtype, np.dtype):
            return None
        values = values._ndarray
    if values.dtype == object:
        return None
    row: Array = values[manager.blklocs[position]]
    return row


def copy_frame(frame: Any) -> pd.DataFrame:
    """Give a plain frame of a subclass's, with a copy of its data, its attrs and flags."""
    copy: Any = frame_of(frame._mgr.copy(deep=True))
    copy.__finalize__(frame)
    made: pd.DataFrame = copy
    return made


def internal_names() -> list[str]:
    """Give the attributes of DataFrame that are no columns, which a subclass may add to."""
    names: list[str] = list(_pd.DataFrame._internal_names)
    return names
