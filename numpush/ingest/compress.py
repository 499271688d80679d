"""Buffers as chunks that blosc2 has compressed: for links slower than about 5 Gbit/s.

A buffer of n bytes is ceil(n / chunk) chunks, each a u32 with its length and a blosc2 chunk, which
decompresses to `chunk` bytes, the last one to the rest. A buffer that does not shrink is chunks all
the same, each 32 bytes longer than what it holds.

What blosc2 does not check itself is checked by blosc2_chunks.py; and as blosc2 does not notice all
damage, compressed objects always have checksums.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from .. import blosc2_chunks
from ..blosc2_chunks import HEADER, OVERHEAD, BadChunk, load_blosc2
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


def chunks(buffer: Buffer, codec: str) -> Iterator[bytes]:
    """Compress a buffer: give its chunks, each with its length before it."""
    params = blosc2_chunks.parameters(codec, buffer.itemsize)
    for piece in cut(buffer.parts(CHUNK), CHUNK):
        data = blosc2_chunks.compress(piece, params)
        yield _LENGTH.pack(len(data)) + data


def receive(
    stream: SocketStream, landing: Landing, i: int, progress: Callable[[int], None]
) -> None:
    """Receive the chunks of buffer *i* and decompress them to their place.

    Raises
    ------
    FrameError : a chunk is none, or not of the length that its place has.
    """
    size, chunk = landing.incoming.sizes[i], landing.incoming.chunk
    for start in range(0, size, chunk):
        wanted = min(chunk, size - start)
        (length,) = _LENGTH.unpack(stream.read(_LENGTH.size))
        if not HEADER <= length <= wanted + OVERHEAD:
            raise FrameError(f"a chunk of {length} bytes, for {wanted} bytes of data")
        data = bytes(stream.read(length))
        try:
            blosc2_chunks.decompress(data, landing.buffer(i)[start : start + wanted])
        except BadChunk as error:
            raise FrameError(str(error)) from error
        progress(wanted)
