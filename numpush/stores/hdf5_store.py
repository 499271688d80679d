"""hdf5://: all objects of a store in one HDF5 file, which h5py, pandas, MATLAB and Julia read."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from typing import Any

from ..errors import NumpushError
from .describing import describe_fields, stat_of
from .errors import StoreDamaged, StoreFull, StoreUnavailable
from .fetching import Stored
from .hdf5_commit import Overlay, repaired, token, writing
from .hdf5_objects import collect, find_object, is_object
from .hdf5_pandas import read_pandas
from .hdf5_reading import Found, StoredObject, load_h5py, opened_at
from .hdf5_writing import Writer
from .in_memory import InMemory
from .store import Stat, Store

__all__ = ["Hdf5Store"]

_NEW = ".numpush being written"


class Hdf5Store(Store):
    """``hdf5:///PATH/FILE.h5``: a file; it is made when it is not there.

    Parameters
    ----------
    url : str
    compression : {'gzip', None}
    level : int
        Of gzip, 0 to 9.
    shuffle : bool
        Sort the bytes of numbers by their place before they are compressed.
    chunk : int
        Bytes of a chunk, which is what a thread decompresses, and the least that is read.
    threads : int, optional
        That compress and decompress. By default one for each core.
    checksum : bool
        Write a CRC-32 of each buffer, which is checked when all of the buffer is read.
    """

    def __init__(
        self,
        url: str,
        *,
        compression: str | None = None,
        level: int = 1,
        shuffle: bool = True,
        chunk: int = 1 << 20,
        threads: int | None = None,
        checksum: bool = False,
    ) -> None:
        super().__init__(
            url,
            compression=compression,
            level=level,
            shuffle=shuffle,
            chunk=chunk,
            threads=threads,
            checksum=checksum,
        )
        self._path = url.partition("://")[2]
        if not os.path.isabs(self._path):
            raise ValueError(f"URL {url!r}: an absolute path wanted, as in hdf5:///data/file.h5")
        if compression not in ("gzip", None):
            raise ValueError(f"compression {compression!r}: 'gzip' or None wanted")
        if not 0 <= level <= 9:
            raise ValueError(f"level {level}: 0 to 9 wanted")
        if not 4096 <= chunk <= 1 << 30:
            raise ValueError(f"chunk {chunk}: between 4096 bytes and 1 GiB wanted")
        if threads is not None and threads < 1:
            raise ValueError(f"threads {threads}: at least 1 wanted")
        self._writer = Writer(
            level if compression else None,
            shuffle and compression is not None,
            chunk,
            threads or os.cpu_count() or 1,
        )
        self._checksum = checksum
        self._h5py = load_h5py()
        os.makedirs(os.path.dirname(self._path), exist_ok=True)
        if not os.path.exists(self._path):
            self._make_file()

    def _make_file(self) -> None:
        with writing(self._path):
            if os.path.exists(self._path):
                return
            new = self._path + ".new"
            # Data begins at pages, so that it can be mapped and read directly.
            with self._h5py.File(new, "w", alignment_threshold=1 << 16, alignment_interval=4096):
                pass
            os.rename(new, self._path)

    # -- writing

    def _put(self, key: str, obj: Any, tell: Callable[[int], None]) -> None:
        fields, buffers = describe_fields(obj, checksum=self._checksum, c_order=True)
        with self._changing(key) as file:
            if _NEW in file:
                del file[_NEW]
            self._writer.write(file, _NEW, obj, fields, buffers, tell)
            self._make_way(file, key)
            file.move(_NEW, key)

    def _make_way(self, file: Any, key: str) -> None:
        """Remove what is at a key. Groups that are only a part of keys' paths are no objects."""
        names = key.split("/")
        for i in range(1, len(names)):
            above = "/".join(names[:i])
            if above in file and is_object(file[above]):
                raise ValueError(f"key {key!r}: {above!r} is an object of {self.url}, not a folder")
        if key in file:
            if not is_object(file[key]):
                raise ValueError(f"key {key!r}: there are objects below it in {self.url}")
            del file[key]
        if len(names) > 1:
            file.require_group("/".join(names[:-1]))

    @contextlib.contextmanager
    def _changing(self, key: str) -> Iterator[Any]:
        """Give the file to change; what is done to it is there at the end, or not at all."""
        with self._naming_errors(key), writing(self._path), Overlay(self._path) as overlay:
            try:
                with self._h5py.File(
                    overlay, "r+", alignment_threshold=1 << 16, alignment_interval=4096
                ) as file:
                    yield file
            except Exception as error:
                if overlay.error is not None:  # of which this one comes
                    raise overlay.error from error
                raise
            overlay.commit()

    # -- reading

    def _use(self, key: str, use: Callable[[Stored], Any]) -> Any:
        """Find an object, and have it read; if it was changed meanwhile, with the file locked."""
        with self._naming_errors(key):
            with repaired(self._path) as fd:
                stored = self._find(key, fd)
                before = token(self._path, fd)
                own = os.dup(fd)
            try:
                result = use(stored.over(own))
                if token(self._path, own) == before:
                    return result
                del result
            except (StoreDamaged, StoreUnavailable):
                if token(self._path, own) == before:
                    raise
            finally:
                os.close(own)
            with repaired(self._path) as fd:
                return use(self._find(key, fd).over(fd))

    def _find(self, key: str, fd: int) -> Found:
        """Note where an object's data is."""
        with opened_at(fd) as file:
            item = find_object(file, key)
            if item is None:
                raise self._missing(key)
            if "pandas_type" in item.attrs:
                return Found(InMemory(read_pandas(item, self._what(key)), self._what(key)))
            return Found(StoredObject(item, self._what(key), self._path, self._writer.n_threads))

    def _keys(self, prefix: str) -> list[str]:
        found: list[str] = []
        with self._naming_errors(""), repaired(self._path) as fd, opened_at(fd) as file:
            collect(file, "", found)
        return [key for key in found if key.startswith(prefix)]

    def _delete(self, key: str) -> None:
        with self._changing(key) as file:
            if find_object(file, key) is None:
                raise self._missing(key)
            del file[key]
            while "/" in key:  # folders that nothing is in any more
                key = key.rpartition("/")[0]
                if len(file[key]):
                    break
                del file[key]

    def _stat(self, key: str) -> Stat:
        def look_at(stored: Stored) -> Stat:
            if not isinstance(stored, StoredObject):
                return stat_of(key, stored, stored.record.size, "pandas")
            more = {"compression": "gzip"} if stored.is_compressed else {}
            return stat_of(key, stored, stored.stored_bytes, "hdf5", more)

        found: Stat = self._use(key, look_at)
        return found

    def _close(self) -> None:
        pass  # nothing stays open

    @contextlib.contextmanager
    def _naming_errors(self, key: str) -> Iterator[None]:
        what = self._what(key) if key else self.url
        try:
            yield
        except (NumpushError, FileNotFoundError):
            raise
        except OSError as error:
            if error.errno in (28, 122):
                raise StoreFull(error.errno, f"{what}: {error.strerror}") from error
            if error.errno is None or "HDF5" in str(error) or "file signature" in str(error):
                raise StoreDamaged(f"{what}: {error}") from error
            raise StoreUnavailable(f"{what}: {error}") from error
        except (RuntimeError, KeyError) as error:
            raise StoreDamaged(f"{what}: {error}") from error
