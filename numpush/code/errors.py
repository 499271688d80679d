"""What may go wrong with code, each also the builtin that a caller would catch."""

from __future__ import annotations

from ..errors import NumpushError

__all__ = ["CodeError", "CodeMismatch", "UnsignedCode"]


class CodeError(NumpushError, ValueError):
    """The base of those below; by itself: the code is none, says something that it cannot mean, or
    is of a kind that is not let in here. Nothing of it was run."""


class UnsignedCode(CodeError, PermissionError):
    """The payload was not made with a key that this process has, or was changed on its way, or
    there is no key here at all. Nothing of it but its length and its key's name was looked at."""


class CodeMismatch(CodeError):
    """The payload is sound, but not for this process: it is for another processor, another Python, a
    newer LLVM, another numexpr. The message has what is wanted and what is here. Nothing of it was
    parsed. For what crosses such borders see ``dumps(..., portable=True)``."""
