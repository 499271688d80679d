"""C types as cffi has them <-> NumPy dtypes, and what of NumPy goes to a C function as which argument.

    numbers      as cffi takes them: an int that fits, no float for an int
    pointers     a C-contiguous array of that dtype, writable unless the C type says const; of a struct
                 a scalar of that dtype, too; None is NULL; the rest as cffi takes it (bytes for `const
                 char *`)
    structs      scalars of their dtype; they come back as those

cffi's private names are in `declared` and `_type`: it does not say what it has read.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import cffi
import numpy as np
from cffi import model

from .errors import CodeError
from .ir import Function as LLVMFunction

__all__ = [
    "Declared",
    "Prototype",
    "check_type",
    "converter",
    "declared",
    "dtype_of",
    "parse",
    "result_converter",
]

_FLOATS = {"float": "f4", "double": "f8", "float _Complex": "c8", "double _Complex": "c16"}
_CHARS = tuple(map(np.dtype, ("S1", "i1", "u1")))


class Prototype(NamedTuple):
    """A function's declaration."""

    type: Any  #: of a pointer to it
    points_to_const: list[bool]  #: which arguments do: cffi's types do not say
    text: str


class Declared(NamedTuple):
    """What a cdef declares."""

    functions: dict[str, Prototype]
    variables: dict[str, Any]


def parse(cdef: str) -> cffi.FFI:
    """Read C declarations.

    Raises
    ------
    CodeError : cffi cannot.
    """
    ffi = cffi.FFI()
    try:
        ffi.cdef(cdef)
    except Exception as error:  # cffi's own, pycparser's, or what they stumble over
        raise CodeError(f"cffi cannot read these declarations: {error}") from error
    return ffi


def declared(ffi: cffi.FFI) -> Declared:
    """Return the functions and variables that *ffi* has declarations of."""
    functions, variables = {}, {}
    for key, (kind, _) in ffi._parser._declarations.items():
        what, _, name = key.partition(" ")
        if what == "function":
            args = ", ".join(arg.get_c_name() for arg in kind.args) + ", ..." * kind.ellipsis
            functions[name] = Prototype(
                _type(ffi, kind, name),
                [bool(getattr(arg, "quals", 0) & model.Q_CONST) for arg in kind.args],
                f"{kind.result.get_c_name()} {name}({args or 'void'})",
            )
        elif what in ("variable", "constant"):
            variables[name] = _type(ffi, kind, name)
    return Declared(functions, variables)


def _type(ffi: cffi.FFI, kind: Any, name: str) -> Any:
    try:
        with ffi._lock:
            return ffi._get_cached_btype(kind)
    except Exception as error:
        raise CodeError(f"cffi has no type for {name}: {error}") from error


def dtype_of(ffi: cffi.FFI, ctype: Any) -> np.dtype:
    """Return the dtype with the same values in the same bytes.

    Raises
    ------
    CodeError : there is none.
    """
    match ctype.kind:
        case "primitive" if ctype.cname in _FLOATS:
            return np.dtype(_FLOATS[ctype.cname])
        case "primitive" if ctype.cname == "char":
            return np.dtype("S1")
        case "primitive" if ctype.cname == "_Bool":
            return np.dtype("?")
        case "primitive" | "enum" if ffi.sizeof(ctype) <= 8 and "long double" not in ctype.cname:
            is_signed = int(ffi.cast(ctype, -1)) < 0
            return np.dtype(f"{'i' if is_signed else 'u'}{ffi.sizeof(ctype)}")
        case "pointer" | "function":
            return np.dtype(np.uintp)
        case "array" if ctype.length is not None:
            inner = dtype_of(ffi, ctype.item)
            return np.dtype((inner.base, (ctype.length, *inner.shape)))
        case "struct" if ctype.fields:
            return _struct_dtype(ffi, ctype)
        case "union" if ctype.fields:
            return np.dtype((np.void, ffi.sizeof(ctype)))
    raise CodeError(f"NumPy has no dtype for {ctype.cname}")


def _struct_dtype(ffi: cffi.FFI, ctype: Any) -> np.dtype:
    names, formats, offsets = [], [], []
    for name, field in ctype.fields:
        if field.bitsize >= 0:
            raise CodeError(f"NumPy has no dtype for {ctype.cname}: {name} is a bit field")
        names.append(name)
        formats.append(dtype_of(ffi, field.type))
        offsets.append(field.offset)
    return np.dtype(
        {"names": names, "formats": formats, "offsets": offsets, "itemsize": ffi.sizeof(ctype)}
    )


# -- arguments and results


def converter(
    ffi: cffi.FFI, ctype: Any, points_to_const: bool, where: str
) -> Callable[[Any], Any] | None:
    """Return what makes an argument for *ctype* of an object; None: cffi takes it as it is."""
    if ctype.kind == "pointer":
        return _pointer_converter(ffi, ctype, points_to_const, where)
    if ctype.kind == "struct":
        return _struct_converter(ffi, ctype, where)
    if ctype.kind == "function":
        return lambda value: getattr(value, "__pointer__", value)
    return None


def _pointer_converter(
    ffi: cffi.FFI, ctype: Any, points_to_const: bool, where: str
) -> Callable[[Any], Any]:
    item, shape = ctype.item, []
    while item.kind == "array":
        shape.append(item.length)
        item = item.item
    wanted = () if item.kind == "void" else _CHARS if item.cname == "char" else None
    if wanted is None:
        try:
            wanted = (dtype_of(ffi, item),)
        except CodeError as error:
            reason = str(error)

            def refuse(value: Any) -> Any:
                if isinstance(value, np.ndarray | np.void):
                    raise TypeError(f"{where}: {reason}")
                return ffi.NULL if value is None else value

            return refuse
    n_inner = len(shape)

    def convert(value: Any) -> Any:
        if not isinstance(value, np.ndarray | np.void):
            return ffi.NULL if value is None else value
        if wanted and value.dtype not in wanted:
            raise TypeError(f"{where}: an array of {wanted[0]} wanted, of {value.dtype} found")
        if not value.flags.c_contiguous:
            raise TypeError(f"{where}: the array is not C-contiguous")
        if not points_to_const and not value.flags.writeable:
            raise TypeError(f"{where}: the array is read-only, and {ctype.cname} may be written to")
        if n_inner and list(value.shape[-n_inner:]) != shape:
            raise TypeError(f"{where}: a shape of (..., {shape}) wanted, {value.shape} found")
        return ffi.cast(ctype, value.__array_interface__["data"][0])

    return convert


def _struct_converter(ffi: cffi.FFI, ctype: Any, where: str) -> Callable[[Any], Any] | None:
    try:
        wanted = dtype_of(ffi, ctype)
    except CodeError:
        return None
    pointer = ffi.typeof(f"{ctype.cname} *")

    def convert(value: Any) -> Any:
        if not isinstance(value, np.ndarray | np.void):
            return value
        if value.dtype != wanted or value.shape:
            raise TypeError(f"{where}: one value of {wanted} wanted, {value.dtype} found")
        copy = ffi.new(pointer)
        ffi.buffer(copy)[:] = value.tobytes()
        return copy[0]

    return convert


def result_converter(ffi: cffi.FFI, ctype: Any) -> Callable[[Any], Any] | None:
    """Return what makes a NumPy scalar of a struct; None: what cffi gives is right."""
    if ctype.kind != "struct":
        return None
    try:
        dtype = dtype_of(ffi, ctype)
    except CodeError:
        return None
    return lambda value: np.frombuffer(bytes(ffi.buffer(ffi.addressof(value))), dtype)[0]


def check_type(ffi: cffi.FFI, name: str, ctype: Any, found: LLVMFunction) -> None:
    """Refuse a declaration that the code of *name* does not have: calling it would crash.

    How structs go by value is between a C compiler and its ABI; such functions are believed.

    Raises
    ------
    CodeError : it has other types, or more or less of them.
    """
    types = [*ctype.args, ctype.result]
    if any(t.kind in ("struct", "union") for t in types):
        return
    wanted = [_kinds(ffi, t) for t in types]
    llvm_types = [*found.args, found.result]
    if (
        len(wanted) != len(llvm_types)
        or ctype.ellipsis != found.is_vararg
        or any(_normal(t) not in kinds for t, kinds in zip(llvm_types, wanted))
    ):
        raise CodeError(f"{name} is declared as {ctype.cname}, its code is {found.type}")


def _normal(llvm_type: str) -> str:
    return "ptr" if llvm_type.endswith("*") else llvm_type


def _kinds(ffi: cffi.FFI, ctype: Any) -> set[str]:
    match ctype.kind:
        case "pointer" | "function" | "array":
            return {"ptr"}
        case "void":
            return {"void"}
    if ctype.cname in ("float", "double"):
        return {ctype.cname}
    return {"i1", "i8"} if ctype.cname == "_Bool" else {f"i{8 * ffi.sizeof(ctype)}"}
