"""TIPC's rdm sockets as a connection: who is there, what may be sent, what was lost. docs/wire.md.

rdm has messages and no connections, and on one node no flow control: what finds its receiver's queue full
is dropped. So each end of a connection has two sockets, one that receives data (and sends credit), one
that sends data (and receives credit), and nothing is shared between who reads and who writes:

    out  -- CALL ------------------->  listener      of the connecting end; the rest of its two
    out  <- WELCOME ----------------  in             of the listening end, made for this caller
    out  -- DATA 0, DATA 1 ... ----->  in            in both directions, between those four
    out  <- CREDIT -----------------  in             packets below its number may be sent
    out  -- END -------------------->  in            its number: as many DATA were sent

(1) No more than WINDOW packets are under way, so none finds the queue full (it holds 15 of this size). Those
    of SMALL bytes, acknowledgements above all, may be N_SMALL more: who reads has to send them, and two
    that both waited for the other to read would wait for ever.
(2) Packets are numbered. One that is missing ends the connection: nothing is lost in silence.
(3) What cannot be delivered comes back (TIPC_DEST_DROPPABLE is off), and ends the connection. Who waits
    sends its credit once a second: from a peer that is dead it comes back.
(4) Packets of other sockets than the peer's are not looked at.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
import struct
import time
from typing import Any

from . import tipc
from .errors import FrameError, PeerGone
from .packets import PacketStream, check_whole
from .url import Address

__all__ = ["Listener", "Pair", "RdmStream", "call"]

WINDOW = 8
_CREDIT_EVERY = WINDOW // 2
SMALL = 64
N_SMALL = 256
_PROBE = 1.0  #: seconds; rule (3)
_SLICE = 0.1  #: as in packets.py

_HEADER = struct.Struct("<4sB3xQ")
_MAGIC = b"\x89NPR"
CALL, WELCOME, DATA, CREDIT, END = range(1, 6)
_NONCE = 16
_TIPC_ERRINFO = 1  #: linux/tipc.h: a message comes back; Python has no name for it
_ERRINFO_SPACE = socket.CMSG_SPACE(8)

Port = tuple[int, int]  #: node, and number there


class _Undelivered(ConnectionResetError):
    """A packet of ours has come back: its receiver is gone, or its queue was full."""


def _pack(kind: int, number: int) -> bytes:
    return _HEADER.pack(_MAGIC, kind, number)


def _send(sock: socket.socket, port: Port, header: bytes, data: Any = b"") -> None:
    sock.sendmsg([header, data], [], 0, (socket.TIPC_ADDR_ID, *port, 0))


def _take(sock: socket.socket, port: Port | None, memory: Any) -> tuple[int, int, int, Any]:
    """Receive the next packet of *port* (None: any): its kind, its number, the length of its data in
    *memory*, and who sent it.

    Raises
    ------
    BlockingIOError, TimeoutError : there is none.
    _Undelivered : rule (3).
    FrameError : it is none of ours.
    """
    header = bytearray(_HEADER.size)
    while True:
        n, ancillary, flags, who = sock.recvmsg_into([header, memory], _ERRINFO_SPACE)
        if port is not None and who[1:3] != port:
            continue
        if any((level, kind) == (socket.SOL_TIPC, _TIPC_ERRINFO) for level, kind, _ in ancillary):
            raise _Undelivered(errno.ECONNRESET, "what was sent came back: the peer is gone")
        check_whole(flags)
        magic, kind, number = _HEADER.unpack(header)
        if n < _HEADER.size or magic != _MAGIC:
            raise FrameError(f"packet: magic {_MAGIC!r} wanted, {magic!r} found")
        return kind, number, n - _HEADER.size, who


def _poll(sock: socket.socket, events: int, seconds: float) -> None:
    poll = select.poll()
    poll.register(sock, events)
    poll.poll(seconds * 1e3)


class _Port(socket.socket):
    """An rdm socket of our own."""

    def __init__(self) -> None:
        super().__init__(socket.AF_TIPC, socket.SOCK_RDM)
        self.setblocking(False)
        self.setsockopt(socket.SOL_TIPC, socket.TIPC_DEST_DROPPABLE, 0)

    @property
    def number(self) -> int:
        """What others send to, on this node."""
        return int(self.getsockname()[2])


class Pair(_Port):
    """The socket that receives data, and with it the one that sends."""

    def __init__(self) -> None:
        super().__init__()
        try:
            self.out = _Port()
        except BaseException:
            super().close()
            raise
        self.peer_in: Port = (0, 0)
        self.peer_out: Port = (0, 0)

    def close(self) -> None:
        """Close both."""
        self.out.close()
        super().close()


def call(address: Address, seconds: float) -> Pair:
    """Return a pair that is connected to who has bound *address*.

    Raises
    ------
    ConnectionRefusedError : it is no longer there.
    TimeoutError : it does not answer.
    """
    pair = Pair()
    try:
        nonce = os.urandom(_NONCE)
        answer = bytearray(_NONCE)
        until = time.monotonic() + seconds
        pair.out.sendmsg([_pack(CALL, pair.number), nonce], [], 0, tipc.name_of(address))
        while True:
            left = until - time.monotonic()
            if left <= 0:
                raise TimeoutError("no answer")
            _poll(pair.out, select.POLLIN, left)
            with contextlib.suppress(BlockingIOError, FrameError):  # a stranger's
                kind, number, _, who = _take(pair.out, None, answer)
                if kind == WELCOME and answer == nonce:
                    pair.peer_in, pair.peer_out = who[1:3], (who[1], number)
                    return pair
    except BaseException as error:
        pair.close()
        if isinstance(error, _Undelivered) or getattr(error, "errno", 0) == errno.EHOSTUNREACH:
            raise ConnectionRefusedError(errno.ECONNREFUSED, "no process has bound it") from error
        raise


class Listener(tipc.Listener):
    """An rdm socket that has bound an address."""

    def accept(self) -> tuple[socket.socket, Any]:
        """Return a pair that is connected to a caller, and who that is."""
        pair = Pair()  # before a call is taken: without descriptors it waits
        try:
            nonce = bytearray(_NONCE)
            try:
                kind, number, n, who = _take(self, None, nonce)
            except FrameError as error:
                raise OSError(errno.EPROTO, str(error)) from error
            self.check_node(who)
            if (kind, n) != (CALL, _NONCE) or number >= 1 << 32:
                raise OSError(errno.EPROTO, "a packet that is no call")
            pair.peer_out, pair.peer_in = who[1:3], (who[1], number)
            _send(pair, pair.peer_out, _pack(WELCOME, pair.out.number), nonce)
        except BaseException:
            pair.close()
            raise
        return pair, who


class RdmStream(PacketStream):
    """A connection between two pairs."""

    def __init__(self, pair: Pair, patience: float) -> None:
        super().__init__(pair, patience)
        self._pair = pair
        self._n_taken = 0
        self._n_sent = 0
        self._limit = WINDOW  #: packets below it may be sent

    # -- reading

    def _receive_some(self, memory: memoryview) -> int:
        pair = self._pair
        while True:
            kind, number, n, _ = _take(pair, pair.peer_out, memory)
            if number != self._n_taken:
                raise ConnectionError(
                    f"packet {self._n_taken} wanted, {number} found: those between are lost"
                )
            if kind == END:
                self._is_over = True
                return 0
            if kind != DATA:
                raise FrameError(f"packet: kind {kind} among data")
            self._n_taken += 1
            if self._n_taken % _CREDIT_EVERY == 0:
                self._give_credit()
            if n:
                return n

    def _give_credit(self) -> None:
        with contextlib.suppress(BlockingIOError):  # rule (3): it is sent again
            _send(self._pair, self._pair.peer_out, _pack(CREDIT, self._n_taken + WINDOW))

    def _wait(self, events: int, seconds: float | None) -> bool:
        """Sleep until something has come; rule (3)."""
        until = float("inf") if seconds is None else time.monotonic() + seconds
        while not super()._wait(events, max(0.0, min(_PROBE, until - time.monotonic()))):
            if time.monotonic() >= until:
                return False
            try:
                self._give_credit()
            except OSError as error:
                raise self._gone(error) from error
        return True

    # -- writing

    def _send_packet(self, packet: Any, until: float | None) -> None:
        out = self._pair.out
        beyond = N_SMALL if len(packet) <= SMALL else 0
        while not self._is_over:
            events = select.POLLIN
            try:
                self._take_credit()
                if self._n_sent < self._limit + beyond:
                    events |= select.POLLOUT
                    _send(out, self._pair.peer_in, _pack(DATA, self._n_sent), packet)
                    self._n_sent += 1
                    return
            except BlockingIOError:
                pass
            except OSError as error:
                raise self._gone(error) from error
            if until is not None and time.monotonic() > until:
                raise TimeoutError
            _poll(out, events, _SLICE)
        raise PeerGone("the connection has ended")

    def _take_credit(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                kind, number, *_ = _take(self._pair.out, self._pair.peer_in, bytearray(0))
                if kind != CREDIT:
                    raise FrameError(f"packet: kind {kind} where credit is")
                self._limit = max(self._limit, number)

    # -- the end

    def shutdown(self) -> None:
        """End both directions, and whatever waits in them; the peer is told."""
        self._is_over = True
        pair = self._pair
        with contextlib.suppress(OSError):
            _send(pair.out, pair.peer_in, _pack(END, self._n_sent))
        for sock in (pair, pair.out):
            with contextlib.suppress(OSError):  # it says ENOTCONN, and wakes who waits
                sock.shutdown(socket.SHUT_RDWR)
