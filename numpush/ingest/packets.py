"""TIPC connections as streams of bytes: SOCK_STREAM's, and packets that make one when put together.

    TipcStream     a stream socket, with TIPC's ways to end
    PacketStream   a seqpacket socket; rdm.py makes an rdm socket one of these

(1) What is written at once, up to 64 KiB, is one packet. Of more, the first part (a frame's head) has
    packets of its own, and the rest (its body) begins a new one: so it goes from the kernel to its place.
(2) A receive with less room than the packet has bytes loses the rest. What is read ahead has room for any
    packet, and a packet that goes beyond the body it is received into ends the connection.
(3) Packets are received and sent with one call of Python each: a splice needs a pipe of more than the
    packet, and sendfile makes a packet of every page (Linux 6.1).
(4) When the peer has not taken what was sent, the kernel lets shutdown and close wait for it for 8 seconds.
"""

from __future__ import annotations

import errno
import select
import socket
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from ..ffi import map as _map
from .errors import FrameError, PeerGone
from .stream import SocketStream
from .wire import cut

__all__ = ["PACKET", "PacketStream", "TipcStream", "check_whole"]

PACKET = 64 << 10  #: bytes of the stream that a packet carries at most
_ROOM = 66_000  #: TIPC_MAX_USER_MSG_SIZE: no packet is longer
_AHEAD = 256 << 10  #: bytes read ahead, unless more are wanted at once
_SLICE = 0.1  #: seconds that a sender sleeps at most before it looks at its deadline


class TipcStream(SocketStream):
    """A connected TIPC socket."""

    def __init__(self, sock: socket.socket, io: str, patience: float) -> None:
        super().__init__(sock, io, patience)
        self._is_over = False

    def _receive_now(self, memory: memoryview) -> int:
        if self._is_over:  # by our own shutdown, after which the kernel says EAGAIN for ever
            return 0
        try:
            return self._receive_some(memory)
        except OSError as error:
            # The peer's end is ECONNRESET after its data, if it closed (or was killed) without
            # shutdown.
            if error.errno in (errno.ECONNRESET, errno.ENOTCONN):
                return 0
            raise

    def _receive_some(self, memory: memoryview) -> int:
        return self._sock.recv_into(memory)

    def discard(self, seconds: float) -> None:
        """Nothing: TIPC cannot end one direction alone."""

    def shutdown(self) -> None:
        """End both directions, and whatever waits in them."""
        self._is_over = True
        super().shutdown()


class PacketStream(TipcStream):
    """A connected seqpacket socket."""

    def __init__(self, sock: socket.socket, patience: float) -> None:
        super().__init__(sock, "recv", patience)

    # -- reading

    def read(self, size: int, *, at_rest: bool = False) -> memoryview:
        """Read exactly *size* bytes, as SocketStream.read; rule (2)."""
        while self.buffered < size:
            if self._stop + _ROOM > len(self._ahead) or len(self._ahead) < size + _ROOM:
                self._make_room(size)
            n = self._receive(self._ahead[self._stop :], at_rest and not self.buffered)
            if not n and at_rest and not self.buffered:
                return self._ahead[:0]
            if not n:
                raise PeerGone(f"the peer ended after {self.buffered} of {size} bytes")
            self._stop += n
        start, self._start = self._start, self._start + size
        return self._ahead[start : start + size]

    def _make_room(self, size: int) -> None:
        """Have room for *size* bytes and a packet that begins with the last of them."""
        kept = bytes(self._ahead[self._start : self._stop])
        room = max(_AHEAD, size + _ROOM)
        if room != len(self._ahead):
            self._ahead = memoryview(bytearray(room))
        self._ahead[: len(kept)] = kept
        self._start, self._stop = 0, len(kept)

    def _recv(self, address: int, size: int, progress: Callable[[int], None]) -> None:
        self.read_into(memoryview(_map.buffer(address, size)), progress)

    def _receive_some(self, memory: memoryview) -> int:
        n, _, flags, _ = self._sock.recvmsg_into([memory])
        check_whole(flags)
        return n

    # -- writing

    def write(self, *parts: Any, until: float | None = None) -> None:
        """Send all bytes of each of *parts*, as SocketStream.write; rule (1)."""
        if sum(memoryview(part).nbytes for part in parts) <= PACKET:
            self._send_packet(b"".join(parts), until)
            return
        raw = [np.frombuffer(part, np.uint8) for part in parts]
        for run in (raw[:1], raw[1:]):
            for packet in cut(run, PACKET):
                self._send_packet(packet, until)

    def _send_packet(self, packet: Any, until: float | None) -> None:
        while True:
            try:
                self._sock.send(packet)
                return
            except BlockingIOError:
                pass
            except OSError as error:
                raise self._gone(error) from error
            if until is not None and time.monotonic() > until:
                raise TimeoutError
            self._wait(select.POLLOUT, _SLICE)


def check_whole(flags: int) -> None:
    """Refuse a packet that was longer than the room for it; rule (2).

    Raises
    ------
    FrameError : it was.
    """
    if flags & socket.MSG_TRUNC:
        raise FrameError("a packet that goes beyond the end of the body it belongs to")
