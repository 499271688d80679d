"""The keys that say whose code runs here.

(1) A key is at least 32 random bytes that both ends have. Who has it may run anything here as this
    user: there is no sandbox behind it, for native code needs none of our symbols to make system calls.
(2) The first key signs; every key lets in. So keys are changed without a moment in which code is
    refused: give the new one to all as their second, then make it their first, then drop the old one.
(3) A key's name is the beginning of a hash of it. Names are shown, and are in every payload; keys are never
    shown, and are pickled only to processes that multiprocessing starts from here.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
import stat
from collections.abc import Iterable, Iterator
from typing import Any

from .errors import CodeError, UnsignedCode

__all__ = ["Keyring"]

ID_SIZE = 8  #: bytes of a key's name
_SHORTEST_KEY = 32
_HEADING = "# numpush: keys of code, the first one signs. Who reads them may run code as you.\n"


class Keyring:
    """Keys by name.

    >>> from numpush.code import Keyring
    >>> ring = Keyring.generate()
    >>> len(ring)
    1
    >>> with_the_old_one = ring | Keyring.generate()    # ring's key signs, both let in
    >>> len(with_the_old_one)
    2

    Parameters
    ----------
    keys : iterable of bytes
        At least 32 random bytes each.
    """

    __slots__ = ("_keys",)

    def __init__(self, keys: Iterable[bytes] = ()) -> None:
        self._keys = {key_id(key): bytes(key) for key in keys}

    @classmethod
    def generate(cls) -> Keyring:
        """Make a keyring of one new key."""
        return cls([secrets.token_bytes(_SHORTEST_KEY)])

    @classmethod
    def from_file(cls, path: str | os.PathLike[str]) -> Keyring:
        """Read what `save` wrote.

        Raises
        ------
        CodeError : others than this user may read or write the file, or it has no keys.
        OSError : it cannot be read.
        """
        with open(path, encoding="ascii", errors="replace") as file:
            status = os.fstat(file.fileno())
            if status.st_uid not in (os.geteuid(), 0):
                raise CodeError(f"{path}: of user {status.st_uid}, not of this one")
            if status.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
                mode = stat.S_IMODE(status.st_mode)
                raise CodeError(f"{path}: mode 0600 wanted, {mode:04o} found: chmod 600 {path}")
            text = re.sub(r"#.*", "", file.read())
        return cls(_read_keys(text, f"{path}"))

    @classmethod
    def from_env(cls, name: str = "NUMPUSH_CODE_KEY") -> Keyring:
        """Read the keys that an environment variable has, as `export` gives them.

        Raises
        ------
        UnsignedCode : there is no such variable, or it is empty.
        CodeError : it has something else.
        """
        text = os.environ.get(name, "")
        if not text.strip():
            raise UnsignedCode(f"the environment has no {name}: there is no key for code")
        return cls(_read_keys(text, f"the environment's {name}"))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the keys to a new file that only this user may read.

        Raises
        ------
        FileExistsError : there is one: a key that is written over is lost.
        """
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with open(fd, "w", encoding="ascii") as file:
            file.write(_HEADING + "".join(f"{key.hex()}\n" for key in self._keys.values()))
            file.flush()
            os.fsync(fd)

    def export(self) -> str:
        """Return the keys as text, for a worker's environment."""
        return ",".join(key.hex() for key in self._keys.values())

    def sign(self, *parts: Any) -> bytes:
        """Return the HMAC-SHA256 of *parts* under the first key: 32 bytes."""
        if not self._keys:
            raise UnsignedCode("an empty keyring cannot sign: Keyring.generate() makes a key")
        return _digest(next(iter(self._keys.values())), parts)

    def check(self, name: bytes, mac: bytes, *parts: Any) -> None:
        """Refuse *parts* unless *mac* is theirs under the key *name*.

        Raises
        ------
        UnsignedCode : it is not, or there is no such key here.
        """
        key = self._keys.get(name)
        if key is None:
            raise UnsignedCode(
                f"signed with key {name.hex()}, and this process has "
                + (f"only {', '.join(self)}" if self._keys else "no key: it refuses all code")
            )
        if not hmac.compare_digest(_digest(key, parts), mac):
            raise UnsignedCode(f"changed since it was signed, or not signed by key {name.hex()}")

    @property
    def signer(self) -> bytes:
        """The name of the key that signs."""
        if not self._keys:
            raise UnsignedCode("an empty keyring cannot sign: Keyring.generate() makes a key")
        return next(iter(self._keys))

    def __or__(self, other: Keyring) -> Keyring:
        """Return a keyring with the keys of both; the first of this one signs."""
        if not isinstance(other, Keyring):
            return NotImplemented
        return type(self)([*self._keys.values(), *other._keys.values()])

    def __len__(self) -> int:
        return len(self._keys)

    def __iter__(self) -> Iterator[str]:
        """Yield the names of the keys."""
        return (name.hex() for name in self._keys)

    def __repr__(self) -> str:
        return f"<Keyring of {', '.join(self) or 'no keys'}>"

    def __reduce__(self) -> tuple[Any, ...]:
        from multiprocessing.context import get_spawning_popen

        if get_spawning_popen() is None:
            raise TypeError(
                "a Keyring is pickled only to a process that is being started: pickles get about. "
                "Elsewhere use Keyring.from_file or Keyring.from_env"
            )
        return type(self), (list(self._keys.values()),)


def key_id(key: bytes) -> bytes:
    """Return the name of a key.

    Raises
    ------
    ValueError : it is shorter than 32 bytes.
    TypeError : it is not bytes.
    """
    if not isinstance(key, bytes | bytearray):
        raise TypeError(f"key: bytes wanted, {type(key).__name__} found")
    if len(key) < _SHORTEST_KEY:
        raise ValueError(
            f"key: at least {_SHORTEST_KEY} random bytes wanted, {len(key)} found; "
            "Keyring.generate() makes one"
        )
    return hashlib.sha256(b"numpush code key" + key).digest()[:ID_SIZE]


def _digest(key: bytes, parts: tuple[Any, ...]) -> bytes:
    mac = hmac.new(key, digestmod="sha256")
    for part in parts:
        mac.update(part)
    return mac.digest()


def _read_keys(text: str, where: str) -> list[bytes]:
    """Read keys in hex, apart by commas, blanks or lines."""
    try:
        keys = [bytes.fromhex(word) for word in re.split(r"[\s,]+", text.strip()) if word]
        for key in keys:
            key_id(key)
    except ValueError:  # whose message might have the key
        raise CodeError(f"{where}: keys of 64 or more hex digits wanted") from None
    if not keys:
        raise CodeError(f"{where}: no key in it")
    return keys
