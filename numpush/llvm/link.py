"""Object code -> functions in this process.

(1) Code may call what is on a list: functions of libm and a few of libc, and what the caller adds with an
    address. The list makes an early, named error of what would crash; it is no sandbox.
(2) What was linked is unloaded when its `Linked` goes: whoever has an address keeps that.
(3) A child has what its parent linked before the fork, at the same addresses, and links more.
"""

from __future__ import annotations

import ctypes
import functools
import itertools
from collections.abc import Iterable, Mapping
from typing import Any

import llvmlite.binding as ll

from .elf import symbols as _symbols
from .errors import BadCode, UnknownSymbol
from .guard import guarded
from .target import host, machine

__all__ = ["Linked", "link", "prepare"]

_OF_LIBM = (  # noqa: SIM905  # sixty lines otherwise
    "acos acosh asin asinh atan atan2 atanh cbrt ceil copysign cos cosh erf erfc exp exp2 exp10 expm1 fabs "
    "fdim floor fma fmax fmin fmod frexp hypot ldexp lgamma llrint llround log log10 log1p log2 logb lrint "
    "lround modf nearbyint nextafter pow remainder rint round roundeven scalbn sin sincos sinh sqrt tan tanh "
    "tgamma trunc"
).split()
_OF_LIBC = ["memcmp", "memcpy", "memmove", "memset", "strlen"]
_names = (f"numpush{n}" for n in itertools.count())


class Linked:
    """Functions that were linked into this process, and stay as long as this does."""

    def __init__(self, tracker: Any, entries: Iterable[str]) -> None:
        self._tracker = tracker
        self._addresses = {name: int(tracker[name]) for name in entries}

    def address(self, name: str) -> int:
        """Return the address of an entry."""
        return self._addresses[name]


def link(
    object_code: bytes,
    entries: Iterable[str],
    symbols: Mapping[str, int] | None = None,
) -> Linked:
    """Link *object_code* into this process; a fraction of a millisecond.

    Parameters
    ----------
    entries : names of functions in it, to be asked for by `Linked.address`
    symbols : addresses of what it may call besides libm

    Raises
    ------
    UnknownSymbol : it calls something that is on no list, or lacks an entry.
    BadCode, WrongMachine : it is no object code, or for another architecture.
    """
    entries = tuple(entries)
    found = _symbols(object_code)
    if missing := set(entries) - found.defined:
        raise UnknownSymbol(f"not defined in this code: {', '.join(sorted(missing))}")
    addresses = _resolve(found.undefined, symbols or {})
    return _link(object_code, entries, addresses)


def prepare() -> None:
    """Do now what the first `link` of a process would do besides, some milliseconds."""
    _jit()
    _allowed()
    host()


def _resolve(names: Iterable[str], symbols: Mapping[str, int]) -> dict[str, int]:
    addresses, unknown = {}, []
    for name in names:
        address = symbols.get(name) or _library_function(name)
        if address:
            addresses[name] = address
        else:
            unknown.append(name)
    if unknown:
        raise UnknownSymbol(
            f"not on the list of what compiled code may call: {', '.join(sorted(unknown))}"
        )
    return addresses


@guarded
def _link(code: bytes, entries: tuple[str, ...], addresses: Mapping[str, int]) -> Linked:
    library = ll.JITLibraryBuilder().add_object_img(code)
    for name, address in addresses.items():
        library.import_symbol(name, address)
    for name in entries:
        library.export_symbol(name)
    try:
        return Linked(library.link(_jit(), next(_names)), entries)
    except RuntimeError as error:
        raise BadCode(f"LLVM cannot link this: {str(error).strip()}") from error


@functools.cache
def _jit() -> Any:
    return ll.create_lljit_compiler(machine(), use_jit_link=True)


@functools.cache
def _allowed() -> dict[str, ctypes.CDLL]:
    libm, libc = ctypes.CDLL("libm.so.6"), ctypes.CDLL(None)
    return {name + kind: libm for name in _OF_LIBM for kind in ("", "f")} | dict.fromkeys(
        _OF_LIBC, libc
    )


def _library_function(name: str) -> int | None:
    function = getattr(_allowed().get(name), name, None)
    return ctypes.cast(function, ctypes.c_void_p).value if function is not None else None
