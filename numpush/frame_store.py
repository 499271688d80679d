"""A frame's segment in this process: its memory, what it was rebuilt to, and windows on its rows.

    Memory  one per segment and mode, as long as anything lies over it: who derived what from it
    Store   one per Memory: the rebuilt frame. Never changes
    Window  a range of its rows, which SDataFrames show; hands out the block manager that they read

(1) Every array over the segment has a Memory at the end of its base chain, so Memory lives exactly
    as long as they do, and the counters of references that it holds know every frame and series
    that was derived from the segment in this process: also when the last SDataFrame is gone.
(2) The memory of a manager that is handed out is anchored (`_managers.share_manager`): pandas never
    takes a derived frame for its sole owner, so it copies before it writes.
(3) An SDataFrame holds the token of the mapping; its store does not, so that it can be kept when all
    of them are gone (frame_keeper.py). What was derived then holds the token by its Memory.
(4) The structure is constant. A Window's manager is as it was made, or somebody wrote to it behind
    our back; the next to ask for it puts that right, or raises.
"""

from __future__ import annotations

import os
import threading
import weakref
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from . import _managers, blocks
from .frame_keeper import StoreKeeper
from .frame_layout import refuse_names, refuse_swapped
from .layout import Schema, SchemaError, describe, rebuild
from .shm import process
from .shm.errors import SegmentDamaged
from .shm.segment import Mapping, Segment

__all__ = ["Memory", "Store", "Window", "create_store", "open_store", "store_of"]

Raw = NDArray[np.uint8]


class Memory(np.ndarray[Any, np.dtype[np.uint8]]):
    """The data of a segment in one mode, as bytes; rule (1).

    A subclass, since NumPy takes arrays of its own type out of base chains.
    """

    references: list[Any]  #: pandas' counters of references, one per block of the frame
    own: weakref.WeakSet[Any]  #: blocks that refer to it and are ours: those of windows
    store: weakref.ref[Store] | None
    token: Any  #: what keeps the mapping, where no SDataFrame does; rule (3)

    @classmethod
    def over(cls, mapping: Mapping) -> Memory:
        buf = blocks.view(mapping.buffer(), mapping.mode)
        self = np.ndarray.__new__(cls, (len(buf),), np.uint8, buf)
        self.token = None
        self.references = []
        self.own = weakref.WeakSet()
        self.store = None
        return self


_memories: weakref.WeakValueDictionary[tuple[str, int, str], Memory] = weakref.WeakValueDictionary()
_stores: weakref.WeakSet[Store] = weakref.WeakSet()


class Store:
    """The frame in a segment, rebuilt once however many SDataFrames show it.

    Attributes
    ----------
    manager : the block manager of the whole. Never handed out.
    root : ndarray
        All of the memory: what each array over it has as its base.
    lock : RLock
        Held during a write, for the threads of this process.
    """

    def __init__(
        self, segment: Segment, token: Any, mode: str, found: tuple[Schema, list[Raw]] | None = None
    ):
        key = segment.name, segment.identity, mode
        memory = _memories.get(key)
        if memory is None:
            memory = Memory.over(segment.mappings[mode])
        self.segment = segment
        self.mode = mode
        self.memory = memory
        self.root = memory.view(np.ndarray)
        schema, raw = found or blocks.read(segment, token, mode)
        frame = _rebuild(segment, schema, self._cut(raw))
        self.manager = _managers.manager_of(frame)
        _managers.share_manager(self.manager, memory.references)
        memory.own.update(_managers.blocks_of(self.manager))
        self.n_rows = len(frame)
        self.attrs = dict(frame.attrs)
        self.has_unique_labels = not frame.flags.allows_duplicate_labels
        self.lock = threading.RLock()
        self._windows: weakref.WeakValueDictionary[tuple[int, int], Window] = (
            weakref.WeakValueDictionary()
        )
        memory.store = weakref.ref(self)
        _memories[key] = memory
        _stores.add(self)

    def _cut(self, raw: list[Raw]) -> list[Raw]:
        """Give the same ranges as *raw*, but over the root."""
        start = self.root.__array_interface__["data"][0]
        offsets = [each.__array_interface__["data"][0] - start for each in raw]
        return [self.root[at : at + each.nbytes] for at, each in zip(offsets, raw)]

    def mapping(self) -> Mapping:
        """Return the mapping that the arrays lie in."""
        return self.segment.mappings[self.mode]

    def window(self, start: int, stop: int) -> Window:
        """Return the window on rows [start, stop)."""
        window = self._windows.get((start, stop))
        if window is None:
            window = self._windows[start, stop] = Window(self, start, stop)
        return window


class Window(_managers.Watch):
    """Rows [start, stop) of a store, as a block manager. Writing to it is frame_writes.py's."""

    def __init__(self, store: Store, start: int, stop: int) -> None:
        self.store = store
        self.start = start
        self.stop = stop
        #: for writing; kept from one write to the next by frame_writes.py
        self.writer: Any = None
        self.renew()

    @property
    def axes(self) -> tuple[pd.Index, pd.Index]:
        """Return the columns and the rows' index."""
        return _managers.axes_of(self.manager())

    def renew(self) -> None:
        """Take a fresh manager from the store, whatever became of the last one."""
        manager = _managers.view_manager(self.store.manager, self.start, self.stop)
        self.store.memory.own.update(_managers.blocks_of(manager))
        self.watch(manager)

    def changed(self, manager: Any) -> None:
        """Undo or adopt what was done to the manager behind our back; rule (4).

        Raises
        ------
        SharedStructureError : it was another structure. It is undone.
        """
        from .frame_writes import adopt

        names = self.find_names()
        self.renew()
        if names is not None:
            refuse_names(*names)
        adopt(self, manager)

    def verify(self) -> None:
        """Look for what `manager` does not see, being too much to look for in each access.

        Raises
        ------
        SharedStructureError : a string was set through ``df['a'].array``. It is undone.
        """
        if self.has_swapped():
            self.renew()
            refuse_swapped()

    def __len__(self) -> int:
        return self.stop - self.start


def create_store(frame: pd.DataFrame, name: str | None, reserve: bool) -> tuple[Store, Any]:
    """Put a frame into a new segment, by one copy. Return its store, and the token to hold.

    Raises
    ------
    TypeError : a column or label has no layout; the message names it, and the remedy.
    SegmentFull, SegmentExists
    """
    schema, buffers = describe(frame)
    segment, token, raw = blocks.store(schema, buffers, name=name, reserve=reserve)
    return _make_store(segment, token, "rw", (schema, raw)), token


def open_store(name: str, mode: str, identity: int, sender: int) -> tuple[Store, Any]:
    """Attach to the segment of a handle; return its store, and the token to hold.

    A known one costs a call into C and a look-up.
    """
    segment, token = process.attach(name, mode, identity=identity, sender=sender)
    return store_of(segment, token, mode), token


def store_of(segment: Segment, token: Any, mode: str) -> Store:
    """Return the store of an attached segment, rebuilding its frame if nobody here has it."""
    memory = _memories.get((segment.name, segment.identity, mode))
    known = None if memory is None or memory.store is None else memory.store()
    if known is not None:
        return known
    return _make_store(segment, token, mode)


def _make_store(segment: Segment, token: Any, mode: str, *found: tuple[Schema, list[Raw]]) -> Store:
    store = Store(segment, token, mode, *found)
    keeper = None if store.memory.token is not None or store.attrs else StoreKeeper(store)
    if keeper is not None and keeper.is_complete():
        store.mapping().keeper = keeper
    else:
        store.memory.token = token
    return store


def _rebuild(segment: Segment, schema: Schema, raw: list[Raw]) -> pd.DataFrame:
    try:
        frame = rebuild(schema, raw)
    except SchemaError as error:
        raise SegmentDamaged(f"segment {segment.name!r}: {error}", segment.name) from error
    if not isinstance(frame, pd.DataFrame):
        raise SegmentDamaged(
            f"segment {segment.name!r}: a frame wanted, {schema.get('kind')!r} found",
            segment.name,
        )
    return frame


def _renew_locks() -> None:
    """A thread that held a lock does not exist in the child of a fork."""
    for store in list(_stores):
        store.lock = threading.RLock()


os.register_at_fork(after_in_child=_renew_locks)
