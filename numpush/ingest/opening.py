"""`listen` and `connect`: what they are asked for is checked, then the link is made."""

from __future__ import annotations

import ssl as _ssl
import time
from typing import Any

from . import sockets
from .acceptor import Acceptor
from .compress import CODECS, load_blosc2
from .errors import PeerGone
from .hello import check_key
from .hub import Hub
from .link import Connection, Link, Listener, again
from .stream import IO
from .url import Address, parse, with_type
from .zmq_link import open_link

__all__ = ["connect", "listen", "recv", "send"]

_PATIENCE = 30.0


def listen(
    url: str,
    *,
    key: bytes | str | None = None,
    ssl: _ssl.SSLContext | None = None,
    io: str = "auto",
    max_bytes: int | None = None,
    timeout: float = _PATIENCE,
    insecure: bool = False,
    compress: str | None = None,
    checksum: bool = False,
    **zmq: Any,
) -> Link:
    """Listen for peers, which `connect`; receive what they send, or send to each in turn.

    What they send lands in segments by threads, one a peer, while you do something else: up to
    256 MiB (or one object) ahead of what you ask for.

    Parameters
    ----------
    url : str
        ``tcp://HOST:PORT`` (port 0: any), ``tls+tcp://HOST:PORT``, ``unix:///PATH``, ``unix://@NAME``.
        Of ZeroMQ ``zmq+tcp://HOST:PORT?type=TYPE``, ``zmq+ipc:///PATH?type=TYPE``: ``pull`` (what is
        meant without) and ``sub`` receive, ``push`` and ``pub`` send.
        ``?type=sub&subscribe=PREFIX``, any number of times, wants only messages that begin so.
        Of TIPC ``tipc://TYPE:INSTANCE``, ``tipc+seqpacket://`` and ``tipc+rdm://`` the same. A TIPC
        address is bound for this node alone; with a key or with *insecure*, for the whole cluster. To
        end a TIPC link (but rdm) whose peer does not take what was sent takes the kernel 8 seconds.
    key : bytes or str, optional
        A secret of at least 16 bytes that both ends have. It is proved, not sent; wanted where
        others than this machine's processes can connect. It keeps strangers out, and does not hide
        what is sent: that does TLS.
    ssl : ssl.SSLContext, optional
        For tls+tcp://, made by ``ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)`` and
        ``load_cert_chain``. If it asks for the peer's certificate, no key is needed.
    io : {'auto', 'splice', 'recv', 'sendfile', 'send'}
        How bytes move; 'auto' is what was the fastest. TLS and packets (tipc+seqpacket, tipc+rdm)
        are received and sent in one way only.
    max_bytes : int, optional
        The largest object that is taken.
    timeout : float
        Seconds that a peer may be silent in the middle of something, and that it waits for shared
        memory when there is none. Between two objects it may be silent for ever.
    insecure : bool
        Let anybody connect.
    compress : {'lz4', 'zstd'}, optional
        Compress what is sent. It pays on links slower than about 5 Gbit/s.
    checksum : bool
        Send a CRC-32 of each buffer; the object appears if it holds.
    **zmq : for ZeroMQ only
        dtype, shape : what a plain message is an array of (one -1 in the shape is what its length
        gives); by default bytes, in one dimension. Arrays and frames that numpush or pyzmq's recipe
        ``send_array`` sent need no such word.
        topics : True to be given (topic, object); the topic is a first frame that is no data.
        curve : (public, secret, others), as ``zmq.curve_keypair()`` makes keys; others is the public
        key of the other end, or, to listen, of each one that may connect.
        plain : (user, password). Either of them is in place of a key.

    Raises
    ------
    ValueError : the URL or an option is wrong, or it is open to strangers.
    OSError : the address is in use, or not ours, or this kernel has no TIPC.

    Examples
    --------
    >>> import numpy as np, numpush.ingest
    >>> with numpush.ingest.listen("tcp://127.0.0.1:0") as source:
    ...     with numpush.ingest.connect(source.url) as out:
    ...         out.send(np.arange(3))
    ...     source.recv()
    SArray([0, 1, 2])
    """
    address = parse(url)
    _check_options(io, compress, timeout, max_bytes, address, ssl, key, zmq)
    if address.is_zmq:
        return open_link(
            *(address, io, max_bytes, timeout, checksum),
            is_listening=True,
            is_insecure=insecure,
            **zmq,
        )
    secret = check_key(key)
    asks_for_certificate = ssl is not None and ssl.verify_mode == _ssl.CERT_REQUIRED
    if not (address.is_local or secret or insecure or asks_for_certificate):
        raise ValueError(
            f"{address} is open to other machines: give both ends the same key= (16 bytes or more; "
            "secrets.token_bytes(32) makes one), or say insecure=True"
        )
    hub = Hub(secret, max_bytes, timeout)
    sock, address = sockets.bind(address, is_open=bool(secret or insecure))
    hub.acceptor = Acceptor(sock, address, hub, ssl, io)
    return Listener(hub, address, compress, checksum)


def connect(
    url: str,
    *,
    key: bytes | str | None = None,
    ssl: _ssl.SSLContext | None = None,
    io: str = "auto",
    max_bytes: int | None = None,
    timeout: float = _PATIENCE,
    compress: str | None = None,
    checksum: bool = False,
    **zmq: Any,
) -> Link:
    """Connect to a link that listens, now or within *timeout* seconds; send to it, or receive.

    With ZeroMQ it returns at once: the other end may come and go, and is connected to again.

    Parameters
    ----------
    url, key, io, max_bytes, compress, checksum, **zmq : as for `listen`
    ssl : ssl.SSLContext, optional
        For tls+tcp://; by default ``ssl.create_default_context()``, which wants a certificate that
        this machine trusts.
    timeout : float
        As for `listen`; and how long to try to connect, for who starts before the other end does.

    Raises
    ------
    ValueError : the URL or an option is wrong.
    PeerGone : nobody listens there, or it does not answer.
    AccessDenied : the other end has another key, or one end has none.
    FrameError : the other end is no numpush link.
    ssl.SSLError : its certificate is not good.
    OSError : this kernel has no TIPC.
    """
    address = parse(url)
    _check_options(io, compress, timeout, max_bytes, address, ssl, key, zmq)
    if address.is_zmq:
        return open_link(address, io, max_bytes, timeout, checksum, is_listening=False, **zmq)
    if address.scheme == "tls+tcp" and ssl is None:
        ssl = _ssl.create_default_context()
    hub = Hub(check_key(key), max_bytes, timeout)
    sock = sockets.dial(address, timeout)
    try:
        stream = sockets.open_stream(sock, io, ssl, address.host, timeout)
    except OSError as error:
        raise PeerGone(f"{address}: {error}") from error
    peer = hub.meet(stream, str(address), is_listening=False)
    try:
        peer.is_ready.wait()
        if peer.error is not None:
            raise again(peer.error, str(address))
    except BaseException:
        hub.close()
        raise
    return Connection(hub, address, peer, compress, checksum)


def send(url: str, obj: Any, *, timeout: float | None = None, **options: Any) -> None:
    """Connect to *url*, send one object, and wait until the other end has it.

    A URL of ZeroMQ is that of a push; it has no acknowledgements, so only the kernel has it then.

    Parameters
    ----------
    timeout : float, optional
        Seconds for all of it.
    **options : as for `connect`
    """
    until = None if timeout is None else time.monotonic() + timeout
    if timeout is not None:
        options["timeout"] = timeout
    with connect(with_type(url, "push"), **options) as link:
        link.send(obj, _left(until))
        link.flush(_left(until))


def recv(url: str, *, timeout: float | None = None, **options: Any) -> Any:
    """Listen at *url* until one object has come, and return it.

    Parameters
    ----------
    timeout : float, optional
        Seconds to wait for it.
    **options : as for `listen`
    """
    with listen(url, **options) as link:
        return link.recv(timeout)


def _left(until: float | None) -> float | None:
    return None if until is None else max(0.0, until - time.monotonic())


def _check_options(
    io: str,
    codec: str | None,
    timeout: float,
    max_bytes: int | None,
    address: Address,
    ssl: _ssl.SSLContext | None,
    key: bytes | str | None,
    zmq: dict[str, Any],
) -> None:
    if address.is_zmq:
        if key is not None:
            raise ValueError(f"key is not for {address}: ZeroMQ has curve= and plain=")
        if codec is not None:
            raise ValueError(f"compress is not for {address}, but for tcp:// and unix://")
    elif zmq:
        raise TypeError(f"{', '.join(zmq)}: for zmq+tcp:// and zmq+ipc:// only, not for {address}")
    if io not in IO:
        raise ValueError(f"io {io!r}: wanted one of {', '.join(map(repr, IO))}")
    if codec is not None:
        if codec not in CODECS:
            raise ValueError(f"compress {codec!r}: wanted one of {CODECS} or None")
        load_blosc2()
    if not 0 < timeout < float("inf"):
        raise ValueError(f"timeout {timeout!r}: a number of seconds above 0 wanted")
    if max_bytes is not None and max_bytes < 0:
        raise ValueError(f"max_bytes {max_bytes!r}: 0 or more wanted")
    if ssl is not None and address.scheme != "tls+tcp":
        raise ValueError(f"ssl is for tls+tcp://, not for {address}")
