"""The data of HDF5 datasets without HDF5: its lock lets one thread at a time decompress.

`look` notes where a dataset's bytes are (with h5py, 2 ms for 256 chunks); `decode` reads and decompresses
a chunk, in any thread. What is stored in other ways than contiguous, or in chunks of gzip and shuffle,
h5py itself reads.
"""

from __future__ import annotations

import contextlib
import os
import zlib
from importlib import import_module
from math import prod
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .errors import StoreDamaged

__all__ = ["Chunk", "Place", "chunk_shape", "decode", "encode", "look"]

Raw = NDArray[np.uint8]

_inflating: Any = zlib
with contextlib.suppress(ImportError):
    _inflating = import_module("isal.isal_zlib")  # twice as fast, where there are wheels of it

_DEFLATE, _SHUFFLE = 1, 2  #: H5Z_FILTER_*
_KNOWN: tuple[list[int], ...] = ([], [_DEFLATE], [_SHUFFLE], [_SHUFFLE, _DEFLATE])


class Chunk(NamedTuple):
    """A chunk in the file: where it begins in the dataset, and in the file; its stored bytes."""

    start: tuple[int, ...]
    offset: int
    size: int
    mask: int


class Place(NamedTuple):
    """Where a dataset's bytes are.

    Attributes
    ----------
    name : of the dataset in the file
    offset : of its bytes, where they are contiguous; None: they are in chunks, or only h5py reads them
    chunk : shape of a chunk, or None
    chunks : all of them
    filters : of H5Z_FILTER_*, in the order of writing
    is_elsewhere : whether its bytes are in other files, which HDF5 finds by this file's path
    """

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    offset: int | None
    chunk: tuple[int, ...] | None
    chunks: list[Chunk]
    filters: list[int]
    is_elsewhere: bool = False

    @property
    def nbytes(self) -> int:
        return prod(self.shape) * self.dtype.itemsize

    @property
    def row(self) -> int:
        """Bytes of a row."""
        return prod(self.shape[1:]) * self.dtype.itemsize


def look(dataset: Any) -> Place:
    """Note where a dataset's bytes are.

    Raises
    ------
    StoreDamaged : HDF5 does not know how it is compressed.
    """
    import h5py

    plain = Place(dataset.name, dataset.shape, dataset.dtype, None, None, [], [])
    made = dataset.id.get_create_plist()
    layout = made.get_layout()
    if layout == h5py.h5d.VIRTUAL or made.get_external_count():
        return plain._replace(is_elsewhere=True)
    kind = dataset.id.get_type()
    if not kind.equal(h5py.h5t.py_create(dataset.dtype, logical=True)):
        return plain  # of 24 bits, say, which NumPy has in 32
    if layout == h5py.h5d.CONTIGUOUS:
        return plain._replace(offset=dataset.id.get_offset())
    if layout != h5py.h5d.CHUNKED:
        return plain
    found = [made.get_filter(i) for i in range(made.get_nfilters())]
    for code, _, _, name in found:
        if not h5py.h5z.filter_avail(code):
            raise StoreDamaged(
                f"{dataset.name!r} is compressed by filter {code} ({name.decode(errors='replace')}), "
                "which HDF5 has not here; `import hdf5plugin` (pip install hdf5plugin) may bring it"
            )
    filters = [each[0] for each in found]
    chunks: list[Chunk] = []

    def note(info: Any) -> None:
        chunks.append(Chunk(info.chunk_offset, info.byte_offset, info.size, info.filter_mask))

    dataset.id.chunk_iter(note)
    n_chunks = prod(-(-size // step) for size, step in zip(dataset.shape, dataset.chunks))
    if filters not in _KNOWN or len(chunks) != n_chunks:  # others are of the fill value
        return plain
    return plain._replace(chunk=dataset.chunks, chunks=sorted(chunks), filters=filters)


def chunk_shape(shape: tuple[int, ...], itemsize: int, nbytes: int) -> tuple[int, ...]:
    """Return the shape of chunks of about *nbytes*: whole rows, or parts of one."""
    chunk = list(shape)
    for axis in range(len(shape)):
        rest = prod(chunk[axis + 1 :]) * itemsize
        chunk[axis] = max(1, min(shape[axis], nbytes // max(1, rest)))
        if rest <= nbytes:
            break
    return tuple(chunk)


def encode(data: Raw, itemsize: int, level: int | None, shuffle: bool) -> bytes:
    """Compress a chunk as HDF5's shuffle and gzip do."""
    if shuffle and itemsize > 1:
        data = np.ascontiguousarray(data.reshape(-1, itemsize).T)
    return data.tobytes() if level is None else zlib.compress(data.data, level)


def decode(fd: int, place: Place, chunk: Chunk, first: int, target: Raw, what: str) -> None:
    """Decompress a chunk into *target*, which holds the rows from *first* on.

    Raises
    ------
    StoreDamaged : it is not what it should be.
    """
    assert place.chunk is not None
    itemsize, n_items = place.dtype.itemsize, prod(place.chunk)
    data: Any = os.pread(fd, chunk.size, chunk.offset)
    applied = [f for i, f in enumerate(place.filters) if not chunk.mask >> i & 1]
    if _DEFLATE in applied:
        try:
            engine = _inflating.decompressobj()
            data = engine.decompress(data, n_items * itemsize + 1)
            if not engine.eof:  # where its checksum is
                raise _inflating.error("it does not end")
        except _inflating.error as error:
            raise StoreDamaged(f"{what}: a chunk of {place.name!r}: {error}") from error
    if len(data) != n_items * itemsize:
        raise StoreDamaged(
            f"{what}: a chunk of {place.name!r}: {n_items * itemsize} bytes wanted, {len(data)} found"
        )
    rest = place.shape[1:]
    n_rows = len(target) // place.row
    out = target.reshape(n_rows, *rest, itemsize)
    low, high = max(chunk.start[0], first), min(chunk.start[0] + place.chunk[0], first + n_rows)
    if low >= high:
        return
    source: list[Any] = [slice(low - chunk.start[0], high - chunk.start[0])]
    into: list[Any] = [slice(low - first, high - first)]
    for start, step, size in zip(chunk.start[1:], place.chunk[1:], rest):
        source.append(slice(0, min(step, size - start)))
        into.append(slice(start, min(start + step, size)))
    raw = np.frombuffer(data, np.uint8)
    if _SHUFFLE in applied and itemsize > 1:
        planes = raw.reshape(itemsize, *place.chunk)
        for i in range(itemsize):
            out[(*into, i)] = planes[(i, *source)]
    else:
        out[tuple(into)] = raw.reshape(*place.chunk, itemsize)[tuple(source)]
