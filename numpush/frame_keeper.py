"""Keep a rebuilt frame while its segment is idle: for workers that get one frame with every task.

When a task is done its SDataFrame dies, and this process leaves the segment; the next task brings
it again. Rebuilding the frame costs several times what the rest of attaching does, and gives the
same objects. So its store stays with the mapping, which does not keep the segment (shm/registry.py).

It may stay only where nothing that was handed out still needs the memory. Whatever does refers to
one of our objects, so reference counts tell; those of a store that nobody has used are the measure:

(1) A new array over the memory refers to the root: NumPy has views of views refer to the first of
    their type.
(2) Anything else refers to an array of ours, or to what holds one: a block's values, an index, a
    dtype with its categories, a manager. That these are all, `is_complete` proves by (1): the root
    has just as many references. It has more where something of a kind that is not known here lies
    in the memory, and such a store is not kept.
(3) Arrow counts in C++ who refers to a buffer, and tells nobody. But its last one lets go of the
    array that the buffer was made of, at once. So our Arrow arrays are dropped, and those of NumPy
    beneath them counted; then they are made anew.
(4) What an index caches (hash tables, arrays) refers to it, what a manager or a block
    does to blocks and dtypes: that is forgotten whenever we count, or a look-up by label would look like use,
    and what was cached when the measure was taken would make up for a use later.
(5) pandas 2 shares and caches in other ways: there a store is kept only if its columns are plain
    arrays, and nothing else lies in the memory.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from . import _arrays, _managers
from ._pandas import PANDAS_3
from .layout.arrow_types import load_pyarrow

if TYPE_CHECKING:
    from .frame_store import Store

__all__ = ["StoreKeeper"]

_BARE = 5  #: references to an array beneath Arrow's: its list, ours, and three of counting them
_OURS = 2  #: references to the root that are no arrays: the store's, and that of counting them


class StoreKeeper:
    """Keeps a store, and its window on all rows."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._arrow = _take_apart(store.manager, store.roots[0]) if PANDAS_3 else []
        self.window = store.whole()
        self._counted = self._find_ours()
        self._forget_cached()
        self._drop_arrow()
        self._bare = self._count()
        raws = [raw for each in self._arrow for raw in each.raws if raw is not None]
        self._is_bare = all(sys.getrefcount(raw) == _BARE for raw in raws)
        del raws
        self._make_arrow()
        self._counts = self._count()

    def _find_ours(self) -> list[Any]:
        """Give the root, and our objects that may have been handed out."""
        root = self.store.roots[0]
        managers = self.store.manager, self.window.manager()
        blocks = [block for manager in managers for block in _managers.blocks_of(manager)]
        axes = [axis for manager in managers for axis in _managers.axes_of(manager)]
        tops = [*map(_managers.values_of, blocks), *axes]
        if not PANDAS_3:
            tops = [top for top in tops if isinstance(top, np.ndarray)]
        holders = _walk(tops)
        for each in self._arrow:
            each.find_holders(holders)
        arrow = {id(holder) for each in self._arrow for holder in each.holders}
        parts = [part for top in tops for part in _chain(top, root, arrow)]
        parts += [raw for each in self._arrow for raw in each.raws if raw is not None]
        self._n_arrays = len({id(part) for part in parts if _lies_over(part, root)})
        self._caching = [
            *managers,
            *blocks,
            *(part for part in parts if isinstance(part, pd.Index)),
        ]
        # `is_used` knows where the window's manager stands.
        lists = [part for manager in managers for part in _managers.lists_of(manager)]
        return [root, *managers, *lists, *blocks, *axes, *parts]

    def _count(self) -> list[int]:
        return [sys.getrefcount(each) for each in self._counted]

    def is_complete(self) -> bool:
        """Whether the arrays known are all that there are over the memory; rules (2) and (3)."""
        return self._is_bare and sys.getrefcount(self.store.roots[0]) == self._n_arrays + _OURS + 1

    def is_used(self) -> bool:
        """Whether anything refers to the memory or to our objects, or our labels were renamed."""
        self.window.writer = None
        self._forget_cached()
        if self._count() != self._counts or not self.window.shows(self._counted[2]):
            return True
        if not self._arrow:
            return False
        if self.window.has_swapped():
            return True
        self._drop_arrow()
        try:
            return self._count() != self._bare
        finally:
            self._make_arrow()

    def _forget_cached(self) -> None:
        """Rule (4). A function of its own, whose loop variable is gone when it is counted."""
        for holder in self._caching:
            _managers.forget_cached(holder)

    def _drop_arrow(self) -> None:
        for each in self._arrow:
            each.put(None)
        self.window.watch_arrays()

    def _make_arrow(self) -> None:
        for each in self._arrow:
            each.put(each.make())
        self.window.watch_arrays()

    def hold(self, token: Any) -> None:
        """Have what was derived hold *token*."""
        self.store.memories[0].token = token


class _Arrow:
    """An Arrow array without children, which can be made anew over arrays of ours; rule (3)."""

    def __init__(self, holder: Any, kind: Any, n_rows: int, raws: list[NDArray[np.uint8] | None]):
        self.holders = [holder]  #: pandas' arrays that show it
        self.raws = raws
        self._kind = kind
        self._n_rows = n_rows
        self.put(self.make())

    @classmethod
    def over(cls, holder: Any, root: NDArray[np.uint8]) -> _Arrow | None:
        """Take the array of *holder* apart, if it lies over *root* and is as simple as that."""
        chunks = _arrays.identity(holder)[0].chunks
        if len(chunks) != 1 or chunks[0].offset or chunks[0].type.num_fields:
            return None
        kind, n_rows, raws = chunks[0].type, len(chunks[0]), []
        if load_pyarrow().types.is_dictionary(kind) or hasattr(kind, "storage_type"):
            return None
        first = root.__array_interface__["data"][0]
        for buffer in chunks[0].buffers():
            at = 0 if buffer is None or not buffer.size else buffer.address - first
            if not 0 <= at <= len(root):
                return None
            raws.append(None if buffer is None else root[at : at + buffer.size])
        return cls(holder, kind, n_rows, raws)

    def find_holders(self, among: list[Any]) -> None:
        """Note who of *among* shows it too."""
        mine = _addresses(self.holders[0])
        self.holders = [each for each in among if _addresses(each) == mine]

    def make(self) -> Any:
        pa = load_pyarrow()
        buffers = [None if raw is None else pa.py_buffer(raw) for raw in self.raws]
        n_null = 0 if buffers[0] is None else -1
        return pa.chunked_array([pa.Array.from_buffers(self._kind, self._n_rows, buffers, n_null)])

    def put(self, array: Any) -> None:
        for holder in self.holders:
            _arrays.put_arrow(holder, array)


def _addresses(holder: Any) -> list[int | None]:
    """Give where the buffers of an Arrow array lie: pandas 2 makes other objects over the same."""
    chunks = _arrays.identity(holder)[0].chunks
    buffers = [buffer for chunk in chunks for buffer in chunk.buffers()]
    return [None if buffer is None else buffer.address for buffer in buffers]


def _walk(tops: Iterable[Any]) -> list[Any]:
    """Give the Arrow arrays among arrays and indexes, and what they are made of; each once."""
    holders = list(tops)
    for holder in holders:  # which grows
        holders += _arrays.parts_of(holder)
    return list({id(holder): holder for holder in holders if _arrays.is_arrow(holder)}.values())


def _take_apart(manager: Any, root: NDArray[np.uint8]) -> list[_Arrow]:
    """Put Arrow arrays over arrays of ours in place of those that can be made anew."""
    values = map(_managers.values_of, _managers.blocks_of(manager))
    made = [_Arrow.over(holder, root) for holder in _walk([*values, *_managers.axes_of(manager)])]
    return [each for each in made if each is not None]


def _lies_over(part: Any, root: NDArray[np.uint8]) -> bool:
    return type(part) is np.ndarray and part.base is root


def _chain(holder: Any, root: NDArray[np.uint8], arrow: set[int]) -> list[Any]:
    """Give what *holder* is made of, and itself, as far as it leads to the memory."""
    found = [part for each in _arrays.parts_of(holder) for part in _chain(each, root, arrow)]
    if found or _lies_over(holder, root) or id(holder) in arrow:
        found.append(holder)
    return found
