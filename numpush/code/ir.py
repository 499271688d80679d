"""LLVM IR and bitcode of users: read, and what is in it.

(1) Bitcode that is read here must be whole: it is the user's own, or was let in by its signature.
(2) Pointers are written with their type in the IR that is made here (``i8**``): LLVM 15 wants it so,
    and later ones still read it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import llvmlite.binding as ll

from .. import llvm
from ..llvm.guard import guarded
from .errors import CodeError, CodeMismatch

__all__ = ["Code", "Function", "quote", "read", "translated"]

#: Not there for others, or only as long as something here uses it (C++'s inline functions).
_HIDDEN = (
    ll.Linkage.internal,
    ll.Linkage.private,
    ll.Linkage.available_externally,
    ll.Linkage.linkonce_any,
    ll.Linkage.linkonce_odr,
)
#: LLVM counts an entry block that has no label, and so misses a number.
_MISSED = re.compile(r"^<string>:(\d+):\d+: error: .*expected to be numbered '%(\d+)'", re.M)
_CONSTANT = re.compile(r"@\S+ = [^\[{\"]*\bconstant\b")
_PLAIN_NAME = re.compile(r"[A-Za-z$._-][\w$.-]*")


class Function(NamedTuple):
    """A function's type, as LLVM has it."""

    args: tuple[str, ...]
    result: str
    is_vararg: bool
    #: "zeroext", "signext" or "", of each argument: how its caller widens it
    widening: tuple[str, ...]

    @property
    def type(self) -> str:
        return f"{self.result} ({', '.join(self.args)}{', ...' * self.is_vararg})"


class Code(NamedTuple):
    """A module of LLVM that was read, and what others may use of it."""

    bitcode: bytes
    functions: dict[str, Function]
    variables: dict[str, bool]  #: name -> whether it is const

    def text(self) -> str:
        """Return it as IR text."""
        return str(llvm.parse(self.bitcode))

    def function(self, name: str | None) -> tuple[str, Function]:
        """Return the function *name*, or the only one.

        Raises
        ------
        CodeError : there is no such function, or there are several to choose from.
        """
        if name is None:
            if len(self.functions) != 1:
                raise CodeError(
                    f"name: one of {', '.join(self.functions) or 'no functions'} wanted"
                )
            (name,) = self.functions
        if name not in self.functions:
            there = ", ".join(self.functions) or "none"
            raise CodeError(f"no function {name!r} in this code; there is: {there}")
        return name, self.functions[name]


@contextmanager
def translated() -> Iterator[None]:
    """Raise what numpush.llvm says as errors of code."""
    try:
        yield
    except llvm.WrongMachine as error:
        raise CodeMismatch(str(error)) from error
    except llvm.LLVMError as error:
        raise CodeError(str(error)) from error


@guarded
def read(source: str | bytes) -> Code:
    """Read IR text, or bitcode that is known to be whole.

    Raises
    ------
    CodeError : it is neither, or of a newer LLVM.
    """
    if not isinstance(source, str | bytes | bytearray | memoryview):
        raise TypeError(f"IR text or bitcode wanted, {type(source).__name__} found")
    with translated():
        if isinstance(source, str):
            module = _parse_text(source)
        else:
            module = llvm.parse(bytes(source))
    functions = {
        function.name: _function(function)
        for function in module.functions
        if not function.is_declaration and function.linkage not in _HIDDEN
    }
    variables = {
        variable.name: bool(_CONSTANT.match(str(variable)))
        for variable in module.global_variables
        if not variable.is_declaration and variable.linkage not in _HIDDEN
    }
    return Code(module.as_bitcode(), functions, variables)


def _function(function: Any) -> Function:
    kind = function.global_value_type
    return Function(
        tuple(map(_type, kind.get_function_parameters())),
        _type(kind.get_function_return()),
        kind.is_function_vararg,
        tuple(
            next((w.decode() for w in arg.attributes if w in (b"zeroext", b"signext")), "")
            for arg in function.arguments
        ),
    )


def _type(kind: Any) -> str:
    return str(kind).partition(" = ")[0]  # a struct with a name is followed by what it is


def _parse_text(text: str) -> Any:
    """Parse IR, giving entry blocks a label where that alone is what it lacks."""
    try:
        return llvm.parse(text)
    except llvm.BadCode as error:
        first = last = error
    while labelled := _label_entry(text, str(last)):  # an error names one function
        text = labelled
        try:
            return llvm.parse(text)
        except llvm.BadCode as error:
            last = error
    raise first


def _label_entry(text: str, message: str) -> str | None:
    """Give an entry block the label that it lacks by *message*; None: it says something else."""
    match = _MISSED.search(message)
    if not match:
        return None
    lines = text.splitlines(keepends=True)
    before, at = "".join(lines[: int(match[1]) - 1]), lines[int(match[1]) - 1]
    start = max((m.end() for m in re.finditer(r"^define\b[^\n]*\{", before, re.M)), default=None)
    if start is None or not re.match(rf"\s*%{int(match[2]) - 1}\b", at):
        return None
    if re.search(r"^\s*[\w$.-]+:", before[start:], re.M):  # it has one
        return None
    label = "entry"
    while re.search(rf"\b{label}\b", text):
        label += "_"
    return f"{before[:start]}\n{label}:{text[start:]}"


def quote(name: str) -> str:
    """Return a name as IR writes it."""
    if _PLAIN_NAME.fullmatch(name):
        return name
    return (
        '"'
        + re.sub(r"[^ !#-\[\]-~]", lambda m: "".join(f"\\{b:02x}" for b in m[0].encode()), name)
        + '"'
    )
