"""Links: what `listen` and `connect` (opening.py) give. Either end may send, receive, or do both.

A `Listener` has any number of peers; one that fails is left out, and named in `statistics()`. A
`Connection` has one, and what goes wrong with it is raised.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import time
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from types import TracebackType
from typing import Any, Self

from ..code.signed import SignedCode
from ..shm.errors import WaitTimeout
from . import compress, wire
from .errors import NEEDS_KEY, AccessDenied, IngestError, LinkClosed, PeerGone
from .hub import Hub, Statistics
from .receiving import Receiver
from .url import Address

__all__ = ["Connection", "Link", "Listener", "again"]


class Link:
    """One end of a link. Made by `listen` and `connect`; a context manager.

    Attributes
    ----------
    url : str
        Where it listens, with the port that was found, or what it is connected to.
    """

    def __init__(self, hub: Hub, address: Address, compress: str | None, checksum: bool) -> None:
        self.url = str(address)
        self._hub = hub
        self._codec = compress
        self._checksum = checksum or compress is not None
        self._finalizer = weakref.finalize(self, hub.close)

    # -- receiving

    def recv(self, timeout: float | None = None) -> Any:
        """Return the next object that has landed: an SArray, SDataFrame or SSeries of its own.

        Small arrays lie in one segment together (of 1 MiB), so they have one lock.

        Parameters
        ----------
        timeout : float, optional
            Seconds to wait for it.

        Raises
        ------
        WaitTimeout : none has landed in time.
        PeerGone : a connection's peer has ended, and all that it sent was received.
        IngestError : what ended a connection otherwise: PeerRefused, FrameError, AccessDenied.
        LinkClosed : the link was closed.
        """
        until = None if timeout is None else time.monotonic() + timeout
        while True:
            found = self._hub.take()
            if found is not None:
                return found[0]
            self._check_peer()
            left = 0.2 if until is None else min(0.2, until - time.monotonic())
            if left <= 0:
                raise WaitTimeout(f"{self.url}: nothing has landed for {timeout:g} s")
            self._hub.wait(left)

    def _check_peer(self) -> None:
        """Raise what has ended the only connection, if it has."""

    def __iter__(self) -> Iterator[Any]:
        """Yield what lands, until the link is closed or a connection's peer has said goodbye."""
        while True:
            try:
                obj = self.recv()
            except (LinkClosed, _Ended):
                return
            yield obj
            del obj

    async def recv_async(self) -> Any:
        """Return the next object that has landed, as `recv`; cancelling it loses nothing."""
        loop = asyncio.get_running_loop()
        while True:
            news = loop.create_future()
            found = self._hub.take(functools.partial(_wake, loop, news))
            if found is not None:
                return found[0]
            self._check_peer()
            await news

    async def __aiter__(self) -> AsyncIterator[Any]:
        while True:
            try:
                obj = await self.recv_async()
            except (LinkClosed, _Ended):
                return
            yield obj
            del obj

    # -- sending

    def send(self, obj: Any, timeout: float | None = None) -> None:
        """Send an object to the peer; of several peers, to each in turn.

        It is sent from where it lies. When this returns the object may be changed: the kernel has
        it, or (``io="sendfile"``) the peer. `flush`, and leaving a ``with`` block, wait until the
        peer has it.

        Parameters
        ----------
        obj : ndarray, DataFrame, Series, or a shared one, or a part of it
            Columns of Python objects cannot be sent, unless they are text or numbers. Also what
            `numpush.code.dumps` returns, over a link with a key.
        timeout : float, optional
            Seconds to wait for a peer, and until it has taken the object.

        Raises
        ------
        TypeError : it cannot be sent; the message names the column and the remedy.
        AccessDenied : it is code, and the link has no key.
        WaitTimeout : no peer was there in time, or it did not take all of it; then that connection
            is closed.
        PeerGone, PeerRefused : the connection ended, and the object is not there.
        LinkClosed : the link was closed.
        """
        until = None if timeout is None else time.monotonic() + timeout
        self._check_code(obj)
        outgoing = wire.encode(
            obj, checksum=self._checksum, chunk=compress.CHUNK if self._codec else 0
        )
        try:
            peer = self._find_peer(until)
        except TimeoutError:
            raise WaitTimeout(f"{self.url}: no peer within {timeout:g} s") from None
        peer.send(outgoing, self._codec, until)
        self._hub.count_sent(outgoing.size)

    def _check_code(self, obj: Any) -> None:
        """Refuse to send code to whoever is there."""
        if isinstance(obj, SignedCode) and self._hub.key is None:
            raise AccessDenied(f"{self.url}: code is sent only over a link with a key: {NEEDS_KEY}")

    def _find_peer(self, until: float | None) -> Receiver:
        return self._hub.find_peer(until)

    async def send_async(self, obj: Any, timeout: float | None = None) -> None:
        """Send an object as `send`, by a thread."""
        await asyncio.to_thread(self.send, obj, timeout)

    def flush(self, timeout: float | None = None) -> None:
        """Wait until the peers have acknowledged all that was sent to them.

        Raises
        ------
        WaitTimeout : they have not, in time.
        PeerGone, PeerRefused : a connection ended before.
        """
        self._hub.flush(None if timeout is None else time.monotonic() + timeout)

    # -- news and the end

    def statistics(self) -> Statistics:
        """Return what was received and sent so far, how fast, and who is connected."""
        return self._hub.statistics()

    def on_progress(self, call: Callable[[int], object]) -> None:
        """Have *call* called with the number of bytes whenever some have come, by several threads."""
        self._hub.progress = call

    def close(self) -> None:
        """Say goodbye to the peers, and end. What has landed and was not asked for is let go of.

        It does not wait for acknowledgements: `flush` does, and a ``with`` block.
        """
        if self._finalizer.alive and not self._hub.is_closing:
            for peer in self._hub.peers:
                peer.say_bye()
        self._finalizer()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        cls: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            if cls is None and not self._hub.is_closing:
                self.flush()
        finally:
            self.close()

    def __repr__(self) -> str:
        state = "closed" if self._hub.is_closing else f"{len(self._hub.peers)} peers"
        return f"<{type(self).__name__} {self.url}, {state}>"


def _wake(loop: asyncio.AbstractEventLoop, news: asyncio.Future[None]) -> None:
    """Have what awaits *news* go on; called by the threads of peers."""

    def tell() -> None:
        if not news.done():
            news.set_result(None)

    with contextlib.suppress(RuntimeError):  # the loop is closed: nobody awaits
        loop.call_soon_threadsafe(tell)


class _Ended(PeerGone):
    """The peer said goodbye, and all that it sent was received."""


class Connection(Link):
    """The end of a link that connected. Made by `connect`."""

    def __init__(
        self, hub: Hub, address: Address, peer: Receiver, compress: str | None, checksum: bool
    ) -> None:
        super().__init__(hub, address, compress, checksum)
        self._peer = peer

    def _check_peer(self) -> None:
        peer = self._peer
        if not peer.ended or self._hub.has_landed():
            return
        if peer.error is None:
            raise _Ended(f"{self.url}: the peer has said goodbye; all that it sent was received")
        raise again(peer.error, self.url)

    def _find_peer(self, until: float | None) -> Receiver:
        if self._hub.is_closing:
            raise LinkClosed("the link is closed")
        return self._peer  # which says why it has ended, if it has


class Listener(Link):
    """The end of a link that listens, with any number of peers. Made by `listen`."""


def again(error: Exception, url: str) -> Exception:
    """Return an error that a thread met, to be raised in another."""
    if isinstance(error, IngestError):
        found: Exception = type(error)(f"{url}: {error}")
        found.__cause__ = error
        return found
    return error
