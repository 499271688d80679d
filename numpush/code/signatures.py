"""Signatures of element-wise functions: as users write them, and as LLVM and NumPy have them.

"f8(f8, f8)"   result(arguments), dtypes as NumPy names them; numba's names mean the same
"(f8, f8)"     arguments only, where a compiler finds the result
"dd->d"        as `np.add.types` has them
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import numpy as np

from .errors import CodeError

__all__ = ["Loop", "dtype_of_llvm", "llvm_of_dtype", "parse_signature"]

_SIGNATURE = re.compile(r"(?P<result>[\w?]*)\s*\((?P<args>[\w?\s,]*)\)")
_ARROW = re.compile(r"(?P<args>[a-zA-Z?]+)->(?P<result>[a-zA-Z?])")
#: numba's names that NumPy does not have, or has for something else.
_OTHER_NAMES = {"boolean": "?", "bool_": "?", "intp": "p", "uintp": "P", "b1": "?"}

#: LLVM's scalar types as NumPy ones. LLVM's integers have no sign; these do unless it is said otherwise.
_DTYPES = {
    "i1": "?",
    "i8": "i1",
    "i16": "i2",
    "i32": "i4",
    "i64": "i8",
    "float": "f4",
    "double": "f8",
}


DType = np.dtype[Any]


class Loop(NamedTuple):
    """The dtypes of one loop of a ufunc."""

    args: tuple[DType, ...]
    result: DType | None  #: None where only a compiler knows

    @property
    def dtypes(self) -> tuple[DType, ...]:
        """The arguments' and the result's."""
        assert self.result is not None
        return *self.args, self.result


def parse_signature(text: str) -> Loop:
    """Read a signature.

    Raises
    ------
    CodeError : it is none, or names a dtype that no loop is made for.
    """
    if match := _ARROW.fullmatch(text.strip()):
        return Loop(tuple(_dtype(c, text) for c in match["args"]), _dtype(match["result"], text))
    match = _SIGNATURE.fullmatch(text.strip())
    if not match or not match["args"].strip():
        raise CodeError(f"signature: something like 'f8(f8, f8)' wanted, {text!r} found")
    args = tuple(_dtype(word, text) for word in match["args"].split(","))
    return Loop(args, _dtype(match["result"], text) if match["result"] else None)


def _dtype(word: str, text: str) -> DType:
    word = word.strip()
    try:
        dtype = np.dtype(_OTHER_NAMES.get(word, word))
    except TypeError:
        raise CodeError(f"signature {text!r}: {word!r} is no dtype") from None
    llvm_of_dtype(dtype)
    return dtype


def llvm_of_dtype(dtype: DType) -> str:
    """Return the LLVM type that values of *dtype* have in a loop.

    Raises
    ------
    CodeError : there is none: loops are made for booleans, integers and floats of 4 and 8 bytes.
    """
    if dtype.isnative:
        if dtype.kind in "iu":
            return f"i{8 * dtype.itemsize}"
        if dtype.kind == "b":
            return "i1"
        if dtype.kind == "f" and dtype.itemsize in (4, 8):
            return "float" if dtype.itemsize == 4 else "double"
    raise CodeError(
        f"no loop for {dtype}: booleans, integers, float32 and float64 are what there is"
    )


def dtype_of_llvm(llvm_type: str) -> DType:
    """Return the dtype of a scalar type of LLVM."""
    return np.dtype(_DTYPES[llvm_type])
