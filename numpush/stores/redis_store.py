"""redis://: objects on a Redis server, in immutable parts under a small head that is switched.

What lies where, and in which bytes: redis_head.py.

(1) The parts of an object are written under a new generation, with an expiry; then one transaction lets
    them stay and sets the head. It happens only if all parts are there, and if the head is still the one
    whose parts it removes. A writer that is killed before leaves parts that expire.
    With `spare`, what the old parts were is renamed then, and has an expiry; the next put renames it again,
    to parts of its own, and writes over it. Nobody reads either name before the head is switched.
(2) A reader that misses a part looks at the head again: it was replaced, and is read anew; or was deleted;
    or the server evicted the part, and the object is lost.
"""

from __future__ import annotations

import errno
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from ..blocks import place
from ..errors import NumpushError
from .describing import describe_for_store, stat_of
from .errors import KeyNotFound, StoreDamaged, StoreError, StoreFull, StoreUnavailable
from .fetching import Piece
from .keys import check_prefix
from .redis_bulk import Ask, Due, cut_body, receive, send
from .redis_client import connect, hide_secrets
from .redis_head import Head, Names, encode_head, read_head
from .redis_py import exceptions as _redis
from .store import Stat, Store

if TYPE_CHECKING:
    from ..shm.segment import Segment

__all__ = ["RedisStore"]

_MAX_CHUNK = 64 << 20
#: Just below 4 MiB: with the head of a string, that would take 5 of the allocator's (jemalloc's) memory.
_CHUNK = (4 << 20) - 64
_INLINE = 32 << 10  #: bytes of a body that goes into the head
_EVENTS = 10_000  #: that are kept, about
_GRACE = 60  #: seconds that parts outlive a head that expires, for who has begun to read them
_MOST_TRIES = 100
_MOST_UPLOADS = 3  #: a server that is started again in the middle has lost what came before
_NAP = 1.0  #: seconds that a watch waits in the server at one time


class RedisStore(Store):
    """``redis://HOST:PORT/DB``, ``rediss://`` with TLS, ``redis+unix:///SOCKET``: a Redis server.

    URLs are redis-py's, with user and password before an @.

    Parameters
    ----------
    url : str
    namespace : str
        What the names of all its keys on the server begin with.
    chunk : int
        Bytes of a part: a little less than 1, 2 or 4 MiB are best. Servers use up to a quarter more
        memory for other numbers.
    orphans : float
        Seconds after which the server drops the parts of a put that never ended. A put may not take
        longer.
    checksum : bool
        Write a CRC-32 of each buffer, which is checked when all of the buffer is read.
    spare : float
        Seconds that the server keeps the memory of what a put has replaced, for the next put of
        that key: it takes less than half of the time then.
    **options : redis-py's, as for ``redis.from_url``
        ``socket_timeout``, ``password``, ``ssl_ca_certs``, ``retry``..
    """

    def __init__(
        self,
        url: str,
        *,
        namespace: str = "numpush",
        chunk: int = _CHUNK,
        orphans: float = 3600,
        checksum: bool = False,
        spare: float = 0,
        **options: Any,
    ) -> None:
        super().__init__(
            hide_secrets(url),
            namespace=namespace,
            chunk=chunk,
            orphans=orphans,
            checksum=checksum,
            spare=spare,
            **options,
        )
        self._address = url
        self.names = Names(namespace)
        self.announces = True  #: with each switch; on a cluster the events are on another node
        if not 1 <= chunk <= _MAX_CHUNK:
            raise ValueError(f"chunk {chunk}: 1 to {_MAX_CHUNK} bytes wanted")
        for name, seconds, least in (("orphans", orphans, 1), ("spare", spare, 0)):
            if not isinstance(seconds, int | float) or not least <= seconds < 1e9:
                raise ValueError(f"{name} {seconds!r}: a number of seconds from {least} wanted")
        self._chunk, self._orphans, self._checksum = chunk, int(orphans), checksum
        self._spare = int(spare * 1000)
        with self._naming_errors(self.url):
            self._client = connect(url, self.url, options)
        self._pool = self._client.connection_pool

    def __reduce__(self) -> tuple[Any, ...]:
        from .opening import reopen

        return reopen, (self._address, self._options)

    # -- writing

    def _put(
        self, key: str, obj: Any, tell: Callable[[int], None], ttl: float | None = None
    ) -> None:
        if ttl is not None and not 0.001 <= ttl < 1e9:
            raise ValueError(f"ttl {ttl!r}: a number of seconds above 0 wanted")
        record, buffers, size = describe_for_store(obj, checksum=self._checksum)
        generation = uuid.uuid4().hex
        if size <= _INLINE:
            body = b"".join(piece for chunk in cut_body(buffers, _INLINE) for piece in chunk)
            head = encode_head(record, generation, 0, size, body)
            with self._naming_errors(self._what(key)):
                self._switch(key, head, [], ttl)
            tell(size)
            return
        head = encode_head(record, generation, self._chunk, size)
        parts = self.names.parts(key, read_head(head, self._what(key)))
        with self._naming_errors(self._what(key)), self._removing_after_errors(key, head, parts):
            for _ in range(_MOST_UPLOADS):
                chunks = partial(cut_body, buffers, self._chunk)
                spare = self._find_spare(key)
                send(self._pool, parts.__getitem__, chunks, self._orphans, tell, spare, self._chunk)
                if self._switch(key, head, parts, ttl):
                    return
            raise StoreFull(
                errno.ENOSPC,
                f"{self._what(key)}: parts of it were gone before all were there: the server evicts "
                f"(raise maxmemory), or a put takes more than {self._orphans} s (orphans=)",
            )

    def _find_spare(self, key: str) -> Callable[[int], bytes] | None:
        """Return what names what a put has left to be written over, if it has."""
        spare = partial(self.names.spare, key, self._chunk)
        return spare if self._spare and self._client.exists(spare(0)) else None

    @contextmanager
    def _removing_after_errors(self, key: str, head: bytes, parts: list[bytes]) -> Iterator[None]:
        """Remove parts of no use. A switch may have come through, or be on its way: never its parts."""
        try:
            yield
        except (_redis.ConnectionError, _redis.TimeoutError):
            raise  # they expire
        except _redis.OutOfMemoryError:
            with suppress(_redis.RedisError):
                self._client.unlink(*parts)  # there was no switch; and no transaction now
            raise
        except BaseException:
            name = self.names.head(key)
            with suppress(_redis.RedisError), self._client.pipeline() as pipe:
                pipe.watch(name)
                if pipe.get(name) != head:
                    pipe.multi()
                    pipe.unlink(*parts)  # which a switch on its way watches
                    pipe.execute()
            raise

    def _switch(self, key: str, head: bytes | None, parts: list[bytes], ttl: float | None) -> bool:
        """Put a head in place of what is there, if anything, and remove the parts of that; rule (1).

        Without a head delete what is there. False: parts of the new object are gone.

        Raises
        ------
        KeyNotFound : to delete nothing.
        StoreDamaged : the stream of events is none.
        """
        name = self.names.head(key)
        life = None if ttl is None else int(ttl * 1000)
        is_sent = False
        with self._client.pipeline() as pipe:
            while True:
                try:
                    pipe.watch(name, *parts)
                    before = pipe.get(name)
                    if is_sent and before == head:
                        return True  # the connection was lost after all
                    if head is None and before is None:
                        raise self._missing(key)
                    if parts and pipe.exists(*parts) != len(parts):
                        return False
                    old = self._parts_of(key, before, parts)
                    kept = self._kept(key, before) if old and parts else 0
                    pipe.multi()
                    for part in parts:
                        if life is None:
                            pipe.persist(part)
                        else:
                            pipe.pexpire(part, life + _GRACE * 1000)
                    if head is None:
                        pipe.unlink(name, *old)
                    else:
                        pipe.set(name, head, px=life)
                        for n, part in enumerate(old[:kept]):
                            spare = self.names.spare(key, self._chunk, n)
                            pipe.rename(part, spare).pexpire(spare, self._spare)
                        if old[kept:]:
                            pipe.unlink(*old[kept:])
                    if self.announces:
                        self.announce(key, "delete" if head is None else "put", pipe)
                    is_sent = True
                    told = pipe.execute(raise_on_error=False)[-1]
                    if isinstance(told, Exception):
                        raise StoreDamaged(
                            f"{self._what(key)}: it is done, but nobody who watches is told: "
                            f"{self.names.events}: {told}"
                        )
                    return True
                except _redis.WatchError:  # another came first, or the connection was lost
                    pipe.reset()  # or it would take every later loss for one of these
                except _redis.OutOfMemoryError:
                    if head is not None:
                        raise
                    # A full server refuses every transaction, so none of another's can come between.
                    self._client.unlink(name, *old)
                    return True

    def _kept(self, key: str, head: bytes) -> int:
        """Return how many parts of a head, from the first on, can be written over by the next put."""
        found = read_head(head, self._what(key))
        return found.size // found.chunk if self._spare and found.chunk == self._chunk else 0

    def announce(self, key: str, what: str, pipe: Any = None) -> None:
        """Tell who watches, now or with a transaction."""
        client = self._client if pipe is None else pipe
        with self._naming_errors(self.url):
            event = {"key": key, "what": what}
            client.xadd(self.names.events, event, maxlen=_EVENTS, approximate=True)

    def _parts_of(self, key: str, head: bytes | None, new: list[bytes]) -> list[bytes]:
        """Return the names of the parts that a head has. Of a damaged one, have them expire.

        Not the *new* ones, which are watched.
        """
        if head is None:
            return []
        try:
            return self.names.parts(key, read_head(head, self._what(key)))
        except StoreDamaged:
            # Parts that are being written now may be among them: their switch lets them stay.
            pattern = self.names.pattern_of_parts(key)
            for name in {*self._client.scan_iter(match=pattern, count=1000)}.difference(new):
                self._client.expire(name, self._orphans)
            return []

    def _delete(self, key: str) -> None:
        with self._naming_errors(self._what(key)):
            self._switch(key, None, [], None)

    # -- reading

    def _stat(self, key: str) -> Stat:
        def look(stored: _StoredObject) -> Stat:
            life = self._client.pttl(self.names.head(key))
            more = {"ttl": life / 1000 if life >= 0 else None, "chunks": stored.head.n_parts}
            size = stored.head.size if stored.head.chunk else 0
            return stat_of(key, stored, stored.n_bytes + size, "numpush", more)

        found: Stat = self._use(key, look)
        return found

    def _use(self, key: str, use: Callable[[_StoredObject], Any]) -> Any:
        """Do what is to be done with an object, again when it is replaced meanwhile; rule (2)."""
        what, name, gone = self._what(key), self.names.head(key), ""
        with self._naming_errors(what):
            for _ in range(_MOST_TRIES):
                head = self._client.get(name)
                if head is None:
                    raise self._missing(key)
                stored = _StoredObject(self, key, head)
                if stored.head.generation == gone:
                    raise KeyNotFound(
                        f"{what}: its head is there, but the server has evicted a part of it "
                        "(maxmemory-policy): put it again"
                    )
                try:
                    return use(stored)
                except _PartGone:
                    gone = stored.head.generation
        raise StoreUnavailable(f"{what}: it was replaced {_MOST_TRIES} times while it was read")

    def _has(self, key: str) -> bool:
        with self._naming_errors(self._what(key)):
            return bool(self._client.exists(self.names.head(key)))

    def _keys(self, prefix: str) -> list[str]:
        with self._naming_errors(self.url):
            names = self._client.scan_iter(match=self.names.pattern_of_heads(prefix), count=1000)
            found = {self.names.key_of(name) for name in names}
        return [key for key in found if key is not None]

    # -- watching

    def watch(self, prefix: str = "", timeout: float | None = None) -> Iterator[str]:
        """Give the key of each object that is put or deleted from now on, as it happens.

        The server keeps the last 10,000 such events, so that nothing is lost while a connection is, or
        while the caller does something else. What expires or is evicted is not told.

        Parameters
        ----------
        prefix : str
            Only keys that begin with it.
        timeout : float, optional
            Seconds without an event after which it ends.

        Raises
        ------
        StoreUnavailable : the server does not answer.
        """
        self._check_open()
        check_prefix(prefix)
        with self._naming_errors(self.url):
            newest = self._client.xrevrange(self.names.events, count=1)
        return self._watch(prefix, timeout, newest[0][0] if newest else b"0-0")

    def _watch(self, prefix: str, timeout: float | None, last: bytes) -> Iterator[str]:
        stream = self.names.events
        patience = self._pool.connection_kwargs.get("socket_timeout", 5.0) or 5.0
        until = None if timeout is None else time.monotonic() + timeout
        while True:
            self._check_open()
            nap = min(_NAP, patience / 2)
            if until is not None:
                nap = min(nap, max(0.0, until - time.monotonic()))
            with self._naming_errors(self.url):
                found = self._client.xread({stream: last}, block=max(1, int(nap * 1000)))
            for event, fields in found[0][1] if found else ():
                last = event
                key = fields.get(b"key", b"").decode(errors="replace")
                if key.startswith(prefix):
                    yield key
                    until = None if timeout is None else time.monotonic() + timeout
            if not found and until is not None and time.monotonic() >= until:
                return

    # -- life

    def _close(self) -> None:
        self._client.close()
        self._pool.disconnect()

    @contextmanager
    def _naming_errors(self, what: str) -> Iterator[None]:
        try:
            yield
        except NumpushError:
            raise
        except _redis.OutOfMemoryError as error:
            raise StoreFull(errno.ENOSPC, f"{what}: {error}") from error
        except (_redis.AuthenticationError, _redis.AuthorizationError) as error:
            raise StoreUnavailable(f"{what}: the server refuses us: {error}") from error
        except (_redis.ConnectionError, _redis.TimeoutError) as error:
            raise StoreUnavailable(f"{what}: {error}") from error
        except _redis.InvalidResponse as error:
            raise StoreUnavailable(f"{what}: this is no Redis server's reply: {error}") from error
        except _redis.ResponseError as error:
            raise _named(error)(f"{what}: {error}") from error


def _named(error: Exception) -> type[StoreError]:
    """Return what an error that the server sent means."""
    code = str(error).partition(" ")[0]
    if code == "WRONGTYPE":
        return StoreDamaged
    return StoreUnavailable


class _PartGone(Exception):
    """Internal: the server does not have a part of the object, or not any more."""


class _StoredObject:
    """An object whose head was read; a `Stored`."""

    def __init__(self, store: RedisStore, key: str, head: bytes) -> None:
        self.what = store._what(key)
        self.n_bytes = len(head)
        self.head: Head = read_head(head, self.what)
        self.record = self.head.record
        self._starts = [start for start, _ in place(self.record.sizes)[0]]
        self._client, self._pool = store._client, store._pool
        self._names, self._key = store.names, key

    def read(
        self, pieces: list[Piece], segment: Segment | None, progress: Callable[[int], None]
    ) -> None:
        if not self.head.chunk:
            body = np.frombuffer(self.head.body, np.uint8)
            for buffer, start, stop, target in pieces:
                at = self._starts[buffer]
                target[:] = body[at + start : at + stop]
                progress(stop - start)
            return
        asks = [ask for piece in pieces for ask in self._cut(piece)]
        try:
            receive(self._pool, asks, progress)
        except Due as error:
            name, wanted = error.ask.command[1], len(error.ask.target)
            if not error.found and not self._client.exists(name):
                raise _PartGone from None
            raise StoreDamaged(
                f"{self.what}: {wanted} bytes of {name!r} wanted, {error.found or 0} found"
            ) from None

    def _cut(self, piece: Piece) -> Iterator[Ask]:
        """Say which parts, or ranges of them, a piece is made of."""
        chunk = self.head.chunk
        at, done = self._starts[piece.buffer] + piece.start, 0
        while done < len(piece.target):
            n, start = divmod(at + done, chunk)
            length = self.head.length_of(n)
            target = piece.target[done : done + length - start]
            name = self._names.part(self._key, self.head.generation, n)
            if len(target) == length:
                yield Ask((b"GET", name), target)
            else:
                yield Ask((b"GETRANGE", name, start, start + len(target) - 1), target)
            done += len(target)
