"""Writing objects into an HDF5 file that is open for it: chunks are compressed by threads, in order."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np

from ..layout import Buffer, pack
from .hdf5_data import chunk_shape, encode
from .hdf5_layout import Part, dataset_dtype, name_parts
from .hdf5_objects import RECORD

__all__ = ["Writer"]

_AHEAD = 8  #: compressed chunks that wait to be written, for each thread


class Writer(NamedTuple):
    """How objects are written; *level* None: not compressed."""

    level: int | None
    shuffle: bool
    chunk: int
    n_threads: int

    def write(
        self,
        file: Any,
        name: str,
        obj: Any,
        fields: dict[str, Any],
        buffers: list[Buffer],
        tell: Any,
    ) -> None:
        """Write an object, whose record and buffers are those of `describe_fields`, as *name*.

        Raises
        ------
        OSError, RuntimeError : of HDF5.
        """
        if fields["schema"]["kind"] != "frame":
            self._write_array(file, name, obj, fields, buffers[0] if buffers else None, tell)
            return
        frame = obj.to_frame() if fields.get("as") == "series" else obj
        parts = name_parts(fields["schema"], buffers, frame)
        fields["datasets"] = [[part.name for part in each] for each in parts]
        group = file.create_group(name, track_order=True)
        group.attrs["kind"] = fields.get("as", "frame")
        group.attrs["columns"] = [str(label) for label in frame.columns][:1000]
        group.create_dataset(RECORD, data=np.frombuffer(pack(fields), np.uint8))
        for each, buffer in zip(parts, buffers):
            self._write_parts(group, each, buffer, tell)

    def _write_array(
        self,
        file: Any,
        name: str,
        obj: Any,
        fields: dict[str, Any],
        buffer: Buffer | None,
        tell: Any,
    ) -> None:
        array = np.asarray(obj)
        dtype = dataset_dtype(array.dtype)
        shape = array.shape
        if dtype.itemsize * array.size != array.nbytes:  # text of no bytes
            dtype, shape = np.dtype("u1"), (0,)
        dataset = self._create(file, name, shape, dtype)
        dataset.attrs[RECORD] = np.frombuffer(pack(fields), np.uint8)
        if array.dtype.kind in "mMUS":
            dataset.attrs["dtype"] = array.dtype.str
        if buffer is not None:
            self._write(dataset, buffer.parts(self.chunk), tell)

    def _write_parts(self, group: Any, parts: list[Part], buffer: Buffer, tell: Any) -> None:
        """Write a buffer to its datasets, one behind the other."""
        data = _Feed(buffer.parts(4 << 20))
        size = buffer.nbytes // len(parts) if parts else 0
        for part in parts:
            dataset = self._create(group, part.name, (size // part.dtype.itemsize,), part.dtype)
            for name, value in part.attrs.items():
                dataset.attrs[name] = value
            self._write(dataset, data.take(size), tell)

    def _create(self, group: Any, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Any:
        if self.level is None or not all(shape) or not shape:
            return group.create_dataset(name, shape, dtype)
        chunk = chunk_shape(shape, dtype.itemsize, self.chunk)
        return group.create_dataset(
            name,
            shape,
            dtype,
            chunks=chunk,
            compression="gzip",
            compression_opts=self.level,
            shuffle=self.shuffle,
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
        with ThreadPoolExecutor(self.n_threads) as threads:
            waiting: list[tuple[Any, Any]] = []
            for corner, data in _chunks_of(dataset, feed):
                task = threads.submit(encode, data, itemsize, self.level, self.shuffle)
                waiting.append((corner, task))
                tell(len(data))
                if len(waiting) > _AHEAD * self.n_threads:
                    _write_chunk(dataset, *waiting.pop(0))
            for each in waiting:
                _write_chunk(dataset, *each)


def _write_chunk(dataset: Any, start: tuple[int, ...], task: Any) -> None:
    dataset.id.write_direct_chunk(start, task.result())


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
