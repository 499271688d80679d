"""Which connections of Dask carry handles, and how long what they carry is kept.

Both ends say in Dask's handshake which node of numpush they are (shm/node.py). Who finds the other's
node in its own /dev/shm shares it: no address, host name or boot id could prove that.

(1) Nothing is leased. What a message refers to is kept by its sender, in the connection's `Link`, until
    the other side answers, or the connection is closed or lost, whatever killed the other side. If the
    sender dies, its place in the segment's table dies with it.
(2) So only what Dask answers carries handles: requests, and the data that a worker asked for, which it
    answers with "OK". Everything else is sent as ever.
(3) An end that does not unpack what it gets (the scheduler, which passes it on to anybody, later)
    says nothing in the handshake, and gets bytes.
(4) Connections that were made before `install` stay as they are.

TCP is Dask's class for a connection, and TLS a subclass. Dask has no hook for messages; its methods
are wrapped, and left alone on a connection without a Link.
"""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Callable
from typing import Any
from weakref import WeakValueDictionary

from distributed.comm.core import Comm, CommClosedError
from distributed.comm.tcp import TCP

from ...shm import life, naming
from ...shm.errors import SegmentError
from .landing import is_wanted

__all__ = ["Link", "link_of", "unwrap", "wrap"]

LINK = "numpush"  #: the key of our part of a handshake, and of the Link's number in its outcome
_PROTOCOL = 1  #: raised when handles change
_UNSPLIT = 1 << 62  #: bytes; Dask cuts frames so that they can be compressed and copied in pieces

#: The methods of TCP as they were; a name that it only inherits is not in here.
_before: dict[str, Any] = {}


#: By number: Dask shows a handshake's outcome to all serializers, and some of others pack it into messages.
_links: WeakValueDictionary[int, Link] = WeakValueDictionary()
_numbers = itertools.count(1)


class Link:
    """A connection to a process that shares our /dev/shm, as its sending side sees it."""

    __slots__ = ("__weakref__", "_kept", "is_answered", "number")

    def __init__(self) -> None:
        self.number = next(_numbers)
        _links[self.number] = self
        self.is_answered = False  #: what is being written will be answered
        self._kept: list[Any] = []

    def keep(self, what: Any) -> None:
        """Keep *what* until the message that is being written is answered."""
        self._kept.append(what)

    def release(self) -> None:
        """Keep nothing any more."""
        self.is_answered = False
        self._kept.clear()


def link_of(context: dict[str, Any] | None) -> Link | None:
    """Return the Link of the connection that a serializer's *context* is of; None: it has none."""
    return None if context is None else _links.get(context.get(LINK, 0))


def _is_answered(message: Any) -> bool:
    """Whether Dask answers *message*: a request, or what a worker's `get_data` gives."""
    if type(message) is not dict:
        return False
    if "op" in message:
        return message.get("reply") is True
    return message.keys() == {"status", "data"} and message["status"] == "OK"


def _handshake_info(self: TCP) -> dict[str, Any]:
    info: dict[str, Any] = Comm.handshake_info(self)
    if self.deserialize:
        info[LINK] = {"protocol": _PROTOCOL, "node": life.node().id}
    return info


def _handshake_configuration(
    self: TCP, local: dict[str, Any], remote: dict[str, Any]
) -> dict[str, Any]:
    options: dict[str, Any] = Comm.handshake_configuration(local, remote)
    theirs = remote.get(LINK)
    if type(theirs) is dict and theirs.get("protocol") == _PROTOCOL:
        # Frames that land in one piece need not be put together.
        self.max_shard_size = _UNSPLIT  # of this connection alone
        if _is_here(theirs.get("node")):
            self._numpush_link = link = Link()
            options[LINK] = link.number
    return options


def _is_here(node: Any) -> bool:
    """Whether *node* has its file in our /dev/shm, and is ours to share with.

    A number of 64 random bits, from a process that is alive: it talks to us.
    """
    if type(node) is not int or not 0 < node < 1 << 64:
        return False
    with contextlib.suppress(OSError):
        return os.stat(naming.path(naming.node_file(node))).st_uid == os.geteuid()
    return False


def _link(comm: TCP) -> Link | None:
    return getattr(comm, "_numpush_link", None)


async def _write(self: TCP, msg: Any, serializers: Any = None, on_error: str = "message") -> Any:
    link = _link(self)
    if link is None:
        return await _before["write"](self, msg, serializers, on_error)
    link.is_answered = _is_answered(msg)
    try:
        return await _before["write"](self, msg, serializers, on_error)
    except BaseException:
        link.release()
        raise


async def _read(self: TCP, deserializers: Any = None) -> Any:
    token = is_wanted.set(self.deserialize)
    try:
        return await _before["read"](self, deserializers)
    except SegmentError as error:
        # Its sender was gone before we could attach. To Dask: a connection that broke on the way.
        self.abort()
        raise CommClosedError(str(error)) from error
    finally:
        is_wanted.reset(token)
        link = _link(self)
        if link is not None:
            link.release()


def _close(self: TCP) -> Any:
    link = _link(self)
    if link is not None:
        link.release()
    return _before["close"](self)


def _abort(self: TCP) -> None:
    link = _link(self)
    if link is not None:
        link.release()
    _before["abort"](self)


_WRAPPED: dict[str, Callable[..., Any]] = {
    "handshake_info": _handshake_info,
    "handshake_configuration": _handshake_configuration,
    "write": _write,
    "read": _read,
    "close": _close,
    "abort": _abort,
}


def wrap() -> None:
    """Have connections that are made from now on know each other."""
    if _before:
        return
    for name, method in _WRAPPED.items():
        if name in vars(TCP):
            _before[name] = vars(TCP)[name]
        setattr(TCP, name, method)


def unwrap() -> None:
    """Undo `wrap`; connections with a Link go on without it."""
    if not _before:
        return
    for name in _WRAPPED:
        if name in _before:
            setattr(TCP, name, _before[name])
        else:
            delattr(TCP, name)
    _before.clear()
