"""A kernel for one kind of arguments: what travels, and what it becomes where it arrives.

(1) It pickles to bitcode, object code and a description, and numba is not needed to read or run it, but
    by kernels that use numba's runtime (`needs_numba`).
(2) It is linked when its entry is first asked for: the object code, where the CPU has all that it was made
    for, else the bitcode, compiled anew. The entry stays valid as long as the Variant does.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import threading
from collections.abc import Sequence
from operator import index
from typing import Any

from .. import llvm
from ..ffi import mutex as _mutex
from . import failures
from .arguments import MOST_ROWS, Argument, Block

__all__ = ["Variant"]

_ENTRY = "np_entry"
_OF_NUMBA = ("NRT_", "numba_")
_lock = threading.Lock()


def _renew_lock() -> None:
    global _lock
    _lock = threading.Lock()


os.register_at_fork(after_in_child=_renew_lock)  # a thread that is not here may hold it

#: int32_t np_entry(const int64_t *block, int64_t i0, int64_t i1, void **excinfo); the GIL is let go.
_Entry = ctypes.CFUNCTYPE(
    ctypes.c_int32, ctypes.c_char_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p
)


class Variant:
    """A kernel, compiled for one kind of arguments.

    Attributes
    ----------
    name, place : of the kernel; its file and line
    arguments : what it takes after i0 and i1
    bitcode, object_code : bytes
    target : the machine that the object code was made for
    """

    def __init__(
        self,
        name: str,
        place: str,
        arguments: tuple[Argument, ...],
        bitcode: bytes,
        object_code: bytes,
        target: llvm.Target,
    ) -> None:
        self.name = name
        self.place = place
        self.arguments = arguments
        self.bitcode = bitcode
        self.object_code = object_code
        self.target = target
        self._block = Block(name, arguments)
        self._linked: llvm.Linked | None = None
        self._call: Any = None

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (
            self.name,
            self.place,
            self.arguments,
            self.bitcode,
            self.object_code,
            self.target,
        )

    @property
    def signature(self) -> str:
        """What it takes, as a signature."""
        return ", ".join(map(str, self.arguments))

    @functools.cached_property
    def key(self) -> str:
        """A digest of all that travels."""
        digest = hashlib.sha256()
        for part in (
            self.name,
            self.place,
            self.signature,
            self.target.triple,
            self.bitcode,
            self.object_code,
        ):
            data = part.encode() if isinstance(part, str) else part
            digest.update(len(data).to_bytes(8, "little") + data)
        return digest.hexdigest()

    @functools.cached_property
    def symbols(self) -> frozenset[str]:
        """The functions that it calls and does not have."""
        return llvm.symbols(self.object_code).undefined

    @property
    def needs_numba(self) -> bool:
        """Whether it uses numba's runtime: it allocates, draws random numbers, or raises an
        exception whose arguments are known only then. Its first `entry` imports numba."""
        return any(name.startswith(_OF_NUMBA) for name in self.symbols)

    def entry(self) -> int:
        """Return the address of its entry in this process, linking it the first time.

        Raises
        ------
        UnknownSymbol : it calls what no kernel may call.
        WrongMachine, BadCode : it was made for another machine, by an LLVM that is too new for ours.
        ImportError : it needs numba's runtime, and there is no numba.
        """
        if self._linked is None:
            with _lock:
                if self._linked is None:
                    linked = self._link()
                    self._call = _Entry(linked.address(_ENTRY))
                    self._linked = linked
        return self._linked.address(_ENTRY)

    def _link(self) -> llvm.Linked:
        code, symbols = self.object_code, self.symbols
        if not self.target.fits(llvm.host()):
            code = llvm.build(self.bitcode, made_for=self.target)
            symbols = llvm.symbols(code).undefined
        return llvm.link(code, [_ENTRY], _addresses(symbols))

    def pack(self, args: Sequence[Any]) -> bytes:
        """Check *args* and return the words that the entry reads. They hold addresses of this
        process: *args* must outlive their use.

        Raises
        ------
        TypeError, OverflowError : one does not fit; the message names it.
        """
        return self._block.pack(args)

    def __call__(self, i0: int, i1: int, *args: Any) -> None:
        """Run it over the rows i0..i1 in this thread, with the GIL let go."""
        if self._linked is None:
            self.entry()
        first, last = index(i0), index(i1)
        if not (0 <= first <= MOST_ROWS and 0 <= last <= MOST_ROWS):
            raise ValueError(
                f"kernel {self.name!r}: rows {first} to {last}: numbers from 0 to {MOST_ROWS} wanted"
            )
        block = self.pack(args)
        excinfo = ctypes.c_void_p()
        rc = self._call(block, first, last, ctypes.addressof(excinfo))
        if rc:
            raise self.error(rc, excinfo.value or 0)

    def error(self, rc: int, excinfo: int) -> BaseException:
        """Return the exception for a result of the entry that is not 0; once, it frees the record."""
        return failures.decode(f"kernel {self.name!r} ({self.place})", rc, excinfo, _free)

    def __repr__(self) -> str:
        return f"<Variant {self.name}({self.signature}) {self.key[:8]}>"


def _addresses(symbols: frozenset[str]) -> dict[str, int]:
    """Return the addresses of what a kernel may call besides libm."""
    addresses = _mutex.functions()
    if of_numba := [name for name in symbols if name.startswith(_OF_NUMBA)]:
        from . import _numba

        addresses |= _numba.runtime_addresses(of_numba)
    for name in symbols:
        if name.startswith("Py") and (found := getattr(ctypes.pythonapi, name, None)):
            # The address of an exception class's pointer, or of a function: both are symbols.
            addresses[name] = ctypes.cast(found, ctypes.c_void_p).value or 0
    return addresses


def _free(record: int) -> None:
    from . import _numba

    ctypes.CFUNCTYPE(None, ctypes.c_void_p)(_numba.runtime_addresses(["NRT_Free"])["NRT_Free"])(
        record
    )
