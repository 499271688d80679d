"""Ufuncs of code.ufunc: the names and dtypes of their loops, bitcode and object code."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..envelope import Payload
from ..errors import CodeError
from ..signatures import llvm_of_dtype
from ..ufuncs import UfuncCode, code_of, compile_ufunc
from .machine import describe_target, place

__all__ = ["pack", "unpack"]


def pack(obj: Any, sig: Any, portable: bool) -> tuple[dict[str, Any], dict[str, bytes]]:
    code = code_of(obj) if isinstance(obj, np.ufunc) else compile_ufunc(obj, None, sig)
    meta = {
        "name": code.name,
        "doc": code.doc,
        "loops": [list(loop) for loop in code.loops],
        "may_raise": code.may_raise,
        "target": describe_target(code.target),
    }
    blobs = {"bitcode": code.bitcode}
    return meta, blobs if portable else {**blobs, "object": code.object_code}


def unpack(payload: Payload) -> np.ufunc:
    loops = payload.get("loops", list)
    try:
        for dtype in (d for loop in loops for d in loop):
            llvm_of_dtype(np.dtype(dtype))
    except (TypeError, ValueError) as error:
        raise CodeError(f"payload: loops of {loops!r}") from error
    if not loops or len({len(loop) for loop in loops}) != 1 or len(loops[0]) < 2:
        raise CodeError(f"payload: loops of {loops!r}")
    bitcode, described = payload.blob("bitcode"), payload.get("target", dict)
    object_code, made_for = place(described, bitcode, payload.blobs.get("object"), inline=True)
    return UfuncCode(
        payload.get("name", str),
        payload.get("doc", str),
        tuple(tuple(loop) for loop in loops),
        bitcode,
        object_code,
        made_for,
        payload.get("may_raise", bool),
    ).load()
