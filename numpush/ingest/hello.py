"""The first bytes of a connection: each end says what it is, and proves that it has the key.

    hello   48 bytes   magic, version, flags (1: I have a key), 32 random bytes; both at once
    proof   32 bytes   HMAC-SHA256(key, role, hello of the connecting end, hello of the listening
                       end); first the connecting end's, then, if that was right, the listening one's

(1) Nothing else of a stranger's is read before its proof was right.
(2) A proof is good for this connection only (both random parts are in it) and for one role only, so
    neither a recorded nor a reflected one is.
(3) It says who is there, once. Who can change packets on the way is kept out by TLS.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import struct
from typing import Protocol

from .errors import AccessDenied, FrameError, PeerGone

__all__ = ["VERSION", "check_key", "shake_hands"]

MAGIC = b"\x89npush\r\n"  #: no text, and shows what changes the ends of lines
VERSION = 1
_HELLO = struct.Struct("<8sBB6x32s")
_HAS_KEY = 1
_ROLES = b"numpush connect", b"numpush listen"
_SHORTEST_KEY = 16


class Stream(Protocol):
    """What a handshake needs of a connection."""

    def read(self, size: int) -> bytes:
        """Read exactly so many bytes."""

    def write(self, data: bytes) -> None:
        """Send all of it."""


def check_key(key: bytes | str | None) -> bytes | None:
    """Return a key as bytes.

    Raises
    ------
    ValueError : it is shorter than 16 bytes: it could be found by trying.
    TypeError : it is neither bytes nor str.
    """
    if key is None:
        return None
    if isinstance(key, str):
        key = key.encode()
    if not isinstance(key, bytes | bytearray):
        raise TypeError(f"key: bytes or str wanted, {type(key).__name__} found")
    if len(key) < _SHORTEST_KEY:
        raise ValueError(
            f"key: at least {_SHORTEST_KEY} bytes wanted, {len(key)} found; "
            "secrets.token_bytes(32) makes one"
        )
    return bytes(key)


def shake_hands(stream: Stream, key: bytes | None, *, is_listening: bool) -> None:
    """Say hello, and prove and have proven that both have *key*.

    Raises
    ------
    FrameError : the peer speaks another protocol, or another version of this one.
    AccessDenied : it has no key, or another one.
    """
    ours = _HELLO.pack(MAGIC, VERSION, _HAS_KEY if key else 0, os.urandom(32))
    stream.write(ours)
    theirs = stream.read(_HELLO.size)
    magic, version, flags, _ = _HELLO.unpack(theirs)
    if magic != MAGIC:
        raise FrameError(f"hello: {MAGIC!r} wanted, {magic!r} found: the peer is no numpush link")
    if version != VERSION:
        raise FrameError(f"hello: version {VERSION} wanted, {version} found")
    if bool(flags & _HAS_KEY) != bool(key):
        raise AccessDenied(
            "the peer has no key: give both ends the same key=" if key else "the peer wants a key="
        )
    if key is None:
        return
    hellos = theirs + ours if is_listening else ours + theirs
    proofs = [hmac.digest(key, role + hellos, hashlib.sha256) for role in _ROLES]
    if not is_listening:
        stream.write(proofs[0])
    try:
        found = stream.read(32)
    except PeerGone as error:
        if is_listening:
            raise
        raise AccessDenied("the peer did not accept our key: it has another") from error
    if not hmac.compare_digest(found, proofs[0 if is_listening else 1]):
        raise AccessDenied("the peer has another key")
    if is_listening:
        stream.write(proofs[1])
