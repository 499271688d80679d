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

    def send(self, commands: Iterable[tuple[list[Any], int]], tell: Callable[[int], None]) -> None:
        """Send commands, each given as the pieces of its bytes and what to tell when it is done."""
        with self._dropping():
            due: list[int] = []
            for pieces, size in commands:
                self.send_packed_command(pieces, check_health=not due)
                due.append(size)
                while len(due) > _DEPTH:
                    self.read_response()
                    tell(due.pop(0))
            while due:
                self.read_response()
                tell(due.pop(0))

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
) -> None:
    """Store what *chunks* gives, each by its *name*, and to expire. Copies nothing of it.

    Parameters
    ----------
    chunks : callable
        Gives chunks from the first on, each as the pieces of its bytes. Called again for a retry.

    Raises
    ------
    redis.RedisError
    """
    n_done = 0

    def told(size: int) -> None:
        nonlocal n_done
        n_done += 1
        tell(size)

    def commands() -> Iterator[tuple[list[Any], int]]:
        skipped = n_done
        for n, pieces in enumerate(chunks()):
            if n >= skipped:
                size = sum(len(piece) for piece in pieces)
                yield _set_command(name(n), pieces, size, seconds), size

    with _connection(pool) as connection:
        connection.retry.call_with_retry(
            lambda: connection.send(commands(), told), lambda error: connection.disconnect()
        )


def _set_command(name: bytes, pieces: list[Any], size: int, seconds: int) -> list[Any]:
    """Return SET name <pieces> EX seconds, as RESP has it."""
    life = b"%d" % seconds
    head = b"*5\r\n$3\r\nSET\r\n$%d\r\n%b\r\n$%d\r\n" % (len(name), name, size)
    tail = b"\r\n$2\r\nEX\r\n$%d\r\n%b\r\n" % (len(life), life)
    cut = [piece[i : i + _SLICE] for piece in pieces for i in range(0, len(piece), _SLICE)]
    return [head, *cut, tail]


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
