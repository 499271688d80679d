"""SArray: a NumPy array whose data lies in shared memory.

(1) An SArray is a view of a segment. Results of computation are plain arrays; slices, transposes
    and `.view()` of an SArray are SArrays, and share.
(2) There is no state per view: what segment it lies in is looked up by its address.
(3) Through multiprocessing it travels as a handle; pickle.dump writes its values.
(4) An object of this type whose memory is private (some NumPy functions make such) behaves as a
    plain array does: it pickles by value, and asking for its segment is an error.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, SupportsIndex, cast

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from . import blocks, transport
from .handle import ArrayHandle, lease
from .layout import SchemaError, describe, rebuild
from .shared import Shared
from .shm import RangeGuard, RWLock, lock_range, process, registry
from .shm.errors import SegmentDamaged, SegmentError
from .shm.extents import check_floor
from .shm.mapping import Mapping
from .shm.segment import Segment

__all__ = ["SArray"]

Plain = NDArray[Any]
Shape = SupportsIndex | tuple[SupportsIndex, ...]


def _locate(array: Plain) -> Mapping | None:
    return registry.locate(array.__array_interface__["data"][0])


class SArray(Shared, np.ndarray[Any, Any]):
    """An array in shared memory, made from *a* by one copy.

    Parameters
    ----------
    a : array_like
        Any shape, any dtype without Python objects; its memory order is kept.
    dtype : dtype, optional
        Convert to it while copying.
    name : str, optional
        A name to attach by. By default a random one: pass the array itself, or `.handle`.
    reserve : bool
        Reserve the memory now. False makes a sparse array: pages are found at first touch, and
        where there are none any more, the process that touches dies of SIGBUS.

    Raises
    ------
    TypeError : the dtype holds Python objects (or is StringDType); the message names the remedy.
    SegmentFull : shared memory has no room for it.
    SegmentExists : the name is taken.

    Examples
    --------
    >>> import numpy as np
    >>> from numpush import SArray
    >>> a = SArray(np.arange(6.0).reshape(2, 3))
    >>> a[0] += 1
    >>> a.sum()
    np.float64(18.0)
    >>> a.T.mode, type(a + 1).__name__
    ('rw', 'ndarray')
    """

    def __new__(
        cls,
        a: ArrayLike,
        dtype: DTypeLike | None = None,
        *,
        name: str | None = None,
        reserve: bool = True,
    ) -> SArray:
        source = np.asanyarray(a, dtype)
        schema, buffers = describe(source)
        _, _, raw = blocks.store(schema, buffers, name=name, reserve=reserve)
        return _as_shared(rebuild(schema, raw))

    # -- other ways to make one

    @classmethod
    def empty(
        cls,
        shape: Shape,
        dtype: DTypeLike = float,
        order: str = "C",
        *,
        name: str | None = None,
        reserve: bool = True,
    ) -> SArray:
        """Make an array without setting its values. Its memory is reserved.

        Parameters as of np.empty; *name*, *reserve* and errors as of `SArray`.
        """
        if order not in ("C", "F"):
            raise ValueError(f"order {order!r}: wanted 'C' or 'F'")
        cell = np.empty((), dtype)
        # No memory: a broadcast cell has the shape and dtype that the description needs.
        schema, buffers = describe(np.broadcast_to(cell, cast("tuple[int, ...]", shape)))
        schema["order"] = order
        segment, _, raw = blocks.allocate(
            schema, [buffer.nbytes for buffer in buffers], name=name, reserve=reserve
        )
        array = _as_shared(rebuild(schema, raw))
        segment.commit()
        return array

    @classmethod
    def zeros(
        cls,
        shape: Shape,
        dtype: DTypeLike = float,
        order: str = "C",
        *,
        name: str | None = None,
        reserve: bool = True,
    ) -> SArray:
        """Make an array of zeros. Fresh pages are zero already; warm memory is cleared."""
        array = cls.empty(shape, dtype, order, name=name, reserve=reserve)
        if not array._segment().is_fresh:
            _bytes_of(array)[...] = 0
        return array

    @classmethod
    def full(
        cls,
        shape: Shape,
        fill_value: Any,
        dtype: DTypeLike | None = None,
        order: str = "C",
        *,
        name: str | None = None,
        reserve: bool = True,
    ) -> SArray:
        """Make an array filled with *fill_value*; its dtype by default, as np.full."""
        dtype = np.asarray(fill_value).dtype if dtype is None else dtype
        array = cls.empty(shape, dtype, order, name=name, reserve=reserve)
        np.copyto(array.view(np.ndarray), fill_value, casting="unsafe")
        return array

    # -- where it lies

    def _mapping(self) -> Mapping:
        mapping = _locate(self)
        if mapping is None:
            raise SegmentError(
                "this array is not in shared memory (it is a copy); make one with SArray(a)"
            )
        return mapping

    @property
    def mode(self) -> str:
        """'rw', 'ro' (stores are refused by the kernel) or 'cow' (stores are private)."""
        return self._mapping().mode

    @property
    def handle(self) -> ArrayHandle:
        """The small thing that names this view. It keeps nothing alive."""
        mapping = self._mapping()
        return _handle(self, mapping)

    # -- locks and news: see also Shared

    def lock_range(
        self, key: Any, shared: bool = False, timeout: float | None = None
    ) -> RangeGuard:
        """Lock the part ``self[key]`` for writing or, *shared*, for reading.

        What is locked is the range of bytes from its first to its last element, so rows of a
        C-ordered array lock apart, columns do not.

        Parameters
        ----------
        key : index
            Basic indexing: ints, slices, Ellipsis.
        timeout : float, optional
            Seconds to wait; 0: do not wait.

        Raises
        ------
        LockTimeout : not free in time; the message names who is before us.
        LockError : this thread holds part of it.
        IndexError, TypeError : *key* is out of range, or makes a copy.
        """
        part = super().__getitem__(key)
        if not isinstance(part, np.ndarray):
            part = super().__getitem__((key, ...) if not isinstance(key, tuple) else (*key, ...))
        if part.size and not np.may_share_memory(part, self):
            raise TypeError(f"cannot lock {key!r}: wanted ints and slices")
        segment, token = self._open_segment()
        start, stop = _byte_range(part, segment)
        return lock_range(segment, token, start, stop, shared=shared, timeout=timeout)

    @property
    def rwlock(self) -> RWLock:
        """Readers or one writer over this array: ``with a.rwlock.read():``, ``.write()``."""
        segment, token = self._open_segment()
        return RWLock(segment, token, *_byte_range(self, segment))

    @contextmanager
    def update(self, timeout: float | None = None) -> Iterator[SArray]:
        """Change the array under its lock, so that `snapshot` elsewhere sees all or nothing.

        Raises
        ------
        LockTimeout : the lock is not free within *timeout* seconds.
        """
        with self._updating(timeout):
            yield self

    def snapshot(self, timeout: float | None = None) -> Plain:
        """Copy the array such that no `update` tore it: copies again when one came between.

        Raises
        ------
        WaitTimeout : an update went on for *timeout* seconds.
        """
        return self._read_whole(self.copy, timeout)

    def _repr_html_(self) -> str | None:
        """What a notebook shows: shape, dtype, segment, who uses it, its lock, and the values."""
        from . import notebook

        return notebook.array_html(self)

    # -- what NumPy asks for

    def __array_wrap__(
        self, array: Any, context: Any = None, return_scalar: bool = False, /
    ) -> Any:
        if array is self:  # out=self
            return array
        if return_scalar and array.ndim == 0:
            return array[()]
        return _unless_shared(array)

    def __array_function__(self, func: Any, types: Any, args: Any, kwargs: Any) -> Any:
        return _unless_shared(super().__array_function__(func, types, args, kwargs))

    def __getitem__(self, key: Any) -> Any:
        part = super().__getitem__(key)
        if type(part) is SArray and part.base is not self and part.base is not self.base:
            return part.view(np.ndarray)  # fancy indexing made a copy
        return part

    def squeeze(self, axis: Any = None) -> Any:
        """As ndarray.squeeze, which alone among the methods that give views gives a plain one."""
        return self.view(np.ndarray).squeeze(axis).view(SArray)

    def __copy__(self) -> Plain:  # type: ignore[override]  # a copy is private, so plain
        return self.view(np.ndarray).copy("K")

    def __deepcopy__(self, memo: Any) -> Plain:  # type: ignore[override]  # as above
        return self.view(np.ndarray).copy("K")

    def __reduce_ex__(self, protocol: SupportsIndex) -> Any:
        if transport.is_sending():
            return _reduce(self)
        return self.view(np.ndarray).__reduce_ex__(protocol)

    def __reduce__(self) -> Any:
        return self.__reduce_ex__(2)


def _plain_result(name: str) -> Callable[..., Any]:
    method = getattr(np.ndarray, name)

    @functools.wraps(method)
    def call(self: SArray, *args: Any, **kwargs: Any) -> Any:
        return _unless_shared(method(self, *args, **kwargs))

    return call


# Methods that give a private array of the type they are called on (found by calling them all).
for _name in (
    *("argpartition", "argsort", "astype", "byteswap", "choose", "compress", "conj", "conjugate"),
    *("copy", "cumprod", "cumsum", "dot", "flatten", "nonzero", "ravel", "repeat", "reshape"),
    *("round", "searchsorted", "take"),
):
    setattr(SArray, _name, _plain_result(_name))


def _unless_shared(result: Any) -> Any:
    """Make a private result a plain array; leave views of shared memory alone."""
    if type(result) is SArray:
        return result if _locate(result) is not None else result.view(np.ndarray)
    if type(result) is tuple or type(result) is list:
        return type(result)(_unless_shared(each) for each in result)
    return result


def _as_shared(array: Plain) -> SArray:
    return array.view(SArray)


def _bytes_of(array: Plain) -> Plain:
    """Return all bytes of a dense array, for clearing."""
    return (
        np.ndarray((array.nbytes,), np.uint8, array.view(np.ndarray).data.cast("B"))
        if (array.flags.c_contiguous)
        else _bytes_of(array.T)
    )


def _byte_range(array: Plain, segment: Segment) -> tuple[int, int]:
    """Return first and last + 1 byte of *array* in the data of *segment*."""
    base = next(
        mapping.address - mapping.start
        for mapping in segment.mappings.values()
        if mapping.address <= array.__array_interface__["data"][0] < mapping.address + mapping.size
    )
    low, high = np.lib.array_utils.byte_bounds(array)
    return low - base, max(high, low + 1) - base


def _handle(array: Plain, mapping: Mapping) -> ArrayHandle:
    segment = mapping.segment
    return ArrayHandle(
        segment.name,
        segment.identity,
        mapping.mode,
        array.__array_interface__["data"][0] - mapping.address,
        array.shape,
        array.strides,
        array.dtype,
        _extent(mapping),
    )


def _extent(mapping: Mapping) -> tuple[int, ...]:
    """Return what a handle says of the mapping that its offset counts from; (): all of the data."""
    return (mapping.start, mapping.size) if mapping.start else ()


def attach_array(handle: ArrayHandle, sender: int = 0) -> SArray:
    """Make the view that *handle* means. Attaching a known segment costs a dictionary look-up.

    Raises
    ------
    SegmentNotFound : nobody uses the segment any more.
    SegmentDamaged : the view would lie outside of the segment.
    """
    if handle.dtype.hasobject:
        raise SegmentDamaged(f"segment {handle.name!r}: a handle to objects", handle.name)
    return _receive(
        handle.name,
        handle.identity,
        sender,
        handle.mode,
        handle.offset,
        handle.shape,
        handle.strides,
        handle.dtype,
        *handle.extent,
    )


def _receive(
    name: str,
    identity: int,
    sender: int,
    mode: str,
    offset: int,
    shape: tuple[int, ...],
    strides: tuple[int, ...],
    dtype: Any,
    *extent: int,
) -> SArray:
    segment, token = process.attach(name, mode, identity=identity, sender=sender)
    segment.has_arrays = True
    if extent:
        start, size = extent
        check_floor(segment, start)
        token = process.token_of_extent(segment, mode, start, size)
    else:
        check_floor(segment, offset)
    try:
        # NumPy checks that offset, shape and strides stay inside of the buffer.
        return np.ndarray.__new__(SArray, shape, dtype, blocks.view(token, mode), offset, strides)
    except (TypeError, ValueError) as error:
        raise SegmentDamaged(f"segment {name!r}: a handle out of bounds: {error}", name) from error


def _reduce(array: SArray) -> tuple[Any, ...]:
    """Reduce to a handle, with a lease; an array that is a private copy, to its values."""
    address = array.__array_interface__["data"][0]
    mapping = registry.locate(address)
    if mapping is None or mapping.mode == "cow":  # private changes are nobody else's to see
        # Not protocol 5, whose buffers this pickler may not take: it does not tell its own.
        return cast("tuple[Any, ...]", array.view(np.ndarray).__reduce_ex__(4))
    segment = mapping.segment
    sender = lease(segment)
    dtype = array.dtype
    return _receive, (
        segment.name,
        segment.identity,
        sender,
        mapping.mode,
        address - mapping.address,
        array.shape,
        array.strides,
        dtype.str if dtype.names is None and dtype.kind != "V" else dtype,
        *_extent(mapping),
    )


def from_segment(segment: Segment, token: Any, mode: str) -> SArray:
    """Make the whole array that a segment holds, from its description."""
    schema, raw = blocks.read(segment, token, mode)
    try:
        return _as_shared(rebuild(schema, raw))
    except SchemaError as error:
        raise SegmentDamaged(f"segment {segment.name!r}: {error}", segment.name) from error


transport.register(SArray, _reduce)
transport.tell_loky()
