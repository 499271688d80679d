"""Ingest: arrays and frames from other processes and machines, straight into segments.

    with numpush.ingest.listen("tcp://0.0.0.0:9000", key=key) as source:
        for obj in source:                          # SArray, SDataFrame, SSeries
            pool.map(work, obj.partitions(8))

    with numpush.ingest.connect("tcp://host:9000", key=key) as out:
        out.send(df)                                # ndarray, DataFrame, Series, shared or not

What comes over the wire is described in docs/wire.md. No pickle is sent or read.
"""

from .errors import (
    AccessDenied,
    FrameError,
    IngestError,
    LinkClosed,
    PeerGone,
    PeerRefused,
)
from .hub import Statistics
from .link import Connection, Link, Listener
from .opening import connect, listen, recv, send

__all__ = [
    "AccessDenied",
    "Connection",
    "FrameError",
    "IngestError",
    "Link",
    "LinkClosed",
    "Listener",
    "PeerGone",
    "PeerRefused",
    "Statistics",
    "connect",
    "listen",
    "recv",
    "send",
]
