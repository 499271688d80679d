"""Arrays as .npy files: NumPy's own format, which `numpy.load` reads and `numpy.save` writes."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from ..layout import VERSION
from ..layout.dtype import encode_dtype
from ..record import Record
from .errors import StoreDamaged
from .fetching import Piece

if TYPE_CHECKING:
    from ..shm.segment import Segment

__all__ = ["NpyFile", "write_npy"]

_PIECE = 8 << 20


def write_npy(out: Any, array: np.ndarray[Any, Any]) -> None:
    """Write an array to a binary file.

    Raises
    ------
    TypeError : its dtype holds Python objects, which would have to be pickled.
    """
    if array.dtype.hasobject:
        raise TypeError(
            f"an array of dtype {array.dtype} holds Python objects; convert it: astype('U')"
        )
    np.lib.format.write_array(out, array.view(np.ndarray), allow_pickle=False)


class NpyFile:
    """A `Stored` over a .npy file: a path, or a binary file object, which is closed at the end.

    Raises
    ------
    StoreDamaged : it is none, or holds pickled objects, or is too short.
    """

    def __init__(self, source: Any, what: str) -> None:
        self.what = what
        self._file = io.FileIO(source) if isinstance(source, str) else source
        try:
            self.record = self._read_header()
        except BaseException:
            self.close()
            raise

    def _read_header(self) -> Record:
        formats = np.lib.format
        readers = {(1, 0): formats.read_array_header_1_0, (2, 0): formats.read_array_header_2_0}
        try:
            version = formats.read_magic(self._file)
            if version not in readers:
                raise ValueError(f"format 1.0 or 2.0 wanted, {version} found")
            shape, is_fortran, dtype = readers[version](self._file)
        except (ValueError, EOFError) as error:
            raise StoreDamaged(f"{self.what}: no .npy file that we read: {error}") from error
        if dtype.hasobject:
            raise StoreDamaged(
                f"{self.what}: dtype {dtype} holds pickled objects, which are not read"
            )
        self._start = self._file.tell()
        size = int(np.prod([dtype.itemsize, *shape], dtype=object))
        found = self._file.seek(0, os.SEEK_END) - self._start
        if found < size:
            raise StoreDamaged(f"{self.what}: {size} bytes of data wanted, {found} found")
        schema = {
            "kind": "ndarray",
            "v": VERSION,
            "dtype": encode_dtype(dtype),
            "shape": list(shape),
            "order": "F" if is_fortran else "C",
            "data": 0,
        }
        return Record(schema, [size], size, None, "")

    def read(
        self, pieces: list[Piece], segment: Segment | None, progress: Callable[[int], None]
    ) -> None:
        for _, start, _, target in pieces:
            self._file.seek(self._start + start)
            left = target.data
            while left:
                n = self._file.readinto(left[:_PIECE])
                if not n:
                    raise StoreDamaged(f"{self.what}: the file became shorter")
                progress(n)
                left = left[n:]

    def close(self) -> None:
        self._file.close()
