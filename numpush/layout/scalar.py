"""Single values in a schema: labels, names, attrs.

None, bool, 64-bit int, float, str and bytes stand as they are. Anything else is a list
[tag, ...], so no value is mistaken for another and a tuple comes back as a tuple. Types are matched
exactly: a subclass (an enum, a namedtuple) would lose what it adds, so it is refused.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from typing import Any

import msgpack  # type: ignore[import-untyped,unused-ignore]
import numpy as np
import pandas as pd

from .dtype import decode_dtype, encode_dtype
from .schema import SchemaError, found
from .zone import decode_zone, encode_zone

#: Containers in containers. A label is a tuple at most; attrs are rarely deeper than three.
MAX_DEPTH = 32

_PLAIN = {type(None), bool, float, str, bytes}
_UNITS = ("s", "ms", "us", "ns")
_encoders: dict[type, Callable[[Any, str, int], Any]] = {}
_decoders: dict[str, Callable[..., Any]] = {}


def register_scalar(
    tag: str,
    cls: type,
    encoder: Callable[[Any, str, int], list[Any]],
    decoder: Callable[..., Any],
) -> None:
    """Add a type of value.

    Parameters
    ----------
    encoder : callable(value, where, depth) -> list
        What follows the tag.
    decoder : callable(depth, *list) -> value
        May raise what it likes: `decode_value` makes a SchemaError of it.
    """
    _encoders[cls] = lambda value, where, depth: [tag, *encoder(value, where, depth)]
    _decoders[tag] = decoder


def encode_value(value: Any, where: str, depth: int = 0) -> Any:
    """Encode a value for a schema.

    Raises
    ------
    TypeError : a type that has no code; names `where` and the type.
    """
    cls = type(value)
    if cls in _PLAIN:
        return value
    if cls is int:
        if -(2**63) <= value < 2**63:
            return value
        return ["int", value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)]
    if depth > MAX_DEPTH:
        raise TypeError(f"{where} nests deeper than {MAX_DEPTH}; keep it flat, or leave it out")
    encoder = _encoders.get(cls)
    if encoder is not None:
        return encoder(value, where, depth)
    if isinstance(value, np.generic) and value.dtype.kind in "biufcmMSU":
        return ["np", encode_dtype(value.dtype), value.tobytes()]
    if value is pd.NaT:  # its class has no public name
        return ["NaT"]
    if value is pd.NA:
        return ["NA"]
    raise TypeError(
        f"{where} is a {cls.__name__} ({value!r:.60}), which cannot travel; use a str, a number, "
        f"a date or a tuple of these"
    )


def decode_value(code: Any, depth: int = 0) -> Any:
    """Give the value of a code.

    Raises
    ------
    SchemaError : not a code.
    """
    cls = type(code)
    if cls in _PLAIN or cls is int:
        return code
    if cls is list and code and type(code[0]) is str and depth <= MAX_DEPTH:
        decoder = _decoders.get(code[0])
        if decoder is not None:
            try:
                return decoder(depth + 1, *code[1:])
            except SchemaError:
                raise
            except (ValueError, TypeError, ArithmeticError, AttributeError, IndexError) as error:
                raise SchemaError(f"schema value: {found(code)}: {error}") from error
    raise SchemaError(f"schema value: a tagged value wanted, {found(code)}")


def decode_label(code: Any) -> Any:
    """Give the value of a code, which must be hashable as labels and names are."""
    value = decode_value(code)
    try:
        hash(value)
    except TypeError as error:
        raise SchemaError(f"schema label: a hashable value wanted, {found(value)}") from error
    return value


def encode_labels(values: list[Any], where: str) -> bytes:
    """Pack many labels, for an object index that is not all strings."""
    codes = [encode_value(value, f"a label of {where}") for value in values]
    packed: bytes = msgpack.packb(codes, use_bin_type=True, unicode_errors="surrogatepass")
    return packed


def decode_labels(packed: bytes) -> list[Any]:
    """Unpack what `encode_labels` made."""
    try:
        codes = msgpack.unpackb(
            packed, raw=False, unicode_errors="surrogatepass", max_ext_len=0, strict_map_key=True
        )
    except (ValueError, TypeError, RecursionError, msgpack.UnpackException) as error:
        raise SchemaError(f"labels: msgpack wanted, found {error!r}") from error
    if type(codes) is not list:
        raise SchemaError(f"labels: a list wanted, {found(codes)}")
    return [decode_label(code) for code in codes]


# The types. Each decoder's first argument is the depth, for those that hold others.


def _encode_all(values: Any, where: str, depth: int) -> list[Any]:
    return [encode_value(v, f"{where}[{i}]", depth + 1) for i, v in enumerate(values)]


def _encode_dict(value: dict[Any, Any], where: str, depth: int) -> list[Any]:
    return [
        [
            encode_value(k, f"a key of {where}", depth + 1),
            encode_value(v, f"{where}[{k!r}]", depth + 1),
        ]
        for k, v in value.items()
    ]


def _decode_dict(depth: int, *pairs: Any) -> dict[Any, Any]:
    return {decode_label(k): decode_value(v, depth) for k, v in pairs}


def _decode_int(depth: int, packed: bytes) -> int:
    if type(packed) is not bytes:
        raise SchemaError(f"schema value: the bytes of an int wanted, {found(packed)}")
    return int.from_bytes(packed, "little", signed=True)


def _decode_numpy(depth: int, code: Any, packed: bytes) -> Any:
    dtype = decode_dtype(code)
    if dtype.kind not in "biufcmMSU" or len(packed) != dtype.itemsize:
        raise SchemaError(f"schema value: {dtype.itemsize} bytes of a scalar wanted, {found(code)}")
    return np.ndarray((), dtype, packed)[()]


def _encode_zone(zone: dt.tzinfo | None, where: str) -> str | None:
    if zone is None:
        return None
    code = encode_zone(zone)
    if code is None:
        raise TypeError(f"{where} has the zone {zone!r}, which has no IANA name or fixed offset")
    return code


def _read_unit(unit: object) -> str:
    if unit not in _UNITS:
        raise SchemaError(f"schema value: one of {_UNITS} wanted, {found(unit)}")
    return str(unit)


def _encode_timestamp(value: pd.Timestamp, where: str, depth: int) -> list[Any]:
    return [int(value.asm8.view("i8")), value.unit, _encode_zone(value.tz, where), value.fold]


def _decode_timestamp(depth: int, value: int, unit: str, zone: str | None, fold: int) -> Any:
    moment64: Any = np.array(value, "i8").view(f"M8[{_read_unit(unit)}]")[()]
    moment: Any = pd.Timestamp(moment64)
    if zone is not None:
        moment = moment.tz_localize("UTC").tz_convert(decode_zone(zone))
    return moment.replace(fold=fold) if fold and moment is not pd.NaT else moment


def _decode_timedelta(depth: int, value: int, unit: str) -> Any:
    span: Any = np.array(value, "i8").view(f"m8[{_read_unit(unit)}]")[()]
    return pd.Timedelta(span)


def _encode_datetime(value: dt.datetime, where: str, depth: int) -> list[Any]:
    naive = value.replace(tzinfo=None, fold=0)
    return [naive.isoformat(), _encode_zone(value.tzinfo, where), value.fold]


def _decode_datetime(depth: int, text: str, zone: str | None, fold: int) -> dt.datetime:
    moment = dt.datetime.fromisoformat(text).replace(fold=fold)
    if zone is None:
        return moment
    info = decode_zone(zone)
    localize = getattr(info, "localize", None)  # pytz's zones must not be attached by replace
    return moment.replace(tzinfo=info) if localize is None else localize(moment, is_dst=not fold)


register_scalar("t", tuple, _encode_all, lambda depth, *v: tuple(decode_value(x, depth) for x in v))
register_scalar("l", list, _encode_all, lambda depth, *v: [decode_value(x, depth) for x in v])
register_scalar("d", dict, _encode_dict, _decode_dict)
_decoders["int"] = _decode_int
_decoders["np"] = _decode_numpy
_decoders["NaT"] = lambda depth: pd.NaT
_decoders["NA"] = lambda depth: pd.NA
register_scalar(
    "complex", complex, lambda v, w, d: [v.real, v.imag], lambda d, re, im: complex(re, im)
)
register_scalar("ts", pd.Timestamp, _encode_timestamp, _decode_timestamp)
register_scalar(
    "td", pd.Timedelta, lambda v, w, d: [int(v.asm8.view("i8")), v.unit], _decode_timedelta
)
register_scalar(
    "date", dt.date, lambda v, w, d: [v.isoformat()], lambda d, text: dt.date.fromisoformat(text)
)
register_scalar("datetime", dt.datetime, _encode_datetime, _decode_datetime)
register_scalar(
    "timedelta",
    dt.timedelta,
    lambda v, w, d: [v.days, v.seconds, v.microseconds],
    lambda d, days, seconds, us: dt.timedelta(days, seconds, us),
)
