"""What SDataFrame and SSeries have in common: they show rows of a shared frame, and travel alike.

Each says which `_window` it shows, what its block manager is, and how it is received. A series is
a frame of one column (sseries.py), so handles of both name a segment, a generation and rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar, Self, SupportsIndex

from . import transport
from .frame_store import Window, open_store
from .handle import FrameHandle, lease
from .shared import Shared
from .shm import RWLock
from .shm.errors import SegmentDamaged

__all__ = ["SharedPandas", "open_window"]

#: Where rows are locked, in a segment's space for range locks: beyond any byte of data.
_ROWS = 1 << 62
#: In place of where its rows end: it shows all rows of the latest generation.
_ALL = -1


class SharedPandas(Shared):
    """A pandas object whose data lies in shared memory."""

    #: the class of its handles, and what makes it of one's fields and the node that sent it
    _handle_type: ClassVar[type[FrameHandle]]
    _receive: ClassVar[Callable[..., Any]]
    _mgr: Any

    @property
    def _window(self) -> Window:
        """What it shows: of the latest generation, if it follows them."""
        raise NotImplementedError

    def to_pandas(self) -> Any:
        """Return a plain object with a copy of the data, private to this process."""
        raise NotImplementedError

    @property
    def access(self) -> str:
        """'rw', 'ro' (writes are refused) or 'cow' (writes are private to this process)."""
        return self._mapping().mode

    @property
    def handle(self) -> FrameHandle:
        """The small thing that names this object, or these rows of it. It keeps nothing alive."""
        self._open_segment()
        return self._handle_type(*self._handle_fields())

    def _handle_fields(self) -> tuple[Any, ...]:
        _ = self._mgr  # what was done behind our back is done properly now
        window = self._window
        store = window.store
        where: tuple[Any, ...] = 0, _ALL, 0, ()
        if not window.follows:
            where = window.start, window.stop, store.generation, store.place
        return store.segment.name, store.segment.identity, store.mode, *where

    # -- locks and news: see also Shared

    @property
    def rwlock(self) -> RWLock:
        """Readers or one writer over these rows: ``with sdf.rwlock.read():``, ``.write()``.

        Partitions of different rows lock apart. That of a whole frame also excludes the range locks
        of its columns' SArrays; that of a partition does not.
        """
        segment, token = self._open_segment()
        window = self._window
        is_whole = len(window) == window.store.n_rows
        start = 0 if is_whole else _ROWS + window.start
        return RWLock(segment, token, start, _ROWS + max(window.stop, window.start + 1))

    @contextmanager
    def updating(self, timeout: float | None = None) -> Iterator[Self]:
        """Change it under its lock, so that `snapshot` elsewhere sees all or nothing.

        (``update`` is pandas' method: it takes values from another object.)

        Raises
        ------
        LockTimeout : the lock is not free within *timeout* seconds.
        """
        with self._updating(timeout):
            yield self

    def snapshot(self, timeout: float | None = None) -> Any:
        """Copy it such that no update tore it: copies again when one came between.

        Raises
        ------
        WaitTimeout : an update went on for *timeout* seconds.
        """
        return self._read_whole(self.to_pandas, timeout)

    # -- copies and pickles

    def __copy__(self, deep: bool = True) -> Any:
        return self.copy(deep=deep)  # type: ignore[attr-defined]  # pandas' method

    def __deepcopy__(self, memo: Any = None) -> Any:
        return self.to_pandas()

    def __reduce_ex__(self, protocol: SupportsIndex) -> Any:
        if transport.is_sending():
            return self._reduce_to_handle()
        return self._reduce_to_values()

    def __reduce__(self) -> Any:
        return self.__reduce_ex__(2)

    def _reduce_to_handle(self) -> tuple[Any, ...]:
        """Reduce to a handle, with a lease; with access 'cow', to its values."""
        self._window.verify()
        fields = self._handle_fields()  # what is wrong is raised here, not at the receiver's
        if self.access == "cow":  # private changes are nobody else's to see
            return self._reduce_to_values()
        return self._receive, (*fields, lease(self._segment()))

    def _reduce_to_values(self) -> tuple[Any, ...]:
        """Reduce to a plain object, which needs no numpush to be unpickled."""
        # As object.__reduce_ex__ of that one, but that pickle wants __newobj__ to be of our class.
        plain = self.to_pandas()
        return type(plain), (), plain.__getstate__()


def open_window(
    name: str,
    identity: int,
    mode: str,
    start: int,
    stop: int,
    generation: int,
    place: tuple[int, ...],
    sender: int = 0,
) -> tuple[Window, Any]:
    """Attach to what a handle of these fields means; return its window, and the token to hold.

    Attaching to a known segment costs a call into C and a dictionary look-up.

    Raises
    ------
    SegmentNotFound : nobody uses the segment any more.
    SegmentDamaged : it holds no frame, or not those rows.
    """
    is_all = stop == _ALL
    store, token = open_store(name, mode, identity, sender, None if is_all else (generation, place))
    if is_all:
        return store.whole(), token
    if not (type(start) is type(stop) is int and 0 <= start <= stop <= store.n_rows):
        raise SegmentDamaged(
            f"segment {name!r}: rows {start}:{stop} of a frame with {store.n_rows}", name
        )
    return store.window(start, stop), token
