"""Buffers as chunks that blosc2 has compressed: for links slower than about 5 Gbit/s.

A buffer of n bytes is ceil(n / chunk) chunks, each a u32 with its length and a blosc2 chunk, which
decompresses to `chunk` bytes, the last one to the rest. A buffer that does not shrink is chunks all
the same, each 32 bytes longer than what it holds.

blosc2 is imported when it is first needed, by a thread that receives maybe: it takes half a second. A
child that is forked meanwhile would wait for ever for the modules that were half imported, so a fork
waits for the import.

blosc2 writes past what it is given to write to, so a chunk's own lengths are checked before; and it
does not notice all damage, so compressed objects always have checksums.
"""

from __future__ import annotations

import contextlib
import os
import struct
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from ..layout import Buffer
from .errors import FrameError
from .wire import cut

if TYPE_CHECKING:
    from .landing import Landing
    from .stream import SocketStream

__all__ = ["CHUNK", "CODECS", "chunks", "load_blosc2", "receive"]

CHUNK = 1 << 20
CODECS = ("lz4", "zstd")
_LENGTH = struct.Struct("<I")
_OVERHEAD = 64  #: more than blosc2's header (32): what a chunk may be longer than what it holds
_HEADER = 32

_PATIENCE = 10.0  #: seconds that a fork waits: its thread might hold a module that blosc2 imports
_importing = threading.RLock()  #: one thread has it to import, or to fork


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


def _renew_lock() -> None:
    global _importing
    _importing = threading.RLock()


os.register_at_fork(
    before=_wait_for_import, after_in_parent=_let_import, after_in_child=_renew_lock
)


def chunks(buffer: Buffer, codec: str) -> Iterator[bytes]:
    """Compress a buffer: give its chunks, each with its length before it."""
    blosc2 = load_blosc2()
    params = blosc2.CParams(
        codec=blosc2.Codec[codec.upper()],
        clevel=5 if codec == "lz4" else 1,
        typesize=min(max(buffer.itemsize, 1), 255),
        filters=[blosc2.Filter.BITSHUFFLE],
        filters_meta=[0],
        nthreads=1,
    )
    for piece in cut(buffer.parts(CHUNK), CHUNK):
        data = blosc2.compress2(piece, cparams=params)
        yield _LENGTH.pack(len(data)) + data


def receive(
    stream: SocketStream, landing: Landing, i: int, progress: Callable[[int], None]
) -> None:
    """Receive the chunks of buffer *i* and decompress them to their place.

    Raises
    ------
    FrameError : a chunk is none, or not of the length that its place has.
    """
    blosc2 = load_blosc2()
    size, chunk = landing.incoming.sizes[i], landing.incoming.chunk
    for start in range(0, size, chunk):
        wanted = min(chunk, size - start)
        (length,) = _LENGTH.unpack(stream.read(_LENGTH.size))
        if not _HEADER <= length <= wanted + _OVERHEAD:
            raise FrameError(f"a chunk of {length} bytes, for {wanted} bytes of data")
        data = bytes(stream.read(length))
        try:
            found, stored, _ = blosc2.get_cbuffer_sizes(data)
            if (found, stored) != (wanted, length):
                raise FrameError(
                    f"a chunk of {stored} bytes that holds {found}: {length}, {wanted} announced"
                )
            blosc2.decompress2(data, dst=landing.buffer(i)[start : start + wanted])
        except (RuntimeError, ValueError, TypeError) as error:
            if isinstance(error, FrameError):
                raise
            raise FrameError(f"a chunk that blosc2 does not decompress: {error}") from error
        progress(wanted)
