"""Python calls for npush_atomic.c. Values travel as 64 bits: see `encode` and `decode`."""

from __future__ import annotations

import struct

from . import check
from ._numpush import ffi, lib

UNSIGNED: int = lib.NPUSH_UNSIGNED
SIGNED: int = lib.NPUSH_SIGNED
FLOAT: int = lib.NPUSH_FLOAT
ADD: int = lib.NPUSH_ATOMIC_ADD
SUB: int = lib.NPUSH_ATOMIC_SUB
MIN: int = lib.NPUSH_ATOMIC_MIN
MAX: int = lib.NPUSH_ATOMIC_MAX
AND: int = lib.NPUSH_ATOMIC_AND
OR: int = lib.NPUSH_ATOMIC_OR
EXCHANGE: int = lib.NPUSH_ATOMIC_EXCHANGE

_MASK = (1 << 64) - 1


def encode(value: float, kind: int) -> int:
    """Return the 64 bits that stand for *value*; integers wrap around, as NumPy's do."""
    if kind == FLOAT:
        return int(struct.unpack("=Q", struct.pack("=d", value))[0])
    return int(value) & _MASK


def decode(bits: int, kind: int) -> int | float:
    if kind == FLOAT:
        return float(struct.unpack("=d", struct.pack("=Q", bits))[0])
    return bits - (1 << 64) if kind == SIGNED and bits >> 63 else bits


def update(address: int, size: int, kind: int, op: int, operand: float) -> int | float:
    """Apply *op*; return what was there."""
    old = ffi.new("uint64_t *")
    check(lib.npush_atomic_update(address, size, kind, op, encode(operand, kind), old))
    return decode(int(old[0]), kind)


def compare_exchange(
    address: int, size: int, kind: int, expected: float, desired: float
) -> tuple[bool, int | float]:
    """Return whether *desired* was stored, and what was there."""
    old = ffi.new("uint64_t *")
    rc = lib.npush_atomic_compare_exchange(
        address, size, kind, encode(expected, kind), encode(desired, kind), old
    )
    return bool(check(rc)), decode(int(old[0]), kind)


def load(address: int, size: int, kind: int) -> int | float:
    value = ffi.new("uint64_t *")
    check(lib.npush_atomic_load(address, size, kind, value))
    return decode(int(value[0]), kind)


def store(address: int, size: int, kind: int, value: float) -> None:
    check(lib.npush_atomic_store(address, size, kind, encode(value, kind)))
