"""Copy data into a segment, once, as fast as its pages allow.

Into huge pages, and into pages that were touched before (a warm segment), the mapping is written by a
few threads; where this process has not touched small ones, MADV_POPULATE_WRITE fills the page tables
first. Into fresh small pages, one thread writes the file, which faults nothing in and clears no page
that it fills, and the others write the mapping meanwhile: writers of one file wait for each other, so
more of them bring nothing.
benchmarks/creation.py measures each of these ways, in the pages that the machine has.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .ffi import map as _map
from .shm.header import PAGE

Array = NDArray[Any]
Piece = tuple[Array, Array]  # target, source

__all__ = ["copy_all", "write_all"]

_PIECE = 4 << 20  #: bytes that a thread copies before it looks for more, and before Ctrl-C works
_N_THREADS = min(4, os.cpu_count() or 1)
_THREADS_FROM = 8 << 20  #: below, starting threads costs more than they save


def _pieces(pairs: Iterable[Piece]) -> Iterator[Piece]:
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


def _share_out(pieces: Iterator[Piece], ways: Sequence[Callable[[Piece], None]]) -> None:
    """Have one thread for each of *ways* take pieces until none is left."""
    lock = threading.Lock()

    def work(copy: Callable[[Piece], None]) -> None:
        while True:
            with lock:
                piece = next(pieces, None)
            if piece is None:
                return
            copy(piece)

    with ThreadPoolExecutor(len(ways)) as threads:
        futures = [threads.submit(work, copy) for copy in ways]
        try:
            for future in futures:
                future.result()
        finally:
            with lock:
                pieces = iter(())  # an error, or Ctrl-C, ends the others


def _is_small(pairs: list[Piece]) -> bool:
    return sum(target.nbytes for target, _ in pairs) < _THREADS_FROM or _N_THREADS == 1


def copy_all(pairs: list[Piece], *, populate: bool = False) -> None:
    """Copy each (target, source) pair, of equal shape and dtype, through the mapping.

    *populate* has the kernel fill the page tables piece by piece, in fewer faults.
    """
    copy = _populate_and_copy if populate else _copy
    if _is_small(pairs):
        for piece in _pieces(pairs):
            copy(piece)
    else:
        _share_out(_pieces(pairs), [copy] * _N_THREADS)


def _copy(piece: Piece) -> None:
    np.copyto(*piece)


def _populate_and_copy(piece: Piece) -> None:
    target = piece[0]
    if target.flags.c_contiguous:
        address = target.__array_interface__["data"][0]
        start = address // PAGE * PAGE
        _map.populate(start, address + target.nbytes - start, write=True)
    np.copyto(*piece)


def write_all(fd: int, start: int, base: int, pairs: list[Piece]) -> None:
    """Copy each source to its target, which lies in fresh pages of the file *fd*.

    *base* is the address that byte *start* of the file is mapped at. Targets are contiguous.
    """

    def write(piece: Piece) -> None:
        target, source = piece
        data = np.ascontiguousarray(source).reshape(-1).view(np.uint8).data
        offset = start + target.__array_interface__["data"][0] - base
        while data:
            n = os.pwrite(fd, data, offset)
            data, offset = data[n:], offset + n

    if _is_small(pairs):
        for piece in _pieces(pairs):
            write(piece)
    else:
        _share_out(_pieces(pairs), [write] + [_copy] * (_N_THREADS - 1))
