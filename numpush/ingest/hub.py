"""What the connections of a link have in common: what has landed, who is there, what was counted.

The threads of the peers refer to the hub and not to the link, so a link that is forgotten ends them.

(1) What has landed waits here until it is asked for. A peer receives its next object only while less
    than `AHEAD` bytes wait: then it stops reading, and its sender has to wait.
(2) `_lock` guards all of it; nobody waits for a peer with it held.
"""

from __future__ import annotations

import collections
import logging
import os
import threading
import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from . import landing
from .errors import LinkClosed
from .peer import Peer
from .receiving import Receiver

if TYPE_CHECKING:
    from .stream import SocketStream

__all__ = ["AHEAD", "Hub", "Statistics"]

AHEAD = 256 << 20  #: bytes that may wait to be asked for, or one object
_MANY = 1 << 16  #: and as many objects, however small
_N_FAILURES = 100

log = logging.getLogger("numpush.ingest")
_hubs: weakref.WeakSet[Hub] = weakref.WeakSet()


@dataclass(frozen=True)
class Statistics:
    """What a link has done so far.

    Attributes
    ----------
    objects, bytes : int
        Received whole; bytes of their data.
    sent_objects, sent_bytes : int
    seconds : float
        From the first byte of the first object received to the last of the latest.
    gb_per_s : float
        Received, 10**9 bytes a second over *seconds*.
    peers : tuple of str
        Who is connected.
    failures : tuple of (str, Exception)
        Peers whose connection ended in an error, the latest hundred.
    """

    objects: int
    bytes: int
    sent_objects: int
    sent_bytes: int
    seconds: float
    gb_per_s: float
    peers: tuple[str, ...]
    failures: tuple[tuple[str, Exception], ...]


class Entrance(Protocol):
    """What makes connections: an Acceptor, say."""

    def close(self) -> None:
        """End it, and its thread."""

    def forget(self) -> None:
        """In the child of a fork: close the copies."""


class Hub:
    """The state of a link.

    Parameters
    ----------
    key, max_bytes, patience : as listen() takes them
    """

    def __init__(self, key: bytes | None, max_bytes: int | None, patience: float) -> None:
        self.key = key
        self.max_bytes = max_bytes
        self.patience = patience
        self.is_closing = False
        self.progress: Callable[[int], object] | None = None  #: who shows progress
        self.acceptor: Entrance | None = None  #: where connections come from
        self._owing: list[Receiver] = []  #: that ended without acknowledging all that was sent
        self._landed: collections.deque[tuple[Any, int]] = collections.deque()
        self._waiting_bytes = 0
        self._lock = threading.Condition()
        self._peers: list[Receiver] = []
        self._next_peer = 0
        self._failures: collections.deque[tuple[str, Exception]] = collections.deque(
            maxlen=_N_FAILURES
        )
        self._wakers: set[Callable[[], None]] = set()
        self._n_objects = self._n_bytes = self._n_sent = self._n_sent_bytes = 0
        self._first = self._last = 0.0
        landing.load()
        _hubs.add(self)

    # -- peers come and go

    def meet(self, stream: SocketStream, name: str, *, is_listening: bool) -> Receiver:
        """Take a connection over."""
        peer = self._make_peer(stream, name, is_listening)
        try:
            self.admit(peer)
        except LinkClosed:
            stream.close()
            raise
        return peer

    def admit(self, peer: Receiver) -> None:
        """Have a peer start, and know of it."""
        with self._lock:
            if self.is_closing:
                raise LinkClosed("the link is closed")
            self._peers.append(peer)
        peer.start()

    def _make_peer(self, stream: SocketStream, name: str, is_listening: bool) -> Receiver:
        return Peer(self, stream, name, is_listening=is_listening)

    def welcome(self, peer: Receiver) -> None:
        """Know that a peer has shaken hands: it can be sent to."""
        with self._lock:
            peer.is_welcome = True
            self._lock.notify_all()

    def part(self, peer: Receiver) -> None:
        """Know that a connection has ended."""
        with self._lock:
            self._peers.remove(peer)
            if peer.n_unacknowledged:
                self._owing.append(peer)
            if peer.error is not None and not self.is_closing:
                self.record(peer.name, peer.error)
            self._notify()

    def record(self, name: str, error: Exception) -> None:
        """Know of a failure."""
        self._failures.append((name, error))
        log.warning("%s: %s", name, error)

    @staticmethod
    def report(error: Exception) -> None:
        """Log an error that nobody expected, with its traceback."""
        log.error("a connection ended by an error of numpush's own", exc_info=error)

    def find_peer(self, until: float | None) -> Receiver:
        """Wait for a peer and return it, each in turn.

        Raises
        ------
        TimeoutError : none came before the deadline.
        LinkClosed : the link was closed.
        """
        with self._lock:
            while True:
                if self.is_closing:
                    raise LinkClosed("the link is closed")
                ready = [peer for peer in self._peers if peer.is_welcome and not peer.ended]
                if ready:
                    self._next_peer += 1
                    return ready[self._next_peer % len(ready)]
                left = None if until is None else until - time.monotonic()
                if left is not None and left <= 0:
                    raise TimeoutError
                self._lock.wait(0.2 if left is None else min(left, 0.2))

    @property
    def peers(self) -> list[Receiver]:
        """Those that are connected."""
        with self._lock:
            return list(self._peers)

    def flush(self, until: float | None) -> None:
        """Wait until all that was sent is acknowledged; Peer.flush."""
        with self._lock:
            owing, self._owing = self._owing, []
            peers = [*owing, *self._peers]
        for peer in peers:
            peer.flush(until)

    # -- what has landed

    def wait_until_wanted(self, size: int, seconds: float) -> bool:
        """Wait, at most so long, until an object of *size* bytes may be received; rule (1)."""
        if self.has_room(size):
            return True
        with self._lock:
            if not self.has_room(size) and not self.is_closing:
                self._lock.wait(seconds)
            return self.has_room(size) or self.is_closing

    def has_room(self, size: int) -> bool:
        """Whether so much more may wait; rule (1)."""
        waiting = self._waiting_bytes
        return (not waiting or waiting + size <= AHEAD) and len(self._landed) < _MANY

    def count_bytes(self, n: int) -> None:
        """Know that bytes came, for who shows progress."""
        if not self._first:
            self._first = time.monotonic()
        if self.progress is not None:
            self.progress(n)

    def deliver(self, landed: list[tuple[Any, int]]) -> None:
        """Put down objects that are whole, each with its bytes."""
        size = sum(size for _, size in landed)
        with self._lock:
            now = time.monotonic()
            self._first = self._first or now
            self._last = now
            self._n_objects += len(landed)
            self._n_bytes += size
            if self.is_closing:
                return
            self._landed.extend(landed)
            self._waiting_bytes += size
            self._notify()

    def _notify(self) -> None:
        self._lock.notify_all()
        for wake in self._wakers:
            wake()
        self._wakers.clear()

    def take(self, waker: Callable[[], None] | None = None) -> tuple[Any] | None:
        """Return (object,), the next that has landed, or None; then *waker* is called once there is.

        Raises
        ------
        LinkClosed : the link was closed.
        """
        with self._lock:
            if self._landed:
                obj, size = self._landed.popleft()
                was_full = not self.has_room(size)
                self._waiting_bytes -= size
                if was_full or not self._waiting_bytes:
                    self._lock.notify_all()
                return (obj,)
            if self.is_closing:
                raise LinkClosed("the link is closed")
            if waker is not None:
                self._wakers.add(waker)
            return None

    def wait(self, seconds: float) -> None:
        """Sleep until something has landed or somebody came or went, at most so long."""
        with self._lock:
            if not self._landed and not self.is_closing:
                self._lock.wait(seconds)

    def has_landed(self) -> bool:
        return bool(self._landed)

    def count_sent(self, size: int) -> None:
        with self._lock:
            self._n_sent += 1
            self._n_sent_bytes += size

    def statistics(self) -> Statistics:
        """Return what was counted."""
        with self._lock:
            seconds = self._last - self._first if self._n_objects else 0.0
            return Statistics(
                objects=self._n_objects,
                bytes=self._n_bytes,
                sent_objects=self._n_sent,
                sent_bytes=self._n_sent_bytes,
                seconds=seconds,
                gb_per_s=self._n_bytes / seconds / 1e9 if seconds else 0.0,
                peers=tuple(peer.name for peer in self._peers if peer.is_welcome),
                failures=tuple(self._failures),
            )

    # -- the end

    def close(self) -> None:
        """End all connections and their threads; let go of what nobody asked for."""
        with self._lock:
            self.is_closing = True
            self._notify()
            peers = list(self._peers)
        acceptor, self.acceptor = self.acceptor, None
        if acceptor is not None:
            acceptor.close()
        for peer in peers:
            peer.stop()
        with self._lock:
            self._landed.clear()
            self._waiting_bytes = 0

    def _forget(self) -> None:
        """In the child of a fork: the link is the parent's."""
        self.is_closing = True
        self._lock = threading.Condition()
        if self.acceptor is not None:
            self.acceptor.forget()
            self.acceptor = None
        for peer in self._peers:
            peer.forget()
        self._peers = []
        self._landed.clear()
        self._wakers.clear()


def _after_fork_in_child() -> None:
    for hub in list(_hubs):
        hub._forget()


os.register_at_fork(after_in_child=_after_fork_in_child)
