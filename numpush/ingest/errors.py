"""What may go wrong between two ends of a link, each also the builtin that a caller would catch."""

from __future__ import annotations

from ..errors import NumpushError

__all__ = ["AccessDenied", "FrameError", "IngestError", "LinkClosed", "PeerGone", "PeerRefused"]


#: How an end gets a key.
NEEDS_KEY = "say key= at both ends (those of ZeroMQ have none)"


class IngestError(NumpushError):
    """The base of those below."""


class PeerGone(IngestError, ConnectionError):
    """The peer closed, died, or was silent for too long in the middle of something. What it had not
    sent whole leaves nothing. The message says what was under way, and for how long."""


class PeerRefused(IngestError, ConnectionError):
    """The peer ended the connection and said why; the message is its own. What it acknowledged
    before, it has."""


class FrameError(IngestError, ValueError):
    """The bytes are not what docs/wire.md describes, are of another version, or want more than
    *max_bytes*. Nothing was built from them; the connection is closed."""


class AccessDenied(IngestError, PermissionError):
    """One side has another key than the other, or none. Nothing was read from it but its hello."""


class LinkClosed(IngestError, ValueError):
    """*Your* code closed the link. For an end that the peer made see `PeerGone`."""
