"""The mutex of a shared object, locked by address in functions that numba compiles.

It is the one that ``with obj.lock:`` takes in Python, by the same C functions: robust, and of the
thread that locked it. Waiting here does not look at signals: Ctrl-C comes after the kernel. A
kernel gets the address where its signature says ``mutex``; in other functions pass what
`mutex_address` gives.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Any, TypeVar, cast

import llvmlite.binding as ll
from numba import njit, types

from ..ffi import mutex as _mutex
from ..shm.errors import LockError, NotRecoverable

__all__ = ["mutex_lock", "mutex_trylock", "mutex_unlock"]

F = TypeVar("F", bound=Callable[..., Any])

for _name, _address in _mutex.functions().items():
    ll.add_symbol(_name, _address)  # for numba's own linker; a kernel's gets them from Variant

_lock = types.ExternalFunction("npush_mutex_lock", types.int32(types.uintp, types.int64))
_try = types.ExternalFunction("npush_mutex_try", types.int32(types.uintp))
_unlock = types.ExternalFunction("npush_mutex_unlock", types.int32(types.uintp))

_FOR_EVER = 2**62  #: nanoseconds, 146 years
_OWNER_DIED = _mutex.OWNER_DIED
_BUSY, _DEADLOCK, _LOST = -errno.EBUSY, -errno.EDEADLK, -errno.ENOTRECOVERABLE


def _compiled(function: F) -> F:
    return cast(F, njit(function))


@_compiled
def _owner_died(rc: int) -> bool:
    if rc == _DEADLOCK:
        raise LockError("this thread holds the mutex already; it is not re-entrant")
    if rc == _LOST:
        raise NotRecoverable("the mutex was given up by an owner that left it inconsistent")
    if rc < 0:
        raise LockError("there is no mutex at this address")
    return rc == _OWNER_DIED


@_compiled
def mutex_lock(address: int) -> bool:
    """Lock the mutex, waiting for it.

    Returns
    -------
    bool : whether the holder before died with it, so that the data is to be looked after

    Raises
    ------
    LockError : this thread holds it.
    """
    return _owner_died(_lock(address, _FOR_EVER))


@_compiled
def mutex_trylock(address: int) -> tuple[bool, bool]:
    """Lock the mutex if nobody holds it.

    Returns
    -------
    (bool, bool) : whether it is locked now, and whether the holder before died with it

    Raises
    ------
    LockError : this thread holds it.
    """
    rc = _try(address)
    if rc == _BUSY:
        return False, False
    return True, _owner_died(rc)


@_compiled
def mutex_unlock(address: int) -> None:
    """Unlock the mutex. Raises LockError when this thread does not hold it."""
    if _unlock(address) < 0:
        raise LockError("this thread does not hold the mutex")
