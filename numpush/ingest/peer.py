"""One connection of a link: a thread that reads it, and a lock for who writes to it.

(1) The thread ends with the connection, for whatever reason, and tells its hub why.
(2) What is acknowledged is whole in the receiver's memory. Small objects are handed to the hub, and
    acknowledged, together: when no more of them can be read without waiting.
(3) A write that fails half-way, also by Ctrl-C, ends the connection: the peer could not make out
    where the next object begins.
"""

from __future__ import annotations

import contextlib
import ssl
import threading
import time
from typing import TYPE_CHECKING, Any

from ..shm.errors import SegmentFull, WaitTimeout
from . import compress, wire
from .errors import FrameError, IngestError, PeerGone, PeerRefused
from .hello import shake_hands
from .landing import Arena, Landing, check_size, wait_for_room
from .stream import SocketStream, TlsStream

if TYPE_CHECKING:
    from .hub import Hub

__all__ = ["Peer"]

_TOGETHER = 256  #: small objects that are handed over together, at most


class Peer:
    """The other end of a connection.

    Attributes
    ----------
    name : str
        Where it is, for messages.
    error : Exception or None
        Why the connection ended, unless in good order.
    """

    def __init__(self, hub: Hub, stream: SocketStream, name: str, *, is_listening: bool) -> None:
        self.name = name
        self.error: Exception | None = None
        self.said_bye = False
        self.is_ready = threading.Event()  #: hands were shaken, or it has ended
        self.is_welcome = False  #: hands were shaken
        self.ended = False
        self._is_over = threading.Event()
        self._hub = hub
        self._stream = stream
        self._is_listening = is_listening
        self._writing = threading.Lock()
        self._landing: Landing | None = None
        self._arena = Arena()
        self._last_head: tuple[bytes, int] | None = None
        self._landed: list[tuple[Any, int]] = []  #: small ones, to be handed over together
        self._n_landed = 0
        self._n_sent = 0
        self._n_acknowledged = 0
        self._news = threading.Condition()
        self._thread = threading.Thread(target=self._run, name=f"numpush {name}", daemon=True)

    def start(self) -> None:
        """Shake hands and read, in a thread."""
        self._thread.start()

    # -- reading: the thread

    def _run(self) -> None:
        try:
            if isinstance(self._stream, TlsStream):
                self._stream.greet()
            shake_hands(_Plain(self._stream), self._hub.key, is_listening=self._is_listening)
            self._hub.welcome(self)
            self.is_ready.set()
            self._read()
        except (IngestError, SegmentFull, ImportError, ssl.SSLError) as error:
            self._fail(error)
        except Exception as error:  # ours to mend, but nobody else's connection ends by it
            self._fail(IngestError(f"{type(error).__name__}: {error}"))
            self._hub.report(error)
        finally:
            self._end()

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
                with self._news:
                    self._n_acknowledged += prologue.number
                    self._news.notify_all()
            elif prologue.kind == wire.REFUSED:
                raise PeerRefused(f"the peer refused: {text.decode(errors='replace')}")
            else:
                self.said_bye = True

    def _land(self, prologue: wire.Prologue) -> None:
        hub, stream = self._hub, self._stream
        header = bytes(stream.read(prologue.padded_header_size)[: prologue.header_size])
        if (header, prologue.body_size) != self._last_head:  # mostly they are all of one kind
            self._incoming = wire.read_header(header, prologue.body_size)
            self._last_head = header, prologue.body_size
        incoming = self._incoming
        check_size(incoming.size, hub.max_bytes)
        is_small = Arena.takes(incoming)
        if not is_small or len(self._landed) >= _TOGETHER or not hub.has_room(incoming.size):
            self._hand_over()  # what comes next may take a while
            hub.wait_until_wanted(incoming.size)
        if is_small:
            body = stream.read(incoming.size)
            obj = wait_for_room(
                lambda: self._arena.land(incoming, body), hub.patience, hub.is_closed
            )
            self._landed.append((obj, incoming.size))
            return
        landing = wait_for_room(lambda: Landing(incoming), hub.patience, hub.is_closed)
        self._landing = landing
        try:
            landing.receive(stream, hub.count_bytes)
            self._landed.append((landing.finish(), incoming.size))
        finally:
            self._landing = None
            landing.abandon()
        self._hand_over()

    def _hand_over(self) -> None:
        """Give what has landed to the hub, and acknowledge it; rule (2)."""
        if self._landed:
            self._hub.deliver(self._landed)
            self._n_landed += len(self._landed)
            self._landed = []
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

    def _fail(self, error: Exception) -> None:
        self._set_error(error)
        if isinstance(error, FrameError | SegmentFull | ImportError):
            text = str(error).partition("\n")[0]
            if self._writing.acquire(timeout=1):
                try:
                    with contextlib.suppress(IngestError, TimeoutError):
                        self._stream.write(
                            wire.pack_signal(wire.REFUSED, text=text), until=time.monotonic() + 1
                        )
                finally:
                    self._writing.release()

    def _set_error(self, error: Exception) -> None:
        """Say why the connection ends, if nobody has."""
        self.error = self.error or _without_frames(error)

    def _end(self) -> None:
        if self._landed:
            self._hub.deliver(self._landed)
            self._landed = []
        self.ended = True
        self._is_over.set()
        self._stream.shutdown()
        with self._writing:
            self._stream.close()
        with self._news:
            self._news.notify_all()
        self._arena.abandon()
        self._hub.part(self)
        self.is_ready.set()

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
            is_whole = False
            try:
                if codec is None:
                    self._stream.write(outgoing.head, *outgoing.parts(), until=until)
                else:
                    self._stream.write(outgoing.head, until=until)
                    for buffer in outgoing.buffers:
                        for chunk in compress.chunks(buffer, codec):
                            self._stream.write(chunk, until=until)
                is_whole = True
                self._n_sent += 1
            except TimeoutError:
                raise WaitTimeout(
                    f"{self.name} did not take the whole object until the deadline; the connection "
                    "is closed"
                ) from None
            except PeerGone as error:
                self._stream.shutdown()
                self._is_over.wait(1)  # the thread may have read why
                raise self._why(error) from error
            finally:
                if not is_whole:
                    self._set_error(
                        PeerGone("the connection was closed, an object being half sent")
                    )
                    self._stream.shutdown()
        finally:
            self._writing.release()
        self._acknowledge()
        if self._stream.sends_pages:  # the object's memory is the peer's to read until then
            self.flush(until)

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
        with contextlib.suppress(IngestError, TimeoutError), self._writing:
            if not self.ended:
                self._stream.write(wire.pack_signal(wire.BYE), until=time.monotonic() + 1)

    def stop(self) -> None:
        """End the connection, and the thread."""
        self._stream.shutdown()
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def forget(self) -> None:
        """In the child of a fork, which has copies of it all and no thread: close those."""
        self.ended = True
        self._stream.close()
        if self._landing is not None:
            self._landing.abandon()
        self._arena.abandon()
        self._landed.clear()


class _Plain:
    """A stream as the handshake sees it."""

    def __init__(self, stream: SocketStream) -> None:
        self._stream = stream

    def read(self, size: int) -> bytes:
        return bytes(self._stream.read(size))

    def write(self, data: bytes) -> None:
        self._stream.write(data)


def _without_frames(error: Exception) -> Exception:
    """Return an error that is to be kept, so that it keeps no object of the functions it came from."""
    found: BaseException | None = error
    while found is not None:
        found.__traceback__ = None
        found = found.__cause__ or found.__context__
    return error


def _until(until: float | None, most: float | None = None) -> float:
    """Return the seconds left until a deadline, at most *most*."""
    left = 3600.0 if until is None else max(0.0, until - time.monotonic())
    return left if most is None else min(left, most)
