"""hdf5://: all objects of a store in one HDF5 file, which h5py, pandas, MATLAB and Julia read."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from itertools import accumulate
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..blocks import place as place_buffers
from ..errors import NumpushError
from ..layout import Buffer, SchemaError, pack, unpack
from ..record import read_record
from .describing import describe_fields, stat_of
from .errors import StoreDamaged, StoreError, StoreFull, StoreUnavailable
from .fetching import Piece, Stored, fetch
from .file_io import Extent, read_extents
from .hdf5_commit import Overlay, repaired, token, writing
from .hdf5_data import Place, chunk_shape, decode, encode, look
from .hdf5_foreign import foreign_record
from .hdf5_layout import Part, dataset_dtype, name_parts
from .hdf5_pandas import read_pandas
from .in_memory import InMemory
from .store import Stat, Store

if TYPE_CHECKING:
    from ..shm.segment import Segment

__all__ = ["Hdf5Store"]

_RECORD = "numpush record"
_NEW = ".numpush being written"
_AHEAD = 8  #: compressed chunks that wait to be written, for each thread


def load_h5py() -> Any:
    """Import h5py.

    Raises
    ------
    ImportError : it is not installed; names the extra.
    """
    try:
        return import_module("h5py")
    except ImportError as error:
        raise ImportError(
            'hdf5:// needs h5py, which is missing: pip install "numpush[hdf5]"'
        ) from error


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
        self._level = level if compression else None
        self._shuffle = shuffle and compression is not None
        self._chunk = chunk
        self._threads = threads or os.cpu_count() or 1
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
        schema = fields["schema"]
        frame = None
        if schema["kind"] == "frame":
            frame = obj.to_frame() if fields.get("as") == "series" else obj
            parts = name_parts(schema, buffers, frame)
            fields["datasets"] = [[part.name for part in each] for each in parts]
        with self._changing(key) as file:
            if _NEW in file:
                del file[_NEW]
            if frame is None:
                self._write_array(file, obj, fields, buffers[0] if buffers else None, tell)
            else:
                group = file.create_group(_NEW, track_order=True)
                group.attrs["kind"] = fields.get("as", "frame")
                group.attrs["columns"] = [str(label) for label in frame.columns][:1000]
                record = np.frombuffer(pack(fields), np.uint8)
                group.create_dataset(_RECORD, data=record)
                for each, buffer in zip(parts, buffers):
                    self._write_parts(group, each, buffer, tell)
            self._make_way(file, key)
            file.move(_NEW, key)

    def _make_way(self, file: Any, key: str) -> None:
        """Remove what is at a key. Groups that are only a part of keys' paths are no objects."""
        names = key.split("/")
        for i in range(1, len(names)):
            above = "/".join(names[:i])
            if above in file and _is_object(file[above]):
                raise ValueError(f"key {key!r}: {above!r} is an object of {self.url}, not a folder")
        if key in file:
            if not _is_object(file[key]):
                raise ValueError(f"key {key!r}: there are objects below it in {self.url}")
            del file[key]
        if len(names) > 1:
            file.require_group("/".join(names[:-1]))

    def _write_array(
        self, file: Any, obj: Any, fields: dict[str, Any], buffer: Buffer | None, tell: Any
    ) -> None:
        array = np.asarray(obj)
        dtype = dataset_dtype(array.dtype)
        shape = array.shape
        if dtype.itemsize * array.size != array.nbytes:  # text of no bytes
            dtype, shape = np.dtype("u1"), (0,)
        dataset = self._make(file, _NEW, shape, dtype)
        dataset.attrs[_RECORD] = np.frombuffer(pack(fields), np.uint8)
        if array.dtype.kind in "mMUS":
            dataset.attrs["dtype"] = array.dtype.str
        if buffer is not None:
            self._write(dataset, buffer.parts(self._chunk), tell)

    def _write_parts(self, group: Any, parts: list[Part], buffer: Buffer, tell: Any) -> None:
        """Write a buffer to its datasets, one behind the other."""
        data = _Feed(buffer.parts(4 << 20))
        size = buffer.nbytes // len(parts) if parts else 0
        for part in parts:
            dataset = self._make(group, part.name, (size // part.dtype.itemsize,), part.dtype)
            for name, value in part.attrs.items():
                dataset.attrs[name] = value
            self._write(dataset, data.take(size), tell)

    def _make(self, group: Any, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Any:
        if self._level is None or not all(shape) or not shape:
            return group.create_dataset(name, shape, dtype)
        chunk = chunk_shape(shape, dtype.itemsize, self._chunk)
        return group.create_dataset(
            name,
            shape,
            dtype,
            chunks=chunk,
            compression="gzip",
            compression_opts=self._level,
            shuffle=self._shuffle,
        )

    def _write(self, dataset: Any, parts: Iterator[Any], tell: Any) -> None:
        """Write the bytes of a dataset, which come in parts, in C order."""
        if not dataset.size:
            return
        itemsize = dataset.dtype.itemsize
        feed = _Feed(parts)
        if dataset.chunks is None:
            if dataset.shape == ():
                dataset[()] = np.frombuffer(feed.read(itemsize), dataset.dtype)[0]
                return
            row = dataset.nbytes // len(dataset)
            step = max(1, (8 << 20) // row)
            for start in range(0, len(dataset), step):
                stop = min(start + step, len(dataset))
                data = feed.read((stop - start) * row)
                dataset[start:stop] = data.view(dataset.dtype).reshape(-1, *dataset.shape[1:])
                tell(len(data))
            return
        with ThreadPoolExecutor(self._threads) as threads:
            waiting: list[tuple[Any, Any]] = []
            for corner, data in _chunks_of(dataset, feed):
                task = threads.submit(encode, data, itemsize, self._level, self._shuffle)
                waiting.append((corner, task))
                tell(len(data))
                if len(waiting) > _AHEAD * self._threads:
                    _write_chunk(dataset, *waiting.pop(0))
            for each in waiting:
                _write_chunk(dataset, *each)

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

    def _find(self, key: str, fd: int) -> _Found:
        """Note where an object's data is."""
        with self._reading(fd) as file:
            item = _find_object(file, key)
            if item is None:
                raise self._missing(key)
            if "pandas_type" in item.attrs:
                return _Found(InMemory(read_pandas(item, self._what(key)), self._what(key)))
            return _Found(_StoredHdf5(item, self))

    @contextlib.contextmanager
    def _reading(self, fd: int) -> Iterator[Any]:
        """Have h5py look into an open file.

        As a file of Python's: what HDF5 opens by a path it shares with whatever else in this process
        has that file open, with what was read of it then.
        """
        with io.FileIO(fd, closefd=False) as raw, self._h5py.File(raw, "r") as file:
            yield file

    def _keys(self, prefix: str) -> list[str]:
        found: list[str] = []
        with self._naming_errors(""), repaired(self._path) as fd, self._reading(fd) as file:
            _collect(file, "", found)
        return [key for key in found if key.startswith(prefix)]

    def _delete(self, key: str) -> None:
        with self._changing(key) as file:
            if _find_object(file, key) is None:
                raise self._missing(key)
            del file[key]
            while "/" in key:  # folders that nothing is in any more
                key = key.rpartition("/")[0]
                if len(file[key]):
                    break
                del file[key]

    def _stat(self, key: str) -> Stat:
        def look_at(stored: Stored) -> Stat:
            if not isinstance(stored, _StoredHdf5):
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


def _write_chunk(dataset: Any, start: tuple[int, ...], task: Any) -> None:
    dataset.id.write_direct_chunk(start, task.result())


def _is_object(item: Any) -> bool:
    """Whether a dataset or group is what a key means: not a folder of others."""
    if hasattr(item, "shape"):
        return item.shape is not None and not item.dtype.hasobject
    if _RECORD in item or "pandas_type" in item.attrs:
        return True
    members = [member for _, member in _members(item)]
    shapes = [getattr(each, "shape", None) for each in members]
    return (
        bool(shapes)
        and all(shape is not None and len(shape) == 1 and shape == shapes[0] for shape in shapes)
        and not any(_RECORD in each.attrs or each.dtype.hasobject for each in members)
    )


def _find_object(file: Any, key: str) -> Any:
    """Return what a key means, or None: nothing, or what is in other files."""
    item = file
    for name in key.split("/"):
        if hasattr(item, "shape") or not _is_member(item, name):
            return None
        item = item[name]
    return item if _is_object(item) else None


def _members(group: Any) -> Iterator[tuple[str, Any]]:
    """Give what is in a group; what lies in other files, or nowhere, is not looked at."""
    for name in group:
        if _is_member(group, name):
            yield name, group[name]


def _is_member(group: Any, name: str) -> bool:
    return isinstance(group.get(name, getlink=True), import_module("h5py").HardLink)


def _collect(group: Any, path: str, found: list[str]) -> None:
    for name, item in _members(group):
        if name.startswith("."):
            continue
        if _is_object(item):
            found.append(path + name)
        elif not hasattr(item, "shape"):
            _collect(item, f"{path}{name}/", found)


class _Feed:
    """Bytes that come in parts, taken in others."""

    def __init__(self, parts: Iterator[Any]) -> None:
        self._parts = parts
        self._left = np.empty(0, np.uint8)

    def take(self, size: int) -> Iterator[Any]:
        """Give the next bytes in the parts that they come in."""
        while size:
            if not len(self._left):
                self._left = next(self._parts)
            part = self._left[:size]
            self._left = self._left[len(part) :]
            size -= len(part)
            yield part

    def read(self, size: int) -> Any:
        """Give the next bytes as one array; a copy where they come in several."""
        parts = list(self.take(size))
        return parts[0] if len(parts) == 1 else np.concatenate([np.empty(0, np.uint8), *parts])


def _chunks_of(dataset: Any, feed: _Feed) -> Iterator[tuple[tuple[int, ...], Any]]:
    """Cut what comes in C order into chunks that are whole rows, or parts of one, filled up."""
    shape, chunk, itemsize = dataset.shape, dataset.chunks, dataset.dtype.itemsize
    full = int(np.prod(chunk)) * itemsize
    axis = next(i for i in range(len(shape)) if shape[i + 1 :] == chunk[i + 1 :])
    rest = int(np.prod(shape[axis + 1 :], dtype=int)) * itemsize
    for outer in np.ndindex(*shape[:axis]):
        for start in range(0, shape[axis], chunk[axis]):
            n = min(chunk[axis], shape[axis] - start)
            data = feed.read(n * rest)
            if len(data) < full:
                data = np.concatenate([data, np.zeros(full - len(data), np.uint8)])
            yield (*outer, start, *(0,) * (len(shape) - axis - 1)), data


class _Found(NamedTuple):
    """An object whose data is to be read from a descriptor that is yet to come."""

    stored: Stored

    def over(self, fd: int) -> Stored:
        if isinstance(self.stored, _StoredHdf5):
            self.stored.fd = fd
        return self.stored


class _StoredHdf5:
    """An object of a file; a `Stored`, once it has the `fd` to read from."""

    def __init__(self, item: Any, store: Hdf5Store) -> None:
        self.what = store._what(item.name.lstrip("/"))
        self.fd = -1
        self._store = store
        self._item = item.name
        self._h5py = store._h5py
        fields, datasets = _read_fields(item, self.what)
        try:
            self._places = [[look(dataset) for dataset in each] for each in datasets]
        except StoreDamaged as error:
            raise StoreDamaged(f"{self.what}: {error}") from None
        self._starts = [[0, *accumulate(place.nbytes for place in each)] for each in self._places]
        try:
            if fields is None:
                self.record = foreign_record(item, datasets)
            else:
                self.record = read_record(fields, place_buffers(fields.get("buffers", []))[1])
        except (SchemaError, TypeError) as error:
            raise StoreDamaged(f"{self.what}: {error}") from error
        self._check_sizes()
        everything = [place for each in self._places for place in each]
        self.is_compressed = any(place.filters for place in everything)
        self.stored_bytes = sum(
            dataset.id.get_storage_size() for each in datasets for dataset in each
        )

    def _check_sizes(self) -> None:
        found = [starts[-1] for starts in self._starts]
        if found != self.record.sizes:
            raise StoreDamaged(
                f"{self.what}: datasets of {found} bytes found, {self.record.sizes} wanted"
            )

    def read(
        self, pieces: list[Piece], segment: Segment | None, progress: Callable[[int], None]
    ) -> None:
        extents: list[Extent] = []
        tasks: list[Callable[[], int]] = []
        for buffer, start, stop, target in pieces:
            for place, first in zip(self._places[buffer], self._starts[buffer]):
                low, high = max(start, first), min(stop, first + place.nbytes)
                if low < high:
                    part = target[low - start : high - start]
                    self._plan(place, low - first, part, extents, tasks)
        read_extents(
            self.fd,
            extents,
            None,
            io="read",
            n_threads=self._store._threads,
            timeout=None,
            what=self.what,
            progress=progress,
        )
        if len(tasks) < 2 or self._store._threads == 1:
            for task in tasks:
                progress(task())
            return
        with ThreadPoolExecutor(self._store._threads, "numpush-hdf5") as threads:
            futures = [threads.submit(task) for task in tasks]
            try:
                for future in futures:
                    progress(future.result())
            finally:
                threads.shutdown(wait=True, cancel_futures=True)

    def _plan(
        self,
        place: Place,
        start: int,
        target: Any,
        extents: list[Extent],
        tasks: list[Callable[[], int]],
    ) -> None:
        """Say how bytes of a dataset from *start* on get to *target*."""
        if place.offset is not None:
            extents.append(Extent(place.offset + start, target))
            return
        first, odd = divmod(start, place.row) if place.row else (0, 0)
        if odd or (place.row and len(target) % place.row):
            raise StoreError(f"{self.what}: bytes that are no rows of {place.name!r}")
        if place.chunk is None:
            self._read_by_h5py(place, first, target)
            return
        n_rows = len(target) // place.row
        for chunk in place.chunks:
            low = max(chunk.start[0], first)
            high = min(chunk.start[0] + place.chunk[0], first + n_rows)
            if low >= high:
                continue
            n = (high - low) * place.row // (len(place.chunks) or 1)

            def task(chunk: Any = chunk, n: int = n) -> int:
                decode(self.fd, place, chunk, first, target, self.what)
                return n

            tasks.append(task)

    def _read_by_h5py(self, place: Place, first: int, target: Any) -> None:
        store = self._store
        opened = store._h5py.File(store._path) if place.is_elsewhere else store._reading(self.fd)
        with opened as file:
            dataset = file[place.name]
            if dataset.shape != place.shape or dataset.dtype != place.dtype:
                raise StoreUnavailable(f"{self.what}: it was replaced while it was read")
            if place.shape == ():
                target[:] = np.frombuffer(dataset[()].tobytes(), np.uint8)
                return
            out = target.view(place.dtype).reshape(-1, *place.shape[1:])
            dataset.read_direct(out, np.s_[first : first + len(out)])


def _read_fields(item: Any, what: str) -> tuple[dict[str, Any] | None, list[list[Any]]]:
    """Return the record's fields, or None of what others wrote, and the datasets of each buffer."""
    try:
        if hasattr(item, "shape"):
            packed = item.attrs.get(_RECORD)
            fields = None if packed is None else unpack(np.asarray(packed, np.uint8).tobytes())
            n = 1 if fields is None else len(fields.get("buffers", ()))
            return fields, [[item]] * n
        if _RECORD not in item:
            return None, [[dataset] for _, dataset in _members(item)]
        fields = unpack(item[_RECORD][:].tobytes())
        names = fields.get("datasets")
        if type(names) is not list or len(names) != len(fields.get("buffers", ())):
            raise SchemaError("'datasets': a list for each buffer wanted")
        return fields, [[item[name] for name in each] for each in names]
    except (SchemaError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise StoreDamaged(f"{what}: {error}") from error
