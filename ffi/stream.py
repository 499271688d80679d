"""Python calls for npush_stream.c: one function per C function.

Each returns (bytes moved, why it stopped): 0, all of them; EAGAIN, the wait was over; EINTR, a
signal came; ENODATA, the peer has closed; else the error number of the socket or the file.
"""

from __future__ import annotations

from typing import Any

from ._numpush import ffi, lib

__all__ = ["recv", "send", "sendfile", "splice"]


def recv(sock: int, address: int, size: int, wait_ns: int) -> tuple[int, int]:
    """Receive *size* bytes into memory at *address*."""
    done = ffi.new("uint64_t *")
    rc = lib.npush_stream_recv(sock, address, size, wait_ns, done)
    return int(done[0]), -rc


def splice(
    sock: int, pipe: tuple[int, int], fd: int, offset: int, size: int, wait_ns: int
) -> tuple[int, int]:
    """Receive *size* bytes into the file *fd* from *offset*, through *pipe* (in, out)."""
    done = ffi.new("uint64_t *")
    rc = lib.npush_stream_splice(sock, *pipe, fd, offset, size, wait_ns, done)
    return int(done[0]), -rc


def send(sock: int, data: Any, start: int, more: bool, wait_ns: int) -> tuple[int, int]:
    """Send the buffer *data* from byte *start* on."""
    done = ffi.new("uint64_t *")
    with ffi.from_buffer(data) as buf:
        address = int(ffi.cast("uintptr_t", buf)) + start
        rc = lib.npush_stream_send(sock, address, len(buf) - start, more, wait_ns, done)
    return int(done[0]), -rc


def sendfile(sock: int, fd: int, offset: int, size: int, wait_ns: int) -> tuple[int, int]:
    """Send *size* bytes of the file *fd* from *offset* on."""
    done = ffi.new("uint64_t *")
    rc = lib.npush_stream_sendfile(sock, fd, offset, size, wait_ns, done)
    return int(done[0]), -rc
