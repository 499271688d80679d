"""hdf5://: all objects of a store in one HDF5 file, which h5py, pandas, MATLAB and Julia read."""

from __future__ import annotations

import contextlib
import errno
import io
import os
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any

import numpy as np

from ..errors import NumpushError
from .describing import describe_fields, stat_of
from .errors import KeyNotFound, StoreDamaged, StoreFull, StoreUnavailable
from .fetching import Stored, fetch
from .hdf5_commit import Overlay, read_token, repaired, writing
from .hdf5_data import Place
from .hdf5_foreign import kind_of, read_whole
from .hdf5_layout import RECORD, VERSION, VERSION_ATTR, name_parts, pack_record
from .hdf5_object import Replaced, StoredHdf5
from .hdf5_writing import How, write_array, write_parts
from .in_memory import InMemory
from .store import Stat, Store

__all__ = ["Hdf5Store"]

_NEW = ".numpush being written"
_FULL = (errno.ENOSPC, errno.EDQUOT)
_TRIES = 100  #: of a get whose object is replaced each time
_ALIGNED: dict[str, Any] = {"alignment_threshold": 1 << 16, "alignment_interval": 4096}
_FORMAT = ("v110", "v110")  #: the first whose own structures carry checksums throughout


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
        if not os.path.isabs(self._path) or self._path.endswith("/"):
            raise ValueError(f"URL {url!r}: an absolute path wanted, as in hdf5:///data/file.h5")
        if os.path.isdir(self._path):
            raise ValueError(f"URL {url!r}: that is a directory; the path of a file wanted")
        if compression not in ("gzip", None):
            raise ValueError(f"compression {compression!r}: 'gzip' or None wanted")
        if not 0 <= level <= 9:
            raise ValueError(f"level {level}: 0 to 9 wanted")
        if not 4096 <= chunk <= 1 << 30:
            raise ValueError(f"chunk {chunk}: between 4096 bytes and 1 GiB wanted")
        if threads is not None and threads < 1:
            raise ValueError(f"threads {threads}: at least 1 wanted")
        self.n_threads = threads or os.cpu_count() or 1
        self._how = How(level if compression else None, shuffle, chunk, self.n_threads)
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
            with self._h5py.File(new, "w", libver=_FORMAT):
                pass
            os.rename(new, self._path)

    # -- writing

    def _put(self, key: str, obj: Any, tell: Callable[[int], None]) -> None:
        fields, buffers = describe_fields(obj, checksum=self._checksum, c_order=True)
        frame = None
        if fields["schema"]["kind"] == "frame":
            frame = obj.to_frame() if fields.get("as") == "series" else obj
            parts = name_parts(fields["schema"], buffers, frame)
            fields["datasets"] = [[part.name for part in each] for each in parts]
        fields["id"] = os.urandom(16).hex()
        with self._changing(key) as file:
            if _NEW in file:
                del file[_NEW]
            if frame is None:
                buffer = buffers[0] if buffers else None
                item = write_array(file, _NEW, np.asarray(obj), buffer, self._how, tell)
                item.attrs[RECORD] = pack_record(fields)
            else:
                item = file.create_group(_NEW, track_order=True)
                item.attrs["kind"] = fields.get("as", "frame")
                item.attrs["columns"] = [str(label) for label in frame.columns][:1000]
                item.create_dataset(RECORD, data=pack_record(fields))
                for each, buffer in zip(parts, buffers):
                    write_parts(item, each, buffer, self._how, tell)
            item.attrs[VERSION_ATTR] = VERSION
            self._make_way(file, key)
            file.move(_NEW, key)

    def _make_way(self, file: Any, key: str) -> None:
        """Remove what is at a key. Groups that are only a part of keys' paths are no objects."""
        names = key.split("/")
        for i in range(1, len(names)):
            above = "/".join(names[:i])
            if above in file and kind_of(file[above]) != "":
                raise ValueError(f"key {key!r}: {above!r} is an object of {self.url}, not a folder")
        if file.get(key, getlink=True) is not None:
            item = file.get(key)
            if item is not None and not hasattr(item, "shape") and kind_of(item) == "":
                raise ValueError(f"key {key!r}: there are objects below it in {self.url}")
            del file[key]
        if len(names) > 1:
            file.require_group("/".join(names[:-1]))

    @contextlib.contextmanager
    def _changing(self, key: str) -> Iterator[Any]:
        """Give the file to change; what is done to it is there at the end, or not at all."""
        with (
            self._naming_errors(key),
            writing(self._path) as lock,
            Overlay(self._path) as overlay,
        ):
            # Data begins at pages, so that it can be mapped and read directly.
            options = _ALIGNED | ({"libver": _FORMAT} if overlay.has_checksums else {})
            with self._h5py.File(overlay, "r+", **options) as file:
                yield file
            overlay.commit(lock)

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
        def get(stored: Stored, size: int) -> Any:
            return fetch(stored, into=into, columns=columns, rows=rows, name=name, progress=tell)

        return self._with(key, get)

    def _with(self, key: str, do: Callable[[Stored, int], Any]) -> Any:
        """Call *do* with an object and the bytes that it takes; again, if it is replaced meanwhile."""
        for _ in range(_TRIES):
            with (
                contextlib.suppress(Replaced),
                self._opened(key) as found,
                self._naming_errors(key),
            ):
                return do(*found)
        raise StoreUnavailable(
            f"{self._what(key)}: it was replaced {_TRIES} times while it was read"
        )

    @contextlib.contextmanager
    def _opened(self, key: str) -> Iterator[tuple[Stored, int]]:
        """Find an object, and note where its data is."""
        what = self._what(key)
        with contextlib.ExitStack() as stack, self._naming_errors(key):
            with repaired(self._path) as fd, self._reading(fd) as file:
                item = self._find(file, key)
                size, kind = _stored_bytes(item), kind_of(item)
                stored: Stored
                if kind in ("array", "frame"):
                    own = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC)
                    stack.callback(os.close, own)
                    end, token = os.fstat(own).st_size, read_token(self._path)
                    stored = StoredHdf5(key, item, own, end, token, self, what)
                else:
                    stored = InMemory(read_whole(item, kind, what), what)
            yield stored, size

    def _find(self, file: Any, key: str) -> Any:
        """Return what a key means. Links to other files are not followed.

        Raises
        ------
        KeyNotFound
        """
        group, names = file, key.split("/")
        for i, name in enumerate(names):
            link = group.get(name, getlink=True) if _is_folder(group, i) else None
            if isinstance(link, self._h5py.ExternalLink):
                raise KeyNotFound(
                    f"{self._what(key)}: a link to {link.path!r} of the file {link.filename!r}; "
                    "open that"
                )
            group = None if link is None else group.get(name)
            if group is None:
                raise self._missing(key)
        number = self._h5py.h5o.get_info(group.id).fileno
        if number != self._h5py.h5o.get_info(file.id).fileno or kind_of(group) == "":
            raise KeyNotFound(f"{self._what(key)}: what is there is no array and no frame: {group}")
        return group

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
            self._collect(file, "", found, set())
        return [key for key in found if key.startswith(prefix)]

    def _collect(self, group: Any, path: str, found: list[str], seen: set[int]) -> None:
        """Collect the keys below a group. Links by name are not followed."""
        seen.add(self._h5py.h5o.get_info(group.id).addr)
        for name in group:
            if name.startswith("."):
                continue
            if not isinstance(group.get(name, getlink=True), self._h5py.HardLink):
                continue
            item = group[name]
            if kind_of(item) != "":
                found.append(path + name)
            elif (
                isinstance(item, self._h5py.Group)
                and self._h5py.h5o.get_info(item.id).addr not in seen
            ):
                self._collect(item, f"{path}{name}/", found, seen)

    def _delete(self, key: str) -> None:
        with self._changing(key) as file:
            self._find(file, key)
            del file[key]
            while "/" in key:  # folders that nothing is in any more
                key = key.rpartition("/")[0]
                if len(file[key]) or len(file[key].attrs):
                    break
                del file[key]

    def _stat(self, key: str) -> Stat:
        def stat(stored: Stored, size: int) -> Stat:
            is_compressed = isinstance(stored, StoredHdf5) and stored.is_compressed
            more = {"compression": "gzip"} if is_compressed else {}
            return stat_of(key, stored, size, "hdf5", more)

        found: Stat = self._with(key, stat)
        return found

    # -- for StoredHdf5

    def token(self) -> bytes:
        return read_token(self._path)

    def look_again(self, key: str, look: Callable[[Any, int], Any]) -> Any:
        with self._naming_errors(key), repaired(self._path) as fd, self._reading(fd) as file:
            try:
                item = self._find(file, key)
            except KeyNotFound:
                return None
            return look(item, os.fstat(fd).st_size)

    def read_by_h5py(self, place: Place, rows: slice, out: Any) -> None:
        with contextlib.ExitStack() as stack:
            if place.has_others:  # which only a file that is open by its name finds
                file = stack.enter_context(self._h5py.File(self._path, "r"))
            else:
                fd = stack.enter_context(repaired(self._path))
                file = stack.enter_context(self._reading(fd))
            dataset = file[place.name]
            if dataset.shape != place.shape or dataset.dtype != place.dtype:
                raise Replaced(f"{self.url}: {place.name!r} was replaced while it was read")
            if place.shape == ():
                out[0] = dataset[()]
            else:
                dataset.read_direct(out, rows)

    def _close(self) -> None:
        pass  # nothing stays open

    @contextlib.contextmanager
    def _naming_errors(self, key: str) -> Iterator[None]:
        """Turn what h5py raises, which may be anything, into errors of ours."""
        what = self._what(key) if key else self.url
        try:
            yield
        except NumpushError:
            raise
        except FileNotFoundError as error:
            if os.path.exists(self._path):
                raise StoreDamaged(f"{what}: {error}") from error
            raise KeyNotFound(f"{what}: the file is gone") from error
        except OSError as error:
            if error.errno in _FULL:
                raise StoreFull(error.errno, f"{what}: {error.strerror}") from error
            if error.errno is None or "HDF5" in str(error) or "file signature" in str(error):
                raise StoreDamaged(f"{what}: {error}") from error
            raise StoreUnavailable(f"{what}: {error}") from error
        except (RuntimeError, KeyError, AttributeError, IndexError, OverflowError) as error:
            raise StoreDamaged(f"{what}: damaged: {error}") from error


def _is_folder(group: Any, depth: int) -> bool:
    """Whether keys go on below a group, *depth* parts of a key down: not in what is an object."""
    return not hasattr(group, "shape") and (not depth or kind_of(group) == "")


def _stored_bytes(item: Any) -> int:
    if hasattr(item, "shape"):
        return max(1, int(item.id.get_storage_size()))
    found = [1]

    def add(_: str, each: Any) -> None:
        if hasattr(each, "shape"):
            found.append(int(each.id.get_storage_size()))

    item.visititems(add)
    return sum(found)
