"""Store: what all stores have in common, and what `stat` tells."""

from __future__ import annotations

import contextlib
import errno
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from ..errors import NumpushError
from .errors import KeyNotFound, StoreClosed, StoreFull, StoreUnavailable
from .fetching import fetch
from .keys import check_key, check_prefix

__all__ = ["Stat", "Store"]


@dataclass(frozen=True)
class Stat:
    """What a store knows of an object without reading its data.

    Attributes
    ----------
    key : str
    kind : 'array', 'frame' or 'series'
    shape : tuple of int, or None for a length that only reading tells
    dtypes : str, or dict of column label -> str
        One dtype of an array or a series; None where the format does not say before all is read.
    nbytes : int or None
        Bytes that its data takes in a segment, where that is known.
    stored : int
        Bytes that it takes in the store.
    format : str
        "numpush", "npy", "arrow", ..
    more : dict
        What only this kind of store has: time to live, free space, compression.
    """

    key: str
    kind: str
    shape: tuple[int | None, ...]
    dtypes: str | dict[Any, str] | None
    nbytes: int | None
    stored: int
    format: str
    more: dict[str, Any] = field(default_factory=dict)


class Store(ABC):
    """Objects by key: arrays, frames and series, read into segments and written from where they lie.

    `open` makes one. It can be used by several threads, and be sent to other processes, which open
    the same URL again. A key is a str of parts between slashes, as in ``"2026/prices"``.

    put makes an object visible whole or not at all; who reads meanwhile gets what was there before.
    """

    def __init__(self, url: str, **options: Any) -> None:
        self.url = url
        self._options = options
        self._is_closed = False

    # -- what users call

    def put(self, key: str, obj: Any, *, progress: bool = False, **options: Any) -> None:
        """Store an object; one that is there by that key is replaced.

        No copy of the data is made on the way where its memory is dense. Of a shared object that
        others write to meanwhile, hold the lock.

        Parameters
        ----------
        key : str
        obj : ndarray, DataFrame, Series, scalars of NumPy excepted; shared or not
        progress : bool
            Show a tqdm bar.
        **options : what this kind of store has besides, such as ``ttl=`` for Redis

        Raises
        ------
        TypeError : *obj* is none of these, or holds Python objects that have no layout; the
            message names the column and the remedy.
        ValueError : *key* cannot be one.
        StoreFull, StoreUnavailable
        """
        self._check_open()
        with _bar(progress, f"put {key}") as tell:
            self._put(check_key(key), obj, tell, **options)

    def get(
        self,
        key: str,
        *,
        into: Any = None,
        columns: list[Any] | None = None,
        rows: slice | None = None,
        name: str | None = None,
        progress: bool = False,
        **options: Any,
    ) -> Any:
        """Return an object, read straight into shared memory: an SArray, SDataFrame or SSeries.

        Parameters
        ----------
        key : str
        into : ndarray, SDataFrame or SSeries, optional
            Read into this, which has the dtypes, shape and labels of what is stored, and return it:
            no memory to be found and made, which takes most of the time of a large read. Hold its
            lock if others read it. After an error it holds part of the new and of the old.
        columns : list of labels, optional
            Of a frame: only these, in this order.
        rows : slice, optional
            Without a step: only these. Of an array, along its first axis.
        name : str, optional
            A name for the segment, to attach by.
        progress : bool
            Show a tqdm bar.
        **options : what this kind of store has besides

        Raises
        ------
        KeyNotFound : nothing is stored by that key.
        StoreDamaged : what is stored is damaged.
        StoreUnavailable : the store does not answer.
        ValueError, TypeError : there is no such column; rows are no slice; *into* does not fit.
        SegmentFull, SegmentExists
        """
        self._check_open()
        if into is not None and name is not None:
            raise ValueError("name= is for a new segment; into= has one")
        with _bar(progress, f"get {key}") as tell:
            return self._get(check_key(key), into, columns, rows, name, tell, **options)

    def keys(self, prefix: str = "") -> list[str]:
        """Return the keys that begin with *prefix*, sorted."""
        self._check_open()
        return sorted(self._keys(check_prefix(prefix)))

    def delete(self, key: str) -> None:
        """Remove an object.

        Raises
        ------
        KeyNotFound : nothing is stored by that key.
        """
        self._check_open()
        self._delete(check_key(key))

    def stat(self, key: str) -> Stat:
        """Return what is known of an object without reading its data.

        Raises
        ------
        KeyNotFound, StoreDamaged, StoreUnavailable
        """
        self._check_open()
        return self._stat(check_key(key))

    def close(self) -> None:
        """Let go of connections and files. What was read stays."""
        if not self._is_closed:
            self._is_closed = True
            self._close()

    def __contains__(self, key: object) -> bool:
        self._check_open()
        return isinstance(key, str) and self._has(check_key(key))

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<{'closed ' if self._is_closed else ''}{type(self).__name__} {self.url}>"

    def __reduce__(self) -> tuple[Any, ...]:
        from .opening import reopen

        return reopen, (self.url, self._options)

    # -- what each kind of store does; keys are checked

    @abstractmethod
    def _put(self, key: str, obj: Any, tell: Callable[[int], None]) -> None: ...

    def _get(
        self,
        key: str,
        into: Any,
        columns: list[Any] | None,
        rows: slice | None,
        name: str | None,
        tell: Callable[[int], None],
    ) -> Any:
        return self._use(
            key,
            lambda stored: fetch(
                stored, into=into, columns=columns, rows=rows, name=name, progress=tell
            ),
        )

    def _use(self, key: str, use: Callable[[Any], Any]) -> Any:
        """Find an object, and have it read as a Stored. For a subclass that has no `_get` of its own."""
        raise NotImplementedError

    @abstractmethod
    def _keys(self, prefix: str) -> list[str]: ...

    @abstractmethod
    def _delete(self, key: str) -> None: ...

    @abstractmethod
    def _stat(self, key: str) -> Stat: ...

    def _has(self, key: str) -> bool:
        try:
            self._stat(key)
        except KeyNotFound:
            return False
        return True

    @abstractmethod
    def _close(self) -> None: ...

    # -- helpers

    def _check_open(self) -> None:
        if self._is_closed:
            raise StoreClosed(f"{self.url} was closed by this program")

    def _what(self, key: str) -> str:
        return f"key {key!r} of {self.url}"

    @contextlib.contextmanager
    def _naming_file_errors(self, key: str, *, is_put: bool = False) -> Iterator[None]:
        """Make errors of a file system those of a store, which name the key."""
        try:
            yield
        except NumpushError:
            raise
        except (FileNotFoundError, NotADirectoryError) as error:
            if is_put:  # its directory went meanwhile, or the file that was being written
                raise StoreUnavailable(f"{self._what(key)}: {error}") from error
            raise self._missing(key) from None
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise StoreFull(error.errno, f"{self._what(key)}: {error.strerror}") from error
            raise StoreUnavailable(f"{self._what(key)}: {error}") from error

    def _missing(self, key: str) -> KeyNotFound:
        return KeyNotFound(f"{self._what(key)}: there is none")


@contextlib.contextmanager
def _bar(is_wanted: bool, what: str) -> Iterator[Callable[[int], None]]:
    """Give what is to be called with the bytes that were moved, now and then."""
    if not is_wanted:
        yield lambda n: None
        return
    from tqdm.auto import tqdm

    with tqdm(desc=what, unit="B", unit_scale=True, unit_divisor=1024) as bar:
        yield bar.update
