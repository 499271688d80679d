"""Pickles of plain frames and series whose data is all in buffers beside the pickle (protocol 5).

Pickle by itself leaves datetimes in the pickle, as their memory has no format of Python's, and pandas
copies columns of Arrow's types to put their chunks together. What comes out is what was pickled, and
unpickling it needs numpush. Strided arrays are copied, as ever.
"""

from __future__ import annotations

import copyreg
import io
import pickle
from typing import Any

import numpy as np

from . import _arrays

__all__ = ["dumps"]


def dumps(x: Any) -> tuple[bytes, list[memoryview]]:
    """Pickle *x*; return the pickle and its buffers, in order: views of the memory of *x*.

    Raises what pickling raises.
    """
    buffers: list[pickle.PickleBuffer] = []
    file = io.BytesIO()
    _Pickler(file, protocol=5, buffer_callback=buffers.append).dump(x)
    return file.getvalue(), [buffer.raw() for buffer in buffers]


class _Pickler(pickle.Pickler):
    def reducer_override(self, obj: Any) -> Any:
        if type(obj) is np.ndarray:
            flags = obj.flags
            if obj.dtype.kind in "mM" and (flags.c_contiguous or flags.f_contiguous):
                return _as_dates, (obj.view(np.int64), obj.dtype)
        elif _arrays.is_arrow(obj):
            state = _arrays.state_of_arrow(obj)
            if state is not None:
                return copyreg.__newobj__, (type(obj),), state  # type: ignore[attr-defined]
        return NotImplemented


def _as_dates(values: Any, dtype: Any) -> Any:
    return values.view(dtype)
