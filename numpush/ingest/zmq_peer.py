"""A publisher or pusher that we receive from, by ZMTP on a plain socket; and the thread that dials one.

(1) A peer that ends, however, is no error of a link that connects: it is dialled again, with longer and
    longer pauses. What the link cannot mend by that (another socket type, a message that is none) ends
    it.
(2) Commands may stand before any frame. A PING is answered; while we do not read, since there is no room,
    a peer that has sent one is told now and then that we are there.
(3) A host that went away without a word is noticed by TCP's keep-alive (stream.py); so no PING is ours.

Source: rfc.zeromq.org, 28/REQREP, 29/PUBSUB, 30/PIPELINE, 37/ZMTP.
"""

from __future__ import annotations

import contextlib
import errno
import random
import select
import socket
import threading
import time
from typing import Any

from . import sockets, zmtp
from .errors import AccessDenied, FrameError, IngestError, LinkClosed, PeerGone, PeerRefused
from .hub import Hub
from .landing import Landing
from .receiving import Receiver
from .stream import SocketStream
from .url import Address
from .zmq_messages import Form, Reader

__all__ = ["Connector", "ZmqHub", "ZmqPeer"]

_FIRST_PAUSE, _LONGEST_PAUSE = 0.02, 1.0  #: seconds between two tries to connect
_SLICE_MS = (
    100  #: how long a connection is waited for before the link is asked whether it is closed
)


class ZmqHub(Hub):
    """What the connections of a link of ZeroMQ have in common.

    Parameters
    ----------
    address : of the link
    form : of raw frames
    max_bytes, patience : as listen() takes them
    is_listening : whether it goes on without a peer that has failed

    Attributes
    ----------
    error : Exception or None
        What has ended a link that connects.
    """

    def __init__(
        self,
        address: Address,
        form: Form,
        max_bytes: int | None,
        patience: float,
        *,
        is_listening: bool,
    ) -> None:
        super().__init__(None, max_bytes, patience)
        self.address = address
        self.form = form
        self.error: Exception | None = None
        self._is_listening = is_listening

    def _make_peer(self, stream: SocketStream, name: str, is_listening: bool) -> Receiver:
        return ZmqPeer(self, stream, name)

    def part(self, peer: Receiver) -> None:
        if not self._is_listening and not isinstance(peer.error, PeerGone):  # rule (1)
            self.error = peer.error
        super().part(peer)

    def wait_for_end(self, peer: Receiver) -> None:
        """Wait until a connection has ended, or the link is closed."""
        with self._lock:
            while peer in self._peers and not self.is_closing:
                self._lock.wait()

    def sleep(self, seconds: float) -> None:
        """Wait so long, or until the link is closed."""
        until = time.monotonic() + seconds
        with self._lock:
            while not self.is_closing and (left := until - time.monotonic()) > 0:
                self._lock.wait(left)


class ZmqPeer(Receiver):
    """A connection; also the frames that come over it, as zmq_messages.Frames."""

    def __init__(self, hub: ZmqHub, stream: SocketStream, name: str) -> None:
        super().__init__(hub, stream, name)
        self.size = 0
        self.has_more = False
        self._stream = stream
        self._address = hub.address
        self._reader = Reader(self, hub.form, self._take, self._put_down)
        self._pinged_at = (
            0.0  #: when the peer sent its last PING, or was last told that we are there
        )

    # -- connection

    def _greet(self) -> None:
        stream, ours = self._stream, self._address.zmq_type.upper()
        stream.write(zmtp.pack_greeting())
        try:
            start = bytes(stream.read(zmtp.VERSION_END))
            zmtp.read_version(start)
            greeting = zmtp.read_greeting(
                start + bytes(stream.read(zmtp.GREETING_SIZE - len(start)))
            )
        except PeerGone as error:
            # So does a libzmq that is to use another mechanism than ours.
            raise PeerGone(f"{error}: does it want curve= or plain=?") from error
        if greeting.mechanism != "NULL":
            raise AccessDenied(
                f"the peer wants the mechanism {greeting.mechanism}: give both ends the same "
                "curve= or plain=, or neither"
            )
        stream.write(zmtp.pack_ready(ours))
        name, body = self._read_command()
        if name != "READY":
            raise FrameError(f"handshake: READY wanted, {name:.40} found")
        theirs = zmtp.read_metadata(body).get("socket-type", b"").decode(errors="replace")
        if theirs not in zmtp.COMPATIBLE[ours]:
            raise FrameError(
                f"handshake: a peer of type {' or '.join(zmtp.COMPATIBLE[ours])} wanted for our "
                f"{ours}, {theirs!r:.40} found"
            )
        for topic in self._address.topics:
            stream.write(zmtp.pack_subscription(topic, greeting.minor))

    def _refuse(self, reason: str) -> None:
        with contextlib.suppress(IngestError, TimeoutError):
            self._stream.write(zmtp.pack_error(reason), until=time.monotonic() + 1)

    def _read(self) -> None:
        while self._advance(at_rest=True):
            self._reader.read()

    def _is_closed(self) -> bool:
        now = time.monotonic()
        if self._pinged_at and now - self._pinged_at >= 0.2:  # rule (2)
            self._pinged_at = now
            self._write(zmtp.pack_pong())
        return super()._is_closed()

    # -- frames

    def advance(self) -> None:
        """Read the header of the next frame of a message."""
        self._advance(at_rest=False)

    def _advance(self, *, at_rest: bool) -> bool:
        """Read the header of the next frame; False: the peer has ended before it."""
        while True:
            frame = self._read_frame(at_rest)
            if frame is None:
                return False
            if not frame.is_command:
                self.size, self.has_more = frame.size, frame.has_more
                return True
            self._obey(*zmtp.read_command(self._stream.read(frame.size)))

    def _read_frame(self, at_rest: bool) -> zmtp.Frame | None:
        stream = self._stream
        self._expect(2)
        start = stream.peek(2, at_rest=at_rest)
        if not start:
            return None
        return zmtp.read_header(stream.read(zmtp.header_size(start[0])))

    def _read_command(self) -> tuple[str, bytes]:
        """Read a frame of the handshake."""
        frame = self._read_frame(False)
        assert frame is not None
        if not frame.is_command:
            raise FrameError("handshake: a command wanted, a message found")
        name, body = zmtp.read_command(self._stream.read(frame.size))
        if name == "ERROR":
            raise PeerRefused(f"the peer refused: {zmtp.read_error(body)}")
        return name, body

    def _obey(self, name: str, body: bytes) -> None:
        """Do what a command says; those that we do not know mean nothing to us."""
        if name == "PING":
            self._pinged_at = time.monotonic()
            self._write(zmtp.pack_pong(zmtp.read_ping(body).context))
        elif name == "ERROR":
            raise PeerRefused(f"the peer refused: {zmtp.read_error(body)}")

    def _write(self, data: bytes) -> None:
        try:
            self._stream.write(data, until=time.monotonic() + self._hub.patience)
        except TimeoutError:
            raise PeerGone(
                f"the peer read nothing for {self._hub.patience:g} s, not what it asked for either"
            ) from None

    def _expect(self, size: int) -> None:
        """Hand over what has landed if so many bytes have not come yet."""
        if self._stream.buffered < size:
            self._hand_over()

    def peek(self, size: int) -> memoryview:
        self._expect(size)
        return self._stream.peek(size)

    def read(self) -> memoryview:
        self._expect(self.size)
        return self._stream.read(self.size)

    def pour(self, landing: Landing, i: int) -> None:
        landing.receive_buffer(i, self._stream, self._hub.count_bytes)


class Connector:
    """The thread that dials a peer, and dials it again when it has gone."""

    def __init__(self, hub: ZmqHub, io: str) -> None:
        self._hub = hub
        self._io = io
        self._sock: socket.socket | None = None  #: while it is not connected
        self._thread = threading.Thread(
            target=self._run, name=f"numpush {hub.address}", daemon=True
        )
        self._thread.start()

    def _run(self) -> None:
        hub, pause = self._hub, _FIRST_PAUSE
        while True:
            peer = self._meet()
            if peer is not None:
                hub.wait_for_end(peer)
                if peer.is_welcome:
                    pause = _FIRST_PAUSE
            if hub.is_closing or hub.error is not None:
                return
            hub.sleep(pause * random.uniform(0.5, 1))  # not all that lost one peer at once
            pause = min(2 * pause, _LONGEST_PAUSE)

    def _meet(self) -> Receiver | None:
        """Connect, if somebody is there."""
        hub = self._hub
        with contextlib.suppress(OSError, LinkClosed):
            for family, where in _places(hub.address):
                if self._connect(family, where):
                    sock, self._sock = self._sock, None
                    assert sock is not None
                    stream = sockets.open_stream(sock, self._io, None, None, hub.patience)
                    return hub.meet(stream, str(hub.address), is_listening=False)
        return None

    def _connect(self, family: socket.AddressFamily, where: Any) -> bool:
        sock = self._sock = socket.socket(family, socket.SOCK_STREAM)
        is_connected = False
        try:
            sock.setblocking(False)
            code = sock.connect_ex(where)
            until = time.monotonic() + self._hub.patience
            poll = select.poll()
            poll.register(sock, select.POLLOUT)
            while code == errno.EINPROGRESS and time.monotonic() < until:
                if self._hub.is_closing:
                    return False
                if poll.poll(_SLICE_MS):
                    code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            # Nobody listens there, but TCP has found the port that it came from itself.
            is_ourselves = family != socket.AF_UNIX and sock.getsockname() == where
            is_connected = not code and not is_ourselves
            return is_connected
        finally:
            if not is_connected:
                self._sock = None
                sock.close()

    def close(self) -> None:
        """End the thread. The hub is closing."""
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def forget(self) -> None:
        """In the child of a fork: close the copy of what is being connected."""
        if self._sock is not None:
            self._sock.close()


def _places(address: Address) -> list[tuple[socket.AddressFamily, Any]]:
    """Return all that a name may mean."""
    if address.family == socket.AF_UNIX:
        return [(socket.AF_UNIX, address.sockaddr)]
    found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    return [(family, where) for family, _, _, _, where in found]
