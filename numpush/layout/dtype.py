"""NumPy dtypes in a schema: a restricted form of dtype.descr, never evaluated by NumPy.

A plain dtype is the str that `dtype.str` gives ("<f8", "|S7", ">M8[25s]"). A structured one is
{"fields": [[name, offset, dtype], or [name, offset, dtype, title]], "size": bytes}, with "align"
or "record" set where they apply; a field with a subarray has [dtype, shape] for its dtype.

(1) A str is matched as a whole against `_PLAIN` before np.dtype sees it.
(2) A dtype with Python objects, or of somebody's own making (StringDType, bfloat16), has no code.
(3) longdouble is 80-bit on x86-64 and 128-bit on aarch64, both of 16 bytes: its code ends in the
    number of mantissa bits ("<f16:63"), and another machine's is refused rather than misread.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

import numpy as np

from .schema import SchemaError, found, read_bool, read_int, read_list, read_node, read_shape

_PLAIN = re.compile(
    r"\|b1|\|[iu]1|[<>][iu][248]|[<>]f(?:[248]|16:\d{1,3})|[<>]c(?:8|16|32:\d{1,3})"
    r"|\|[SV]\d{1,10}|[<>]U\d{1,9}"
    r"|[<>][mM]8(?:\[\d{0,9}(?:Y|M|W|D|h|m|s|ms|us|ns|ps|fs|as)\])?",
    re.ASCII,
)
_MANTISSA = int(np.finfo(np.longdouble).nmant)
_MAX_ITEMSIZE = 2**31 - 1
_MAX_DEPTH = 16
#: NumPy numbers its own dtypes below 256, registered ones (bfloat16) from 256, new-style ones
#: (StringDType) from 2048.
_FIRST_FOREIGN = 256

DtypeCode = str | dict[str, Any]


def has_layout(dtype: np.dtype[Any]) -> bool:
    """Whether items of this dtype are plain bytes that NumPy itself can give meaning to."""
    return not dtype.hasobject and dtype.num < _FIRST_FOREIGN


def encode_dtype(dtype: np.dtype[Any]) -> DtypeCode:
    """Give the code of a dtype that `has_layout`."""
    if dtype.names is not None:
        return _encode_struct(dtype)
    code = dtype.str
    if code[1] in "fc" and code[2:] in ("16", "32") and code[1:] != "c16":
        return f"{code}:{_MANTISSA}"
    return code


def _encode_struct(dtype: np.dtype[Any]) -> DtypeCode:
    assert dtype.names is not None
    assert dtype.fields is not None
    fields: list[Any] = []
    for name in dtype.names:
        field, offset, *titles = dtype.fields[name]
        if not all(isinstance(title, str) for title in titles):
            raise TypeError(f"field {name!r} has title {titles[0]!r}; a title must be a str")
        inner: Any = encode_dtype(field.base)
        if field.shape:
            inner = [inner, list(field.shape)]
        fields.append([name, offset, inner, *titles])
    code: dict[str, Any] = {"fields": fields, "size": dtype.itemsize}
    if dtype.isalignedstruct:
        code["align"] = True
    if dtype.type is np.record:
        code["record"] = True
    return code


def decode_dtype(code: object) -> np.dtype[Any]:
    """Give the dtype of a code.

    Raises
    ------
    SchemaError : not a code as described above, or NumPy refuses the fields.
    """
    return _decode_base(code, 0)


def _decode_base(code: object, depth: int) -> np.dtype[Any]:
    if type(code) is str:
        return _decode_plain(code)
    return _decode_struct(read_node(code, "dtype"), depth)


@lru_cache(maxsize=512)
def _decode_plain(code: str) -> np.dtype[Any]:
    if _PLAIN.fullmatch(code) is None:
        raise SchemaError(f"schema dtype: a NumPy dtype code wanted, {found(code)}")
    name, _, mantissa = code.partition(":")
    if mantissa and int(mantissa) != _MANTISSA:
        raise SchemaError(
            f"schema dtype: longdouble of {_MANTISSA} mantissa bits wanted on this machine, "
            f"{mantissa} found"
        )
    try:
        dtype = np.dtype(name)
    except (TypeError, ValueError) as error:
        raise SchemaError(f"schema dtype: {found(code)}: {error}") from error
    if dtype.itemsize > _MAX_ITEMSIZE:
        raise SchemaError(f"schema dtype: items below 2 GiB wanted, {found(code)}")
    return dtype


def _decode_struct(code: dict[str, Any], depth: int) -> np.dtype[Any]:
    if depth >= _MAX_DEPTH:
        raise SchemaError(f"schema dtype: at most {_MAX_DEPTH} nested structures wanted")
    size = read_int(code, "size", 0, _MAX_ITEMSIZE)
    names, offsets, formats, titles = [], [], [], []
    for field in read_list(code, "fields"):
        if type(field) is not list or len(field) not in (3, 4):
            raise SchemaError(f"schema dtype: [name, offset, dtype] wanted, {found(field)}")
        name, offset, inner, *title = field
        if type(name) is not str or any(type(t) is not str for t in title):
            raise SchemaError(f"schema dtype: a str as name and title wanted, {found(field)}")
        dtype = _decode_field(inner, depth)
        if type(offset) is not int or not 0 <= offset <= size - dtype.itemsize:
            raise SchemaError(
                f"schema dtype: field {name!r} at an offset in [0, {size - dtype.itemsize}] "
                f"wanted, {found(offset)}"
            )
        names.append(name)
        offsets.append(offset)
        formats.append(dtype)
        titles.append(title[0] if title else None)
    parts = {
        "names": names,
        "formats": formats,
        "offsets": offsets,
        "titles": titles,
        "itemsize": size,
    }
    try:
        result: np.dtype[Any] = np.dtype(
            parts,
            align=read_bool(code, "align", False),  # type: ignore[call-overload]  # the stubs know no such dict
        )
        if read_bool(code, "record", False):
            result = np.dtype((np.record, result))
    except (TypeError, ValueError, KeyError) as error:
        raise SchemaError(f"schema dtype: fields that fit together wanted: {error}") from error
    return result


def _decode_field(code: object, depth: int) -> np.dtype[Any]:
    shape: tuple[int, ...] = ()
    if type(code) is list:
        if len(code) != 2:
            raise SchemaError(f"schema dtype: [dtype, shape] wanted, {found(code)}")
        code, sizes = code
        shape = read_shape(sizes, "dtype")
    dtype = _decode_base(code, depth + 1)
    if not shape:
        return dtype
    try:
        return np.dtype((dtype, shape))
    except (TypeError, ValueError) as error:
        raise SchemaError(f"schema dtype: a subarray of {shape} wanted: {error}") from error
