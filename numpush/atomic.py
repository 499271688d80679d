"""Atomic operations on one element of an integer or float array, exact under contention.

Any number of processes and threads may apply them to the same element of a shared array at once.
All but `load` and `store` return what was there before. Elements are of an integer dtype of 1 to 8
bytes or float32/float64, in native byte order; sequentially consistent, but `load` acquires and
`store` releases. Each costs a few microseconds, nearly all of it Python.

Examples
--------
>>> import numpy as np
>>> from numpush import SArray, atomic
>>> a = SArray(np.zeros(3, "i8"))
>>> atomic.add(a, 1, 5), atomic.max(a, 1, 3), atomic.load(a, 1)
(0, 5, 5)
>>> atomic.compare_exchange(a, 1, 5, 7)
(True, 5)
"""

from __future__ import annotations

from typing import Any, SupportsIndex

import numpy as np
from numpy.typing import NDArray

from .ffi import atomic as _atomic

__all__ = [
    "add",
    "and_",
    "compare_exchange",
    "exchange",
    "load",
    "max",
    "min",
    "or_",
    "store",
    "sub",
]

Array = NDArray[Any]
Index = SupportsIndex | tuple[SupportsIndex, ...]

_KINDS = {"u": _atomic.UNSIGNED, "i": _atomic.SIGNED, "f": _atomic.FLOAT, "b": _atomic.UNSIGNED}


def _element(array: Array, index: Index, *, writes: bool = True) -> tuple[int, int, int]:
    """Return address, size and kind of ``array[index]``."""
    if not isinstance(array, np.ndarray):
        raise TypeError(f"an array is wanted, not {type(array).__name__}")
    dtype = array.dtype
    kind = _KINDS.get(dtype.kind)
    if kind is None or dtype.itemsize > 8 or not dtype.isnative or dtype == np.float16:
        raise TypeError(
            f"dtype {dtype} has no atomic operations; wanted a native integer of 1 to 8 bytes, "
            "float32 or float64"
        )
    if writes and not array.flags.writeable:
        raise ValueError("assignment destination is read-only")
    indexes = index if isinstance(index, tuple) else (index,)
    if len(indexes) != array.ndim:
        raise IndexError(f"{array.ndim} indexes wanted, for one element; {len(indexes)} given")
    address = array.__array_interface__["data"][0]
    for axis, (i, n, stride) in enumerate(zip(indexes, array.shape, array.strides, strict=True)):
        k = i.__index__()
        if not -n <= k < n:
            raise IndexError(f"index {k} is out of bounds for axis {axis} with size {n}")
        address += (k % n) * stride
    if address % dtype.itemsize:
        raise ValueError(
            f"the element lies at {address:#x}, which its size {dtype.itemsize} does not divide"
        )
    return address, dtype.itemsize, kind


def _value(array: Array, value: Any) -> Any:
    """Convert as an assignment to an element would: a float to an integer array is an error."""
    cast: Any = array.dtype.type(value)
    if array.dtype.kind != "f" and cast != value:
        raise TypeError(f"{value!r} is no value of dtype {array.dtype}")
    return cast.item()


def _update(array: Array, index: Index, op: int, value: Any) -> Any:
    address, size, kind = _element(array, index)
    old = _atomic.update(address, size, kind, op, _value(array, value))
    return bool(old) if array.dtype.kind == "b" else old


def add(array: Array, index: Index, value: Any) -> Any:
    """Add *value*; integers wrap around."""
    _refuse_bool(array)
    return _update(array, index, _atomic.ADD, value)


def sub(array: Array, index: Index, value: Any) -> Any:
    """Subtract *value*; integers wrap around."""
    _refuse_bool(array)
    return _update(array, index, _atomic.SUB, value)


def min(array: Array, index: Index, value: Any) -> Any:
    """Store the smaller of the element and *value*; a NaN wins, as in np.minimum."""
    return _update(array, index, _atomic.MIN, value)


def max(array: Array, index: Index, value: Any) -> Any:
    """Store the larger of the element and *value*; a NaN wins, as in np.maximum."""
    return _update(array, index, _atomic.MAX, value)


def and_(array: Array, index: Index, value: Any) -> Any:
    """Bitwise and; integers only."""
    _refuse_float(array)
    return _update(array, index, _atomic.AND, value)


def or_(array: Array, index: Index, value: Any) -> Any:
    """Bitwise or; integers only."""
    _refuse_float(array)
    return _update(array, index, _atomic.OR, value)


def _refuse_float(array: Array) -> None:
    if array.dtype.kind == "f":
        raise TypeError(f"dtype {array.dtype} has no bitwise operations")


def _refuse_bool(array: Array) -> None:
    if isinstance(array, np.ndarray) and array.dtype.kind == "b":
        raise TypeError("dtype bool has no atomic add and sub; use or_ and and_")


def exchange(array: Array, index: Index, value: Any) -> Any:
    """Store *value*."""
    return _update(array, index, _atomic.EXCHANGE, value)


def compare_exchange(array: Array, index: Index, expected: Any, desired: Any) -> tuple[bool, Any]:
    """Store *desired* if the element is *expected*, bit for bit.

    Returns
    -------
    (bool, value) : whether it was stored, and what was there before
    """
    address, size, kind = _element(array, index)
    stored, old = _atomic.compare_exchange(
        address, size, kind, _value(array, expected), _value(array, desired)
    )
    return stored, bool(old) if array.dtype.kind == "b" else old


def load(array: Array, index: Index) -> Any:
    """Return the element; what was written before the `store` that is seen, is seen too."""
    value = _atomic.load(*_element(array, index, writes=False))
    return bool(value) if array.dtype.kind == "b" else value


def store(array: Array, index: Index, value: Any) -> None:
    """Store *value*; who sees it by `load` sees all that was written before."""
    _atomic.store(*_element(array, index), _value(array, value))
