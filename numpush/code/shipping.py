"""dumps and loads: objects with code in them <-> signed bytes."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterable
from typing import Any

from . import kinds
from .envelope import KINDS, Payload, check_kinds, seal, unseal
from .errors import UnsignedCode
from .keyring import Keyring
from .signed import SignedCode

__all__ = ["dumps", "loads"]


def dumps(
    obj: Any,
    *,
    kind: str | None = None,
    sig: Any = None,
    portable: bool = False,
    keyring: Keyring | None,
) -> SignedCode:
    """Make signed bytes of something that has code in it.

    Parameters
    ----------
    obj : object
        A ufunc of `ufunc`, a module of `module`, IR text or bitcode (a module at the other
        end; with kind="ufunc" a ufunc), a kernel, a ``numexpr.NumExpr``, a PyTensor function, an
        extension module, or any Python function (with *sig* a ufunc that numba compiles now).
    kind : str, optional
        "llvm", "ufunc", "kernel", "numexpr", "pytensor", "python" or "extension", where the object
        leaves it open.
    sig : optional
        For a ufunc: signatures, as *sigs* of `ufunc`. For LLVM code: C declarations, as *cdef* of
        `module`.
    portable : bool
        Leave out the object code, which is for processors that have what this one has. Such a
        payload is smaller, and compiled where it is loaded, in milliseconds instead of fractions of one.
        Without it the receiver may do so, too.
    keyring : Keyring
        Its first key signs.

    Raises
    ------
    UnsignedCode : there is no key.
    CodeError : the object has no code that can be sent.
    """
    if not keyring:
        raise UnsignedCode("no key: code is not sent unsigned; Keyring.generate() makes a keyring")
    kind = kind or kinds.kind_of(obj, sig)
    if kind not in KINDS:
        raise ValueError(f"kind: one of {sorted(KINDS)} wanted, {kind!r} found")
    meta, blobs = kinds.module_of(kind).pack(obj, sig, portable)
    return SignedCode(seal(Payload(kind, meta, blobs, _maker()), keyring))


def loads(data: Any, *, keyring: Keyring | None, allow: Iterable[str] | None = None) -> Any:
    """Make of bytes what `dumps` was given, after their signature was found right.

    Parameters
    ----------
    data : bytes-like
        What `dumps` returned; also an array that was received.
    keyring : Keyring
        The keys that let code in. None, or one without keys, lets nothing in.
    allow : iterable of str, optional
        The kinds that are let in. By default "llvm", "ufunc", "kernel" and "numexpr"; not "python",
        "pytensor" and "extension", which run whatever they like while they are being loaded.

    Raises
    ------
    UnsignedCode : not signed by one of these keys, or changed since; nothing in it was looked at.
    CodeMismatch : for another processor, another Python, a newer LLVM, another numexpr.
    CodeError : no payload, or of a kind that is not let in.
    """
    payload = unseal(data, keyring, check_kinds(allow))
    return kinds.module_of(payload.kind).unpack(payload)


def _maker() -> dict[str, Any]:
    import numpush

    return {
        "numpush": numpush.__version__,
        "python": list(sys.version_info[:3]),
        "bytecode": importlib.util.MAGIC_NUMBER,
    }
