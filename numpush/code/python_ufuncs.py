"""Python functions -> the code of a ufunc, by numba. What is made here runs where there is no numba.

numba's functions are ``int32 name(result *, exception **, args...)`` and give a status (loops.py, rule
(2)).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any

from .. import llvm
from ..llvm.guard import guarded
from .errors import CodeError
from .ir import Function, translated
from .loops import add_loop
from .signatures import Loop, llvm_of_dtype, parse_signature
from .ufuncs import UfuncCode, finish, symbol

__all__ = ["compile_function"]

#: Loading one of the Python objects of a function.
_OBJECTS = re.compile(r"= load [^@\n]*@\"?_ZN08NumbaEnv")


def compile_function(
    function: Callable[..., Any], name: str | None, sigs: str | Iterable[str] | None
) -> UfuncCode:
    """Compile a Python function, or one of `numba.njit`, for each of *sigs*.

    Raises
    ------
    CodeError : numba cannot compile it, its result is no number, or it uses what is in this process only.
    """
    function = getattr(function, "py_func", function)
    if sigs is None:
        raise CodeError(f"sigs: what numba compiles {function!r} for, as 'f8(f8, f8)'")
    loops = [parse_signature(sig) for sig in ([sigs] if isinstance(sigs, str) else sigs)]
    if not loops or len({len(loop.args) for loop in loops}) != 1:
        raise CodeError("sigs: one signature or several with as many arguments wanted")
    name = name or function.__name__
    compiled = [_compile(function, loop) for loop in loops]
    with translated():
        return _assemble(compiled, name, function.__doc__ or "")


@guarded
def _assemble(compiled: list[tuple[str, str, Loop]], name: str, doc: str) -> UfuncCode:
    whole = None
    for i, (text, native, loop) in enumerate(compiled):
        module = llvm.parse(text)
        types = [str(t) for t in _parameters(module, native)]
        assert loop.result is not None
        add_loop(
            module,
            native,
            Function(tuple(types[2:]), "i32", False, ("",) * (len(types) - 2)),
            symbol(i),
            result=loop.result,
        )
        for each in module.functions:  # loops of one function have helpers of the same names
            if not each.is_declaration and each.name != symbol(i):
                each.linkage = "internal"
        if whole is None:
            whole = module
        else:
            whole.link_in(module)
    return finish(whole, name, doc, [loop for _, _, loop in compiled], may_raise=True)


def _parameters(module: Any, name: str) -> Any:
    return module.get_function(name).global_value_type.get_function_parameters()


def _compile(function: Callable[..., Any], loop: Loop) -> tuple[str, str, Loop]:
    """Return the IR of *function* for the dtypes of *loop*, its name there, and the loop's result."""
    from ..kernels import _numba  # names the remedy where there is no numba

    name = function.__name__
    if _numba.is_disabled():
        raise CodeError(f"{name} is not compiled: NUMBA_DISABLE_JIT is set")
    try:
        found = _numba.compile_element(function, loop.args, loop.result)
    except _numba.CompileError as error:
        raise CodeError(f"{name}: numba cannot compile it: {error}") from error
    if found.has_dynamic_globals or _OBJECTS.search(found.ir):
        raise CodeError(
            f"{name} uses objects of this process: a pointer, a large array, print, or "
            "an exception whose arguments are known only when it is raised"
        )
    if found.result is None:
        raise CodeError(f"{name} returns {found.returns}, no number")
    llvm_of_dtype(found.result)
    return found.ir, found.name, Loop(loop.args, found.result)
