"""A Python function -> code that another process can run, or the reason why there is none.

(1) Code travels as bitcode and as object code. It may call libm, numpush's C functions and numba's
    runtime; it may not hold addresses of this process, nor call the interpreter.
(2) One use of Python objects remains: an exception whose arguments are known only when it is raised
    has a function that makes Python objects of them, which is called where the interpreter is at hand.
"""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .. import llvm
from . import _numba
from .arguments import Argument
from .errors import KernelRefused, place_of
from .variant import Variant

__all__ = ["compile_variant"]

#: numba's name for the functions of (2).
_UNWRAP = "__excinfo_unwrap_args"
_INTERPRETER = re.compile(r"@(_?Py[A-Z_]\w*|numba_gil_\w+|numba_unpickle)\b")
_THREADS = re.compile(r"@(numba_parallel_for|get_num_threads|set_num_threads)\b")
#: Loading a function's Python objects: the name of the value, its type, which objects.
_OBJECTS = re.compile(
    r"(%[\w.]+) = load (\S+), [^@\n]*@(\"?_ZN08NumbaEnv\S*?\"?)(?:, align \d+)?(?=[\s,])"
)
_ENVIRONMENT = re.compile(r'^@"?_ZN08NumbaEnv.*\n', re.MULTILINE)


def compile_variant(
    function: Any,
    arguments: Sequence[Argument],
    declared: Sequence[Argument],
    options: dict[str, Any],
) -> Variant:
    """Compile *function* for *arguments*.

    Raises
    ------
    KernelRefused : it cannot be compiled, or not to code that travels.
    """
    name = function.__name__
    if _numba.is_disabled():
        raise KernelRefused(f"kernel {name!r} is not compiled: NUMBA_DISABLE_JIT is set")
    try:
        compiled = _numba.compile_function(function, arguments, options)
    except _numba.CompileError as error:
        raise KernelRefused(_why_not(function, arguments, declared, error)) from error
    if compiled.returns:
        raise KernelRefused(
            f"kernel {name!r} returns {compiled.returns}: it gives its results in arrays, and "
            f"returns nothing ({_where(function, ast.Return)})"
        )
    if compiled.has_dynamic_globals:
        culprit = next(_process_bound(function), "a value that it or a function it calls refers to")
        raise KernelRefused(
            f"kernel {name!r} has an address of this process in its code: {culprit}. Pass arrays as "
            f"arguments, call C by numba.types.ExternalFunction ({place_of(function)})"
        )
    module = llvm.parse(_without_objects(function, str(compiled.module)))
    llvm.optimise(module)
    variant = Variant(
        name,
        place_of(function),
        tuple(arguments),
        module.as_bitcode(),
        llvm.emit(module),
        llvm.host(),
    )
    try:
        variant.entry()
    except llvm.UnknownSymbol as error:
        raise KernelRefused(f"kernel {name!r} ({place_of(function)}): {error}") from error
    return variant


def _without_objects(function: Any, text: str) -> str:
    """Return *text* without numba's places for Python objects; refuse code that wants what is in them."""
    if called := _THREADS.search(text):
        raise KernelRefused(
            f"kernel {function.__name__!r} calls a function that starts threads (parallel=True, "
            f"{called[1]}): workers are what makes it parallel ({place_of(function)})"
        )
    parts = re.split(r"(?m)^(?=define )", text)
    for i, part in enumerate(parts[1:], 1):
        is_unwrapping = _UNWRAP in part.partition("\n")[0]
        body = part.partition("\n}\n")[0]
        if not is_unwrapping and (called := _INTERPRETER.search(body)):
            raise KernelRefused(_why_python(function, body, called[1]))
        parts[i] = _OBJECTS.sub(lambda load, body=body: _as_constant(function, body, load), part)
    return _ENVIRONMENT.sub("", "".join(parts))


def _as_constant(function: Any, body: str, load: re.Match[str]) -> str:
    """Replace the pointer to a function's objects, where all that is asked is whether it is null."""
    value, kind, _ = load.groups()
    uses = re.findall(rf".*{re.escape(value)}(?![\w.]).*", body)
    if any(value + " = load" not in use and "icmp eq" not in use for use in uses):
        raise KernelRefused(_why_python(function, body, "objects of its environment"))
    return f"{value} = inttoptr i64 1 to {kind}"


# -- reasons


def _where(function: Any, *kinds: type[ast.AST], calling: str = "") -> str:
    """Return file and line of the first such node in *function*, or of its first line."""
    for node in _nodes(function):
        if isinstance(node, kinds) and (not calling or calling in ast.unparse(node)):
            first = function.__code__.co_firstlineno
            return place_of(function, first + node.lineno - 1)  # type: ignore[attr-defined]  # _nodes looks
    return place_of(function)


def _nodes(function: Any) -> Iterator[ast.AST]:
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    except (OSError, TypeError, SyntaxError):
        return
    yield from sorted(
        (node for node in ast.walk(tree) if hasattr(node, "lineno")), key=lambda node: node.lineno
    )


def _why_python(function: Any, body: str, called: str) -> str:
    name = function.__name__
    if "PySys_FormatStdout" in body:
        return f"kernel {name!r} prints ({_where(function, ast.Call, calling='print')})"
    if any(isinstance(node, ast.With) for node in _nodes(function)):
        return (
            f"kernel {name!r} has a part in object mode, which needs the interpreter "
            f"({_where(function, ast.With)})"
        )
    return (
        f"kernel {name!r}, or a function that it calls, needs the interpreter ({called}; "
        f"{place_of(function)})"
    )


def _process_bound(function: Any) -> Iterator[str]:
    """Yield what *function* refers to that has an address in this process only."""
    enclosing, globals_, _, _ = inspect.getclosurevars(function)
    for name, value in {**globals_, **enclosing}.items():
        if isinstance(value, np.ndarray):
            yield f"{name!r}, a global array of {value.nbytes} bytes"
        elif type(value).__module__.startswith(("ctypes", "_ctypes", "_cffi")):
            yield f"{name!r}, a C function"


def _why_not(
    function: Any, arguments: Sequence[Argument], declared: Sequence[Argument], error: Exception
) -> str:
    name, text = function.__name__, str(error)
    found = re.search(r'File "(.+?)", line (\d+)|from (.+?) \((\d+)\)', text)
    line = place_of(function)
    if found:
        file, number = (group for group in found.groups() if group)
        same = Path(file).name == Path(function.__code__.co_filename).name
        line = place_of(function, int(number)) if same else f"{file}:{number}"
    if "readonly array" in text or "read-only" in text:
        given = [a.name for a, b in zip(arguments, declared) if a.readonly and not b.readonly]
        const = [b.name for b in declared if b.readonly]
        which = [f"{n!r}, which is read-only" for n in given] + [f"{n!r}, a const" for n in const]
        if which:
            return f"kernel {name!r} writes to an argument that it may not: {' or '.join(which)} ({line})"
    return f"kernel {name!r}: numba cannot compile it ({line}): {text.strip()}"
