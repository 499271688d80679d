"""What libzmq does for us, through pyzmq: all sending; receiving where it decrypts or asks for a password.

(1) A socket of libzmq is used by one thread at a time: a receiver's by its own, a sender's under its lock.
(2) What is large is sent from where it lies: `send` returns when libzmq has given all of it to the kernel,
    since it may be changed then. What is small is copied, and `send` returns at once.
(3) libzmq reads into memory of its own, so what it receives is copied once, into its segment.

pyzmq leaves what is not its own process's alone, so a child of a fork has nothing to end.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import io
import os
import threading
import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..layout import Buffer
from ..shm.errors import WaitTimeout
from . import wire
from .errors import FrameError, LinkClosed
from .landing import Landing
from .link import Link
from .receiving import Receiver, without_frames
from .url import Address
from .zmq_messages import MAX_TOPIC, Reader
from .zmq_peer import ZmqHub

if TYPE_CHECKING:
    import zmq

__all__ = ["LibzmqReceiver", "LibzmqSender", "LibzmqSocket", "Security"]

Raw = NDArray[np.uint8]

_LARGE = 64 << 10  #: bytes of an object that is sent from where it lies; rule (2)
_SLICE_MS = 100  #: what libzmq waits for at most before the link is asked whether it is closed
_PAUSE = 0.005  #: seconds between two tries, where libzmq does not say when
_AHEAD = 100  #: messages that libzmq reads ahead: they are in private memory
_MOST_PENDING = 1000  #: small messages that were not given to the kernel yet


class Security:
    """How peers are told from strangers.

    Parameters
    ----------
    curve : (public, secret, others), optional
        Our keys, as ``zmq.curve_keypair()`` makes them; and the public key of the other end, or, to
        listen, of each one that may connect.
    plain : (user, password), optional

    Raises
    ------
    ValueError, TypeError : they are not of that form.
    """

    def __init__(
        self,
        curve: tuple[bytes, bytes, bytes | Iterable[bytes]] | None,
        plain: tuple[str, str] | None,
    ) -> None:
        if curve is not None and plain is not None:
            raise ValueError("curve= or plain=: CURVE has no passwords")
        self.mechanism = "CURVE" if curve else "PLAIN" if plain else "NULL"
        self._keys: tuple[bytes, bytes] = b"", b""
        self._others: list[bytes] = []
        self._user = self._password = ""
        if curve is not None:
            if len(curve) != 3:
                raise ValueError("curve: (public, secret, public key of the other end) wanted")
            public, secret, others = curve
            self._keys = _check_key(public), _check_key(secret)
            listed = [others] if isinstance(others, bytes | str) else others
            self._others = [_check_key(other) for other in listed]
        if plain is not None:
            self._user, self._password = plain

    def apply(self, context: zmq.Context[Any], sock: zmq.Socket[Any], is_server: bool) -> Any:
        """Have a socket use it. Returns what is to be stopped with it, or None."""
        if self.mechanism == "CURVE":
            sock.curve_publickey, sock.curve_secretkey = self._keys
            if is_server:
                sock.curve_server = True
            elif len(self._others) == 1:
                sock.curve_serverkey = self._others[0]
            else:
                raise ValueError("curve: the public key of the one other end wanted")
        elif self.mechanism == "PLAIN":
            if is_server:
                sock.plain_server = True
            else:
                sock.plain_username = self._user.encode()
                sock.plain_password = self._password.encode()
        if not is_server or self.mechanism == "NULL":
            return None
        from zmq.auth.thread import ThreadAuthenticator

        guard = ThreadAuthenticator(context)
        guard.start()
        if self.mechanism == "CURVE":
            guard.configure_curve_callback(credentials_provider=self)
        else:
            guard.configure_plain(passwords={self._user: self._password})
        return guard

    def callback(self, domain: str, key: bytes) -> bool:
        """Whether a client's key is one that may connect; pyzmq asks."""
        return key in self._others


def _check_key(key: bytes | str) -> bytes:
    if isinstance(key, str):
        key = key.encode()
    if not isinstance(key, bytes) or len(key) != 40:
        raise ValueError("curve: keys of 40 characters wanted, as zmq.curve_keypair() makes them")
    return key


class LibzmqSocket:
    """A socket of libzmq with a context of its own, bound or connected.

    Attributes
    ----------
    address : with the port that was found
    lock : is held by whoever uses it; rule (1)
    """

    def __init__(
        self,
        address: Address,
        security: Security,
        max_bytes: int | None,
        patience: float,
        *,
        is_listening: bool,
    ) -> None:
        import zmq

        self.address = address
        self.lock = threading.RLock()
        self.is_shut = False
        self._linger_ms = round(patience * 1e3)
        self._pid = os.getpid()
        self._context: zmq.Context[Any] = zmq.Context()
        self._guard: Any = None
        try:
            kind = getattr(zmq, address.zmq_type.upper())
            sock = self.socket = self._context.socket(kind)
            sock.ipv6 = ":" in address.host
            sock.linger = self._linger_ms
            if address.zmq_type in ("pull", "sub"):
                sock.rcvhwm = _AHEAD
                sock.maxmsgsize = -1 if max_bytes is None else max(max_bytes, wire.MAX_HEADER)
            else:
                sock.copy_threshold = 0  # pyzmq has no tracker for what it copies
                sock.immediate = True  # a message waits here for a peer, not in a queue to nobody
                if address.zmq_type == "pub":
                    sock.xpub_nodrop = True
            self._guard = security.apply(self._context, sock, is_listening)
            for topic in address.topics:
                sock.subscribe(topic)
            endpoint = str(address).removeprefix("zmq+")
            if is_listening:
                sock.bind(endpoint)
                self.address = self._bound(sock)
            else:
                sock.connect(endpoint)
        except BaseException as error:
            self.close()
            if isinstance(error, zmq.ZMQError):
                raise OSError(error.errno, f"{address}: {error.strerror}") from error
            raise

    def _bound(self, sock: Any) -> Address:
        if self.address.host:
            port = int(sock.last_endpoint.rstrip(b"\0").rpartition(b":")[2])
            return dataclasses.replace(self.address, port=port)
        if not self.address.path.startswith("@"):
            os.chmod(self.address.path, 0o600)
        return self.address

    def shutdown(self) -> None:
        """Have the thread that receives come to its end."""
        self.is_shut = True

    def close(self, linger_ms: int | None = None) -> None:
        """Close it, when libzmq has given to the kernel what was sent, or *linger_ms* have passed."""
        self.is_shut = True
        if os.getpid() != self._pid:
            return
        with self.lock:
            guard, self._guard = self._guard, None
            if guard is not None:
                guard.stop()
            if not self._context.closed:
                self._context.destroy(self._linger_ms if linger_ms is None else linger_ms)

    def forget(self) -> None:
        """In the child of a fork: nothing, see above."""


class LibzmqReceiver(Receiver):
    """All peers of a socket of libzmq; also the frames of their messages, as zmq_messages.Frames.

    A message that is not what it says is left out: libzmq does not say whose it was.
    """

    def __init__(self, hub: ZmqHub, sock: LibzmqSocket) -> None:
        super().__init__(hub, sock, str(sock.address))
        self.size = 0
        self.has_more = False
        self._sock = sock
        self._frames: collections.deque[zmq.Frame] = collections.deque()
        self._reader = Reader(self, hub.form, self._take, self._put_down)

    def _read(self) -> None:
        sock = self._sock
        while not sock.is_shut:
            if sock.socket.poll(_SLICE_MS):
                self._frames.extend(sock.socket.recv_multipart(copy=False))
                self._begin()
                try:
                    self._reader.read()
                except FrameError as error:
                    self._hub.record(self.name, without_frames(error))
                self._frames.clear()
                self._hand_over()

    def _begin(self) -> None:
        self.size = len(self._frames[0])
        self.has_more = len(self._frames) > 1

    def advance(self) -> None:
        self._frames.popleft()
        self._begin()

    def peek(self, size: int) -> memoryview:
        return self.read()[:size]

    def read(self) -> memoryview:
        return memoryview(self._frames[0].buffer)

    def pour(self, landing: Landing, i: int) -> None:
        landing.fill_buffer(i, self.read())
        self._hub.count_bytes(self.size)


class LibzmqSender(Link):
    """A link that pushes or publishes. Made by `listen` and `connect`.

    ZeroMQ has no acknowledgements. What `send` and `flush` wait for is that the kernel of this machine
    has the data: what it has and the peer has not read, or what libzmq had for a peer, is lost when
    that ends. A publisher sends to who has subscribed by then, so what nobody has subscribed to yet
    goes nowhere; a subscriber that does not read makes it wait.
    """

    def __init__(self, hub: ZmqHub, sock: LibzmqSocket, checksum: bool) -> None:
        hub.acceptor = sock
        super().__init__(hub, sock.address, None, checksum)
        self._socket = sock
        self._pending: collections.deque[Any] = collections.deque()  #: trackers of what is small

    def _check_peer(self) -> None:
        raise io.UnsupportedOperation(
            f"{self.url}: type={self._socket.address.zmq_type} only sends; to receive, say "
            "?type=pull or ?type=sub"
        )

    def send(self, obj: Any, timeout: float | None = None, *, topic: bytes = b"") -> None:
        """Send an object; a push, to each of its peers in turn, a pub, to all that subscribed.

        When it returns the object may be changed.

        Parameters
        ----------
        obj, timeout : as for any Link
        topic : bytes
            What subscriptions are compared with. Without one a subscriber gets it that subscribes to
            everything.

        Raises
        ------
        TypeError : it cannot be sent; the message names the column and the remedy.
        WaitTimeout : no peer was there in time; or the peers did not take all of it, then the link is
            closed.
        LinkClosed : the link was closed.
        """
        if len(topic) > MAX_TOPIC:
            raise ValueError(f"topic: at most {MAX_TOPIC} bytes wanted, {len(topic)} found")
        until = None if timeout is None else time.monotonic() + timeout
        self._check_code(obj)
        outgoing = wire.encode(obj, checksum=self._checksum)
        is_large = outgoing.size >= _LARGE
        frames: list[Any] = [topic] if topic else []
        frames.append(outgoing.head)
        if outgoing.body is not None:
            frames.append(outgoing.body)
        for buffer in outgoing.buffers:
            data = _dense(buffer)
            frames.append(data if is_large else data.tobytes())
        with self._locked(until):
            self._make_room(until)
            tracker = self._send(frames, until)
            if is_large:
                self._wait_or_close(tracker, until)
            else:
                self._pending.append(tracker)
        self._hub.count_sent(outgoing.size)

    @contextlib.contextmanager
    def _locked(self, until: float | None) -> Iterator[None]:
        """Hold the socket; rule (1)."""
        left = -1 if until is None else max(0.0, until - time.monotonic())
        if not self._socket.lock.acquire(timeout=left):
            raise WaitTimeout(f"{self.url}: another thread was sending until the deadline")
        try:
            yield
        finally:
            self._socket.lock.release()

    def _make_room(self, until: float | None) -> None:
        """Forget of small objects that are sent; wait if there are too many that are not."""
        while self._pending and (self._pending[0].done or len(self._pending) > _MOST_PENDING):
            self._wait_for(self._pending[0], until)
            self._pending.popleft()

    def _send(self, frames: list[Any], until: float | None) -> Any:
        """Give a message to libzmq, and return what tells when it needs the buffers no longer."""
        import zmq

        sock = self._socket.socket
        flags = [zmq.SNDMORE] * (len(frames) - 1) + [0]
        while True:
            self._check_open()
            if sock.poll(_SLICE_MS, zmq.POLLOUT):
                try:
                    sock.send(frames[0], flags[0] | zmq.NOBLOCK)
                    break
                except zmq.Again:  # a publisher that has a subscriber who does not read
                    time.sleep(_PAUSE)
            if until is not None and time.monotonic() > until:
                raise WaitTimeout(f"{self.url}: no peer took it until the deadline")
        trackers: list[Any] = []
        try:
            for frame, flag in zip(frames[1:], flags[1:]):
                trackers.append(sock.send(frame, flag, copy=False, track=True))
        finally:
            if len(trackers) < len(frames) - 1:  # Ctrl-C: the next message would be its end
                self._abort()
        return zmq.MessageTracker(*trackers)

    def _abort(self) -> None:
        """End the link, and have libzmq drop what it has."""
        self._hub.is_closing = True
        self._socket.close(0)

    def _check_open(self) -> None:
        if self._hub.is_closing:
            raise LinkClosed("the link is closed")

    def _wait_or_close(self, tracker: Any, until: float | None) -> None:
        """Wait until libzmq needs an object no longer; if that does not come, end it all."""
        is_done = False
        try:
            self._wait_for(tracker, until)
            is_done = True
        except WaitTimeout as error:
            raise WaitTimeout(f"{error}; the link is closed") from None
        finally:
            if not is_done:
                self._abort()

    def _wait_for(self, tracker: Any, until: float | None) -> None:
        import zmq

        while True:
            try:
                tracker.wait(_SLICE_MS / 1e3)
                return
            except zmq.NotDone:
                self._check_open()
                if until is not None and time.monotonic() > until:
                    raise WaitTimeout(f"{self.url}: the peers did not take all of it") from None

    def flush(self, timeout: float | None = None) -> None:
        """Wait until the kernel has all that was sent.

        Raises
        ------
        WaitTimeout : it has not, in time: the peers do not read.
        """
        until = None if timeout is None else time.monotonic() + timeout
        with self._locked(until):
            while self._pending:
                self._wait_for(self._pending[0], until)
                self._pending.popleft()

    def close(self) -> None:
        """Wait for what was sent, as `flush` does, but not longer than the link's timeout; and end."""
        if not self._hub.is_closing:
            try:
                self.flush(self._hub.patience)
            except WaitTimeout as error:
                self._hub.record(self.url, without_frames(error))
                self._abort()
        super().close()


def _dense(buffer: Buffer) -> Raw:
    """Return what a buffer is to hold: its own memory where that is dense."""
    source = buffer.source()
    if source is not None:
        return np.ndarray((buffer.nbytes,), np.uint8, source)
    whole = np.zeros(buffer.nbytes, np.uint8)
    for target, piece in buffer.copies(whole):
        np.copyto(target, piece)
    return whole
