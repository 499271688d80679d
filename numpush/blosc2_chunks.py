"""Chunks that blosc2 has compressed, on the wire and in blosc2:// stores: made, checked, decompressed.

blosc2 is imported when it is first needed, by a thread that receives maybe: it takes half a second. A
child that is forked meanwhile would wait for ever for the modules that were half imported, so a fork
waits for the import.

(1) blosc2 writes as many bytes as a chunk says, whatever it was given to write to. So what a chunk says
    is compared with its place before blosc2 sees it.
(2) A chunk may name a codec or a filter that is no part of blosc2: it would start a Python to look for
    one, or follow a pointer that is not there. Such are refused, and so are "lazy" chunks, which name
    files.
(3) Damage within the data is often not noticed by blosc2. Who must know keeps a checksum.
(4) blosc2 holds the GIL unless it is told not to, for all of the process (`set_releasegil`). It is told
    while somebody is in `without_gil`, and gets back what it was told before when the last one leaves.
    A context of blosc2's own threads (nthreads) is never used: calls of 1 MiB gain nothing by them.
"""

from __future__ import annotations

import contextlib
import os
import struct
import threading
from collections.abc import Iterator
from typing import Any

__all__ = [
    "CODECS",
    "FILTERS",
    "HEADER",
    "OVERHEAD",
    "BadChunk",
    "check_chunk",
    "compress",
    "decompress",
    "load_blosc2",
    "parameters",
    "without_gil",
]

CODECS = ("lz4", "zstd", "blosclz")
FILTERS = ("bitshuffle", "shuffle", None)
HEADER = 32  #: bytes
OVERHEAD = 64  #: more than the header: what a chunk may be longer than what it holds

_LEVELS = {"lz4": 5, "zstd": 1, "blosclz": 5}
_MAX_TYPESIZE = 255
#: flags and, after the typesize, the bytes that it holds, those of a block, its own length; then the
#: filters, the codec's number, and flags of blosc2's
_HEAD = struct.Struct("<2xBxiii6s2x6s1xB")
_EXTENDED = 0x05  #: of flags: the header is of 32 bytes
_LAZY = 0x08  #: of blosc2's flags
_KNOWN_CODECS = {0, 1, 3, 4}  #: blosclz, lz4 and lz4hc, zlib, zstd
#: none, shuffle, bitshuffle, delta, trunc_prec; and bytedelta, int_trunc of those compiled in
_KNOWN_FILTERS = {0, 1, 2, 3, 4, 35, 36}

_PATIENCE = 10.0  #: seconds that a fork waits: its thread might hold a module that blosc2 imports
_importing = threading.RLock()  #: one thread has it to import, or to fork


class BadChunk(ValueError):
    """These bytes are no chunk, or not one that fits its place."""


def load_blosc2() -> Any:
    """Import blosc2.

    Raises
    ------
    ImportError : it is not installed; names the extra.
    """
    with _importing:
        try:
            import blosc2
        except ImportError as error:
            raise ImportError(
                'compressed objects need blosc2: pip install "numpush[blosc2]"'
            ) from error
    return blosc2


def _wait_for_import() -> None:
    _importing.acquire(timeout=_PATIENCE)


def _let_import() -> None:
    with contextlib.suppress(RuntimeError):  # the wait was over
        _importing.release()


class _Gil:
    """How many are in `without_gil`; rule (4)."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.n_inside = 0
        self.before = False

    def enter(self) -> None:
        with self.lock:
            if not self.n_inside:
                self.before = load_blosc2().set_releasegil(True)
            self.n_inside += 1

    def leave(self) -> None:
        with self.lock:
            self.n_inside -= 1
            if not self.n_inside:
                load_blosc2().set_releasegil(self.before)


_gil = _Gil()


@contextlib.contextmanager
def without_gil() -> Iterator[None]:
    """Have blosc2 let other threads run while it works; rule (4)."""
    gil = _gil  # a child that is forked meanwhile has another
    gil.enter()
    try:
        yield
    finally:
        gil.leave()


def _renew_locks() -> None:
    global _importing, _gil
    _importing = threading.RLock()
    if _gil.n_inside:
        load_blosc2().set_releasegil(_gil.before)
    _gil = _Gil()


os.register_at_fork(
    before=_wait_for_import, after_in_parent=_let_import, after_in_child=_renew_locks
)


def parameters(
    codec: str,
    itemsize: int,
    *,
    level: int | None = None,
    filter: str | None = "bitshuffle",
    block: int = 0,
) -> dict[str, Any]:
    """Return what `compress` takes.

    Parameters
    ----------
    codec, filter : of `CODECS`, of `FILTERS`
    itemsize : int
        Of the items, whose bytes or bits the filter sorts.
    level : int, optional
        0 to 9; by default what each codec is best at: 5, and 1 for zstd.
    block : int
        Bytes that are compressed as one; 0: as blosc2 thinks.
    """
    blosc2 = load_blosc2()
    return {
        "codec": blosc2.Codec[codec.upper()],
        "clevel": _LEVELS[codec] if level is None else level,
        "typesize": itemsize if 1 <= itemsize <= _MAX_TYPESIZE else 1,
        "filters": [blosc2.Filter[(filter or "nofilter").upper()]],
        "filters_meta": [0],
        "blocksize": block,
        "nthreads": 1,
    }


def compress(piece: Any, params: dict[str, Any]) -> bytes:
    """Compress a piece of memory of at least one byte: read where it lies, not copied."""
    chunk: bytes = load_blosc2().compress2(piece, **params)
    return chunk


def check_chunk(chunk: Any, wanted: int) -> None:
    """Check that a chunk is as long as it says and holds *wanted* bytes; rules (1) and (2).

    Raises
    ------
    BadChunk
    """
    if len(chunk) < HEADER:
        raise BadChunk(f"a chunk of {len(chunk)} bytes")
    flags, holds, block, length, filters, _, flags2 = _HEAD.unpack_from(chunk)
    if (holds, length) != (wanted, len(chunk)):
        raise BadChunk(
            f"a chunk of {length} bytes that holds {holds}: {len(chunk)}, {wanted} announced"
        )
    if not 0 < block <= max(holds, 1):
        raise BadChunk(f"a chunk of {holds} bytes in blocks of {block}")
    if flags & _EXTENDED != _EXTENDED or flags2 & _LAZY:
        raise BadChunk(f"a chunk with flags {flags:#x}, {flags2:#x}, which are not read")
    if flags >> 5 not in _KNOWN_CODECS or not _KNOWN_FILTERS.issuperset(filters):
        raise BadChunk(
            f"a chunk of codec {flags >> 5}, filters {[*filters]}: plug-ins are not read"
        )


def decompress(chunk: Any, target: Any) -> None:
    """Decompress a chunk to its place, a writable array of bytes that it fills; rules (1) to (3).

    Raises
    ------
    BadChunk : it is none, or holds another number of bytes. *target* may be half written.
    """
    check_chunk(chunk, len(target))
    if not target.flags.writeable:
        raise ValueError("the target is read-only")
    try:
        load_blosc2().decompress2(chunk, dst=target, nthreads=1)
    except (RuntimeError, ValueError, TypeError) as error:
        raise BadChunk(f"a chunk that blosc2 does not decompress: {error}") from error
