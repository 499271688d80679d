"""What may be wrong with code that came as LLVM IR, bitcode or object code."""

from __future__ import annotations

from ..errors import NumpushError

__all__ = ["BadCode", "LLVMError", "UnknownSymbol", "WrongMachine"]


class LLVMError(NumpushError):
    """The base of those below."""


class BadCode(LLVMError, ValueError):
    """It is not IR, bitcode or object code that this LLVM reads; the message has LLVM's reason, and
    its version. Bitcode is read by its own LLVM and by later ones."""


class WrongMachine(LLVMError, RuntimeError):
    """It was made for another machine and cannot be made anew for this one: another architecture, or
    instructions that this CPU lacks, written out. Nothing was built."""


class UnknownSymbol(LLVMError, LookupError):
    """It calls something that is not on the list of what compiled code may call. It was not loaded."""
