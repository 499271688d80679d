"""Atomic operations on one element of an array, for functions that numba compiles.

They do what those of `numpush.atomic` do, on the same arrays at the same time; called from Python
they are those. Compiled they are instructions, so that they travel with a kernel. All but load
and store return what was there before; sequentially consistent, but `atomic_load` acquires and
`atomic_store` releases. The element is one of an integer or float array (of bool: no add and sub), the
index as for any array: negative ones count from the end, and nothing checks bounds but
``boundscheck=True``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir
from numba import types

from .. import atomic as _atomic
from . import _numba

__all__ = [
    "atomic_add",
    "atomic_and",
    "atomic_cas",
    "atomic_exchange",
    "atomic_fence",
    "atomic_load",
    "atomic_max",
    "atomic_min",
    "atomic_or",
    "atomic_store",
    "atomic_sub",
]


def atomic_add(array: Any, index: Any, value: Any) -> Any:
    """Add *value*; integers wrap around."""
    return _atomic.add(array, index, value)


def atomic_sub(array: Any, index: Any, value: Any) -> Any:
    """Subtract *value*; integers wrap around."""
    return _atomic.sub(array, index, value)


def atomic_min(array: Any, index: Any, value: Any) -> Any:
    """Store the smaller of the element and *value*; a NaN wins, as in np.minimum."""
    return _atomic.min(array, index, value)


def atomic_max(array: Any, index: Any, value: Any) -> Any:
    """Store the larger of the element and *value*; a NaN wins, as in np.maximum."""
    return _atomic.max(array, index, value)


def atomic_and(array: Any, index: Any, value: Any) -> Any:
    """Bitwise and; integers only."""
    return _atomic.and_(array, index, value)


def atomic_or(array: Any, index: Any, value: Any) -> Any:
    """Bitwise or; integers only."""
    return _atomic.or_(array, index, value)


def atomic_exchange(array: Any, index: Any, value: Any) -> Any:
    """Store *value*."""
    return _atomic.exchange(array, index, value)


def atomic_cas(array: Any, index: Any, expected: Any, desired: Any) -> Any:
    """Store *desired* if the element is *expected*, bit for bit.

    Returns
    -------
    (bool, value) : whether it was stored, and what was there before
    """
    return _atomic.compare_exchange(array, index, expected, desired)


def atomic_load(array: Any, index: Any) -> Any:
    """Return the element; what was written before the store that is seen, is seen too.

    A loop that waits for an element to change must read it by this: LLVM takes other loads out of
    the loop.
    """
    return _atomic.load(array, index)


def atomic_store(array: Any, index: Any, value: Any) -> None:
    """Store *value*; who sees it by `atomic_load` sees all that was written before."""
    _atomic.store(array, index, value)


def atomic_fence() -> None:
    """Order all that this thread reads and writes before it, and after."""


# -- as numba compiles them

_ORDER = "seq_cst"


def _element_type(name: str, array: Any, index: Any, *, writes: bool = True) -> Any:
    """Return the type of the element; raise numba's error for what has no such operation."""
    if not isinstance(array, types.Array):
        raise _numba.typing_error(f"{name}: an array is wanted, not {array}")
    element = array.dtype
    is_number = isinstance(element, (types.Integer, types.Float, types.Boolean))
    if not is_number or element == types.float16:
        raise _numba.typing_error(f"{name}: {element} has no atomic operations")
    if writes and not array.mutable:
        raise _numba.typing_error(f"{name}: cannot modify a readonly array: {array}")
    indexes = list(index) if isinstance(index, types.BaseTuple) else [index]
    if len(indexes) != array.ndim or not all(isinstance(i, types.Integer) for i in indexes):
        raise _numba.typing_error(
            f"{name}: {array.ndim} integers wanted for one element, not {index}"
        )
    return element


class _Element:
    """An element as instructions see it: a pointer to integer bits, or to a float."""

    def __init__(self, context: Any, builder: Any, signature: Any, args: Sequence[Any]) -> None:
        self._context, self._builder = context, builder
        self.type = signature.args[0].dtype
        self.pointer = _numba.element_pointer(context, builder, signature, args)
        self.size = context.get_abi_sizeof(context.get_data_type(self.type))
        self.bits = ir.IntType(8 * self.size)
        self.is_float = isinstance(self.type, types.Float)
        self._check_alignment()

    def _check_alignment(self) -> None:
        """Raise where the element lies across two cache lines, perhaps: the types of numba do not tell."""
        context, builder = self._context, self._builder
        address = builder.ptrtoint(self.pointer, context.get_value_type(types.uintp))
        offset = builder.and_(address, address.type(self.size - 1))
        with builder.if_then(builder.icmp_unsigned("!=", offset, address.type(0)), likely=False):
            message = f"atomic operation on an element that its size {self.size} does not divide"
            context.call_conv.return_user_exc(builder, ValueError, (message,))

    @property
    def bits_pointer(self) -> Any:
        return self._builder.bitcast(self.pointer, self.bits.as_pointer())

    def to_bits(self, value: Any) -> Any:
        """Return the bits that stand for *value* in memory."""
        if self.is_float:
            return self._builder.bitcast(value, self.bits)
        return self._context.data_model_manager[self.type].as_data(self._builder, value)

    def from_bits(self, bits: Any) -> Any:
        if self.is_float:
            return self._builder.bitcast(bits, self._context.get_value_type(self.type))
        return self._context.data_model_manager[self.type].from_data(self._builder, bits)


def _define_update(
    function: Callable[..., Any], integer_op: str, float_op: str | None, *, of_bool: bool
) -> None:
    """Have *function* be one instruction, "{integer_op}" or "{float_op}"; "u" for unsigned ones."""
    name = function.__name__

    def typer(array: Any, index: Any, value: Any) -> Any:
        element = _element_type(name, array, index)
        if isinstance(element, types.Float) and float_op is None:
            raise _numba.typing_error(f"{name}: {element} has no bitwise operations")
        if isinstance(element, types.Boolean) and not of_bool:
            raise _numba.typing_error(f"{name}: not of bool; use atomic_or and atomic_and")
        return element(array, index, element)

    def lower(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        element = _Element(context, builder, signature, args)
        if element.is_float and float_op in ("fmin", "fmax"):
            return _extremum(builder, element, args[2], float_op)
        if element.is_float and float_op != "xchg":
            return builder.atomic_rmw(float_op, element.pointer, args[2], _ORDER)
        op = integer_op
        if op in ("min", "max") and not getattr(element.type, "signed", False):
            op = "u" + op
        bits = builder.atomic_rmw(op, element.bits_pointer, element.to_bits(args[2]), _ORDER)
        return element.from_bits(bits)

    _numba.provide(function, typer, lower)


def _extremum(builder: Any, element: _Element, value: Any, op: str) -> Any:
    """Compare and exchange until the element is the extremum: no instruction lets a NaN win."""
    start = builder.block
    loop = builder.append_basic_block("again")
    done = builder.append_basic_block("done")
    pointer = element.bits_pointer
    first = builder.load_atomic(pointer, "monotonic", element.size)
    builder.branch(loop)
    builder.position_at_end(loop)
    old = builder.phi(element.bits)
    old.add_incoming(first, start)
    there = element.from_bits(old)
    keeps = builder.fcmp_ordered("<" if op == "fmin" else ">", there, value)
    is_nan = builder.fcmp_unordered("uno", there, there)
    desired = builder.select(builder.or_(keeps, is_nan), old, element.to_bits(value))
    result = builder.cmpxchg(pointer, old, desired, _ORDER, _ORDER)
    old.add_incoming(builder.extract_value(result, 0), loop)
    builder.cbranch(builder.extract_value(result, 1), done, loop)
    builder.position_at_end(done)
    return element.from_bits(old)


for _function, _integer_op, _float_op, _of_bool in (
    (atomic_add, "add", "fadd", False),
    (atomic_sub, "sub", "fsub", False),
    (atomic_min, "min", "fmin", True),
    (atomic_max, "max", "fmax", True),
    (atomic_and, "and", None, True),
    (atomic_or, "or", None, True),
    (atomic_exchange, "xchg", "xchg", True),
):
    _define_update(_function, _integer_op, _float_op, of_bool=_of_bool)


def _type_cas(array: Any, index: Any, expected: Any, desired: Any) -> Any:
    element = _element_type("atomic_cas", array, index)
    return types.Tuple((types.boolean, element))(array, index, element, element)


def _lower_cas(context: Any, builder: Any, signature: Any, args: Any) -> Any:
    element = _Element(context, builder, signature, args)
    expected, desired = map(element.to_bits, args[2:])
    result = builder.cmpxchg(element.bits_pointer, expected, desired, _ORDER, _ORDER)
    stored, old = builder.extract_value(result, 1), builder.extract_value(result, 0)
    return context.make_tuple(builder, signature.return_type, (stored, element.from_bits(old)))


def _type_load(array: Any, index: Any) -> Any:
    return _element_type("atomic_load", array, index, writes=False)(array, index)


def _lower_load(context: Any, builder: Any, signature: Any, args: Any) -> Any:
    element = _Element(context, builder, signature, args)
    bits = builder.load_atomic(element.bits_pointer, "acquire", element.size)
    return element.from_bits(bits)


def _type_store(array: Any, index: Any, value: Any) -> Any:
    element = _element_type("atomic_store", array, index)
    return types.none(array, index, element)


def _lower_store(context: Any, builder: Any, signature: Any, args: Any) -> Any:
    element = _Element(context, builder, signature, args)
    builder.store_atomic(element.to_bits(args[2]), element.bits_pointer, "release", element.size)
    return context.get_dummy_value()


def _type_fence() -> Any:
    return types.none()


def _lower_fence(context: Any, builder: Any, signature: Any, args: Any) -> Any:
    builder.fence(_ORDER)
    return context.get_dummy_value()


_numba.provide(atomic_cas, _type_cas, _lower_cas)
_numba.provide(atomic_load, _type_load, _lower_load)
_numba.provide(atomic_store, _type_store, _lower_store)
_numba.provide(atomic_fence, _type_fence, _lower_fence)
