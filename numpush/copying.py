"""Copy data into a segment, once, as fast as its pages allow.

Into pages that were touched before (a warm segment), the mapping is written by a few threads; where
this process has not touched them, MADV_POPULATE_WRITE fills the page tables first. Into fresh pages,
one thread writes the file: pwrite faults nothing in and clears no page that it fills, and beat one
or two threads through the mapping, with MADV_POPULATE_WRITE or without. Pwrite and the mapping at
once came out between 13% faster and 12% slower: not worth a second way yet. benchmarks/creation.py
shows each of them.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .ffi import map as _map
from .shm.header import PAGE

Array = NDArray[Any]

__all__ = ["copy_all", "write_all"]

_PIECE = 4 << 20  #: bytes that a thread copies before it looks for more, and before Ctrl-C works
_N_THREADS = min(4, os.cpu_count() or 1)
_THREADS_FROM = 8 << 20  #: below, starting threads costs more than they save


def _pieces(pairs: Iterable[tuple[Array, Array]]) -> Iterator[tuple[Array, Array]]:
    """Split pairs along their first axis into pieces of about _PIECE bytes."""
    for target, source in pairs:
        if target.nbytes <= _PIECE or target.ndim == 0:
            yield target, source
        elif target.shape[0] == 1:
            yield from _pieces([(target[0], source[0])])
        else:
            step = max(1, len(target) * _PIECE // target.nbytes)
            for i in range(0, len(target), step):
                yield from _pieces([(target[i : i + step], source[i : i + step])])


def copy_all(pairs: list[tuple[Array, Array]], *, populate: bool = False) -> None:
    """Copy each (target, source) pair, of equal shape and dtype, through the mapping.

    *populate* has the kernel fill the page tables piece by piece, in fewer faults.
    """
    copy = _populate_and_copy if populate else _copy
    if sum(target.nbytes for target, _ in pairs) < _THREADS_FROM or _N_THREADS == 1:
        for piece in _pieces(pairs):
            copy(piece)
        return
    with ThreadPoolExecutor(_N_THREADS) as threads:
        for _ in threads.map(copy, _pieces(pairs)):
            pass


def _copy(piece: tuple[Array, Array]) -> None:
    np.copyto(*piece)


def _populate_and_copy(piece: tuple[Array, Array]) -> None:
    target = piece[0]
    if target.flags.c_contiguous:
        address = target.__array_interface__["data"][0]
        start = address // PAGE * PAGE
        _map.populate(start, address + target.nbytes - start, write=True)
    np.copyto(*piece)


def write_all(fd: int, start: int, base: int, pairs: list[tuple[Array, Array]]) -> None:
    """Write each source to where its target lies in the file *fd*.

    *base* is the address that byte *start* of the file is mapped at. Targets are contiguous.
    """
    for target, source in _pieces(pairs):
        data = np.ascontiguousarray(source).reshape(-1).view(np.uint8).data
        offset = start + target.__array_interface__["data"][0] - base
        while data:
            n = os.pwrite(fd, data, offset)
            data, offset = data[n:], offset + n
