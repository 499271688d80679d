"""Code that travels: ufuncs, LLVM bitcode, kernels and expressions, signed.

    data = code.dumps(a_ufunc, keyring=ring)          # bytes, for any wire or file
    a_ufunc = code.loads(data, keyring=ring)          # in a process that has never seen it

    code.ufunc("define i32 @f(i32 %x) { ... }")       # LLVM IR, bitcode, a Python function -> a NumPy ufunc
    code.module(open("example.bc", "rb").read())      # clang's bitcode -> a Python module
    code.install_importer()                           # ... by `import example`

Whoever has the key may run anything here as this user; without one nothing is let in. Names load when
they are used, llvmlite with them. docs/code.md has the whole of it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__all__ = [
    "DEFAULT",
    "KINDS",
    "CodeError",
    "CodeMismatch",
    "Keyring",
    "SignedCode",
    "UnsignedCode",
    "dumps",
    "install_importer",
    "loads",
    "module",
    "ufunc",
    "uninstall_importer",
]

_HOME = {
    "CodeError": "errors",
    "CodeMismatch": "errors",
    "DEFAULT": "envelope",
    "KINDS": "envelope",
    "Keyring": "keyring",
    "SignedCode": "signed",
    "UnsignedCode": "errors",
    "dumps": "shipping",
    "install_importer": "importer",
    "loads": "shipping",
    "module": "modules",
    "ufunc": "ufuncs",
    "uninstall_importer": "importer",
}

if TYPE_CHECKING:
    from .envelope import DEFAULT, KINDS
    from .errors import CodeError, CodeMismatch, UnsignedCode
    from .importer import install_importer, uninstall_importer
    from .keyring import Keyring
    from .modules import module
    from .shipping import dumps, loads
    from .signed import SignedCode
    from .ufuncs import ufunc


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'numpush.code' has no attribute {name!r}")
    value = getattr(import_module(f".{_HOME[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
