"""A frame's segment in this process: its memory, what it was rebuilt to, and windows on its rows.

    Memory   one per mapping (the data, and each extent that a generation added), as long as anything
             lies over it
    History  one per segment and mode, as long as there is a Memory: who derived what from it
    Store    one per generation while there is an SDataFrame: the rebuilt frame. Never changes
    Window   a range of its rows, which SDataFrames show; hands out the block manager they read

(1) Every array over the segment has a Memory at the end of its base chain, so History lives exactly
    as long as they do, and the counters of references that it holds know every frame and series
    that was derived from the segment in this process: also when the last SDataFrame is gone.
(2) The memory of a manager that is handed out is anchored (`_managers.share_manager`): pandas never
    takes a derived frame for its sole owner, so it copies before it writes.
(3) An SDataFrame holds the token of the mapping; its store does not, so that it can be kept when all
    of them are gone (frame_keeper.py). What was derived then holds the token by its Memory.
(4) The structure of a generation is constant. A Window's manager is as it was made, or somebody
    wrote to it behind our back; the next to ask for it puts that right.
"""

from __future__ import annotations

import os
import threading
import weakref
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from . import _managers, blocks, generations
from .ffi import seg as _seg
from .frame_keeper import StoreKeeper
from .generations import Part, Place
from .layout import Schema, SchemaError, describe, rebuild
from .shm import process
from .shm.errors import SegmentDamaged
from .shm.extents import map_extent, read_place
from .shm.mapping import Mapping
from .shm.segment import Segment

__all__ = ["Memory", "Store", "Window", "create_store", "open_store", "store_of", "uses_before"]

Raw = NDArray[np.uint8]


class History:
    """What this process derived from a segment in one mode, over all its generations."""

    def __init__(self) -> None:
        #: pandas' counters of references, one per block of each generation
        self.references: dict[int, list[Any]] = {}
        #: blocks that refer to the memory and are ours: those of stores and windows
        self.own: weakref.WeakSet[Any] = weakref.WeakSet()
        self.memories: weakref.WeakValueDictionary[int, Memory] = weakref.WeakValueDictionary()
        self.stores: weakref.WeakValueDictionary[int, Store] = weakref.WeakValueDictionary()

    def find_derived(self) -> list[Any]:
        """Give the blocks and indexes that refer to the memory, but for our own."""
        found: list[Any] = []
        for generation, counters in list(self.references.items()):
            derived = _managers.find_derived(counters, self.own)
            if derived:
                found += derived
            elif generation not in self.stores:
                del self.references[generation]
        return found


class Memory(np.ndarray[Any, np.dtype[np.uint8]]):
    """The data of one mapping, as bytes; rule (1).

    A subclass, since NumPy takes arrays of its own type out of base chains.
    """

    history: History
    start: int  #: where in the data
    token: Any  #: what keeps the mapping, where no SDataFrame does; rule (3)

    @classmethod
    def over(cls, mapping: Mapping, history: History) -> Memory:
        """Return that of *mapping*, made now if there is none."""
        self = history.memories.get(mapping.start)
        if self is None:
            buf = blocks.view(mapping.buffer(), mapping.mode)
            self = np.ndarray.__new__(cls, (len(buf),), np.uint8, buf)
            self.history = history
            self.start = mapping.start
            self.token = None
            history.memories[mapping.start] = self
        return self


_histories: weakref.WeakValueDictionary[tuple[str, int, str], History] = (
    weakref.WeakValueDictionary()
)
_stores: weakref.WeakSet[Store] = weakref.WeakSet()


class Store:
    """The frame in a segment, rebuilt once however many SDataFrames show it.

    Attributes
    ----------
    generation, place : of its structure
    memories : list of Memory
        Those that its arrays lie in.
    roots : list of ndarray
        All of each memory: what each array over it has as its base.
    manager : the block manager of the whole. Never handed out.
    lock : RLock
        Held during a write, for the threads of this process.
    """

    def __init__(
        self,
        segment: Segment,
        mode: str,
        place: Place,
        history: History,
        schema: Schema,
        parts: list[Part],
        mappings: list[Mapping],
    ):
        self.segment = segment
        self.mode = mode
        self.generation, self.place = place
        self.history = history
        used = sorted({which for which, _, _ in parts}) or [len(mappings) - 1]
        self.memories = [Memory.over(mappings[which], history) for which in used]
        self.roots = [memory.view(np.ndarray) for memory in self.memories]
        by_part = dict(zip(used, self.roots, strict=True))
        raw = [by_part[which][start : start + n] for which, start, n in parts]
        frame = _rebuild(segment, schema, raw)
        self.manager = _managers.manager_of(frame)
        counters = history.references.setdefault(self.generation, [])
        _managers.share_manager(self.manager, counters)
        history.own.update(_managers.blocks_of(self.manager))
        self.n_rows = len(frame)
        self.attrs = dict(frame.attrs)
        self.has_unique_labels = not frame.flags.allows_duplicate_labels
        self.lock = threading.RLock()
        self._windows: weakref.WeakValueDictionary[tuple[int, int], Window] = (
            weakref.WeakValueDictionary()
        )
        history.stores[self.generation] = self
        _stores.add(self)

    def mapping(self) -> Mapping:
        """Return the mapping that the data lies in."""
        return self.segment.mappings[self.mode]

    def holds(self, array: NDArray[Any]) -> bool:
        """Whether an array lies in its memory, in part at least."""
        return any(np.may_share_memory(array, memory) for memory in self.memories)

    def window(self, start: int, stop: int) -> Window:
        """Return the window on rows [start, stop)."""
        window = self._windows.get((start, stop))
        if window is None:
            window = self._windows[start, stop] = Window(self, start, stop)
        return window

    def whole(self) -> Window:
        """Return the window on all rows."""
        return self.window(0, self.n_rows)


class Window(_managers.Watch):
    """Rows [start, stop) of a store, as a block manager. Writing to it is frame_writes.py's.

    Attributes
    ----------
    follows : bool
        An SDataFrame that shows it is to show the next generation when there is one: it is on all
        rows, and its changes are not private.
    """

    def __init__(self, store: Store, start: int, stop: int) -> None:
        self.store = store
        self.start = start
        self.stop = stop
        self.follows = start == 0 and stop == store.n_rows and store.mode != "cow"
        #: for writing; kept from one write to the next by frame_writes.py
        self.writer: Any = None
        self.renew()

    @property
    def axes(self) -> tuple[pd.Index, pd.Index]:
        """Return the columns and the rows' index."""
        return _managers.axes_of(self.manager())

    def is_latest(self) -> bool:
        """Whether there is nothing newer that is to be shown instead."""
        store = self.store
        return not self.follows or _seg.generation(store.segment.ref) == store.generation

    def renew(self) -> None:
        """Take a fresh manager from the store, whatever became of the last one."""
        manager = _managers.view_manager(self.store.manager, self.start, self.stop)
        self.store.history.own.update(_managers.blocks_of(manager))
        self.watch(manager)

    def changed(self, manager: Any) -> None:
        """Undo here what was done to the manager behind our back, and do it properly; rule (4).

        Raises
        ------
        SharedStructureError : it was another structure, of a part of a frame.
        """
        from .frame_writes import adopt, rename

        names = self.find_names()
        self.renew()
        if names is not None:
            rename(self, *names)
        else:
            adopt(self, manager)

    def verify(self) -> None:
        """Look for what `manager` does not see, being too much to look for in each access.

        Raises
        ------
        SharedStructureError : a string was set through ``df['a'].array`` of a part of a frame.
        """
        if self.has_swapped():
            manager = self.manager()
            self.renew()
            from .frame_writes import adopt

            adopt(self, manager)

    def __len__(self) -> int:
        return self.stop - self.start


def create_store(frame: pd.DataFrame, name: str | None, reserve: bool) -> tuple[Store, Any]:
    """Put a frame into a new segment, by one copy. Return its store, and the token to hold.

    Raises
    ------
    TypeError : a column or label has no layout; the message names it, and the remedy.
    SegmentFull, SegmentExists
    """
    schema, buffers = describe(frame, allow_pickle=True)
    segment, token, _ = blocks.store(schema, buffers, name=name, reserve=reserve)
    return store_of(segment, token, "rw"), token


def open_store(
    name: str, mode: str, identity: int, sender: int, place: Place | None
) -> tuple[Store, Any]:
    """Attach to the segment of a handle; return a store, and the token to hold.

    A known one costs a call into C and a look-up. None: of the latest generation.
    """
    segment, token = process.attach(name, mode, identity=identity, sender=sender)
    return store_of(segment, token, mode, place), token


def store_of(segment: Segment, token: Any, mode: str, place: Place | None = None) -> Store:
    """Return the store of a generation, rebuilding its frame if nobody here has it."""
    key = segment.name, segment.identity, mode
    history = _histories.get(key)
    generation = _seg.generation(segment.ref) if place is None else place[0]
    known = None if history is None else history.stores.get(generation)
    if known is not None:
        return known
    if place is None:
        place = read_place(segment)
        generation = place[0]
    if history is None:
        history = _histories[key] = History()
    schema, parts, extents = generations.read(segment, place)
    mapping = segment.mappings[mode]
    tokens = [process.token_of_extent(segment, mode, *extent) for extent in extents]
    mappings = [mapping, *(map_extent(segment, mode, *extent) for extent in extents)]
    store = Store(segment, mode, place, history, schema, parts, mappings)
    keeper = None
    if not (generation or store.attrs or store.memories[0].token is not None):
        keeper = StoreKeeper(store)
    if keeper is not None and keeper.is_complete():
        mapping.keeper = keeper
    else:
        mapping.keeper = None
        by_start = {
            mapping.start: token,
            **{start: its for (start, _), its in zip(extents, tokens)},
        }
        for memory in store.memories:
            memory.token = by_start[memory.start]
    return store


def uses_before(segment: Segment, start: int) -> bool:
    """Whether anything in this process lies in the data before *start*."""
    return any(
        memory.start < start
        for (name, identity, _), history in list(_histories.items())
        if (name, identity) == (segment.name, segment.identity)
        for memory in list(history.memories.values())
    )


def _rebuild(segment: Segment, schema: Schema, raw: list[Raw]) -> pd.DataFrame:
    try:
        frame = rebuild(schema, raw, allow_pickle=True)
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
