"""Reading an object of an HDF5 file, whose datasets were looked at, from a descriptor of the file."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from itertools import accumulate
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..blocks import place as place_buffers
from ..layout import SchemaError, unpack
from ..record import read_record
from .errors import StoreDamaged, StoreError, StoreUnavailable
from .fetching import Piece, Stored
from .file_io import Extent, read_extents
from .hdf5_data import Place, decode, look
from .hdf5_foreign import foreign_record
from .hdf5_objects import RECORD, members

if TYPE_CHECKING:
    from ..shm.segment import Segment

__all__ = ["Found", "StoredObject", "load_h5py", "opened_at"]


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


@contextlib.contextmanager
def opened_at(fd: int) -> Iterator[Any]:
    """Have h5py look into an open file.

    As a file of Python's: what HDF5 opens by a path it shares with whatever else in this process
    has that file open, with what was read of it then.
    """
    with io.FileIO(fd, closefd=False) as raw, load_h5py().File(raw, "r") as file:
        yield file


class Found(NamedTuple):
    """An object whose data is to be read from a descriptor that is yet to come."""

    stored: Stored

    def over(self, fd: int) -> Stored:
        if isinstance(self.stored, StoredObject):
            self.stored.fd = fd
        return self.stored


class StoredObject:
    """An object of a file; a `Stored`, once it has the `fd` to read from."""

    def __init__(self, item: Any, what: str, path: str, n_threads: int) -> None:
        self.what = what
        self.fd = -1
        self._path, self._n_threads = path, n_threads
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
            n_threads=self._n_threads,
            timeout=None,
            what=self.what,
            progress=progress,
        )
        if len(tasks) < 2 or self._n_threads == 1:
            for task in tasks:
                progress(task())
            return
        with ThreadPoolExecutor(self._n_threads, "numpush-hdf5") as threads:
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
        opened = load_h5py().File(self._path) if place.is_elsewhere else opened_at(self.fd)
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
            packed = item.attrs.get(RECORD)
            fields = None if packed is None else unpack(np.asarray(packed, np.uint8).tobytes())
            n = 1 if fields is None else len(fields.get("buffers", ()))
            return fields, [[item]] * n
        if RECORD not in item:
            return None, [[dataset] for _, dataset in members(item)]
        fields = unpack(item[RECORD][:].tobytes())
        names = fields.get("datasets")
        if type(names) is not list or len(names) != len(fields.get("buffers", ())):
            raise SchemaError("'datasets': a list for each buffer wanted")
        return fields, [[item[name] for name in each] for each in names]
    except (SchemaError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise StoreDamaged(f"{what}: {error}") from error
