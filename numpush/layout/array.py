"""ndarrays of every dtype without Python objects, in any order.

Node: {"kind": "ndarray", "dtype": code, "shape": [..], "order": .., "data": reference}. "order" is
"C", "F", or the axes from slowest to fastest in memory.

An array that is not contiguous is laid out densely with its axes in the order of their strides,
as np.copy(order="K") would: row slices of a Fortran array stay Fortran.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .buffer import Array, Buffer, Sink
from .dtype import decode_dtype, encode_dtype, has_layout
from .registry import register_kind, register_type
from .schema import Node, SchemaError, found, read_shape
from .source import Source

Order = str | list[int]


def describe_array(array: Array, sink: Sink) -> Node:
    """Describe an ndarray; what a subclass adds is dropped, a mask is refused."""
    dtype = array.dtype
    if type(array) is not np.ndarray:
        array = _plain(array, sink)
    if not has_layout(dtype):
        raise _refuse_dtype(array, sink)
    if array.flags.c_contiguous:
        order: Order = "C"
        dense = array
    else:
        order, dense = _dense(array)
    if sink.inline:
        data = sink.put_array(dense)
    else:
        data = len(sink.buffers)
        sink.buffers.append(Buffer(dense.shape, dtype, [(..., dense)], array.nbytes))
    return {
        "kind": "ndarray",
        "dtype": encode_dtype(dtype),
        "shape": list(array.shape),
        "order": order,
        "data": data,
    }


def _plain(array: Array, sink: Sink) -> Array:
    if isinstance(array, np.ma.MaskedArray):
        raise TypeError(
            f"{sink.where} is a masked array, whose mask would be lost; pass .filled(value), or "
            f".data and .mask apart"
        )
    return array.view(np.ndarray)


def _refuse_dtype(array: Array, sink: Sink) -> TypeError:
    dtype, name = array.dtype, sink.expression
    if dtype.kind == "T":
        return sink.refuse(
            dtype, "whose strings lie outside of the array", f"{name} = {name}.astype('U')"
        )
    if dtype.hasobject:
        kind = type(array.flat[0]) if dtype.kind == "O" and array.size else "Python objects"
        return sink.refuse(dtype, f"holding {kind}", f"{name} = {name}.astype('U') or 'f8'")
    return sink.refuse(
        dtype, "which NumPy itself does not know", f"{name} = {name}.view('V{dtype.itemsize}')"
    )


def _dense(array: Array) -> tuple[Order, Array]:
    """Give the order in memory, and the array with its axes in that order."""
    if array.flags.f_contiguous:
        return "F", array.T
    strides = array.strides
    wide = [axis for axis, size in enumerate(array.shape) if size > 1]
    if any(strides[axis] == 0 for axis in wide):  # broadcast: no order to keep
        return "C", array
    by_stride = sorted(wide, key=lambda axis: -abs(strides[axis]))
    if by_stride == wide:
        return "C", array
    if by_stride == wide[::-1]:
        return "F", array.T
    axes = [axis for axis in range(array.ndim) if axis not in wide] + by_stride
    return axes, array.transpose(axes)


def rebuild_array(node: Node, source: Source) -> Array:
    """Build an ndarray over its buffer; no copy."""
    dtype = decode_dtype(node.get("dtype"))
    shape = read_shape(node.get("shape"), "'shape'")
    order = node.get("order")
    if order == "C":
        return source.array(node.get("data"), dtype, shape, "'data'")
    if order == "F":
        return source.array(node.get("data"), dtype, shape[::-1], "'data'").T
    if type(order) is not list or sorted(order) != list(range(len(shape))):
        raise SchemaError(f"schema 'order': 'C', 'F' or the axes wanted, {found(order)}")
    dense = tuple(shape[axis] for axis in order)
    inverse = [order.index(axis) for axis in range(len(order))]
    return source.array(node.get("data"), dtype, dense, "'data'").transpose(inverse)


def read_rows(node: Node, source: Source, kinds: str, what: str) -> Array:
    """Build the 1-D array that "dtype", "rows" and "data" of a node mean.

    Parameters
    ----------
    kinds : str
        The dtype kinds that may stand there, as NumPy's letters.
    """
    dtype = decode_dtype(node.get("dtype"))
    if dtype.kind not in kinds or not dtype.isnative:
        raise SchemaError(f"schema {what}: a native dtype of kind {kinds!r} wanted, {found(dtype)}")
    shape = read_shape([node.get("rows")], "'rows'")
    return source.array(node.get("data"), dtype, shape, what)


def describe_rows(values: Any, sink: Sink) -> Node:
    """Give the "dtype", "rows" and "data" of a 1-D array, for `read_rows`."""
    return {
        "dtype": encode_dtype(values.dtype),
        "rows": len(values),
        "data": sink.put_array(values),
    }


register_type(np.ndarray, describe_array, subclasses=True)
register_kind("ndarray", "array", rebuild_array)
