"""NumPy ufuncs out of LLVM code.

(1) A ufunc is made of `UfuncCode`, and remembers it: that is what is sent of it.
(2) It owns what NumPy only points to (functions, types, name) and the object code that was linked for it.
(3) Its bitcode is as it was before optimisation for this CPU, with the loops in it: any CPU of this
    architecture makes its own of that.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import llvm
from ..kernels.failures import decode
from ..llvm.guard import guarded
from .errors import CodeError
from .ir import Code, Function, read, translated
from .loops import C_API, add_loop, is_scalar
from .signatures import Loop, dtype_of_llvm, llvm_of_dtype, parse_signature

__all__ = ["UfuncCode", "code_of", "ufunc"]

_FROM_FUNC_AND_DATA = 1  #: place of PyUFunc_FromFuncAndData in NumPy's table of its C functions
_NO_IDENTITY = -1  #: PyUFunc_None

#: id -> (ufunc, code, what it points to), where ufuncs have no __dict__ (NumPy before 2.2).
_kept: dict[int, tuple[Any, UfuncCode, Any]] = {}


@dataclass(frozen=True, slots=True)
class UfuncCode:
    """What a ufunc consists of."""

    name: str
    doc: str
    loops: tuple[tuple[str, ...], ...]  #: the dtypes of each, the result's last
    bitcode: bytes
    object_code: bytes
    target: llvm.Target  #: that the object code was made for
    may_raise: bool  #: rule (2) of loops.py

    def load(self) -> np.ufunc:
        """Link the object code and make a ufunc of it: less than a millisecond."""
        symbols, data = {}, None
        if self.may_raise:
            data = ctypes.cast(_report, ctypes.c_void_p).value
            symbols = _python_symbols()
        names = [symbol(i) for i in range(len(self.loops))]
        with translated():
            linked = llvm.link(self.object_code, names, symbols)
        addresses = [linked.address(name) for name in names]
        return _make(self, addresses, data, linked)


def symbol(i: int) -> str:
    """Return the name of the i-th loop in the code."""
    return f"np_loop{i}"


def ufunc(
    source: Any,
    name: str | None = None,
    sigs: str | Iterable[str] | Mapping[str, str | None] | None = None,
) -> np.ufunc:
    """Make a NumPy ufunc of LLVM code or of a Python function.

    It broadcasts, reduces, accumulates and takes *out*, *where* and *axis* as NumPy's own do, and is as
    fast as one of ``numba.vectorize``.

    Parameters
    ----------
    source : str, bytes or function
        IR text; bitcode that is known to be whole (LLVM ends the process on some that is not); or a
        Python function that numba compiles.
    name : str, optional
        The function in the LLVM code; may be left out where there is only one. With several
        functions, and with a Python function, what the ufunc is called.
    sigs : optional
        For a Python function: one signature or several, ``"f8(f8, f8)"``. For LLVM code: the signature
        where its types leave something open (``"u4(u4, u4)"``: LLVM has no signs; debug information
        has), or several functions with the signature of each, or None: ``{"add_int": None,
        "add_double": None}``.

    Raises
    ------
    CodeError : the source cannot be read, is no function of numbers, or calls what it may not.

    Examples
    --------
    >>> from numpush import code
    >>> multiply_add = code.ufunc('''
    ... define i32 @multiply_add(i32, i32, i32) {
    ...     %3 = mul i32 %0, %1
    ...     %4 = add i32 %3, %2
    ...     ret i32 %4
    ... }''')
    >>> multiply_add(np.arange(4, dtype="i4"), np.int32(10), np.int32(1))
    array([ 1, 11, 21, 31], dtype=int32)
    """
    return compile_ufunc(source, name, sigs).load()


def compile_ufunc(source: Any, name: str | None, sigs: Any) -> UfuncCode:
    """Return what `ufunc` makes its ufunc of."""
    if callable(source):
        from .python_ufuncs import compile_function

        return compile_function(source, name, sigs)
    code = read(source)
    if isinstance(sigs, Mapping):
        wanted = [(function, sigs[function]) for function in sigs]
        if name is None:
            raise CodeError("name: what a ufunc of several functions is called")
    else:
        wanted = [(code.function(name)[0], sigs)]
        name = wanted[0][0]
    if not wanted:
        raise CodeError("sigs: at least one function wanted")
    return assemble(code, name, [(f, loop_of(code, f, sig)) for f, sig in wanted])


@guarded
def assemble(code: Code, name: str, loops: list[tuple[str, Loop]]) -> UfuncCode:
    """Put loops around functions of *code*."""
    if len({len(loop.args) for _, loop in loops}) != 1:
        raise CodeError(f"{name}: all loops of a ufunc have as many arguments")
    with translated():
        module = llvm.parse(code.bitcode)
        for i, (function, _) in enumerate(loops):
            add_loop(module, function, code.functions[function], symbol(i))
        return finish(module, name, "From LLVM code.", [loop for _, loop in loops])


def finish(
    module: Any, name: str, doc: str, loops: list[Loop], *, may_raise: bool = False
) -> UfuncCode:
    """Make code of a module that has its loops."""
    names = {symbol(i) for i in range(len(loops))}
    for function in module.functions:
        if not function.is_declaration and function.name not in names:
            function.linkage = "internal"
    bitcode = module.as_bitcode()
    signature = "\n".join(
        f"{name}({', '.join(map(str, each.args))}) -> {each.result}" for each in loops
    )
    return UfuncCode(
        name,
        f"{signature}\n\n{doc}",
        tuple(tuple(dtype.str for dtype in loop.dtypes) for loop in loops),
        bitcode,
        llvm.build(bitcode, inline=True),
        llvm.host(),
        may_raise,
    )


def loop_of(code: Code, name: str, signature: str | None) -> Loop:
    """Return the dtypes of a loop around the function *name*.

    Raises
    ------
    CodeError : it is no function of numbers, or *signature* does not fit.
    """
    name, function = code.function(name)
    if not is_scalar(function):
        raise CodeError(f"{name} is {function.type}: no ufunc, which has numbers in and one out")
    result = dtype_of_llvm(function.result)
    if signature is None:
        from .declarations import loop_of_c

        declared = loop_of_c(code, name)
        if declared and _fits(declared, function):
            return declared
        return Loop(tuple(dtype_of_llvm(kind) for kind in function.args), result)
    loop = parse_signature(signature)
    loop = Loop(loop.args, loop.result or result)
    if not _fits(loop, function):
        raise CodeError(f"{name} is {function.type}, its signature {signature!r} does not fit")
    return loop


def _fits(loop: Loop, function: Function) -> bool:
    types = [*function.args, function.result]
    return [llvm_of_dtype(dtype) for dtype in loop.dtypes] == types


def code_of(ufunc: np.ufunc) -> UfuncCode:
    """Return what *ufunc* was made of.

    Raises
    ------
    CodeError : it was not made here.
    """
    kept = getattr(ufunc, "__numpush_code__", None) or _kept.get(id(ufunc), (None,))[1:]
    if not kept:
        raise CodeError(
            f"{ufunc!r} was not made by numpush.code.ufunc: its code is not known. "
            "NumPy's own are where NumPy is; make one of numba's by code.ufunc(function, sigs=...)"
        )
    return kept[0]


# -- NumPy's side


def _make(code: UfuncCode, addresses: list[int], data: int | None, linked: Any) -> np.ufunc:
    n, width = len(addresses), len(code.loops[0])
    functions = (ctypes.c_void_p * n)(*addresses)
    datas = (ctypes.c_void_p * n)(*[data] * n)
    types = bytes(np.dtype(dtype).num for loop in code.loops for dtype in loop)
    name, doc = ctypes.c_char_p(code.name.encode()), ctypes.c_char_p(code.doc.encode())
    made: np.ufunc = _from_func_and_data()(
        ctypes.addressof(functions), ctypes.addressof(datas), types,
        n, width - 1, 1, _NO_IDENTITY, name, doc, 0,
    )  # fmt: skip
    pointed_to = (functions, datas, types, name, doc, linked)
    try:
        made.__numpush_code__ = (code, pointed_to)  # type: ignore[attr-defined]  # from NumPy 2.2 on
    except AttributeError:
        _kept[id(made)] = (made, code, pointed_to)
    return made


@functools.cache
def _from_func_and_data() -> Any:
    import numpy._core._multiarray_umath as c_part  # type: ignore[import-not-found]  # private

    get = ctypes.pythonapi.PyCapsule_GetPointer
    get.restype, get.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    table = (ctypes.c_void_p * 2).from_address(get(c_part._UFUNC_API, None))
    kind = ctypes.PYFUNCTYPE(
        ctypes.py_object, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_char_p,
        ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_int,
        ctypes.c_char_p, ctypes.c_char_p, ctypes.c_int,
    )  # fmt: skip
    return kind(table[_FROM_FUNC_AND_DATA] or 0)


def _report_failure(status: int, record: int | None) -> BaseException:
    """Return the exception of a loop that failed; rule (2) of loops.py. Nothing may be raised in here."""
    try:
        return decode("a ufunc", status, record or 0, lambda record: None)
    except Exception as error:
        return RuntimeError(f"a ufunc failed with status {status} ({error!r})")


_report = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_int32, ctypes.c_void_p)(_report_failure)


@functools.cache
def _python_symbols() -> dict[str, int]:
    return {
        name: ctypes.cast(getattr(ctypes.pythonapi, name), ctypes.c_void_p).value or 0
        for name in C_API
    }
