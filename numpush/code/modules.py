"""LLVM bitcode -> a Python module, as bitey made them: functions that look at their arguments, structs,
variables.

(1) A function is called only with what its C declaration takes, and is declared only as its code is.
(2) Whoever has a function, a view of a variable or a ufunc of a module keeps its code in memory.
"""

from __future__ import annotations

import functools
import types
from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import llvm
from . import c_types
from .declarations import declare
from .errors import CodeError
from .ir import Code, Function, read, translated
from .loops import is_scalar
from .signatures import Loop
from .ufuncs import assemble

__all__ = ["CFunction", "Module", "ModuleCode", "code_of_module", "compile_module", "module"]


@dataclass(frozen=True, slots=True)
class ModuleCode:
    """What a module consists of."""

    name: str
    code: Code
    object_code: bytes
    target: llvm.Target  #: that the object code was made for
    cdef: str
    missing: dict[str, str]  #: what is in the code and not in the module -> why

    def load(self) -> Module:
        """Link the object code and make a module of it."""
        made = Module(self.name)
        made.__fill__(self)
        return made


def module(bitcode: str | bytes, cdef: str | None = None, name: str = "bitcode") -> Module:
    """Make a Python module of LLVM bitcode or IR.

    Its functions can be called with numbers and arrays; C structs are there as dtypes under their
    names, global variables as attributes, and ``.ufuncs`` has a ufunc of each function of numbers,
    compiled when it is asked for.

    Parameters
    ----------
    bitcode : bytes or str
        What ``clang -emit-llvm -c`` writes, whole (LLVM ends the process on some that is not); or IR text.
    cdef : str, optional
        C declarations, as cffi takes them, of what is to be in the module. Without it they come from
        the debug information of ``clang -g``; where there is none, from what LLVM knows: pointers are
        ``void *``, and functions of structs are left out.

    Raises
    ------
    CodeError : it cannot be read, calls what it may not, or is not what *cdef* says.

    Examples
    --------
    >>> from numpush import code
    >>> m = code.module('''
    ... define i64 @square(i64 %x) {
    ...     %y = mul i64 %x, %x
    ...     ret i64 %y
    ... }''')
    >>> m.square(12)
    144
    >>> m.square
    <int64_t square(int64_t)>
    >>> m.ufuncs.square([1, 2, 3])
    array([1, 4, 9])
    """
    return compile_module(bitcode, cdef, name).load()


def compile_module(bitcode: str | bytes, cdef: str | None, name: str) -> ModuleCode:
    """Return what `module` makes its module of."""
    code = read(bitcode)
    if cdef is None:
        cdef, missing = _declarations(code)
    else:
        missing = dict.fromkeys((*code.functions, *code.variables), "it is not in the cdef")
    ffi = c_types.parse(cdef)
    functions, variables = c_types.declared(ffi)
    if absent := (set(functions) | set(variables)) - {*code.functions, *code.variables}:
        raise CodeError(f"declared, but not in this code: {', '.join(sorted(absent))}")
    for function, prototype in functions.items():
        c_types.check_type(ffi, function, prototype.type, code.functions[function])
    missing = {k: why for k, why in missing.items() if k not in functions and k not in variables}
    with translated():
        object_code = llvm.build(code.bitcode, inline=True)
    return ModuleCode(name, code, object_code, llvm.host(), cdef, missing)


def _declarations(code: Code) -> tuple[str, dict[str, str]]:
    """Return declarations of what is in *code*, and of what there are none.

    Structs that cffi lays out otherwise than the compiler did (packed ones) are left without members.
    """
    opaque: set[str] = set()
    while True:
        cdef, missing, sizes = declare(code, opaque)
        ffi = c_types.parse(cdef)
        wrong = {name for name, size in sizes.items() if ffi.sizeof(name) != size}
        if not wrong:
            return cdef, missing
        opaque |= wrong


class CFunction:
    """A function of a module; its docstring is its declaration."""

    def __init__(self, ffi: Any, name: str, prototype: c_types.Prototype, linked: Any) -> None:
        ctype = prototype.type
        self.__name__ = name
        self.__doc__ = prototype.text
        self.__pointer__ = ffi.cast(ctype, linked.address(name))
        self._linked = linked
        converters = [
            c_types.converter(ffi, kind, is_const, f"{name}(), argument {i + 1}")
            for i, (kind, is_const) in enumerate(zip(ctype.args, prototype.points_to_const))
        ]
        self._arguments = [(i, convert) for i, convert in enumerate(converters) if convert]
        self._result = c_types.result_converter(ffi, ctype.result)

    def __call__(self, *args: Any) -> Any:
        converted = list(args)
        for i, convert in self._arguments:
            if i < len(args):
                converted[i] = convert(args[i])
        try:
            result = self.__pointer__(*converted)
        except (TypeError, OverflowError) as error:  # cffi's, which do not name it
            error.add_note(f"calling {self.__doc__}")
            raise
        return self._result(result) if self._result else result

    def __repr__(self) -> str:
        return f"<{self.__doc__}>"


class Module(types.ModuleType):
    """A module of LLVM code. `__cdef__` has its declarations, `__ffi__` is cffi's object with them."""

    def __fill__(self, code: ModuleCode) -> None:
        """Take all that is in *code*."""
        ffi = c_types.parse(code.cdef)
        functions, variables = c_types.declared(ffi)
        with translated():
            linked = llvm.link(code.object_code, [*functions, *variables])
        vars(self).update(
            __numpush_code__=code,
            __cdef__=code.cdef,
            __ffi__=ffi,
            __doc__=f"LLVM code:\n\n{code.cdef}",
            __all__=[*functions, *variables],
            ufuncs=_Ufuncs(code, ffi),
            __variables__={
                name: _Variable(ffi, name, ctype, linked, code.code.variables[name])
                for name, ctype in variables.items()
            },
        )
        vars(self).update(_dtypes(ffi))
        for name, prototype in functions.items():
            vars(self)[name] = CFunction(ffi, name, prototype, linked)

    def __getattr__(self, name: str) -> Any:
        inside = vars(self)
        if variable := inside.get("__variables__", {}).get(name):
            return variable.get()
        code = inside.get("__numpush_code__")
        if code and (why := code.missing.get(name)):
            raise AttributeError(
                f"{name} of {self.__name__} has no declaration: {why}. Give one by cdef="
            )
        raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")

    def __setattr__(self, name: str, value: Any) -> None:
        if variable := vars(self).get("__variables__", {}).get(name):
            variable.set(value)
        else:
            super().__setattr__(name, value)

    def __dir__(self) -> list[str]:
        return sorted({*vars(self), *vars(self).get("__variables__", {})})


def code_of_module(module: Module) -> ModuleCode:
    """Return what *module* was made of."""
    code = vars(module).get("__numpush_code__")
    if not isinstance(code, ModuleCode):
        raise CodeError(f"{module!r} has no code")
    return code


class _Variable:
    """A global variable of a module: numbers are read and written, what is larger is a view of it."""

    def __init__(self, ffi: Any, name: str, ctype: Any, linked: Any, is_constant: bool) -> None:
        self._name = name
        pointer = ffi.cast(ffi.getctype(ctype, "*"), linked.address(name))
        # The pointer, and so a view of what it points to, keeps its destructor, and that the code.
        self._pointer = ffi.gc(pointer, functools.partial(_let_go, linked))
        self._is_constant = is_constant
        self._view: np.ndarray | None = None
        if ctype.kind in ("array", "struct", "union"):
            dtype = c_types.dtype_of(ffi, ctype)
            base, shape = dtype.base, dtype.shape
            self._view = np.frombuffer(ffi.buffer(self._pointer), base).reshape(shape)
            self._view.flags.writeable = not self._is_constant

    def get(self) -> Any:
        return self._pointer[0] if self._view is None else self._view

    def set(self, value: Any) -> None:
        if self._is_constant:
            raise AttributeError(f"{self._name} is const")
        if self._view is None:
            self._pointer[0] = value
        else:
            self._view[...] = value


def _let_go(linked: llvm.Linked, pointer: Any) -> None:
    """Do nothing: the last reference to *linked* goes with the call."""


class _Ufuncs:
    """The ufuncs of a module's functions, each made when it is first asked for."""

    def __init__(self, code: ModuleCode, ffi: Any) -> None:
        self._code, self._ffi = code, ffi

    def __getattr__(self, name: str) -> np.ufunc:
        found: Function | None = self._code.code.functions.get(name)
        if name.startswith("_") or found is None:
            raise AttributeError(f"{self._code.name} has no function {name!r}")
        if not is_scalar(found):
            raise AttributeError(f"{name} is {found.type}: a ufunc has numbers in and one out")
        loop = self._loop(name)
        made = assemble(self._code.code, name, [(name, loop)]).load()
        setattr(self, name, made)
        return made

    def _loop(self, name: str) -> Loop:
        functions = c_types.declared(self._ffi).functions
        if name not in functions:
            raise AttributeError(f"{name} has no declaration: {self._code.missing.get(name)}")
        ctype = functions[name].type
        dtypes = [c_types.dtype_of(self._ffi, kind) for kind in (*ctype.args, ctype.result)]
        *args, result = [np.dtype("i1") if dtype == "S1" else dtype for dtype in dtypes]
        return Loop(tuple(args), result)

    def __dir__(self) -> list[str]:
        return sorted(name for name, f in self._code.code.functions.items() if is_scalar(f))


def _dtypes(ffi: Any) -> dict[str, np.dtype]:
    """Return the dtypes of structs, by their names in C."""
    typedefs, structs, _ = ffi.list_types()
    found = {}
    for name, text in [*((s, f"struct {s}") for s in structs), *((t, t) for t in typedefs)]:
        ctype = ffi.typeof(text)
        if ctype.kind == "struct" and ctype.fields:
            try:
                found[name] = c_types.dtype_of(ffi, ctype)
            except CodeError:
                continue
    return found
