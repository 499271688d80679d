"""Writing to a shared frame: whatever pandas does in place, and nothing that pandas would detach.

Whichever way a frame is written to, pandas' own code does it, on a frame made for that:

    the writer     over the shared memory, without references, so that pandas writes there
    a rehearsal    a private copy (kernel copy-on-write where the frame is big), the same otherwise
    a draft        over the shared memory, anchored, so that pandas puts new arrays in place of old

and afterwards that frame is compared with what it was: the *layout*. A column that has become
another array of the same dtype is copied back into place; any other difference is a change of
structure. Of a whole frame the structure is then replaced (frame_structure.py): pandas' code runs
once more, on a draft of the latest generation. Of a part it is a SharedStructureError.

(1) Nothing is written unless all of it can be. What pandas does at once or not at all (cells of one
    column) runs on the writer; what replaces columns or labels runs on a draft, and is compared
    before anything is copied; the rest runs on a rehearsal first and, if that went well, again on
    the writer. An exception therefore leaves the data as it was.
(2) Cells that pandas does not touch are not written back, so processes that write to different
    cells do not undo each other's changes. Assigning a column writes all of it.
(3) Before memory changes, what was derived from it in this process gets a copy of its own.
(4) The store's lock is held throughout: the writer is one per window.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import _arrays, _managers, _pandas, frame_structure
from .copying import copy_all
from .ffi import map as _map
from .frame_layout import Copies, Layout, refuse_names
from .frame_store import Store, Window
from .shm.errors import SegmentError, SharedStructureError

__all__ = [
    "adopt",
    "assign_column",
    "rename",
    "replace_structure",
    "write_cell",
    "write_cells",
    "write_columns",
    "write_frame",
]

Array = NDArray[Any]
Write = Callable[[Any], Any]

#: Below, copying the frame to rehearse on costs less than the system calls for a mapping.
_MAP_FROM = 1 << 20


# The frames that pandas writes to.


class Writer:
    """The frame over a window's own memory, and its layout."""

    def __init__(self, window: Window) -> None:
        source = window.manager()
        self.manager = _managers.make_writable(source, _share)
        self.layout = Layout(self.manager, source)
        self.renew()

    def renew(self) -> None:
        """Make the frame anew over the same blocks, after an operation has put others there."""
        manager = self.manager
        self.frame = _managers.frame_of(_managers.copy_writable(manager, self.layout.blocks))
        self.current = _managers.manager_of(self.frame)

    def is_same(self, position: int | None) -> bool:
        """Whether the frame is as it was; with *position*, no other column can have changed."""
        manager = _managers.manager_of(self.frame)
        if manager is not self.current:
            return False
        layout = self.layout
        if position is None:
            return layout.is_same(manager)
        return layout.is_untouched(manager) and layout.is_as_it_was(
            _managers.block_of(manager, position)
        )


def _share(array: Array) -> Array:
    """Place an array where it is; Python objects are private to the process, and to the writer."""
    return array.copy() if array.dtype == object else array


def _writer(window: Window) -> Writer:
    writer = window.writer
    if writer is None:
        writer = window.writer = Writer(window)
    result: Writer = writer
    return result


def _check(window: Window) -> None:
    window.verify()
    if window.store.mode == "ro":
        raise ValueError(
            "assignment destination is read-only: the frame was attached with mode 'ro'"
        )


def _rehearsal(window: Window) -> Any:
    """Return a manager over a private copy of the window's memory."""
    store = window.store
    size = sum(memory.nbytes for memory in store.memories)
    if store.mode == "rw" and size * len(window) // max(store.n_rows, 1) >= _MAP_FROM:
        try:
            return _managers.make_writable(window.manager(), _Private(store))
        except (SegmentError, OSError):
            pass  # the file was removed under us; memory is still there
    return _managers.make_writable(window.manager(), np.copy)


class _Private:
    """A place for arrays: in private mappings of the segment. Pages are copied when written to."""

    def __init__(self, store: Store) -> None:
        self._spaces = []
        segment = store.segment
        with segment.opened() as fd:
            for memory in store.memories:
                size = len(memory)
                address = _map.map(fd, segment.data_offset + memory.start, size, _map.COW)
                buf = _map.buffer(address, size)
                weakref.finalize(buf, _map.unmap, address, size).atexit = False
                self._spaces.append((_address(memory), size, np.frombuffer(buf, np.uint8)))

    def __call__(self, array: Array) -> Array:
        if not array.dtype.hasobject:
            address = _address(array)
            for start, size, private in self._spaces:
                if start <= address < start + size:
                    offset = address - start
                    return np.ndarray(array.shape, array.dtype, private, offset, array.strides)
        return array.copy()


def _address(array: Array) -> int:
    address: int = array.__array_interface__["data"][0]
    return address


# The snapshot barrier.


def _keep_derived(window: Window, targets: list[Array] | None) -> None:
    """Copy what was derived in this process from memory that will change: rule (3).

    None: any of the window's memory.
    """
    if not _managers.has_copy_on_write():
        return  # there, a derived frame is a view, and users expect it to change
    derived = window.store.history.find_derived()
    if not derived:
        return
    if targets is None:
        targets = [
            leaf
            for block in _managers.blocks_of(window.manager())
            for leaf in _arrays.leaves(_managers.values_of(block)) or ()
        ]
    for holder in derived:
        if _arrays.lies_in(_managers.values_of(holder), targets):
            _managers.detach(holder)


def _run_copies(window: Window, copies: Copies) -> None:
    """Copy values into place. A source that lies in the segment may be a target of another."""
    if not copies:
        return
    _keep_derived(window, [target for target, _ in copies])
    holds = window.store.holds
    copy_all([(target, source.copy() if holds(source) else source) for target, source in copies])


# Ways to write.


def write_cell(window: Window, operation: str, position: int, row: int, value: Any) -> bool:
    """Write one cell; False: it does not fit as it is. Saves what finding it by label costs twice."""
    _check(window)
    with window.store.lock:
        writer = _writer(window)
        layout = writer.layout
        _keep_derived(window, _arrays.leaves(layout.array(position)))
        manager = writer.current
        try:
            _managers.set_cell(manager, position, row, value)
        except Exception:
            return False  # pandas says why, when it is asked in its own way
        if not layout.is_as_it_was(_managers.block_of(manager, position)):
            window.writer = None  # which undoes it
            return False
        return True


def write_cells(window: Window, operation: str, write: Write, position: int | None) -> Any:
    """Write cells of one column, which pandas does wholly or not at all: on the writer.

    Parameters
    ----------
    position : int, or None if there is no such column
    """
    _check(window)
    try:
        with window.store.lock:
            return _write_through(window, operation, write, position)
    except SharedStructureError:
        return _replace(window, write)


def _write_through(window: Window, operation: str, write: Write, position: int | None) -> Any:
    writer = _writer(window)
    targets = None if position is None else _arrays.leaves(writer.layout.array(position))
    _keep_derived(window, targets)
    try:
        result = write(writer.frame)
    except BaseException:
        if not writer.is_same(None):
            window.writer = None
        raise
    if writer.is_same(position):
        return result
    try:
        copies = writer.layout.find_copies(_managers.manager_of(writer.frame), operation)
        _run_copies(window, copies)
    except BaseException:
        window.writer = None
        raise
    writer.renew()
    return result


def write_frame(window: Window, operation: str, write: Write) -> Any:
    """Write to several columns: on a rehearsal, and then on the writer.

    *write* is called twice. Memory: what it touches, once more.
    """
    _check(window)
    try:
        _rehearse(window, operation, write)
    except SharedStructureError:
        return _replace(window, write)
    with window.store.lock:

        def write_again(frame: Any) -> Any:
            with _managers.copying_on_write():  # or pandas 2 might go another way than it tried
                return write(frame)

        try:
            return _write_through(window, operation, write_again, None)
        except SharedStructureError as error:
            raise SharedStructureError(
                f"{error} (Another process changed the data while this was going on, so part of "
                "the values may have been written; lock the frame around such operations.)"
            ) from None


def _rehearse(window: Window, operation: str, write: Write) -> None:
    """Write to a private copy. Raises SharedStructureError if its structure changes."""
    with window.store.lock:
        manager = _rehearsal(window)
        layout = Layout(manager, window.manager())
        frame = _managers.frame_of(_managers.copy_writable(manager, layout.blocks))
        del manager
        with _managers.copying_on_write():
            write(frame)
        layout.find_copies(_managers.manager_of(frame), operation)


def write_columns(window: Window, operation: str, write: Write) -> Any:
    """Replace columns, labels or rows: on a draft, which is copied back if its structure fits."""
    _check(window)
    try:
        with window.store.lock:
            manager = window.manager()
            frame = _managers.frame_of(_managers.copy_shallow(manager))
            with _managers.copying_on_write():
                result = write(frame)
            copies = Layout(manager).find_copies(_managers.manager_of(frame), operation)
            _run_copies(window, copies)
            return result
    except SharedStructureError:
        return _replace(window, write, (frame, result))


def _replace(window: Window, write: Write, tried: tuple[Any, Any] | None = None) -> Any:
    """Replace the structure; called while a SharedStructureError is handled, which says with what."""
    if not window.follows or window.store.mode != "rw":
        raise
    return frame_structure.replace(window, write, tried)


def adopt(window: Window, manager: Any, operation: str = "this operation") -> None:
    """Make the window hold what *manager* does: it was put in place of the window's own."""
    _check(window)
    try:
        with window.store.lock:
            layout = Layout(window.manager())
            _run_copies(window, layout.find_copies(manager, operation))
    except SharedStructureError:
        if not window.follows:
            raise
        frame_structure.replace_by(window, manager)


def rename(window: Window, old: Any, new: Any) -> None:
    """Name the axes, as was done to the index objects of the window: [columns', rows'] names."""
    if not window.follows or window.store.mode != "rw":
        refuse_names(old, new)

    def write(frame: Any) -> None:
        frame.columns.names, frame.index.names = new

    frame_structure.replace(window, write)


def replace_structure(window: Window, write: Write) -> None:
    """Run what changes no column and no label, but what is told of them.

    Raises
    ------
    SharedStructureError : the window is of a part of a frame, or its changes are private.
    """
    if not window.follows or window.store.mode != "rw":
        raise SharedStructureError(
            "the attrs of a part of a shared frame are fixed, and those of one with access 'ro' or "
            "'cow'; set them on the whole frame"
        )
    frame_structure.replace(window, write)


def assign_column(window: Window, label: Any, position: int, value: Any) -> bool:
    """Do ``frame[label] = value`` by one copy into place; False: it is not that simple."""
    _check(window)
    new: Any
    with window.store.lock:
        writer = _writer(window)
        old = writer.layout.array(position)
        is_simple = (
            type(value) is np.ndarray
            and type(old) is np.ndarray
            and value.ndim == 1
            and value.dtype == old.dtype
            and len(value) == len(old)
        )
        if is_simple:
            new = value
        elif isinstance(value, int | float | np.number) and np.array(value).dtype == old.dtype:
            new = np.broadcast_to(np.array(value), old.shape)
        else:
            new = _managers.column_array(writer.frame, value)
        if new.ndim != 1 or len(new) != len(old):
            return False
        if type(new) is np.ndarray and type(old) is not np.ndarray and new.dtype == old.dtype:
            new = _pandas.make_datetimes(new, None)
        targets, sources = _arrays.leaves(old), _arrays.leaves(new)
        if not _arrays.is_same_dtype(old, new) or targets is None or sources is None:
            return False
        _run_copies(window, list(zip(targets, sources)))
        return True
