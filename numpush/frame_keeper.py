"""Keep a rebuilt frame while its segment is idle: for workers that get one frame with every task.

When a task is done its SDataFrame dies, and this process leaves the segment; the next task brings
it again. Rebuilding the frame costs several times what the rest of attaching does, and gives the
same objects. So its store stays with the mapping, which does not keep the segment (shm/registry.py).

It may stay only where nothing that was handed out still needs the memory. Whatever does refers to
one of our objects, so reference counts tell; those of a store that nobody has used are the measure:

(1) A new array over the memory refers to the root: NumPy has views of views refer to the first of
    their type.
(2) Anything else refers to an array of ours, or to what holds one: a block's values, a manager. That
    these are all, `is_complete` proves by (1): the root has just as many references. It has more
    where labels, categories or Arrow buffers lie in the memory, and such a store is not kept.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from . import _managers

if TYPE_CHECKING:
    from .frame_store import Store

__all__ = ["StoreKeeper"]

_OURS = 2  #: references to the root that are no arrays: the store's, and that of counting them


class StoreKeeper:
    """Keeps a store, and its window on all rows."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.window = store.whole()
        managers = store.manager, self.window.manager()
        blocks = [block for manager in managers for block in _managers.blocks_of(manager)]
        values = [_managers.values_of(block) for block in blocks]
        arrays = [array for each in values for array in _managers.leaves(each) or ()]
        self._n_arrays = len({id(array) for array in arrays if array.base is store.roots[0]})
        self._counted = [store.roots[0], *managers, *blocks, *values, *arrays]
        for manager in managers:
            self._counted += _managers.axes_of(manager)
        del managers, manager, blocks, values, arrays
        self._counts = self._count()

    def _count(self) -> list[int]:
        return [sys.getrefcount(each) for each in self._counted]

    def is_complete(self) -> bool:
        """Whether the arrays in the blocks are all that there are over the memory; rule (2)."""
        return sys.getrefcount(self.store.roots[0]) == self._n_arrays + _OURS + 1

    def is_used(self) -> bool:
        """Whether anything refers to the memory or to our objects, or our labels were renamed."""
        self.window.writer = None
        return self._count() != self._counts or not self.window.is_unchanged()

    def hold(self, token: Any) -> None:
        """Have what was derived hold *token*."""
        self.store.memories[0].token = token
