"""Signed code as it travels and rests: bytes that say what they are. Imports nothing."""

from __future__ import annotations

__all__ = ["SignedCode"]


class SignedCode(bytes):
    """What `dumps` returns and `loads` takes: bytes, for any file or wire.

    A link of `numpush.ingest` that has a key sends one, and receives it as one.
    """

    __slots__ = ()

    def __repr__(self) -> str:
        return f"<SignedCode, {len(self)} bytes>"

    __str__ = __repr__
