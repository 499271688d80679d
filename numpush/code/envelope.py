"""Payloads: code in an envelope that is looked into only after its signature was right.

    8  magic           no text, shows what changes the ends of lines; the last byte is the version
    4  u32             bytes of the header
    8  u64             bytes of the blobs
    8  key             name of the key it is signed with (keyring.py)
       header          msgpack: kind, meta, blobs (name and size of each), maker
       blobs           one after the other
    32 HMAC-SHA256     of all before

All numbers are little-endian. docs/code.md describes header and meta.

(1) Nothing is parsed before the MAC was right: LLVM's reader aborts the process on one of ten damaged
    files. The lengths are only compared with the length of the whole, the key's name only looked up.
(2) What is checked and what is used are one private copy: the sender may still write to what it sent.
(3) What the MAC lets in is trusted code, but may be of another version: every field is looked at all
    the same, and what it does not fit is a CodeError.
(4) There is no pickle in the envelope. Kinds whose blobs are one are let in only where they are asked for.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

import msgpack

from .errors import CodeError, CodeMismatch, UnsignedCode
from .keyring import ID_SIZE, Keyring

__all__ = ["DEFAULT", "KINDS", "Payload", "seal", "unseal"]

#: What is let in unless it is said otherwise: nothing that a Python interpreter would run.
DEFAULT = frozenset({"llvm", "ufunc", "kernel", "numexpr"})
KINDS = DEFAULT | {"python", "pytensor", "extension"}

T = TypeVar("T")

_MAGIC = b"\x89npc\r\n\x1a"
VERSION = 1
_HEAD = struct.Struct(f"<7sBIQ{ID_SIZE}s")
_MAC_SIZE = 32


@dataclass(frozen=True, slots=True)
class Payload:
    """Code of one kind: what it is, and what it consists of."""

    kind: str
    meta: dict[str, Any]
    blobs: dict[str, bytes]
    maker: dict[str, Any]  #: the process that made it

    def get(self, name: str, kind: type[T]) -> T:
        """Return a field of meta; rule (3).

        Raises
        ------
        CodeError : there is none, or it is something else.
        """
        value = self.meta.get(name)
        if not isinstance(value, kind):
            raise CodeError(
                f"payload of {self.kind}: {name} of {kind.__name__} wanted, {value!r} found"
            )
        return value

    def blob(self, name: str) -> bytes:
        """Return a blob.

        Raises
        ------
        CodeError : there is none.
        """
        if name not in self.blobs:
            raise CodeError(f"payload of {self.kind}: it has no {name}")
        return self.blobs[name]


def seal(payload: Payload, keyring: Keyring | None) -> bytes:
    """Return *payload* as bytes, signed with the first key.

    Raises
    ------
    UnsignedCode : there is no key.
    """
    if keyring is None:
        raise UnsignedCode("no keyring=: code is not sent unsigned")
    header = msgpack.packb(
        {
            "kind": payload.kind,
            "meta": payload.meta,
            "blobs": [[name, len(blob)] for name, blob in payload.blobs.items()],
            "maker": payload.maker,
        }
    )
    body = b"".join(payload.blobs.values())
    head = _HEAD.pack(_MAGIC, VERSION, len(header), len(body), keyring.signer)
    return b"".join((head, header, body, keyring.sign(head, header, body)))


def unseal(data: Any, keyring: Keyring | None, allow: Iterable[str] | None = None) -> Payload:
    """Return what is in *data*, if its signature is right and its kind is let in.

    Raises
    ------
    UnsignedCode : it was not signed by a key of *keyring*, or was changed since, or there is no key.
    CodeMismatch : another version of the envelope.
    CodeError : it is no payload, or of a kind that is not in *allow*.
    """
    allowed = check_kinds(allow)
    data = memoryview(memoryview(data).tobytes())  # rule (2)
    if len(data) < _HEAD.size + _MAC_SIZE:
        raise CodeError(
            f"payload: at least {_HEAD.size + _MAC_SIZE} bytes wanted, {len(data)} found"
        )
    magic, version, header_size, body_size, name = _HEAD.unpack_from(data)
    if magic != _MAGIC:
        raise CodeError(f"payload: {_MAGIC!r} wanted at its beginning, {magic!r} found")
    if version != VERSION:
        raise CodeMismatch(f"payload: version {VERSION} wanted, {version} found")
    size = _HEAD.size + header_size + body_size + _MAC_SIZE
    if len(data) != size:
        raise CodeError(f"payload: {size} bytes wanted, {len(data)} found")
    if keyring is None:
        raise UnsignedCode("no keyring=: this process has no key and refuses all code")
    keyring.check(name, bytes(data[-_MAC_SIZE:]), data[:-_MAC_SIZE])
    start = _HEAD.size + header_size
    payload = _read(data[_HEAD.size : start], data[start:-_MAC_SIZE])
    if payload.kind not in allowed:
        raise CodeError(
            f"payload: kind {payload.kind!r} is not let in here, only {', '.join(sorted(allowed))}: "
            "see allow="
        )
    return payload


def check_kinds(allow: Iterable[str] | None) -> frozenset[str]:
    """Return the kinds that are let in.

    Raises
    ------
    ValueError : there is no such kind.
    """
    if allow is None:
        return DEFAULT
    allowed = frozenset([allow] if isinstance(allow, str) else allow)
    if unknown := allowed - KINDS:
        raise ValueError(f"allow: kinds of {sorted(KINDS)} wanted, {sorted(unknown)} found")
    return allowed


_FIELDS = {"kind": str, "meta": dict, "blobs": list, "maker": dict}


def _read(header: memoryview, body: memoryview) -> Payload:
    """Read what the MAC has let in; rule (3)."""
    try:
        found = msgpack.unpackb(header)
    except (ValueError, TypeError, OverflowError, msgpack.UnpackException) as error:
        raise CodeError(f"payload: the header is no msgpack: {error}") from error
    for name, kind in _FIELDS.items():
        if not isinstance(found, dict) or not isinstance(found.get(name), kind):
            raise CodeError(f"payload: the header has no {name}, or no {kind.__name__}")
    blobs, at = {}, 0
    for entry in found["blobs"]:
        match entry:
            case [str(name), int(size)] if 0 <= size <= len(body) - at:
                blobs[name] = bytes(body[at : at + size])
                at += size
            case _:
                raise CodeError(f"payload: blob {entry!r} at {at} of {len(body)} bytes")
    if at != len(body):
        raise CodeError(f"payload: blobs of {len(body)} bytes wanted, of {at} found")
    return Payload(found["kind"], found["meta"], blobs, found["maker"])
