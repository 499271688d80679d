"""Keys: which are allowed. The same in every store, so that what is in one can go to any other."""

from __future__ import annotations

__all__ = ["check_key", "check_prefix"]

_MOST = 1000
_PART = (
    200  #: of the 255 bytes that file systems allow; the rest is for suffixes and temporary files
)


def check_key(key: object) -> str:
    """Return *key*, which is str: parts between single slashes, as in "2026/prices".

    Raises
    ------
    TypeError, ValueError : it cannot be one; the message says why.
    """
    if not isinstance(key, str):
        raise TypeError(f"a key is a str, such as '2026/prices'; {type(key).__name__} found")
    reason = _why_not(key)
    if reason:
        raise ValueError(f"key {key!r:.80}: {reason}")
    return key


def _why_not(key: str) -> str:
    if not key or any(not part for part in key.split("/")):
        return "parts between single slashes wanted, none of them empty"
    if any(part.startswith(".") for part in key.split("/")):
        return "no part may begin with '.'"
    if not key.isprintable():
        return "only characters that can be printed wanted"
    try:
        size = len(key.encode())
        longest = max(len(part.encode()) for part in key.split("/"))
    except UnicodeEncodeError:
        return "no lone surrogates wanted"
    if size > _MOST or longest > _PART:
        return f"at most {_MOST} bytes of UTF-8 wanted, and {_PART} in a part"
    return ""


def check_prefix(prefix: object) -> str:
    """Return what keys may begin with.

    Raises
    ------
    TypeError : it is no str.
    """
    if not isinstance(prefix, str):
        raise TypeError(f"a prefix is a str; {type(prefix).__name__} found")
    return prefix
