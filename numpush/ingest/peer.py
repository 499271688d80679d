"""One connection of a link: a thread that reads it, and a lock for who writes to it.

(1) What is acknowledged is whole in the receiver's memory. Small objects are handed to the hub, and
    acknowledged, together: when no more of them can be read without waiting.
(2) A write that fails half-way, also by Ctrl-C, ends the connection: the peer could not make out
    where the next object begins.
"""

from __future__ import annotations

import contextlib
import threading
import time
from typing import TYPE_CHECKING

from ..shm.errors import WaitTimeout
from . import compress, wire
from .errors import FrameError, IngestError, PeerGone, PeerRefused
from .hello import shake_hands
from .receiving import Receiver
from .stream import SocketStream, TlsStream

if TYPE_CHECKING:
    from .hub import Hub

__all__ = ["Peer"]


class Peer(Receiver):
    """The other end of a connection.

    Attributes
    ----------
    name, error : as of any Receiver
    said_bye : bool
        The peer has said that nothing more comes from it.
    """

    def __init__(self, hub: Hub, stream: SocketStream, name: str, *, is_listening: bool) -> None:
        super().__init__(hub, stream, name)
        self.said_bye = False
        self._stream = stream
        self._is_listening = is_listening
        self._writing = threading.Lock()
        self._last_head: tuple[bytes, int] | None = None
        self._n_landed = 0
        self._n_sent = 0
        self._n_acknowledged = 0
        self._news = threading.Condition()

    # -- reading: the thread

    def _greet(self) -> None:
        if isinstance(self._stream, TlsStream):
            self._stream.greet()
        shake_hands(_Plain(self._stream), self._hub.key, is_listening=self._is_listening)

    def _read(self) -> None:
        stream = self._stream
        while True:
            if stream.buffered < wire.PROLOGUE_SIZE:
                self._hand_over()
            data = stream.read(wire.PROLOGUE_SIZE, at_rest=True)
            if not data:
                if not self.said_bye and not self._hub.is_closing:
                    raise PeerGone("the peer ended without a goodbye: it was killed, or lost")
                return
            prologue = wire.read_prologue(data)
            if prologue.kind == wire.OBJECT:
                self._land(prologue)
                continue
            text = bytes(stream.read(prologue.padded_header_size))[: prologue.header_size]
            if prologue.kind == wire.ACKNOWLEDGED:
                self._take_acknowledgement(prologue.number)
            elif prologue.kind == wire.REFUSED:
                raise PeerRefused(f"the peer refused: {text.decode(errors='replace')}")
            else:
                self.said_bye = True

    def _take_acknowledgement(self, number: int) -> None:
        with self._news:
            if number > self.n_unacknowledged:
                raise FrameError(
                    f"the peer acknowledges {number} objects, at most {self.n_unacknowledged} are due"
                )
            self._n_acknowledged += number
            self._news.notify_all()

    def _land(self, prologue: wire.Prologue) -> None:
        hub, stream = self._hub, self._stream
        header = bytes(stream.read(prologue.padded_header_size)[: prologue.header_size])
        if (header, prologue.body_size) != self._last_head:  # mostly they are all of one kind
            self._incoming = wire.read_header(header, prologue.body_size)
            self._last_head = header, prologue.body_size
        incoming = self._incoming
        obj = self._take(
            incoming,
            lambda: stream.read(incoming.size),
            lambda landing: landing.receive(stream, hub.count_bytes),
        )
        self._put_down(obj, incoming.size)

    def _hand_over(self) -> None:
        self._n_landed += len(self._landed)
        super()._hand_over()
        self._acknowledge()

    def _acknowledge(self) -> None:
        """Say what landed; or leave it to who is writing just now, for that may wait for the peer.

        Who writes calls it too when it has let go of the lock, so nothing is left unsaid.
        """
        while self._n_landed and self._writing.acquire(blocking=False):
            try:
                count = self._n_landed
                self._stream.write(wire.pack_signal(wire.ACKNOWLEDGED, count))
                self._n_landed -= count
            finally:
                self._writing.release()

    def _refuse(self, reason: str) -> None:
        self._say(wire.pack_signal(wire.REFUSED, text=reason))
        self._stream.discard(1)

    def _say(self, signal: bytes) -> None:
        """Send a last word, if that is possible without waiting for long."""
        if self._writing.acquire(timeout=1):
            try:
                with contextlib.suppress(IngestError, TimeoutError):
                    if not self.ended:
                        self._stream.write(signal, until=time.monotonic() + 1)
            finally:
                self._writing.release()

    def _close(self) -> None:
        with self._writing:
            self._stream.close()
        with self._news:
            self._news.notify_all()

    # -- writing: any thread

    def send(self, outgoing: wire.Outgoing, codec: str | None, until: float | None) -> None:
        """Send an object.

        Raises
        ------
        PeerGone, PeerRefused : the connection ended, now or before; the object is not there.
        WaitTimeout : the peer did not take it until the deadline.
        """
        if not self._writing.acquire(timeout=-1 if until is None else _until(until)):
            raise WaitTimeout(f"{self.name}: another thread was sending to it until the deadline")
        try:
            if self.ended:
                raise self._why()
            self._n_sent += 1  # before: its acknowledgement may be read before we go on
            try:
                self._write(outgoing, codec, until)
            except PeerGone as error:
                self._n_sent -= 1
                self._stream.shutdown()
                self._is_over.wait(1)  # the thread may have read why
                raise self._why(error) from error
            except BaseException as error:
                self._n_sent -= 1
                self._set_error(PeerGone("the connection was closed, an object being half sent"))
                self._stream.shutdown()
                if isinstance(error, TimeoutError):
                    raise WaitTimeout(
                        f"{self.name} did not take the whole object until the deadline; the "
                        "connection is closed"
                    ) from None
                raise
        finally:
            self._writing.release()
        self._acknowledge()
        if self._stream.sends_pages:  # the object's memory is the peer's to read until then
            self.flush(until)

    def _write(self, outgoing: wire.Outgoing, codec: str | None, until: float | None) -> None:
        if codec is None:
            self._stream.write(outgoing.head, *outgoing.parts(), until=until)
            return
        self._stream.write(outgoing.head, until=until)
        for buffer in outgoing.buffers:
            for chunk in compress.chunks(buffer, codec):
                self._stream.write(chunk, until=until)

    def _why(self, error: Exception | None = None) -> Exception:
        found = self.error or error or PeerGone("the connection has ended")
        kind = type(found) if isinstance(found, IngestError) else PeerGone
        told = kind(f"{self.name}: {found}")
        if self.n_unacknowledged:
            told.add_note(f"{self.n_unacknowledged} objects sent before were not acknowledged")
            self._n_acknowledged = self._n_sent  # it is told once
        return told

    @property
    def n_unacknowledged(self) -> int:
        """How many objects were sent that the peer has not said it has."""
        return self._n_sent - self._n_acknowledged

    def flush(self, until: float | None) -> None:
        """Wait until the peer has all that was sent to it.

        Raises
        ------
        PeerGone, PeerRefused : the connection ended before.
        WaitTimeout : the deadline passed.
        """
        with self._news:
            while self.n_unacknowledged:
                if self.ended:
                    raise self._why()
                self._news.wait(_until(until, 0.2))
                if self.n_unacknowledged and until is not None and time.monotonic() > until:
                    raise WaitTimeout(
                        f"{self.name}: {self.n_unacknowledged} objects not acknowledged until the "
                        "deadline"
                    )

    def say_bye(self) -> None:
        """Tell the peer that nothing more comes."""
        self._say(wire.pack_signal(wire.BYE))


class _Plain:
    """A stream as the handshake sees it."""

    def __init__(self, stream: SocketStream) -> None:
        self._stream = stream

    def read(self, size: int) -> bytes:
        return bytes(self._stream.read(size))

    def write(self, data: bytes) -> None:
        self._stream.write(data)


def _until(until: float | None, most: float | None = None) -> float:
    """Return the seconds left until a deadline, at most *most*."""
    left = 3600.0 if until is None else max(0.0, until - time.monotonic())
    return left if most is None else min(left, most)
