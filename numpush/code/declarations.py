"""C declarations of what is in LLVM code: what types it had before LLVM forgot them.

Best first: the user's own (a cdef), those in the debug information of ``clang -g`` (dwarf.py), and what
LLVM still knows: numbers by their width, pointers as ``void *``, const where it says ``readonly``.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import NamedTuple

import numpy as np

from . import dwarf
from .ir import Code, Function
from .signatures import Loop

__all__ = ["Declarations", "declare", "loop_of_c"]

_IDENTIFIER = re.compile(r"[A-Za-z_]\w*")
_C = {
    "i1": "_Bool",
    "i8": "int8_t",
    "i16": "int16_t",
    "i32": "int32_t",
    "i64": "int64_t",
    "float": "float",
    "double": "double",
    "void": "void",
}


class Declarations(NamedTuple):
    """C declarations, and of what there are none."""

    text: str
    missing: dict[str, str]  #: name -> why it cannot be declared
    sizes: dict[str, int]  #: struct or union -> bytes that it must have


def declare(code: Code, opaque: Collection[str] = ()) -> Declarations:
    """Write declarations of all functions and variables of *code*; structs in *opaque* have no members."""
    names = [name for name in (*code.functions, *code.variables) if _IDENTIFIER.fullmatch(name)]
    ir = code.text()
    if dwarf.has_debug_info(ir):
        types = dwarf.Types(ir, opaque)
        text, missing = types.declare(set(names))
        missing |= {name: "no debug information" for name in names if name not in types.declared}
        return Declarations(text, missing, types.sizes)
    lines, missing = [], {}
    for name in names:
        if (function := code.functions.get(name)) is None:
            missing[name] = "the type of a variable is known by debug information only"
        elif (line := _declare_bare(name, function, ir)) is None:
            missing[name] = f"it is {function.type}"
        else:
            lines.append(line)
    return Declarations("\n".join(lines), missing, {})


def _declare_bare(name: str, function: Function, text: str) -> str | None:
    """Declare a function by what LLVM knows of it; None: by that it could be several things."""
    match = re.search(rf"^define ([^@]*)@{re.escape(name)}\((.*)\)", text, re.M)
    assert match, name
    if function.is_vararg or re.search(r"\b(?:sret|byval|inalloca)\b", match[2]):
        return None
    details = re.split(r",(?![^()<]*[)>])", match[2])
    args = [_c_type(kind, detail) for kind, detail in zip(function.args, details)]
    result = _c_type(function.result, match[1])
    if result is None or None in args:
        return None
    return f"{result} {name}({', '.join(map(str, args)) or 'void'});"


def _c_type(kind: str, detail: str) -> str | None:
    if kind.endswith("*") or kind == "ptr":
        return ("const " if re.search(r"\bread(?:only|none)\b", detail) else "") + "void *"
    c = _C.get(kind)
    return f"u{c}" if kind in ("i8", "i16") and "zeroext" in detail else c


def loop_of_c(code: Code, name: str) -> Loop | None:
    """Return the dtypes that a function of numbers has by its C declaration, where the code has one."""
    text = code.text()
    if not dwarf.has_debug_info(text):
        return None
    found = dwarf.Types(text).numbers(name)
    if found is None:
        return None
    *args, result = [np.dtype(d) for d in found]
    return Loop(tuple(args), result)
