"""Kernels: numba functions over rows of shared arrays, compiled once, carried as machine code.

    @numpush.kernel("const f8[:], f8[:], f8")
    def scale(i0, i1, x, y, c):                 # the rows i0..i1; the signature names what follows
        for i in range(i0, i1):
            y[i] = x[i] * c

    scale(0, len(x), x, y, 2.0)                 # in this process

Also here, for any function that numba compiles: atomic operations on elements of arrays, and the mutex
of a shared object. Names load when they are used; numba, when something is compiled. docs/kernels.md
has the whole of it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__all__ = [
    "Kernel",
    "KernelError",
    "KernelRefused",
    "Variant",
    "atomic_add",
    "atomic_and",
    "atomic_cas",
    "atomic_exchange",
    "atomic_fence",
    "atomic_load",
    "atomic_max",
    "atomic_min",
    "atomic_or",
    "atomic_store",
    "atomic_sub",
    "kernel",
    "mutex_address",
    "mutex_lock",
    "mutex_trylock",
    "mutex_unlock",
    "numexpr",
    "pytensor",
]

_HOME = {
    "Kernel": "declaring",
    "KernelError": "errors",
    "KernelRefused": "errors",
    "Variant": "variant",
    "kernel": "declaring",
    "mutex_address": "arguments",
    "numexpr": "expressions",
    "pytensor": "expressions",
}

if TYPE_CHECKING:
    from .arguments import mutex_address
    from .atomics import (
        atomic_add,
        atomic_and,
        atomic_cas,
        atomic_exchange,
        atomic_fence,
        atomic_load,
        atomic_max,
        atomic_min,
        atomic_or,
        atomic_store,
        atomic_sub,
    )
    from .declaring import Kernel, kernel
    from .errors import KernelError, KernelRefused
    from .expressions import numexpr, pytensor
    from .mutexes import mutex_lock, mutex_trylock, mutex_unlock
    from .variant import Variant


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'numpush.kernels' has no attribute {name!r}")
    home = _HOME.get(name) or ("atomics" if name.startswith("atomic_") else "mutexes")
    value = getattr(import_module(f".{home}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
