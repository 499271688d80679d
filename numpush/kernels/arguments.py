"""The arguments of a kernel: what a signature says of them, whether a value fits, and its words.

Nothing here needs numba: a worker packs arguments with it.

(1) A kernel reads its arguments from a block of 64-bit words. Per array: address, shape, strides; per
    number: its bytes; per mutex: its address in this process.
(2) What is packed was checked: a kernel believes its block.
"""

from __future__ import annotations

import ctypes
import operator
import re
import struct
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ..ffi import mutex as _mutex
from ..shared import Shared
from ..shm import Mutex

__all__ = ["MOST_ROWS", "Argument", "Block", "describe", "mutex_address", "parse_signature"]

ARRAY, NUMBER, MUTEX = "array", "number", "mutex"

#: No array has as many. That i0 and i1 are within 0 and this is what code is compiled for: LLVM then drops
#: numba's look whether an index counts from the end, and vectorises.
MOST_ROWS = (1 << 47) - 1

#: numba's names that NumPy does not know.
_ALIASES = {"boolean": "bool", "bool_": "bool", "double": "f8"}
#: One argument: "const" if the kernel never writes it, a dtype, and for an array its dimensions.
_ARGUMENT = re.compile(r"(const\s+)?(\w+(?:\[\w+\])?)\s*(?:\[([\s:,1]*)\])?")


class Argument(NamedTuple):
    """One argument of a kernel."""

    name: str
    kind: str  #: ARRAY, NUMBER or MUTEX
    dtype: np.dtype[Any]
    ndim: int = 0
    layout: str = "A"  #: of an array: "C", "F", or "A" for any strides
    readonly: bool = False  #: the kernel does not write it, so that it may be read-only
    aligned: bool = True

    def __str__(self) -> str:
        if self.kind != ARRAY:
            return "mutex" if self.kind == MUTEX else _dtype_text(self.dtype)
        steps = [":"] * self.ndim
        if self.layout != "A" and steps:
            steps[-1 if self.layout == "C" else 0] = "::1"
        text = f"{_dtype_text(self.dtype)}[{', '.join(steps)}]"
        return f"{'const ' if self.readonly else ''}{text}{'' if self.aligned else ' unaligned'}"

    @property
    def n_words(self) -> int:
        if self.kind == ARRAY:
            return 1 + 2 * self.ndim
        return -(-self.dtype.itemsize // 8)

    def cost(self, value: Any) -> int | None:
        """Return how well *value* fits: 0 as it is, more for what is converted, None: not at all."""
        if self.kind == ARRAY:
            return 0 if isinstance(value, np.ndarray) and self._misfit(value) is None else None
        if self.kind == MUTEX:
            return 0 if isinstance(value, (Mutex, Shared)) else None
        if isinstance(value, np.generic):
            if value.dtype == self.dtype:
                return 0
            if not np.can_cast(value.dtype, self.dtype, "safe"):
                return None
            return 1 + 2 * abs(_KINDS.find(self.dtype.kind) - _KINDS.find(value.dtype.kind))
        ranks = _CONVERSIONS.get(type(value))
        rank = ranks.find(self.dtype.kind) if ranks else -1
        if rank < 0:
            return None
        return 2 * rank + (self.dtype.itemsize != (16 if self.dtype.kind == "c" else 8))

    def specialise(self, value: Any) -> Argument:
        """Return what is compiled for *value*, which fits: with its strides, if it has any pattern."""
        if self.kind != ARRAY:
            return self
        flags = value.flags
        layout = self.layout
        if layout == "A":
            layout = "C" if flags.c_contiguous else "F" if flags.f_contiguous else "A"
        return self._replace(
            layout=layout,
            readonly=self.readonly or not flags.writeable,
            aligned=bool(flags.aligned),
        )

    def words(self, value: Any) -> tuple[Any, ...]:
        """Return what `struct` packs for *value*.

        Raises
        ------
        TypeError : it does not fit; the message names the argument.
        """
        if self.kind == ARRAY:
            misfit = (
                self._misfit(value) if isinstance(value, np.ndarray) else f"it is {describe(value)}"
            )
            if misfit:
                raise TypeError(f"argument {self.name!r} ({self}): {misfit}")
            return (_address(value), *value.shape, *value.strides)
        try:
            if self.kind == MUTEX:
                return (mutex_address(value),)
            return _number(self.dtype, value)
        except TypeError as error:
            raise TypeError(f"argument {self.name!r} ({self}): it is {describe(value)}") from error

    def _misfit(self, value: np.ndarray[Any, Any]) -> str | None:
        """Return in what an array does not fit, None if it does."""
        flags = value.flags
        if value.dtype != self.dtype:
            return f"its dtype is {_dtype_text(value.dtype)}"
        if value.ndim != self.ndim:
            return f"it has {value.ndim} dimensions"
        if self.layout == "C" and not flags.c_contiguous:
            return "it is not C-contiguous"
        if self.layout == "F" and not flags.f_contiguous:
            return "it is not F-contiguous"
        return None

    def accepts(self, other: Argument) -> bool:
        """Whether code that was compiled for this takes what *other* is compiled for, as fast."""
        return self == other or (self.readonly and self == other._replace(readonly=True))


_KINDS = "buifc"  #: of numbers, narrowest first
#: Python's numbers -> kinds of dtype that take them, best first.
_CONVERSIONS: dict[type, str] = {bool: "biufc", int: "iufc", float: "fc", complex: "c"}


def _number(dtype: np.dtype[Any], value: Any) -> tuple[Any, ...]:
    kind = dtype.kind
    if kind in "iu":
        return (operator.index(value),)
    if kind == "f":
        return (float(value),)
    if kind == "c":
        number = complex(value)
        return number.real, number.imag
    if kind == "b":
        if not isinstance(value, (bool, np.bool_)):
            raise TypeError
        return (bool(value),)
    moment = np.asarray(value, np.asarray(value).dtype)
    return (int(moment.astype(dtype, casting="safe").view("i8")),)


class _Interface(ctypes.Structure):
    """What `__array_struct__` points at: NumPy's array interface protocol, version 3."""

    _fields_ = (
        ("two", ctypes.c_int),
        ("nd", ctypes.c_int),
        ("typekind", ctypes.c_char),
        ("itemsize", ctypes.c_int),
        ("flags", ctypes.c_int),
        ("shape", ctypes.c_void_p),
        ("strides", ctypes.c_void_p),
        ("data", ctypes.c_void_p),
    )


_pointer_of = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(
    ("PyCapsule_GetPointer", ctypes.pythonapi)
)


def _address(array: np.ndarray[Any, Any]) -> int:
    """Return where *array* begins; in half the time that `__array_interface__` takes."""
    return _Interface.from_address(_pointer_of(array.__array_struct__, None)).data or 0


class Block:
    """Packs values for the arguments of a kernel."""

    def __init__(self, kernel: str, arguments: Sequence[Argument]) -> None:
        self._kernel = kernel
        self._arguments = tuple(arguments)
        self._struct = struct.Struct("=" + "".join(map(_format, arguments)))

    def pack(self, values: Sequence[Any]) -> bytes:
        """Return the words for *values*, which must outlive their use.

        Raises
        ------
        TypeError, OverflowError : a value does not fit; the message names the argument.
        """
        if len(values) != len(self._arguments):
            raise TypeError(
                f"kernel {self._kernel!r} takes {len(self._arguments)} arguments after i0 and i1, "
                f"{len(values)} given"
            )
        words: list[Any] = []
        for argument, value in zip(self._arguments, values):
            words.extend(argument.words(value))
        try:
            return self._struct.pack(*words)
        except (struct.error, OverflowError):
            raise self._overflow(values) from None

    def _overflow(self, values: Sequence[Any]) -> OverflowError:
        for argument, value in zip(self._arguments, values):
            try:
                struct.pack("=" + _format(argument), *argument.words(value))
            except (struct.error, OverflowError):
                return OverflowError(
                    f"argument {argument.name!r} ({argument}): {value!r} is out of range"
                )
        raise AssertionError("every argument packs alone, and all together do not")


def _format(argument: Argument) -> str:
    """Return the format of *argument* for `struct`: whole words."""
    if argument.kind == ARRAY:
        return f"{argument.n_words}q"
    dtype = argument.dtype
    code = {"c": {8: "ff", 16: "dd"}.get(dtype.itemsize, ""), "M": "q", "m": "q"}.get(
        dtype.kind, dtype.char
    )
    if dtype.kind in "iu":  # NumPy's "l" is C's, struct's has 4 bytes here
        code = {1: "b", 2: "h", 4: "i", 8: "q"}[dtype.itemsize]
        code = code.upper() if dtype.kind == "u" else code
    return f"{code}{argument.n_words * 8 - dtype.itemsize}x"


def mutex_address(value: Any) -> int:
    """Return the address, in this process, of the mutex of a shared object, or of a ``lock``.

    It holds as long as the object does. For `mutex_lock` in functions that numba compiles; a
    kernel takes the object itself where its signature says ``mutex``.

    >>> import numpy as np, numpush
    >>> a = numpush.SArray(np.zeros(3))
    >>> numpush.kernels.mutex_address(a) == numpush.kernels.mutex_address(a[1:].lock)
    True
    """
    if isinstance(value, Shared):
        value = value.lock
    if not isinstance(value, Mutex):
        raise TypeError(f"a shared object or its lock is wanted, not {describe(value)}")
    return _mutex.address(value._ref)


def describe(value: Any) -> str:
    """Return what *value* is, in the terms of a signature."""
    if isinstance(value, np.ndarray):
        steps = [":"] * value.ndim
        if steps and value.flags.c_contiguous:
            steps[-1] = "::1"
        elif steps and value.flags.f_contiguous:
            steps[0] = "::1"
        readonly = "" if value.flags.writeable else "read-only "
        return f"{readonly}{_dtype_text(value.dtype)}[{', '.join(steps)}]"
    if isinstance(value, np.generic):
        return _dtype_text(value.dtype)
    hint = " (SDataFrame.column(label) is an array)" if hasattr(value, "to_numpy") else ""
    return f"a {type(value).__name__}{hint}"


def _dtype_text(dtype: np.dtype[Any]) -> str:
    return dtype.name if dtype.names is None else str(dtype)


# -- signatures


def parse_signature(
    signature: Any, names: Sequence[str], types: Mapping[str, Any]
) -> tuple[Argument, ...]:
    """Read a signature for arguments of these *names*.

    Raises
    ------
    TypeError : it is none, or for another number of arguments.
    """
    parts = _split(signature) if isinstance(signature, str) else list(signature)
    if len(parts) != len(names):
        raise TypeError(
            f"signature {signature!r} has {len(parts)} arguments, the kernel {len(names)} after "
            f"its first two{': ' if names else ''}{', '.join(names)}"
        )
    return tuple(_argument(name, part, types) for name, part in zip(names, parts))


def _split(text: str) -> list[str]:
    """Split at commas that no bracket holds; "void(...)" and "(...)" stand for what is in them."""
    text = re.sub(r"^\s*(?:void|none)?\s*\((.*)\)\s*$", r"\1", text, flags=re.DOTALL)
    parts = re.split(r",(?![^\[]*\])", text)
    if parts and not parts[-1].strip():
        parts.pop()
    return [part.strip() for part in parts]


def _argument(name: str, part: Any, types: Mapping[str, Any]) -> Argument:
    if not isinstance(part, str):
        return _from_object(name, part)
    if part == MUTEX:
        return Argument(name, MUTEX, np.dtype(np.uintp))
    match = _ARGUMENT.fullmatch(part)
    if not match:
        raise TypeError(
            f"argument {name!r}: {part!r} is no type; wanted such as 'f8', 'f8[:]', 'const f8[:, ::1]'"
        )
    const, dtype_name, dimensions = match.groups()
    if dtype_name.endswith("[]") or (dimensions is not None and not dimensions.strip()):
        raise TypeError(f"argument {name!r}: {part!r} has no dimensions; wanted such as 'f8[:]'")
    dtype = _dtype(name, types.get(dtype_name, dtype_name))
    if dimensions is None:
        if const:
            raise TypeError(
                f"argument {name!r}: {part!r}: a number is never written; leave out const"
            )
        return _checked(Argument(name, NUMBER, dtype))
    steps = [step.replace(" ", "") for step in dimensions.split(",")]
    layout = "A"
    if "::1" in steps:
        layout = "C" if steps[-1] == "::1" else "F"
        steps[-1 if layout == "C" else 0] = ":"
    if set(steps) != {":"}:
        raise TypeError(
            f"argument {name!r}: {part!r}: a dimension is ':', the last or the first may be '::1'"
        )
    return _checked(Argument(name, ARRAY, dtype, len(steps), layout, bool(const)))


def _from_object(name: str, part: Any) -> Argument:
    """Read a NumPy dtype or one of numba's types."""
    if type(part).__module__.startswith("numba."):
        from . import _numba

        return _checked(_numba.argument_of(name, part))
    return _checked(Argument(name, NUMBER, _dtype(name, part)))


def _dtype(name: str, spelling: Any) -> np.dtype[Any]:
    try:
        return np.dtype(_ALIASES.get(spelling, spelling) if isinstance(spelling, str) else spelling)
    except TypeError as error:
        raise TypeError(
            f"argument {name!r}: {spelling!r} is no dtype; types={{{spelling!r}: ...}} gives a name to one"
        ) from error


def _checked(argument: Argument) -> Argument:
    dtype = argument.dtype
    if dtype.hasobject or not dtype.isnative or dtype == np.longdouble or dtype == np.clongdouble:
        raise TypeError(
            f"argument {argument.name!r}: dtype {dtype} cannot be used in a kernel; "
            "wanted a dtype in native byte order, without Python objects"
        )
    if argument.kind == NUMBER and dtype.kind not in "biufcmM":
        raise TypeError(
            f"argument {argument.name!r}: dtype {dtype} is no number; pass an array of it"
        )
    return argument
