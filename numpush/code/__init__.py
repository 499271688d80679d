"""LLVM code as NumPy ufuncs and Python modules.

    code.ufunc("define i32 @f(i32 %x) { ... }")       # LLVM IR, bitcode, a Python function -> a NumPy ufunc
    code.module(open("example.bc", "rb").read())      # clang's bitcode -> a Python module
    code.install_importer()                           # ... by `import example`

Names load when they are used, llvmlite with them.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__all__ = [
    "CodeError",
    "CodeMismatch",
    "UnsignedCode",
    "install_importer",
    "module",
    "ufunc",
    "uninstall_importer",
]

_HOME = {
    "CodeError": "errors",
    "CodeMismatch": "errors",
    "UnsignedCode": "errors",
    "install_importer": "importer",
    "module": "modules",
    "ufunc": "ufuncs",
    "uninstall_importer": "importer",
}

if TYPE_CHECKING:
    from .errors import CodeError, CodeMismatch, UnsignedCode
    from .importer import install_importer, uninstall_importer
    from .modules import module
    from .ufuncs import ufunc


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'numpush.code' has no attribute {name!r}")
    value = getattr(import_module(f".{_HOME[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
