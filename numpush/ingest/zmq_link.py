"""Links of ZeroMQ: what is asked for is checked, then the link is made.

Without CURVE and PLAIN we receive by ZMTP ourselves (zmq_peer.py). All else libzmq does (libzmq.py).
"""

from __future__ import annotations

import io as _io
from collections.abc import Iterable
from typing import Any

from numpy.typing import DTypeLike

from . import sockets
from .acceptor import Acceptor
from .libzmq import LibzmqReceiver, LibzmqSender, LibzmqSocket, Security
from .link import Link, again
from .url import Address
from .zmq_messages import Form
from .zmq_peer import Connector, ZmqHub

__all__ = ["ZmqReceiver", "open_link"]


class ZmqReceiver(Link):
    """A link that pulls or has subscribed. Made by `listen` and `connect`.

    Peers come and go; it is over when it is closed, or, having connected, meets a peer that it could
    never receive from.
    """

    _hub: ZmqHub

    def __init__(self, hub: ZmqHub, address: Address) -> None:
        super().__init__(hub, address, None, False)

    def _check_peer(self) -> None:
        if self._hub.error is not None and not self._hub.has_landed():
            raise again(self._hub.error, self.url)

    def send(self, obj: Any, timeout: float | None = None) -> None:
        """Raise io.UnsupportedOperation, since it only receives."""
        raise _io.UnsupportedOperation(
            f"{self.url}: type={self._hub.address.zmq_type} only receives; to send, say "
            "?type=push or ?type=pub"
        )


def open_link(
    address: Address,
    io: str,
    max_bytes: int | None,
    timeout: float,
    checksum: bool,
    *,
    is_listening: bool,
    is_insecure: bool = False,
    curve: tuple[bytes, bytes, bytes | Iterable[bytes]] | None = None,
    plain: tuple[str, str] | None = None,
    dtype: DTypeLike = "u1",
    shape: int | tuple[int, ...] = -1,
    topics: bool = False,
) -> Link:
    """Make a link; parameters and errors as of `listen` and `connect`."""
    security = Security(curve, plain)
    form = Form.of(dtype, shape, topics)
    if is_listening and security.mechanism == "NULL" and not (address.is_local or is_insecure):
        raise ValueError(
            f"{address} is open to other machines: say curve= or plain=, or insecure=True"
        )
    hub = ZmqHub(address, form, max_bytes, timeout, is_listening=is_listening)
    if address.zmq_type in ("push", "pub"):
        sock = LibzmqSocket(address, security, max_bytes, timeout, is_listening=is_listening)
        return LibzmqSender(hub, sock, checksum)
    if security.mechanism != "NULL":
        sock = LibzmqSocket(address, security, max_bytes, timeout, is_listening=is_listening)
        hub.admit(LibzmqReceiver(hub, sock))
        return ZmqReceiver(hub, sock.address)
    if is_listening:
        listening, address = sockets.bind(address, is_open=False)
        hub.acceptor = Acceptor(listening, address, hub, None, io)
    else:
        hub.acceptor = Connector(hub, io)
    return ZmqReceiver(hub, address)
