"""Bulk bodies between redis-py's connections and memory: what redis-py would gather first lands at once.

redis-py connects, authenticates and retries; its own way of adding to a connection is to subclass it, as
its TLS connection does. A connection of ours sends values from where they lie, and receives them where
they are to lie, several requests under way.

(1) RESP version 2: nothing but the replies to what was asked comes on a connection.
(2) Replies are read raw only while no other is due, so redis-py's parser never holds a part of one.
(3) After any error in the middle of a reply, or with replies still due, the connection is dropped.
(4) What was moved before a connection was lost is not moved again by a retry: parts never change.

A part of 4 MiB is as fast as it gets; from 16 MiB on it is half as fast, for the server.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..layout import ALIGNMENT, Buffer
from .redis_py import Connection, SSLConnection, UnixDomainSocketConnection, exceptions

__all__ = ["Ask", "Due", "cut_body", "receive", "send", "use_bulk_connections"]

Raw = NDArray[np.uint8]
_DEPTH = 2  #: requests under way, of large parts
_MOST = 128  #: and of small ones
_WINDOW = 1 << 20  #: bytes that are under way at least, if there are so many to ask for
_LINE = 4096  #: the longest of a reply's first line
_SLICE = 1 << 20  #: sent at one time: redis-py's socket_timeout is for each of them
_GATHER = 1 << 20

#: What a reply that is an error begins with -> the error. Connections retry the first.
_ERRORS = {
    "LOADING": exceptions.BusyLoadingError,
    "MOVED": exceptions.MovedError,
    "ASK": exceptions.AskError,
}


class Ask(NamedTuple):
    """A command whose reply is a value of just the bytes of *target*."""

    command: tuple[Any, ...]
    target: Raw


class Write(NamedTuple):
    """The commands that store one part, as the pieces of their bytes.

    Attributes
    ----------
    size : of the part
    is_over_a_spare : four commands instead of one: RENAMENX, SET, EXPIRE, SETRANGE
    """

    pieces: list[Any]
    size: int
    is_over_a_spare: bool


class Due(Exception):
    """Internal: a value was not as long as it was to be. *found* is None where there was none."""

    def __init__(self, ask: Ask, found: int | None) -> None:
        super().__init__(ask.command, found)
        self.ask = ask
        self.found = found


class _Bulk:
    """What a connection of ours can do besides."""

    # Of redis-py's connections. `_sock` is no public name, but there is none, and it has been so always.
    _sock: Any
    disconnect: Any
    pack_commands: Any
    read_response: Any
    retry: Any
    send_packed_command: Any
    _host_error: Any

    def receive(self, asks: list[Ask], tell: Callable[[int], None]) -> None:
        """Fill the targets; what is done is taken out of *asks*, whose last one comes first."""
        with self._dropping():
            sent, flying, carry = 0, 0, bytearray()
            while asks:
                commands = []
                while sent < len(asks) and (sent < _DEPTH or (flying < _WINDOW and sent < _MOST)):
                    ask = asks[-1 - sent]
                    commands.append(ask.command)
                    sent, flying = sent + 1, flying + len(ask.target)
                if commands:
                    self.send_packed_command(
                        self.pack_commands(commands), check_health=sent == len(commands)
                    )
                ask = asks[-1]
                self._receive_value(ask, carry)
                asks.pop()
                sent, flying = sent - 1, flying - len(ask.target)
                tell(len(ask.target))
            if carry:
                raise exceptions.InvalidResponse(
                    f"bytes that nobody asked for: {bytes(carry[:40])!r}"
                )

    def send(self, writes: Iterable[Write], tell: Callable[[int], None]) -> None:
        """Store parts, telling the bytes of each when it is there."""
        with self._dropping():
            due: list[Write] = []
            for write in writes:
                self.send_packed_command(write.pieces, check_health=not due)
                due.append(write)
                while len(due) > _DEPTH:
                    self._finish(due.pop(0), tell)
            while due:
                self._finish(due.pop(0), tell)

    def _finish(self, write: Write, tell: Callable[[int], None]) -> None:
        """Read the replies to the commands of *write*."""
        if write.is_over_a_spare:
            try:
                self.read_response()
            except exceptions.ResponseError as error:
                if "no such key" not in str(error):  # it has expired, or another put took it
                    raise
            self.read_response()
            self.read_response()
        found = self.read_response()
        if write.is_over_a_spare and found != write.size:
            raise exceptions.InvalidResponse(f"{write.size} bytes written, {found!r} there")
        tell(write.size)

    @contextmanager
    def _dropping(self) -> Iterator[None]:
        """Drop the connection after an error; rule (3)."""
        try:
            yield
        except TimeoutError as error:
            self.disconnect()
            raise exceptions.TimeoutError(
                f"{self._host_error()}: nothing came in the time set"
            ) from error
        except OSError as error:
            self.disconnect()
            raise exceptions.ConnectionError(f"{self._host_error()}: {error}") from error
        except BaseException:
            self.disconnect()
            raise

    def _receive_value(self, ask: Ask, carry: bytearray) -> None:
        line = self._receive_line(carry)
        if line[:1] == b"-":
            raise _error_of(line[1:].decode(errors="replace"))
        if line[:1] != b"$" or not line[1:].removeprefix(b"-").isdigit():
            raise exceptions.InvalidResponse(f"a value wanted, {line[:40]!r} found")
        found, wanted = int(line[1:]), len(ask.target)
        if found != wanted:
            raise Due(ask, found if found >= 0 else None)
        done = min(len(carry), wanted)
        ask.target[:done] = np.frombuffer(carry[:done], np.uint8)
        del carry[:done]
        left = ask.target.data[done:]
        while left:
            n = self._sock.recv_into(left)
            if not n:
                raise exceptions.ConnectionError(
                    f"{self._host_error()} closed in the middle of a value"
                )
            left = left[n:]
        end = self._receive_line(carry)
        if end:
            raise exceptions.InvalidResponse(f"the end of a value wanted, {end[:40]!r} found")

    def _receive_line(self, carry: bytearray) -> bytes:
        """Return the next line. What comes after it, a few bytes, stays in *carry*."""
        while (end := carry.find(b"\r\n")) < 0:
            if len(carry) > _LINE:
                raise exceptions.InvalidResponse(
                    f"the end of a line wanted, {bytes(carry[:40])!r} found"
                )
            more = self._sock.recv(64)
            if not more:
                raise exceptions.ConnectionError(f"{self._host_error()} closed before its reply")
            carry += more
        line = bytes(carry[:end])
        del carry[: end + 2]
        return line


class _BulkConnection(_Bulk, Connection):
    pass


class _BulkTLSConnection(_Bulk, SSLConnection):
    pass


class _BulkUnixConnection(_Bulk, UnixDomainSocketConnection):
    pass


def _error_of(line: str) -> Exception:
    code, _, rest = line.partition(" ")
    kind: type[Exception] | None = _ERRORS.get(code)
    return exceptions.ResponseError(line) if kind is None else kind(rest)


def use_bulk_connections(pool: Any) -> None:
    """Have a pool of redis-py's, that has none yet, make connections of ours."""
    for kind in (_BulkTLSConnection, _BulkUnixConnection, _BulkConnection):
        if pool.connection_class is kind.__mro__[2]:
            pool.connection_class = kind
            return
    raise TypeError(f"connections of {pool.connection_class.__name__} are not known here")


@contextmanager
def _connection(pool: Any) -> Iterator[Any]:
    connection = pool.get_connection()
    try:
        yield connection
    finally:
        pool.release(connection)


def receive(pool: Any, asks: list[Ask], tell: Callable[[int], None]) -> None:
    """Fill the targets of all *asks*, several under way at a time; empties the list.

    Raises
    ------
    Due : a value is of another length, or there is none.
    redis.RedisError
    """
    asks.reverse()
    if asks:
        with _connection(pool) as connection:
            connection.retry.call_with_retry(
                lambda: connection.receive(asks, tell), lambda error: connection.disconnect()
            )


def send(
    pool: Any,
    name: Callable[[int], bytes],
    chunks: Callable[[], Iterator[list[Any]]],
    seconds: int,
    tell: Callable[[int], None],
    spare: Callable[[int], bytes] | None = None,
    spare_size: int = 0,
) -> None:
    """Store what *chunks* gives, each by its *name*, and to expire. Copies nothing of it.

    Parameters
    ----------
    chunks : callable
        Gives chunks from the first on, each as the pieces of its bytes. Called again for a retry.
    spare, spare_size :
        Names of values of that many bytes, which chunks of just as many are written over, if they are
        there: the server needs no memory for those.

    Raises
    ------
    redis.RedisError
    """
    n_done = 0

    def told(size: int) -> None:
        nonlocal n_done
        n_done += 1
        tell(size)

    def writes() -> Iterator[Write]:
        skipped = n_done
        for n, pieces in enumerate(chunks()):
            if n >= skipped:
                size = sum(len(piece) for piece in pieces)
                if spare is not None and size == spare_size:
                    head, tail = _overwrite(spare(n), name(n), size, seconds)
                else:
                    head, tail = _set(name(n), size, seconds)
                cut = [
                    piece[i : i + _SLICE] for piece in pieces for i in range(0, len(piece), _SLICE)
                ]
                yield Write([head, *cut, tail], size, spare is not None and size == spare_size)

    with _connection(pool) as connection:
        connection.retry.call_with_retry(
            lambda: connection.send(writes(), told), lambda error: connection.disconnect()
        )


def _set(name: bytes, size: int, seconds: int) -> tuple[bytes, bytes]:
    """Return what RESP has before and after the value in SET name value EX seconds."""
    head = b"*5\r\n%b%b$%d\r\n" % (_bulk(b"SET"), _bulk(name), size)
    return head, b"\r\n%b%b" % (_bulk(b"EX"), _bulk(b"%d" % seconds))


def _overwrite(spare: bytes, name: bytes, size: int, seconds: int) -> tuple[bytes, bytes]:
    """Return what is before and after the value where it is written over *spare*, which becomes *name*.

    RENAMENX, so that one which a lost connection delayed takes no spare's bytes to a part that is there.
    SET .. NX is for a spare that is gone: what SETRANGE makes would not expire.
    """
    life = _bulk(b"%d" % seconds)
    head = b"".join(
        [
            b"*3\r\n%b%b%b" % (_bulk(b"RENAMENX"), _bulk(spare), _bulk(name)),
            b"*6\r\n%b%b%b" % (_bulk(b"SET"), _bulk(name), _bulk(b"")),
            b"%b%b%b" % (_bulk(b"EX"), life, _bulk(b"NX")),
            b"*3\r\n%b%b%b" % (_bulk(b"EXPIRE"), _bulk(name), life),
            b"*4\r\n%b%b%b$%d\r\n" % (_bulk(b"SETRANGE"), _bulk(name), _bulk(b"0"), size),
        ]
    )
    return head, b"\r\n"


def _bulk(word: bytes) -> bytes:
    return b"$%d\r\n%b\r\n" % (len(word), word)


def cut_body(buffers: list[Buffer], chunk: int) -> Iterator[list[Any]]:
    """Give the body of an object as chunks, each as pieces: views of its memory where that is dense."""
    pieces: list[Any] = []
    room = chunk
    for part in _body(buffers):
        left = part.data
        while left:
            pieces.append(left[:room])
            left = left[room:]
            room -= len(pieces[-1])
            if not room:
                yield pieces
                pieces, room = [], chunk
    if pieces:
        yield pieces


def _body(buffers: list[Buffer]) -> Iterator[Raw]:
    """Give the body part by part, each buffer at a multiple of 64; as record.body_parts, but lazily."""
    end = 0
    for buffer in buffers:
        yield np.zeros(-end % ALIGNMENT, np.uint8)
        yield from buffer.parts(_GATHER)
        end += -end % ALIGNMENT + buffer.nbytes
