"""URLs of links: what may be listened to and connected to, checked before anything is opened.

tcp://HOST:PORT        IPv6 in brackets; port 0, listening: any free one
tls+tcp://HOST:PORT    the same, encrypted by an ssl.SSLContext
unix:///PATH           a socket in the file system; unix://@NAME, an abstract one
zmq+tcp://HOST:PORT    ZeroMQ; zmq+ipc:///PATH and zmq+ipc://@NAME the same on this machine. Behind it
                       ?type=pull (what is meant without), sub, push or pub; and for sub, any number of
                       subscribe=PREFIX, in percent-encoding where need be. Without one: everything
tipc://TYPE:INSTANCE   a TIPC service address, decimal or 0x, over stream sockets; and the same over
                       tipc+seqpacket:// and tipc+rdm://
"""

from __future__ import annotations

import ipaddress
import os
import re
import socket
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes, urlsplit

__all__ = ["Address", "parse", "with_type"]

_ZMQ = ("zmq+tcp", "zmq+ipc")
_ZMQ_TYPES = ("pull", "sub", "push", "pub")
_TIPC = ("tipc", "tipc+seqpacket", "tipc+rdm")
_FIRST_TYPE = 64  #: those below are TIPC's own
_SCHEMES = ("tcp", "tls+tcp", "unix", *_ZMQ, *_TIPC)
_EXAMPLES = "tcp://127.0.0.1:9000, tls+tcp://host:9000, unix:///run/data.sock, tipc://1000:1"


@dataclass(frozen=True)
class Address:
    """Where a link goes.

    Attributes
    ----------
    scheme : str
        One of those above.
    host, port : of TCP
    path : of a unix socket, "@" first if it is abstract
    zmq_type : what this end of ZeroMQ is
    topics : what a sub subscribes to
    service, instance : of TIPC
    """

    scheme: str
    host: str = ""
    port: int = 0
    path: str = ""
    zmq_type: str = ""
    topics: tuple[bytes, ...] = ()
    service: int = 0
    instance: int = 0

    @property
    def is_zmq(self) -> bool:
        return self.scheme in _ZMQ

    @property
    def family(self) -> socket.AddressFamily:
        """The kind of socket, but for TIPC (tipc.py): AF_INET6 for what has a colon in it."""
        if self.scheme in ("unix", "zmq+ipc"):
            return socket.AF_UNIX
        return socket.AF_INET6 if ":" in self.host else socket.AF_INET

    @property
    def sockaddr(self) -> str | tuple[str, int]:
        """The address as the socket module takes it."""
        if self.family == socket.AF_UNIX:
            return "\0" + self.path[1:] if self.path.startswith("@") else self.path
        return self.host, self.port

    @property
    def is_local(self) -> bool:
        """Whether only processes of this machine can reach it.

        A TIPC address is bound for this node alone, unless strangers are kept out or are welcome.
        """
        if self.family == socket.AF_UNIX or self.is_tipc or self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False  # a name, which may be anybody's

    @property
    def is_tipc(self) -> bool:
        return self.scheme in _TIPC

    def __str__(self) -> str:
        if self.family == socket.AF_UNIX:
            return f"{self.scheme}://{self.path}"
        if self.is_tipc:
            return f"{self.scheme}://{self.service}:{self.instance}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"


def parse(url: str) -> Address:
    """Read a URL.

    Raises
    ------
    ValueError : it is none of those above; the message says what is wrong with it.
    TypeError : it is no str.
    """
    if not isinstance(url, str):
        raise TypeError(f"a URL is wanted, such as {_EXAMPLES}; {type(url).__name__} found")
    scheme, separator, rest = url.partition("://")
    if not separator or scheme not in _SCHEMES:
        raise ValueError(f"URL {url!r}: wanted one of {', '.join(_SCHEMES)}, as in {_EXAMPLES}")
    zmq_type = ""
    topics: tuple[bytes, ...] = ()
    if scheme in _ZMQ:
        rest, _, options = rest.partition("?")
        zmq_type, topics = _parse_options(url, options)
    if "?" in rest or "#" in rest:
        raise ValueError(f"URL {url!r}: {scheme}:// takes no options")
    if scheme in ("unix", "zmq+ipc"):
        return Address(scheme, path=_parse_path(url, rest), zmq_type=zmq_type, topics=topics)
    if scheme in _TIPC:
        return _parse_service(url, scheme, rest)
    try:
        parts = urlsplit(f"//{rest}")
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise ValueError(f"URL {url!r}: {error}") from None
    if port is None or parts.path or parts.username is not None:
        raise ValueError(f"URL {url!r}: wanted {scheme}://HOST:PORT")
    host = "0.0.0.0" if host in (None, "*") else str(host)
    return Address(scheme, host=host, port=port, zmq_type=zmq_type, topics=topics)


def with_type(url: str, zmq_type: str) -> str:
    """Return *url*; one of ZeroMQ that does not say its type is given *zmq_type*."""
    if not parse(url).is_zmq or "type=" in url.partition("?")[2]:
        return url
    return f"{url}{'&' if '?' in url else '?'}type={zmq_type}"


def _parse_options(url: str, options: str) -> tuple[str, tuple[bytes, ...]]:
    """Read the type and the subscriptions of a URL of ZeroMQ."""
    types, topics = [], []
    for option in options.split("&") if options else ():
        name, _, value = option.partition("=")
        if name == "type":
            types.append(value)
        elif name == "subscribe":
            topics.append(unquote_to_bytes(value))
        else:
            raise ValueError(f"URL {url!r}: option {name!r}: wanted 'type' or 'subscribe'")
    zmq_type = types[0] if types else "pull"
    if len(types) > 1 or zmq_type not in _ZMQ_TYPES:
        raise ValueError(f"URL {url!r}: wanted one type= of {', '.join(_ZMQ_TYPES)}")
    if topics and zmq_type != "sub":
        raise ValueError(f"URL {url!r}: subscribe= is for type=sub, not for {zmq_type}")
    if zmq_type == "sub" and not topics:
        topics = [b""]
    return zmq_type, tuple(topics)


def _parse_path(url: str, path: str) -> str:
    is_abstract = path.startswith("@") and len(path) > 1
    if not is_abstract and not os.path.isabs(path):
        scheme = url.partition(":")[0]
        raise ValueError(
            f"URL {url!r}: wanted {scheme}:///PATH, or {scheme}://@NAME for an abstract one"
        )
    # 108 bytes with the zero at the end: unix(7)
    if len(os.fsencode(path)) > 107 or "\0" in path:
        raise ValueError(f"URL {url!r}: a path of at most 107 bytes without NUL wanted")
    return path


def _parse_service(url: str, scheme: str, rest: str) -> Address:
    found = re.fullmatch(r"(0x[0-9a-fA-F]+|[0-9]+):(0x[0-9a-fA-F]+|[0-9]+)", rest)
    if found is None:
        raise ValueError(f"URL {url!r}: wanted {scheme}://TYPE:INSTANCE, numbers, decimal or 0x")
    service, instance = (int(n, 16 if n.startswith("0x") else 10) for n in found.groups())
    if not _FIRST_TYPE <= service < 1 << 32:
        raise ValueError(
            f"URL {url!r}: a type of at least {_FIRST_TYPE} (those below are TIPC's own) and of 32 "
            f"bits wanted, {service} found"
        )
    if not instance < 1 << 32:
        raise ValueError(f"URL {url!r}: an instance of 32 bits wanted, {instance} found")
    return Address(scheme, service=service, instance=instance)
