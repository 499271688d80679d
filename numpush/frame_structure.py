"""Replacing the structure of a shared frame: columns, dtypes, rows, labels, values of no fixed width.

What cannot be written in place is published as a new generation (generations.py), under a mutex of
the segment of its own: whoever changes the structure does so to the latest one, so no change is
lost, and whoever dies in between changes nothing. Every SDataFrame on all rows shows the next
generation at its next access, in every process.

(1) Columns that did not change are not copied: the new generation names where they lie. Each column
    has memory of its own, also where pandas would share it until the first write.
(2) What a process derived from an earlier generation, and parts of it, keep that one's memory.
    `compact` copies all into one place, and frees what lies before it when nobody can use that.
"""

from __future__ import annotations

import bisect
import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pandas as pd

from . import _managers, _pandas, generations
from .ffi import seg as _seg
from .frame_store import Store, Window, store_of, uses_before
from .generations import Extent
from .layout import Buffer, describe
from .shm import Mutex, registry
from .shm.errors import SharedStructureError
from .shm.extents import give_back

__all__ = ["compact", "free", "replace", "replace_by"]

Write = Callable[[Any], Any]


def replace(window: Window, write: Write, tried: tuple[Any, Any] | None = None) -> Any:
    """Have *write* change a draft of the latest generation, and make that the next one.

    Parameters
    ----------
    write : callable
        Gets a plain frame over the shared memory that copies what is written to.
    tried : (frame, result), optional
        Such a frame of the window's, and what *write* did to it, if it was done already.

    Returns
    -------
    What *write* did.

    Raises
    ------
    SegmentFull : there is no room for what is new. Nothing has changed.
    TypeError : a new column or label has no layout. Nothing has changed.
    """
    with _latest(window.store) as store:
        if tried is not None and store is window.store:
            draft, result = tried
            _take_extras(draft, store)
        else:
            draft = _draft(store)
            with _managers.copying_on_write():
                result = write(draft)
        _publish(store, draft, keep_blocks=True)
        return result


def replace_by(window: Window, manager: Any) -> None:
    """Make the frame of *manager*, which was made from the window's, the next generation.

    Raises
    ------
    SharedStructureError : somebody else has replaced it meanwhile.
    """
    with _latest(window.store) as store:
        if store.generation != window.store.generation:
            raise SharedStructureError(
                f"segment {store.segment.name!r}: the frame was changed behind its back, while "
                "another process changed its structure too; do it again"
            )
        frame = _managers.frame_of(manager)
        _take_extras(frame, store)
        _publish(store, frame, keep_blocks=True)


def is_compact(window: Window) -> bool:
    """Whether all data of a generation lies in one place, one block for each dtype."""
    store = window.store
    dtypes = [
        values.dtype
        for block in _managers.blocks_of(store.manager)
        if _pandas.may_be_wide((values := _managers.values_of(block)).dtype)
    ]
    return len(store.memories) == 1 and len(dtypes) == len(set(dtypes))


def compact(window: Window) -> None:
    """Make a generation whose data lies in one place, all of it."""
    with _latest(window.store) as store:
        _publish(store, _draft(store), keep_blocks=False)


def free(window: Window) -> int:
    """Free what lies before the data of the latest generation, if nobody can use it.

    Returns
    -------
    int : bytes given back
    """
    with _latest(window.store) as store:
        segment = store.segment
        start = min(memory.start for memory in store.memories)
        holders = _seg.holders(segment.ref, segment.n_slots)
        is_alone = (
            [(id, leases) for id, _, leases in holders] == [(segment.node, 0)]
            and not segment.has_arrays
            and not _seg.has_unlisted(segment.ref)
        )
        if not start or not is_alone:
            return 0
        if uses_before(segment, start):
            gc.collect()
        return 0 if uses_before(segment, start) else give_back(segment, start)


@contextmanager
def _latest(store: Store) -> Iterator[Store]:
    """Hold the structure mutex; give the store of the latest generation."""
    segment = store.segment
    token = registry.token(store.mapping())
    # Who died holding it left nothing half-done: a generation is published by one store.
    with Mutex.of_structure(segment, token):
        yield store_of(segment, token, store.mode)


def _draft(store: Store) -> pd.DataFrame:
    """Return a plain frame over a store's memory that copies what is written to."""
    frame = _managers.frame_of(_managers.copy_shallow(store.whole().manager()))
    _take_extras(frame, store)
    return frame


def _take_extras(frame: pd.DataFrame, store: Store) -> None:
    frame.attrs = dict(store.attrs)
    if store.has_unique_labels:
        _pandas.forbid_duplicate_labels(frame)


def _publish(store: Store, frame: pd.DataFrame, *, keep_blocks: bool) -> None:
    """Make *frame* the next generation."""
    if frame.flags.allows_duplicate_labels is False:
        _refuse_duplicates(frame)
    schema, buffers = describe(frame, keep_blocks=keep_blocks, allow_pickle=True)
    taken: list[Extent] = []
    found = [_find(store, buffer, taken) if keep_blocks else buffer for buffer in buffers]
    extents = [(memory.start, len(memory)) for memory in store.memories if memory.start]
    generations.append(store.segment, schema, found, extents)


def _refuse_duplicates(frame: pd.DataFrame) -> None:
    """Raise pandas' own DuplicateLabelError."""
    for axis in (frame.index, frame.columns):
        if not axis.is_unique:
            plain: Any = frame.set_flags(allows_duplicate_labels=True)
            plain.flags.allows_duplicate_labels = False


def _find(store: Store, buffer: Buffer, taken: list[Extent]) -> Extent | Buffer:
    """Say where in the segment a buffer lies already; the buffer, if it is to be copied there."""
    source = buffer.source()
    if source is None or not buffer.nbytes:
        return buffer
    address = source.__array_interface__["data"][0]
    for memory in store.memories:
        offset = address - memory.__array_interface__["data"][0]
        if 0 <= offset <= len(memory) - buffer.nbytes:
            place = memory.start + offset, buffer.nbytes
            at = bisect.bisect(taken, place)
            before = sum(taken[at - 1]) if at else 0
            after = taken[at][0] if at < len(taken) else sum(place)
            if not before <= place[0] <= sum(place) <= after:  # rule (1)
                return buffer
            taken.insert(at, place)
            return place
    return buffer
