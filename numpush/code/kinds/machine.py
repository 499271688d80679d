"""What kinds with machine code have in common: for whom it was made, and what is done elsewhere.

(1) Object code is linked as it is where the processor has all that it was made for.
(2) Elsewhere, object code is made anew of the bitcode, unless LLVM could not read that: it is older, or the
    architecture is another. That is decided by what the payload says, before LLVM sees any of it.
"""

from __future__ import annotations

from typing import Any

from ... import llvm
from ..errors import CodeError, CodeMismatch
from ..ir import translated

__all__ = ["describe_target", "place"]


def describe_target(target: llvm.Target) -> dict[str, Any]:
    """Return what is said of a machine."""
    return {
        "triple": target.triple,
        "features": sorted(target.features),
        "flags": sorted(target.flags),
        "llvm": target.llvm,
    }


def place(
    described: dict[str, Any], bitcode: bytes, object_code: bytes | None, *, inline: bool
) -> tuple[bytes, llvm.Target]:
    """Return object code for this machine, and what it was made for.

    Raises
    ------
    CodeMismatch : there is none to be had.
    CodeError : it does not say for what machine it is.
    """
    made_for, here = _target(described), llvm.host()
    if object_code is not None and made_for.fits(here):
        return object_code, made_for
    if made_for.architecture != here.architecture:
        raise CodeMismatch(f"code for {made_for.architecture}, this is {here.architecture}")
    if _major(made_for.llvm) > _major(here.llvm):
        raise CodeMismatch(
            f"bitcode of LLVM {made_for.llvm}, this is LLVM {here.llvm}, which reads that of older ones"
            + (", and the object code is for another processor" * (object_code is not None))
        )
    with translated():
        return llvm.build(bitcode, made_for=made_for, inline=inline), here


def _target(described: dict[str, Any]) -> llvm.Target:
    match described:
        case {
            "triple": str(triple),
            "features": list(features),
            "flags": list(flags),
            "llvm": str(version),
        }:
            return llvm.Target(
                triple, frozenset(map(str, features)), frozenset(map(str, flags)), version
            )
    raise CodeError(f"payload: no machine that it is for: {described!r}")


def _major(version: str) -> int:
    head = version.partition(".")[0]
    if not head.isdecimal():
        raise CodeError(f"payload: no version of LLVM: {version!r}")
    return int(head)
