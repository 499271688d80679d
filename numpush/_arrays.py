"""Arrays of pandas: what they are made of, and whether two of them are the same memory.

The private pandas names of arrays, indexes and dtypes that shared frames need, for 2.2 and 3.x; blocks and
managers are in _managers.py.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np
import pandas as pd

from ._pandas import Array

_pd: Any = pd
_FrozenList: Any = import_module("pandas.core.indexes.frozen").FrozenList


def map_arrays(values: Any, place: Any) -> Any:
    """Give an array like `values` over `place(a)` for each NumPy array `a` that it is made of.

    An object of its own in any case: setting a cell of an Arrow array swaps its buffers.
    """
    if type(values) is np.ndarray:
        return place(values)
    if hasattr(values, "_mask"):
        return type(values)._simple_new(place(values._data), place(values._mask))
    if hasattr(values, "_ndarray"):
        return values._from_backing_data(place(values._ndarray))
    if hasattr(values, "_left"):
        # Not _shallow_copy, which copies the right side where both lie in one memory.
        return type(values)._simple_new(
            map_arrays(values._left, place), map_arrays(values._right, place), dtype=values.dtype
        )
    return values.view()


def leaves(values: Any) -> list[Array] | None:
    """Give the fixed-width NumPy arrays that hold all values; None where they do not."""
    if isinstance(values, np.ndarray):
        return None if values.dtype.hasobject else [values]
    if hasattr(values, "_mask"):
        return [values._data, values._mask]
    if hasattr(values, "_ndarray"):
        return leaves(values._ndarray)
    if hasattr(values, "_left"):
        left, right = leaves(values._left), leaves(values._right)
        return None if left is None or right is None else left + right
    return None


def lies_in(values: Any, targets: list[Array]) -> bool:
    """Whether an array lies in the memory of one of *targets*, in part at least."""
    found = leaves(values) or []
    arrow = getattr(values, "_pa_array", None)
    if arrow is not None:
        buffers = [buffer for chunk in arrow.chunks for buffer in chunk.buffers()]
        found = [np.frombuffer(buffer, np.uint8) for buffer in buffers if buffer]
    return any(np.may_share_memory(leaf, target) for leaf in found for target in targets)


def parts_of(holder: Any) -> list[Any]:
    """Give the objects that an array, index or dtype refers to its values by; none for Arrow's."""
    if isinstance(holder, _pd.MultiIndex):
        return [holder._levels, holder._codes]
    if isinstance(holder, _FrozenList):
        return list(holder)
    if isinstance(holder, _pd.RangeIndex):
        return []
    if isinstance(holder, _pd.Index):
        return [holder._data]
    if isinstance(holder, _pd.CategoricalDtype):
        return [holder._categories]
    if isinstance(holder, _pd.Categorical):
        return [holder._ndarray, holder._dtype]
    if hasattr(holder, "_ndarray"):
        return [holder._ndarray]
    if hasattr(holder, "_mask"):
        return [holder._data, holder._mask]
    if hasattr(holder, "_left"):
        return [holder._left, holder._right]
    return []


def is_arrow(holder: Any) -> bool:
    """Whether it is an array over Arrow buffers."""
    return hasattr(holder, "_pa_array")


def put_arrow(holder: Any, array: Any) -> None:
    """Have an array over Arrow buffers hold a ChunkedArray of the same type; None: nothing."""
    holder._pa_array = array


def state_of_arrow(holder: Any) -> dict[str, Any] | None:
    """Give the state that pickling one of these has; None: none without a copy.

    Its own `__getstate__` puts the chunks together, which copies even where there is one.
    """
    chunks = holder._pa_array.chunks
    if not chunks or not hasattr(type(holder), "__setstate__"):
        return None
    return {**vars(holder), "_pa_array": chunks, "_cache": {}}


def object_leaf(values: Any) -> Array | None:
    """Give the array of Python objects that holds the values, if one does."""
    array = getattr(values, "_ndarray", values)
    return array if isinstance(array, np.ndarray) and array.dtype == object else None


def identity(values: Any) -> tuple[Any, ...]:
    """Give the objects that an operation in place may swap for others."""
    if isinstance(values, np.ndarray):
        return (values,)
    if hasattr(values, "_mask"):
        return values._data, values._mask
    if hasattr(values, "_ndarray"):
        return values._ndarray, values._dtype
    if hasattr(values, "_left"):
        return values._left, values._right
    return (getattr(values, "_pa_array", values),)


def is_same_memory(a: Any, b: Any) -> bool:
    """Whether two arrays are the same bytes, seen in the same way."""
    if a is b:
        return True
    if type(a) is not type(b):
        return False
    if type(a) is np.ndarray:
        return bool(a.__array_interface__ == b.__array_interface__)
    mine, others = identity(a), identity(b)
    return len(mine) == len(others) and all(
        x is y or (type(x) is np.ndarray and is_same_memory(x, y)) for x, y in zip(mine, others)
    )


def is_same_dtype(a: Any, b: Any) -> bool:
    """Whether equal bytes of two arrays mean equal values.

    Why: categorical dtypes compare equal with their categories in another order.
    """
    if a.dtype != b.dtype or type(a) is not type(b):
        return False
    return not isinstance(a, pd.Categorical) or (
        a.ordered == b.ordered and a.categories.identical(b.categories)
    )
