"""One connection as a stream of bytes: what comes goes where it is to lie, what goes is not copied.

    read        small things, from bytes read ahead
    pour        the body of an object, into the pages of a segment: by splice or recv in C
    write       any number of parts, from memory (send) or from a file (sendfile)

(1) A stream is read by one thread, and written by whoever holds the lock of its peer.
(2) Nothing waits but in `_wait` and in the engines of C, where the peer may be silent for `patience`
    seconds in the middle of something; between two things it may be silent for ever. Another thread
    ends all waiting by `shutdown`.
(3) Reading ahead is little where bodies are large, so that those go straight to their place.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import functools
import os
import select
import socket
import ssl
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..ffi import map as _map
from ..ffi import stream as _stream
from ..shm import registry
from ..shm.segment import Segment
from .errors import PeerGone

__all__ = ["IO", "SocketStream", "TlsStream"]

#: "splice" and "recv" say how to receive, "sendfile" and "send" how to send. "auto": by splice into
#: fresh memory in small pages, by recv into warm and into huge ones; by send, since what sendfile
#: sends is not to be changed before the peer has it, and is no faster (benchmarks/ingest.py).
IO = ("auto", "splice", "recv", "sendfile", "send")

Raw = NDArray[np.uint8]
_SLICE_NS = 100_000_000  #: C waits at most this long, so that signal handlers run
_AT_ONCE = 64 << 20  #: bytes that C moves before signal handlers run: 10 to 40 ms
#: bytes under way to a peer on this machine, so that they stay in the cache: 256 MiB by TCP took 90 ms
#: with what the kernel finds (for links longer than this one), 65 so; by a unix socket 74 and 57.
_UNDER_WAY = 1 << 20
_AHEAD = 256 << 10  #: bytes read ahead where objects are small
_LITTLE = 4 << 10  #: and where they are large
_LARGE = 64 << 10  #: the body that makes them so
_PIPE = 1 << 20  #: the most that a pipe may hold without privileges
_F_SETPIPE_SZ = 1031
#: A host that went away without a word is noticed after about two minutes.
_KEEP_ALIVE = (
    ((socket.SOL_SOCKET, socket.SO_KEEPALIVE), 1),
    ((socket.IPPROTO_TCP, socket.TCP_KEEPIDLE), 60),
    ((socket.IPPROTO_TCP, socket.TCP_KEEPINTVL), 15),
    ((socket.IPPROTO_TCP, socket.TCP_KEEPCNT), 4),
)


def _is_local(sock: socket.socket) -> bool:
    """Whether the peer is on this machine; asked of TCP and unix sockets."""
    if sock.family == socket.AF_UNIX:
        return True
    with contextlib.suppress(OSError):  # it has gone already
        if sock.family in (socket.AF_INET, socket.AF_INET6):
            return bool(sock.getsockname()[0] == sock.getpeername()[0])
    return False


class _CannotSplice(Exception):
    """This kernel has no splice from this kind of socket, or into tmpfs."""


class SocketStream:
    """A connected TCP or unix socket.

    Parameters
    ----------
    sock : socket.socket
        Is owned from now on.
    io : one of IO
        How bodies are received and sent.
    patience : float
        Seconds of silence in the middle of something that are an error.
    """

    def __init__(self, sock: socket.socket, io: str, patience: float) -> None:
        sock.setblocking(False)
        if sock.family in (socket.AF_INET, socket.AF_INET6):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for option, value in _KEEP_ALIVE:
                sock.setsockopt(*option, value)
        if _is_local(sock):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _UNDER_WAY)
        self.io = io
        #: what was sent is the peer's to read until it has acknowledged it
        self.sends_pages = io == "sendfile"
        self.patience = patience
        self._sock = sock
        self._ahead = memoryview(bytearray(_AHEAD))
        self._start = self._stop = 0  # of what was read ahead
        self._read_ahead = _AHEAD
        self._pipe: tuple[int, int] | None = None

    # -- reading

    @property
    def buffered(self) -> int:
        """How many bytes can be read without waiting."""
        return self._stop - self._start

    def read(self, size: int, *, at_rest: bool = False) -> memoryview:
        """Read exactly *size* bytes. They are valid until the next call.

        *at_rest*: it is between two things, so the peer may be silent, and may end: then nothing
        is returned.

        Raises
        ------
        PeerGone : it ended in the middle, or was silent for too long.
        """
        if size > len(self._ahead):
            return self._read_large(size)
        data = self.peek(size, at_rest=at_rest)
        self._start += len(data)
        if self._start == self._stop:
            self._start = self._stop = 0
        return data

    def peek(self, size: int, *, at_rest: bool = False) -> memoryview:
        """Return the next *size* bytes, few, as `read` does, but leave them there."""
        while self.buffered < size:
            if self._start and self._start + size > len(self._ahead):
                self._ahead[: self.buffered] = self._ahead[self._start : self._stop]
                self._start, self._stop = 0, self.buffered
            end = min(len(self._ahead), self._start + max(size, self._read_ahead))
            n = self._receive(self._ahead[self._stop : end], at_rest and not self.buffered)
            if not n and at_rest and not self.buffered:
                return self._ahead[:0]
            if not n:
                raise PeerGone(f"the peer ended after {self.buffered} of {size} bytes")
            self._stop += n
        return self._ahead[self._start : self._start + size]

    def _read_large(self, size: int) -> memoryview:
        whole = memoryview(bytearray(size))
        self.read_into(whole)
        return whole

    def read_into(self, memory: memoryview, progress: Callable[[int], None] | None = None) -> None:
        """Fill *memory*, of bytes; *progress* as for `pour`."""
        done = self._take(memory)
        while done < len(memory):
            n = self._receive(memory[done:], False)
            if not n:
                raise PeerGone(f"the peer ended after {done} of {len(memory)} bytes")
            done += n
            if progress is not None:
                progress(n)

    def _take(self, memory: memoryview) -> int:
        """Move what was read ahead, as far as it fits, to *memory*."""
        n = min(len(memory), self.buffered)
        memory[:n] = self._ahead[self._start : self._start + n]
        self._start += n
        if self._start == self._stop:
            self._start = self._stop = 0
        return n

    def pour(
        self, segment: Segment, size: int, progress: Callable[[int], None], start: int = 0
    ) -> None:
        """Fill *size* bytes of the data of *segment*, which is not committed, from *start* on.

        *progress* is called with the bytes that came, now and then.
        """
        self._read_ahead = _LITTLE if size >= _LARGE else _AHEAD
        mapping = segment.mappings["rw"]
        address = mapping.address + start
        done = self._take(memoryview(_map.buffer(address, size))) if size else 0
        progress(done)
        if done == size:
            return
        is_fresh = segment.is_fresh and not mapping.is_hot and size >= _LARGE
        if self.io == "splice" or (self.io != "recv" and is_fresh):
            try:
                with segment.opened() as fd:
                    self._splice(fd, segment.data_offset + start + done, size - done, progress)
                return
            except _CannotSplice:
                self.io = "recv"
        self._recv(address + done, size - done, progress)
        mapping.is_hot = mapping.is_hot or size >= segment.data_size

    def _splice(self, fd: int, offset: int, size: int, progress: Callable[[int], None]) -> None:
        if self._pipe is None:
            self._pipe = os.pipe()
            with contextlib.suppress(OSError):  # a user's pipes may all be used up: it stays small
                fcntl.fcntl(self._pipe[0], _F_SETPIPE_SZ, _PIPE)
        pipe, sock = self._pipe, self._sock.fileno()
        self._move(
            lambda at, n: _stream.splice(sock, pipe, fd, offset + at, n, _SLICE_NS), size, progress
        )

    def _recv(self, address: int, size: int, progress: Callable[[int], None]) -> None:
        sock = self._sock.fileno()
        self._move(lambda at, n: _stream.recv(sock, address + at, n, _SLICE_NS), size, progress)

    def _move(
        self,
        move: Callable[[int, int], tuple[int, int]],
        size: int,
        progress: Callable[[int], None],
    ) -> None:
        """Have C receive *size* bytes, watching the peer's silence."""
        done = 0
        since = time.monotonic()
        while done < size:
            n, code = move(done, min(size - done, _AT_ONCE))
            if n:
                done += n
                progress(n)
                since = time.monotonic()
            if code == errno.ENODATA:
                raise PeerGone(f"the peer ended {size - done} bytes before the end of an object")
            if code == errno.EAGAIN and time.monotonic() - since > self.patience:
                raise PeerGone(
                    f"the peer was silent for {self.patience:g} s, {size - done} bytes before the "
                    "end of an object"
                )
            if code in (errno.EINVAL, errno.ENOSYS) and not done:
                raise _CannotSplice
            if code not in (0, errno.EAGAIN, errno.EINTR):
                raise self._gone(OSError(code, os.strerror(code)))

    def _receive(self, memory: memoryview, at_rest: bool) -> int:
        """Receive some bytes; 0: the peer has ended."""
        while True:
            try:
                return self._receive_now(memory)
            except BlockingIOError:
                if not self._wait(select.POLLIN, None if at_rest else self.patience):
                    raise self._silent() from None
            except OSError as error:
                raise self._gone(error) from error

    def _receive_now(self, memory: memoryview) -> int:
        """Receive what is there; 0: the peer has ended.

        Raises
        ------
        BlockingIOError : nothing is there.
        OSError : the connection broke.
        """
        return self._sock.recv_into(memory)

    def _wait(self, events: int, seconds: float | None) -> bool:
        """Sleep until the socket can be used; False: the time has passed."""
        poll = select.poll()
        try:
            poll.register(self._sock, events)
        except ValueError:
            raise PeerGone("the connection was closed") from None
        return bool(poll.poll(None if seconds is None else seconds * 1e3))

    def _silent(self) -> PeerGone:
        return PeerGone(f"the peer was silent for {self.patience:g} s in the middle of something")

    @staticmethod
    def _gone(error: OSError) -> PeerGone:
        return PeerGone(f"the connection broke: {error.strerror or error}")

    # -- writing

    def write(self, *parts: Any, until: float | None = None) -> None:
        """Send all bytes of each of *parts*, which are buffers.

        Returns when the kernel has them. *until* is a deadline (time.monotonic).

        Raises
        ------
        PeerGone : the connection broke.
        TimeoutError : the deadline passed in the middle: the stream is no good any more.
        """
        sizes = [memoryview(part).nbytes for part in parts]
        if sum(sizes) < _LARGE:
            self._send_small(b"".join(parts), until)
            return
        for i, part in enumerate(parts):
            found = self._find_file(part) if self.sends_pages and sizes[i] >= _LARGE else None
            if found is not None:
                segment, offset = found
                with segment.opened() as fd:
                    self._send_file(fd, offset, sizes[i], until)
            elif sizes[i]:
                self._send(memoryview(part), i + 1 < len(parts), until)

    def _send_small(self, data: bytes, until: float | None) -> None:
        try:
            n = self._sock.send(data)
        except BlockingIOError:
            n = 0
        except OSError as error:
            raise self._gone(error) from error
        if n < len(data):
            self._send(memoryview(data)[n:], False, until)

    @staticmethod
    def _find_file(part: Any) -> tuple[Segment, int] | None:
        """Return the segment that *part* lies in, and where in its file."""
        address = np.frombuffer(part, np.uint8).__array_interface__["data"][0]
        mapping = registry.locate(address)
        if mapping is None or mapping.mode == "cow":
            return None
        segment = mapping.segment
        return segment, segment.data_offset + mapping.start + address - mapping.address

    def _send(self, data: memoryview, more: bool, until: float | None) -> None:
        sock = self._sock.fileno()
        self._push(lambda at: _stream.send(sock, data, at, more, _SLICE_NS), len(data), until)

    def _send_file(self, fd: int, offset: int, size: int, until: float | None) -> None:
        sock = self._sock.fileno()
        self._push(
            lambda at: _stream.sendfile(sock, fd, offset + at, min(size - at, _AT_ONCE), _SLICE_NS),
            size,
            until,
        )

    def _push(self, move: Callable[[int], tuple[int, int]], size: int, until: float | None) -> None:
        done = 0
        while done < size:
            n, code = move(done)
            done += n
            if code not in (0, errno.EAGAIN, errno.EINTR):
                raise self._gone(OSError(code, os.strerror(code)))
            if until is not None and done < size and time.monotonic() > until:
                raise TimeoutError

    # -- the end

    def shutdown(self) -> None:
        """End both directions, and whatever waits in them."""
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)

    def discard(self, seconds: float) -> None:
        """End our side, and drop what the peer still sends, until it ends or *seconds* have passed.

        To close with data unread resets the connection, and the peer loses what we said last.
        """
        until = time.monotonic() + seconds
        poll = select.poll()
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_WR)
            poll.register(self._sock, select.POLLIN)
            while (left := until - time.monotonic()) > 0 and poll.poll(left * 1000):
                if not self._sock.recv(_AHEAD):
                    return

    def close(self) -> None:
        """Close the descriptors. No thread may be using them."""
        self._sock.close()
        if self._pipe is not None:
            for fd in self._pipe:
                os.close(fd)
            self._pipe = None


class TlsStream(SocketStream):
    """The same, encrypted: OpenSSL decrypts straight into the segment.

    OpenSSL's state is for one thread at a time, so each call to it is made under a lock and never
    waits in it.
    """

    def __init__(
        self,
        sock: socket.socket,
        context: ssl.SSLContext,
        server_hostname: str | None,
        patience: float,
    ) -> None:
        super().__init__(sock, "recv", patience)
        self._tls_lock = threading.Lock()
        self._tls = context.wrap_socket(
            sock,
            server_side=server_hostname is None,
            server_hostname=server_hostname,
            do_handshake_on_connect=False,
        )
        self._sock = self._tls

    def greet(self) -> None:
        """Do TLS's handshake.

        Raises
        ------
        ssl.SSLError : certificates, versions or ciphers do not fit.
        """
        try:
            self._call(self._tls.do_handshake, time.monotonic() + self.patience)
        except TimeoutError:
            raise self._silent() from None

    def _call(self, call: Callable[[], Any], until: float | None) -> Any:
        while True:
            try:
                with self._tls_lock:
                    return call()
            except ssl.SSLWantReadError:
                events = select.POLLIN
            except ssl.SSLWantWriteError:
                events = select.POLLOUT
            except ssl.SSLEOFError:
                return 0  # without TLS's own goodbye; ours tells whether something is missing
            except ssl.SSLError:
                raise
            except OSError as error:
                raise self._gone(error) from error
            if until is not None and time.monotonic() > until:
                raise TimeoutError
            self._wait(events, None if until is None else _SLICE_NS / 1e9)

    def _receive(self, memory: memoryview, at_rest: bool) -> int:
        until = None if at_rest else time.monotonic() + self.patience
        try:
            return int(self._call(lambda: self._tls.recv_into(memory), until))
        except TimeoutError:
            raise self._silent() from None

    def _recv(self, address: int, size: int, progress: Callable[[int], None]) -> None:
        self.read_into(memoryview(_map.buffer(address, size)), progress)

    def _send_small(self, data: bytes, until: float | None) -> None:
        self._send(memoryview(data), False, until)

    def _send(self, data: memoryview, more: bool, until: float | None) -> None:
        while len(data):
            # What OpenSSL has begun to write it wants to go on with: the same bytes again.
            n = int(self._call(functools.partial(self._tls.send, data), until))
            if not n:
                raise PeerGone("the peer ended, and takes no more")
            data = data[n:]
