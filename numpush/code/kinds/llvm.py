"""Modules of code.module, IR text and bitcode: C declarations, LLVM's types, bitcode and object code.

The bitcode's own text is not in the payload: what the other end would look up in it (which variables
are const) is, so that nothing is parsed there unless a ufunc is asked for.
"""

from __future__ import annotations

from typing import Any

from ..envelope import Payload
from ..errors import CodeError
from ..ir import Code, Function
from ..modules import Module, ModuleCode, code_of_module, compile_module
from .machine import describe_target, place

__all__ = ["pack", "unpack"]


def pack(obj: Any, sig: Any, portable: bool) -> tuple[dict[str, Any], dict[str, bytes]]:
    made = code_of_module(obj) if isinstance(obj, Module) else compile_module(obj, sig, "bitcode")
    meta = {
        "name": made.name,
        "cdef": made.cdef,
        "missing": made.missing,
        "functions": {name: list(function) for name, function in made.code.functions.items()},
        "variables": made.code.variables,
        "target": describe_target(made.target),
    }
    blobs = {"bitcode": made.code.bitcode}
    return meta, blobs if portable else {**blobs, "object": made.object_code}


def unpack(payload: Payload) -> Module:
    functions = {}
    for name, fields in payload.get("functions", dict).items():
        match fields:
            case [list(args), str(result), bool(is_vararg), list(widening)]:
                functions[name] = Function(tuple(args), result, is_vararg, tuple(widening))
            case _:
                raise CodeError(f"payload: a function of {fields!r}")
    code = Code(payload.blob("bitcode"), functions, payload.get("variables", dict))
    described = payload.get("target", dict)
    object_code, made_for = place(described, code.bitcode, payload.blobs.get("object"), inline=True)
    return ModuleCode(
        payload.get("name", str),
        code,
        object_code,
        made_for,
        payload.get("cdef", str),
        payload.get("missing", dict),
    ).load()
