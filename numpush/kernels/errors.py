"""What may be wrong with a kernel. A wrong argument is a plain TypeError."""

from __future__ import annotations

from typing import Any

from ..errors import NumpushError

__all__ = ["KernelError", "KernelRefused", "place_of"]


class KernelError(NumpushError):
    """The base of those below."""


class KernelRefused(KernelError, TypeError):
    """It cannot be compiled to code that another process can run; the message says why, and names
    file and line. It is raised where the kernel is first compiled, and where it is declared for
    what can be seen there."""


def place_of(function: Any, line: int | None = None) -> str:
    """Return file and line of a function, or of a line of its file, for messages."""
    code = function.__code__
    return f"{code.co_filename}:{line or code.co_firstlineno}"
