"""TIPC sockets with connections: bound to a service address, and connected to one.

(1) Without a key and without leave for strangers an address is bound with node scope: other nodes are
    not told of it, and one that has guessed the socket's port is not let in.
(2) An address has one listener. TIPC would give every other connection to a second one, so who finds it
    bound says that it is in use. Two that bind it at the same moment may both say so.
"""

from __future__ import annotations

import errno
import os
import socket
from typing import Any

from . import topology
from .url import Address

__all__ = ["Listener", "connect", "is_tipc", "name_of", "require"]

KINDS = {
    "tipc": socket.SOCK_STREAM,
    "tipc+seqpacket": socket.SOCK_SEQPACKET,
    "tipc+rdm": socket.SOCK_RDM,
}
_BACKLOG = 128


def is_tipc(sock: socket.socket) -> bool:
    return sock.family == getattr(socket, "AF_TIPC", None)


def require() -> None:
    """Do nothing where there is TIPC.

    Raises
    ------
    OSError : the kernel has none; says what loads it.
    """
    try:
        if hasattr(socket, "AF_TIPC"):
            socket.socket(socket.AF_TIPC, socket.SOCK_RDM).close()
            return
    except OSError as error:
        if error.errno != errno.EAFNOSUPPORT:
            raise
    raise OSError(
        errno.EAFNOSUPPORT,
        "no TIPC in this kernel: `modprobe tipc`, as root, loads it where the kernel comes with it",
    )


def name_of(address: Address) -> tuple[int, int, int, int]:
    """Return an address as connect and sendto take it."""
    return socket.TIPC_ADDR_NAME, address.service, address.instance, 0


class Listener(socket.socket):
    """A socket that has bound an address; rules (1) and (2)."""

    def __init__(self, address: Address, *, is_open: bool) -> None:
        require()
        super().__init__(socket.AF_TIPC, KINDS[address.scheme])
        self._is_open = is_open
        service, instance = address.service, address.instance
        scope = socket.TIPC_CLUSTER_SCOPE if is_open else socket.TIPC_NODE_SCOPE
        try:
            self.setblocking(False)
            self._check_alone(topology.count_bound(service, instance))
            if self.type != socket.SOCK_RDM:
                self.listen(_BACKLOG)  # before bind, which makes the address known
            self.bind((socket.TIPC_ADDR_NAMESEQ, service, instance, instance, scope))
            self._check_alone(topology.count_bound(service, instance) - 1)
        except BaseException:
            self.close()
            raise

    @staticmethod
    def _check_alone(n_others: int) -> None:
        if n_others > 0:
            raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))

    def accept(self) -> tuple[socket.socket, Any]:
        """Return a connection, and who made it."""
        sock, who = super().accept()
        try:
            self.check_node(who)
        except BaseException:
            sock.close()
            raise
        return sock, who

    def check_node(self, who: Any) -> None:
        """Refuse another node; rule (1).

        Raises
        ------
        PermissionError : it is one.
        """
        if not self._is_open and who[1] != self.getsockname()[1]:
            raise PermissionError(errno.EACCES, f"node {who[1]:x} is not ours")


def connect(address: Address, seconds: float) -> socket.socket:
    """Return a socket that is connected to who has bound *address*. Waits for its accept."""
    sock = socket.socket(socket.AF_TIPC, KINDS[address.scheme])
    try:
        sock.setsockopt(socket.SOL_TIPC, socket.TIPC_CONN_TIMEOUT, max(1, int(seconds * 1e3)))
        sock.settimeout(seconds)
        sock.connect(name_of(address))
    except BaseException as error:
        sock.close()
        if isinstance(error, OSError) and error.errno == errno.EHOSTUNREACH:
            # bound a moment ago, and no longer
            raise ConnectionRefusedError(errno.ECONNREFUSED, "no process has bound it") from error
        raise
    return sock
