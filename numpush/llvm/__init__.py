"""LLVM code for this machine: IR or bitcode -> object code -> addresses of functions.

What numpush.kernels and numpush.code have in common. Needs llvmlite; never imports numba.

>>> from numpush import llvm
>>> object_code = llvm.build("define i32 @twice(i32 %x) { %y = add i32 %x, %x ret i32 %y }")
>>> import ctypes
>>> linked = llvm.link(object_code, ["twice"])
>>> ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_int32)(linked.address("twice"))(21)
42
"""

try:
    import llvmlite.binding as _llvmlite  # noqa: F401  # before what needs it, for the message
except ImportError as error:
    raise ImportError(
        f"compiled code needs llvmlite ({error}): pip install 'numpush[kernels]'"
    ) from error

from .build import build, emit, optimise, parse
from .elf import Symbols, symbols
from .errors import BadCode, LLVMError, UnknownSymbol, WrongMachine
from .link import Linked, link, prepare
from .target import Target, host, machine

__all__ = [
    "BadCode",
    "LLVMError",
    "Linked",
    "Symbols",
    "Target",
    "UnknownSymbol",
    "WrongMachine",
    "build",
    "emit",
    "host",
    "link",
    "machine",
    "optimise",
    "parse",
    "prepare",
    "symbols",
]
