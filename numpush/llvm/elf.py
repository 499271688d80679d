"""The symbols of a relocatable object, read from its ELF tables.

From the object and not from the IR: LLVM turns `llvm.exp.f64` into `exp` only when it emits code.
Source: elf(5).
"""

from __future__ import annotations

import functools
import struct
from typing import NamedTuple

from .errors import BadCode, WrongMachine

__all__ = ["Symbols", "symbols"]

_MACHINE_AT = 18
_RELOCATABLE = 1
_SYMTAB = 2
_SECTION = struct.Struct("<IIQQQQIIQQ")
_SYMBOL = struct.Struct("<IBBHQQ")
#: The linker makes it when code refers to it.
_MADE_BY_LINKER = "_GLOBAL_OFFSET_TABLE_"


class Symbols(NamedTuple):
    undefined: frozenset[str]
    defined: frozenset[str]  #: that others may refer to


def symbols(object_code: bytes) -> Symbols:
    """Return the global symbols of *object_code*.

    Raises
    ------
    BadCode : it is no relocatable object for a little-endian machine of 64 bits, or contradicts itself.
    WrongMachine : it is one for another architecture, which LLVM's linker would load all the same.
    """
    try:
        found = _read(object_code)
    except (struct.error, IndexError, UnicodeDecodeError, ValueError) as error:
        raise BadCode(f"not object code: {error}") from error
    machine = struct.unpack_from("<H", object_code, _MACHINE_AT)[0]
    if machine != _machine_here():
        raise WrongMachine(f"object code for ELF machine {machine}, this is {_machine_here()}")
    return found


@functools.cache
def _machine_here() -> int:
    with open("/proc/self/exe", "rb") as file:
        return int(struct.unpack_from("<H", file.read(64), _MACHINE_AT)[0])


def _read(code: bytes) -> Symbols:
    if code[:6] != b"\x7fELF\x02\x01":
        raise ValueError(f"wanted a little-endian ELF64, found {code[:6]!r}")
    kind = struct.unpack_from("<H", code, 16)[0]
    if kind != _RELOCATABLE:
        raise ValueError(f"ELF type {_RELOCATABLE} (relocatable) wanted, {kind} found")
    (table,) = struct.unpack_from("<Q", code, 40)
    size, count = struct.unpack_from("<HH", code, 58)
    sections = [_SECTION.unpack_from(code, table + i * size) for i in range(count)]
    undefined: set[str] = set()
    defined: set[str] = set()
    for _, kind, _, _, offset, length, link, first_global, _, entry in sections:
        if kind != _SYMTAB:
            continue
        if entry != _SYMBOL.size:
            raise ValueError(f"symbols of {entry} bytes, wanted {_SYMBOL.size}")
        names = sections[link][4]
        for i in range(first_global, length // entry):
            name, _, _, section, _, _ = _SYMBOL.unpack_from(code, offset + i * entry)
            text = code[names + name : code.index(b"\0", names + name)].decode()
            (defined if section else undefined).add(text)
    return Symbols(frozenset(undefined - {_MADE_BY_LINKER}), frozenset(defined))
