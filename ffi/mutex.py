"""Python calls for npush_mutex.c.

`try_lock`, `lock` and `unlock` are the C functions themselves: an uncontended lock is the one place
in numpush where a Python frame more would show.
"""

from __future__ import annotations

from . import Ref, check
from ._numpush import ffi, lib

SIZE: int = ffi.sizeof("npush_mutex_t")
OWNER_DIED: int = lib.NPUSH_OWNER_DIED

#: try_lock(ref), lock(ref, timeout_ns) -> 0, OWNER_DIED or a negated errno
try_lock = lib.npush_mutex_try
lock = lib.npush_mutex_lock
#: unlock(ref) -> 0 or a negated errno
unlock = lib.npush_mutex_unlock


def at(address: int) -> Ref:
    """Refer to the mutex at *address*."""
    return ffi.cast("npush_mutex_t *", address)


def init(ref: Ref) -> None:
    """Initialise memory that nobody else uses yet."""
    check(lib.npush_mutex_init(ref))


def holder(ref: Ref) -> int:
    """Return the holder's thread id, 0 when it is free. A hint: it may change at once."""
    return lib.npush_mutex_holder(ref)


def address(ref: Ref) -> int:
    """Return the address that *ref* refers to."""
    return int(ffi.cast("uintptr_t", ref))


def functions() -> dict[str, int]:
    """Return the addresses of the C functions that compiled code may call, by name."""
    names = ("npush_mutex_lock", "npush_mutex_try", "npush_mutex_unlock")
    return {name: address(ffi.addressof(lib, name)) for name in names}
