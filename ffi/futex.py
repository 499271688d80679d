"""Python calls for npush_futex.c: one function per C function."""

from __future__ import annotations

import errno

from . import Ref, check
from ._numpush import ffi, lib


def at(address: int) -> Ref:
    """Refer to the 32-bit word at *address*."""
    return ffi.cast("uint32_t *", address)


def wait(ref: Ref, expected: int, timeout_ns: int) -> bool:
    """Sleep while the word is *expected*; False when the time has passed or a signal came."""
    rc = lib.npush_futex_wait(ref, expected, timeout_ns)
    return rc not in (-errno.ETIMEDOUT, -errno.EINTR) and check(rc) == 0


def wake(ref: Ref, n: int) -> int:
    """Wake up to *n* sleepers; return how many."""
    return check(lib.npush_futex_wake(ref, n))


def post(ref: Ref) -> None:
    """Add one to the word and wake everybody."""
    lib.npush_futex_post(ref)


def load(ref: Ref) -> int:
    return lib.npush_futex_load(ref)
