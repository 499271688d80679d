"""ZMTP 3.0 and 3.1, the protocol of ZeroMQ, as bytes: greeting, frames, commands. No I/O.

    greeting   64 bytes   signature (10), version (2), mechanism (20), as-server (1), zeros (31)
    frame      flags (1), size (1, or 8 with the flag LONG), body
    command    a frame with the flag COMMAND: length of a name (1), the name, the rest

(1) Everything is checked before it is used, sizes before anything of that size is read or made. What is
    not right is a FrameError, never anything else.
(2) Only the NULL mechanism has a form here. With CURVE and PLAIN libzmq receives: libzmq.py.

Source: rfc.zeromq.org, 23/ZMTP and 37/ZMTP.
"""

from __future__ import annotations

import re
import struct
from typing import NamedTuple

from .errors import FrameError

__all__ = [
    "COMPATIBLE",
    "GREETING_SIZE",
    "MAX_COMMAND",
    "VERSION_END",
    "Frame",
    "Greeting",
    "Ping",
    "header_size",
    "pack_command",
    "pack_error",
    "pack_greeting",
    "pack_header",
    "pack_ping",
    "pack_pong",
    "pack_ready",
    "pack_subscription",
    "read_command",
    "read_error",
    "read_greeting",
    "read_header",
    "read_metadata",
    "read_ping",
    "read_version",
]

GREETING_SIZE = 64
VERSION_END = (
    12  #: bytes of a greeting up to and with the version: older ones are shorter than ours
)
MAX_COMMAND = 64 << 10  #: bytes of a command that is read; libzmq's own have less than 1 KiB

#: Socket-Type -> those that it may talk to.
COMPATIBLE = {"PULL": ("PUSH",), "SUB": ("PUB", "XPUB")}

_GREETING = struct.Struct(">B8xBBB20sB31x")
_MORE, _LONG, _COMMAND = 1, 2, 4
_LONG_HEADER = struct.Struct(">BQ")
_MAX_SIZE = (1 << 63) - 1
_NAME = re.compile(rb"[A-Za-z0-9._+-]{1,255}")
_MAX_CONTEXT = 16


class Greeting(NamedTuple):
    """What a peer says first."""

    minor: int  #: of version 3
    mechanism: str
    is_server: bool


class Frame(NamedTuple):
    """The header of a frame."""

    size: int
    has_more: bool
    is_command: bool


class Ping(NamedTuple):
    """The body of a PING."""

    ttl: float  #: seconds after which the peer may be taken for dead; 0: never
    context: bytes  #: to be sent back


# -- greeting


def pack_greeting(mechanism: str = "NULL", is_server: bool = False) -> bytes:
    """Make a greeting of version 3.1."""
    return _GREETING.pack(0xFF, 0x7F, 3, 1, mechanism.encode(), is_server)


def read_version(data: bytes | memoryview) -> int:
    """Check the first `VERSION_END` bytes of a greeting, and return the minor version.

    Raises
    ------
    FrameError : the peer speaks another protocol, or ZMTP before 3.0.
    """
    if len(data) < VERSION_END:
        raise FrameError(f"greeting: {VERSION_END} bytes wanted, {len(data)} found")
    if data[0] != 0xFF or data[9] != 0x7F:
        raise FrameError(f"greeting: the peer does not speak ZeroMQ: it sent {bytes(data[:10])!r}")
    if data[10] != 3:
        raise FrameError(f"greeting: ZMTP 3 wanted (libzmq 4 or later), version {data[10]} found")
    return data[11]


def read_greeting(data: bytes | memoryview) -> Greeting:
    """Read a greeting.

    Raises
    ------
    FrameError : it is none of ZMTP 3.
    """
    minor = read_version(data)
    if len(data) != GREETING_SIZE:
        raise FrameError(f"greeting: {GREETING_SIZE} bytes wanted, {len(data)} found")
    *_, name, is_server = _GREETING.unpack(data)
    mechanism = name.rstrip(b"\0")
    if not re.fullmatch(rb"[A-Z0-9._+-]{1,20}", mechanism) or is_server > 1:
        raise FrameError(f"greeting: the name of a mechanism wanted, {name!r} found")
    return Greeting(minor, mechanism.decode(), bool(is_server))


# -- frames


def pack_header(size: int, has_more: bool = False, is_command: bool = False) -> bytes:
    """Make the header of a frame."""
    flags = _MORE * has_more | _COMMAND * is_command
    if size < 256:
        return bytes((flags, size))
    return _LONG_HEADER.pack(flags | _LONG, size)


def header_size(flags: int) -> int:
    """Return how many bytes the header has that begins with the byte *flags*.

    Raises
    ------
    FrameError : no frame begins so.
    """
    if flags & ~(_MORE | _LONG | _COMMAND) or (flags & _MORE and flags & _COMMAND):
        raise FrameError(f"frame: flags {flags:#04x}: none that we know")
    return _LONG_HEADER.size if flags & _LONG else 2


def read_header(data: bytes | memoryview) -> Frame:
    """Read the header of a frame.

    Raises
    ------
    FrameError : it is none, or a command that is longer than anybody's.
    """
    if not len(data) or len(data) != header_size(data[0]):
        raise FrameError(f"frame: a header wanted, {len(data)} bytes found")
    flags = data[0]
    size = data[1] if len(data) == 2 else int(_LONG_HEADER.unpack(data)[1])
    if size > _MAX_SIZE:
        raise FrameError(f"frame: at most {_MAX_SIZE} bytes wanted, {size} announced")
    is_command = bool(flags & _COMMAND)
    if is_command and not 2 <= size <= MAX_COMMAND:
        raise FrameError(f"command: 2 to {MAX_COMMAND} bytes wanted, {size} announced")
    return Frame(size, bool(flags & _MORE), is_command)


# -- commands


def pack_command(name: str, body: bytes = b"") -> bytes:
    """Make a command, its header included."""
    data = bytes((len(name),)) + name.encode() + body
    return pack_header(len(data), is_command=True) + data


def read_command(data: bytes | memoryview) -> tuple[str, bytes]:
    """Read the body of a command frame: its name, and what follows it.

    Raises
    ------
    FrameError : it has no name.
    """
    data = bytes(data)
    name, body = _cut_short(data, "command: its name")
    if not _NAME.fullmatch(name):
        raise FrameError(f"command: a name wanted, {name!r:.40} found")
    return name.decode(), body


def _cut_short(data: bytes, what: str) -> tuple[bytes, bytes]:
    """Cut what has its length before it, in a byte, from what follows."""
    if not data or len(data) < 1 + data[0]:
        raise FrameError(f"{what}: {data[0] if data else 1} bytes wanted, {len(data)} found")
    return data[1 : 1 + data[0]], data[1 + data[0] :]


def pack_ready(socket_type: str, identity: bytes = b"") -> bytes:
    """Make a READY."""
    pairs = {"Socket-Type": socket_type.encode(), "Identity": identity}
    return pack_command(
        "READY",
        b"".join(
            bytes((len(name),)) + name.encode() + struct.pack(">I", len(value)) + value
            for name, value in pairs.items()
        ),
    )


def read_metadata(data: bytes) -> dict[str, bytes]:
    """Read what a READY says of its sender: names, in small letters, and values.

    Raises
    ------
    FrameError : it is not whole, or a name is none.
    """
    found = {}
    while data:
        name, data = _cut_short(data, "metadata: a name")
        if not _NAME.fullmatch(name):
            raise FrameError(f"metadata: a name wanted, {name!r:.40} found")
        size = int.from_bytes(data[:4], "big")
        if len(data) < 4 + size:
            raise FrameError(f"metadata {name!r:.40}: {size} bytes wanted, {len(data)} found")
        found[name.decode().lower()] = data[4 : 4 + size]
        data = data[4 + size :]
    return found


def pack_error(reason: str) -> bytes:
    """Make an ERROR: the connection ends, and why."""
    text = reason.encode()[:255]
    return pack_command("ERROR", bytes((len(text),)) + text)


def read_error(body: bytes) -> str:
    """Return the reason in an ERROR.

    Raises
    ------
    FrameError : it has none.
    """
    return _cut_short(body, "ERROR: its reason")[0].decode(errors="replace")


def pack_ping(ttl: float = 0, context: bytes = b"") -> bytes:
    """Make a PING."""
    return pack_command("PING", struct.pack(">H", round(ttl * 10)) + context)


def read_ping(body: bytes) -> Ping:
    """Read the body of a PING.

    Raises
    ------
    FrameError : it is shorter or longer than one.
    """
    if not 2 <= len(body) <= 2 + _MAX_CONTEXT:
        raise FrameError(f"PING: 2 to {2 + _MAX_CONTEXT} bytes wanted, {len(body)} found")
    return Ping(int.from_bytes(body[:2], "big") / 10, body[2:])


def pack_pong(context: bytes = b"") -> bytes:
    """Make a PONG."""
    return pack_command("PONG", context)


def pack_subscription(topic: bytes, minor: int, cancel: bool = False) -> bytes:
    """Subscribe to what begins with *topic*, or no longer: a command, and to 3.0 a message."""
    if minor:
        return pack_command("CANCEL" if cancel else "SUBSCRIBE", topic)
    return pack_header(1 + len(topic)) + (b"\0" if cancel else b"\1") + topic
