"""TIPC's topology server: who has bound a service address, and who no longer has.

Source: struct tipc_subscr and struct tipc_event in linux/tipc.h. The server answers in the byte order that
it is asked in.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator

__all__ = ["count_bound", "events", "wait_published"]

_SUBSCRIPTION = struct.Struct("=5I8x")  # type, lower, upper, timeout in ms, filter, (ours)
_EVENT = struct.Struct("=5I28x")  # event, lower, upper, port, node, (the subscription)


def events(service: int, instance: int, limit: float, *, of_ports: bool = False) -> Iterator[int]:
    """Yield TIPC_PUBLISHED and TIPC_WITHDRAWN as (service, instance) comes and goes, for *limit* seconds.

    What is bound already is reported at once; *of_ports*: of each socket that has bound it, else of
    the first and the last. Nothing is asked before the first `next`.
    """
    with socket.socket(socket.AF_TIPC, socket.SOCK_SEQPACKET) as server:
        server.settimeout(limit + 10)
        server.connect((socket.TIPC_ADDR_NAME, socket.TIPC_TOP_SRV, socket.TIPC_TOP_SRV, 0))
        kind = socket.TIPC_SUB_PORTS if of_ports else socket.TIPC_SUB_SERVICE
        server.send(_SUBSCRIPTION.pack(service, instance, instance, int(limit * 1000), kind))
        while True:
            event, *_ = _EVENT.unpack(server.recv(_EVENT.size))
            if event == socket.TIPC_SUBSCR_TIMEOUT:
                return
            yield event


def wait_published(service: int, instance: int, limit: float) -> bool:
    """Wait until somebody has bound (service, instance); False if nobody does within *limit* seconds."""
    return socket.TIPC_PUBLISHED in events(service, instance, limit)


def count_bound(service: int, instance: int) -> int:
    """Return how many sockets, here or on other nodes, have bound (service, instance)."""
    return list(events(service, instance, 0, of_ports=True)).count(socket.TIPC_PUBLISHED)
