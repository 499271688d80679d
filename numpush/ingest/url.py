"""URLs of links: what may be listened to and connected to, checked before anything is opened.

tcp://HOST:PORT        IPv6 in brackets; port 0, listening: any free one
tls+tcp://HOST:PORT    the same, encrypted by an ssl.SSLContext
unix:///PATH           a socket in the file system; unix://@NAME, an abstract one
"""

from __future__ import annotations

import ipaddress
import os
import socket
from dataclasses import dataclass
from urllib.parse import urlsplit

__all__ = ["Address", "parse"]

_SCHEMES = ("tcp", "tls+tcp", "unix")
_EXAMPLES = "tcp://127.0.0.1:9000, tls+tcp://host:9000, unix:///run/data.sock"


@dataclass(frozen=True)
class Address:
    """Where a link goes.

    Attributes
    ----------
    scheme : str
        One of those above.
    host, port : of TCP
    path : of a unix socket, "@" first if it is abstract
    """

    scheme: str
    host: str = ""
    port: int = 0
    path: str = ""

    @property
    def family(self) -> socket.AddressFamily:
        """The kind of socket: AF_INET6 for what has a colon in it."""
        if self.scheme == "unix":
            return socket.AF_UNIX
        return socket.AF_INET6 if ":" in self.host else socket.AF_INET

    @property
    def sockaddr(self) -> str | tuple[str, int]:
        """The address as the socket module takes it."""
        if self.scheme == "unix":
            return "\0" + self.path[1:] if self.path.startswith("@") else self.path
        return self.host, self.port

    @property
    def is_local(self) -> bool:
        """Whether only processes of this machine can reach it."""
        if self.scheme == "unix" or self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False  # a name, which may be anybody's

    def __str__(self) -> str:
        if self.scheme == "unix":
            return f"unix://{self.path}"
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
    if "?" in rest or "#" in rest:
        raise ValueError(f"URL {url!r}: {scheme}:// takes no options")
    if scheme == "unix":
        return _parse_path(url, rest)
    try:
        parts = urlsplit(f"//{rest}")
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise ValueError(f"URL {url!r}: {error}") from None
    if port is None or parts.path or parts.username is not None:
        raise ValueError(f"URL {url!r}: wanted {scheme}://HOST:PORT")
    return Address(scheme, host="0.0.0.0" if host in (None, "*") else str(host), port=port)


def _parse_path(url: str, path: str) -> Address:
    is_abstract = path.startswith("@") and len(path) > 1
    if not is_abstract and not os.path.isabs(path):
        raise ValueError(f"URL {url!r}: wanted unix:///PATH, or unix://@NAME for an abstract one")
    # 108 bytes with the zero at the end: unix(7)
    if len(os.fsencode(path)) > 107 or "\0" in path:
        raise ValueError(f"URL {url!r}: a path of at most 107 bytes without NUL wanted")
    return Address("unix", path=path)
