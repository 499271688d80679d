"""Sockets: one that listens, one that is connected, a stream over either. By the scheme of a URL."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import socket
import ssl as _ssl
import stat
import time
from typing import Any

from . import rdm, tipc, topology
from .errors import PeerGone
from .packets import PacketStream, TipcStream
from .stream import SocketStream, TlsStream
from .url import Address

__all__ = ["bind", "dial", "name_of", "open_stream", "unbind"]

_FIRST_PAUSE, _LONGEST_PAUSE = 0.02, 0.5  #: seconds between two tries to connect
_BACKLOG = 128


def bind(address: Address, *, is_open: bool) -> tuple[socket.socket, Address]:
    """Return a listening socket, and its address with the port that was found.

    *is_open*: of a TIPC address, other nodes may connect too.
    """
    if address.is_tipc:
        listener = rdm.Listener if address.scheme == "tipc+rdm" else tipc.Listener
        try:
            return listener(address, is_open=is_open), address
        except OSError as error:
            raise _cannot_listen(address, error) from error
    if address.family == socket.AF_UNIX and not address.path.startswith("@"):
        _clear_stale_socket(address)
    sock = socket.socket(address.family, socket.SOCK_STREAM)
    try:
        if address.family != socket.AF_UNIX:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(_resolve(address))
            address = dataclasses.replace(address, port=sock.getsockname()[1])
        else:
            sock.bind(address.sockaddr)
            if not address.path.startswith("@"):
                os.chmod(address.path, 0o600)
        sock.setblocking(False)
        sock.listen(_BACKLOG)
    except BaseException as error:
        sock.close()
        if isinstance(error, OSError):
            raise _cannot_listen(address, error) from error
        raise
    return sock, address


def _cannot_listen(address: Address, error: OSError) -> OSError:
    return type(error)(error.errno, f"cannot listen at {address}: {error.strerror}")


def _resolve(address: Address) -> Any:
    """Return the address of a host by name, of the kind that its socket has."""
    found = socket.getaddrinfo(
        address.host, address.port, address.family, socket.SOCK_STREAM, 0, socket.AI_PASSIVE
    )
    return found[0][4]


def _clear_stale_socket(address: Address) -> None:
    """Remove a socket file that nobody listens at any more: its process was killed."""
    try:
        if not stat.S_ISSOCK(os.stat(address.path).st_mode):
            return  # bind says that the name is taken
    except OSError:
        return
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1)
        try:
            probe.connect(address.path)
        except ConnectionRefusedError:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(address.path)
        except OSError:
            pass


def unbind(address: Address) -> None:
    """Remove what `bind` made beside the socket."""
    if address.family == socket.AF_UNIX and not address.path.startswith("@"):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(address.path)


def dial(address: Address, timeout: float) -> socket.socket:
    """Return a connected socket; try again while nobody listens there yet.

    Raises PeerGone.
    """
    if address.is_tipc:
        tipc.require()
    until = time.monotonic() + timeout
    pause = _FIRST_PAUSE
    while True:
        try:
            return _connect(address, max(0.01, until - time.monotonic()))
        except OSError as error:
            if time.monotonic() + pause > until or not _may_come(error):
                why = error.strerror or str(error) or type(error).__name__
                raise PeerGone(f"nobody answers at {address}: {why} ({timeout:g} s)") from error
        time.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE)


def _connect(address: Address, seconds: float) -> socket.socket:
    if address.is_tipc:
        until = time.monotonic() + seconds
        if not topology.wait_published(address.service, address.instance, seconds):
            raise TimeoutError("no process has bound it")
        call = rdm.call if address.scheme == "tipc+rdm" else tipc.connect
        return call(address, max(0.01, until - time.monotonic()))
    if address.family != socket.AF_UNIX:
        return socket.create_connection((address.host, address.port), seconds)
    sock = socket.socket(socket.AF_UNIX)
    try:
        sock.settimeout(seconds)
        sock.connect(address.sockaddr)
    except BaseException:
        sock.close()
        raise
    return sock


def _may_come(error: OSError) -> bool:
    """Whether somebody who is about to listen explains the error."""
    return isinstance(error, ConnectionRefusedError | FileNotFoundError | BlockingIOError)


def name_of(address: Address, who: Any) -> str:
    if address.family == socket.AF_UNIX:
        return str(address)
    if address.is_tipc:
        return f"{address} from node {who[1]:x}, port {who[2]}"
    return str(Address(address.scheme, host=who[0], port=who[1]))


def open_stream(
    sock: socket.socket,
    io: str,
    ssl: _ssl.SSLContext | None,
    server_hostname: str | None,
    patience: float,
) -> SocketStream:
    try:
        if ssl is not None:
            return TlsStream(sock, ssl, server_hostname, patience)
        if isinstance(sock, rdm.Pair):
            return rdm.RdmStream(sock, patience)
        if sock.type == socket.SOCK_SEQPACKET:
            return PacketStream(sock, patience)
        if tipc.is_tipc(sock):
            return TipcStream(sock, io, patience)
        return SocketStream(sock, io, patience)
    except BaseException:
        sock.close()
        raise
