"""What can be sent, one module per kind:

    pack(obj, sig, portable)   the object as meta, which is plain data, and blobs
    unpack(payload)            the object again

They load when they are used: each needs its own library.
"""

from __future__ import annotations

import sys
import types
from importlib import import_module
from typing import Any, Protocol, cast

import numpy as np

from ..envelope import Payload
from ..errors import CodeError

__all__ = ["Kind", "kind_of", "module_of"]

#: Classes and their kinds. Whose module is not loaded has no instances.
_CLASSES = {
    ("numpush.kernels.declaring", "Kernel"): "kernel",
    ("numpush.kernels.variant", "Variant"): "kernel",
    ("numpush.code.modules", "Module"): "llvm",
    ("numpush.code.kinds.numexpr", "Program"): "numexpr",
    ("numexpr.interpreter", "NumExpr"): "numexpr",
    ("pytensor.compile.executor", "Function"): "pytensor",
    ("pytensor.compile.function.types", "Function"): "pytensor",  # before PyTensor 3
}


class Kind(Protocol):
    """A module of this package."""

    def pack(self, obj: Any, sig: Any, portable: bool) -> tuple[dict[str, Any], dict[str, bytes]]:
        """Return meta and blobs."""

    def unpack(self, payload: Payload) -> Any:
        """Return the object."""


def module_of(kind: str) -> Kind:
    """Return the module of a kind."""
    return cast(Kind, import_module(f".{kind}", __name__))


def kind_of(obj: Any, sig: Any) -> str:
    """Return the kind of *obj*.

    Raises
    ------
    CodeError : it is of none.
    """
    for (module, name), kind in _CLASSES.items():
        found = getattr(sys.modules.get(module), name, None)
        if found is not None and isinstance(obj, found):
            return kind
    match obj:
        case np.ufunc():
            return "ufunc"
        case str() | bytes() | bytearray() | memoryview():
            return "llvm"
        case types.ModuleType():
            return "extension"
        case _ if callable(obj):
            return "python" if sig is None else "ufunc"
    raise CodeError(f"{type(obj).__name__}: no code that can be sent; see numpush.code.dumps")
