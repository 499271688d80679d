"""The CRC-32 of two ranges, one behind the other, from the CRC-32 of each.

A head that is only known when what follows it has been written, and that comes first in a checksum, need
not have the whole read again. Of a CRC what follows is linear: n zero bytes more are a matrix over GF(2),
which is the one of one zero bit, squared (the way of zlib's crc32_combine).
"""

from __future__ import annotations

from functools import lru_cache

__all__ = ["combine"]

_POLYNOMIAL = 0xEDB88320


def combine(first: int, second: int, size: int) -> int:
    """Return the CRC-32 of what has *first*, followed by *size* bytes that have *second*."""
    power = 3  # of two: the bits of a byte
    while size:
        if size & 1:
            first = _times(_zeros(power), first)
        size >>= 1
        power += 1
    return first ^ second


@lru_cache(maxsize=80)
def _zeros(power: int) -> tuple[int, ...]:
    """The matrix that appends 2 ** power zero bits: column i is what becomes of bit i."""
    if power == 0:
        return (_POLYNOMIAL, *(1 << i for i in range(31)))
    half = _zeros(power - 1)
    return tuple(_times(half, column) for column in half)


def _times(matrix: tuple[int, ...], vector: int) -> int:
    found, i = 0, 0
    while vector:
        if vector & 1:
            found ^= matrix[i]
        vector >>= 1
        i += 1
    return found
