"""What SArray and SDataFrame have in common: their segment, its lock, its version, and its news.

A class that is `Shared` says which mapping its data lies in; everything here follows from that.
There is one mutex and one version per segment, whatever the view.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from .shm import Mutex, process, registry
from .shm import version as _version
from .shm.errors import HandleClosed, LockError
from .shm.mapping import Mapping
from .shm.segment import Segment

__all__ = ["Shared"]

T = TypeVar("T")


class Shared:
    """An object whose data lies in a segment."""

    def _mapping(self) -> Mapping:
        """Return the mapping that the data lies in. Raises SegmentError: it is private memory."""
        raise NotImplementedError

    def _segment(self) -> Segment:
        return self._mapping().segment

    def _open_segment(self) -> tuple[Segment, Any]:
        """Return the segment and a token that keeps it, unless this process closed it."""
        mapping = self._mapping()
        if mapping.segment.closed:
            raise HandleClosed(
                f"segment {mapping.segment.name!r} was closed by this process; "
                "attach to it again to go on",
                mapping.segment.name,
            )
        return mapping.segment, registry.token(mapping)

    @property
    def name(self) -> str:
        """Name of the segment; ``numpush.attach(name)`` gives the whole object."""
        return self._segment().name

    def close(self) -> None:
        """Say that this process is done with the segment.

        It is left when the last view of it is gone, which then may free the memory; views stay
        valid until then. `lock`, `handle` and sending raise HandleClosed from now on.

        Raises
        ------
        LockError : this process holds a lock of it.
        """
        process.close(self._segment())
        self.__dict__.pop("lock", None)

    @functools.cached_property
    def lock(self) -> Mutex:
        """The robust mutex of the segment: ``with obj.lock:``, ``obj.lock(timeout=1)``.

        One per segment, whatever the view. Raises HandleClosed after `close`.
        """
        return Mutex(*self._open_segment())

    @property
    def version(self) -> int:
        """How often the segment was changed by `notify` or an update; odd: one is going on."""
        return _version.version(self._segment())

    def notify(self) -> int:
        """Raise the version and wake every process that waits; return the new version."""
        return _version.advance(self._segment())

    def wait(self, version: int, timeout: float | None = None) -> int:
        """Sleep until the version is not *version* any more; return it. No polling.

        Raises
        ------
        WaitTimeout : no news within *timeout* seconds.
        """
        segment, _token = self._open_segment()
        return _version.wait(segment, version, timeout)

    @contextmanager
    def _updating(self, timeout: float | None) -> Iterator[None]:
        """Hold the lock, with the version odd meanwhile, so that `_read_whole` elsewhere waits."""
        segment, _token = self._open_segment()
        with self.lock(timeout):
            # Odd already: the process that made it so died, and this change takes over.
            is_torn = _version.version(segment) % 2
            _version.advance(segment, 2 if is_torn else 1)
            try:
                yield
            finally:
                _version.advance(segment, 1)

    def _read_whole(self, copy: Callable[[], T], timeout: float | None) -> T:
        """Call *copy* until no update came between; return what it gave.

        Raises
        ------
        WaitTimeout : an update went on for *timeout* seconds.
        LockError : who updated died half-way, and nobody has updated since.
        """
        segment, _token = self._open_segment()
        while True:
            before = _version.version(segment)
            if before % 2:
                if self.lock.holder() is None and _version.version(segment) == before:
                    raise LockError(
                        f"segment {segment.name!r}: a process died in the middle of an update, "
                        "so its data may be torn; look after it in `with obj.update():`"
                    )
                _version.wait(segment, before, timeout)
                continue
            copied = copy()
            if _version.version(segment) == before:
                return copied
