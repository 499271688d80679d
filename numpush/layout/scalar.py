"""Single values in a schema: labels, names, attrs.

None, bool, 64-bit int, float, str and bytes stand as they are. Anything else is a list
[tag, ...], so no value is mistaken for another and a tuple comes back as a tuple. Types are matched
exactly: a subclass (an enum, a namedtuple) would lose what it adds, so it is refused.
"""

from __future__ import annotations

import datetime as dt
import decimal
import uuid
import warnings
from collections.abc import Callable
from typing import Any

import msgpack  # type: ignore[import-untyped,unused-ignore]  # stubs may be there or not
import numpy as np
import pandas as pd

from .dtype import decode_dtype, encode_dtype
from .schema import SchemaError, found, read_choice
from .zone import decode_zone, encode_zone

#: Containers in containers. A label is a tuple at most; attrs are rarely deeper than three.
MAX_DEPTH = 32

_PLAIN = {type(None), bool, float, str, bytes}
_PACKED = {*_PLAIN, int}  #: what msgpack gives back as it was, ints of 64 bits
_UNITS = ("s", "ms", "us", "ns")
_MAX_FREQ = 64  #: characters of a period's freq
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
    if isinstance(value, np.generic) and _is_numpy_scalar(value):
        return ["np", encode_dtype(value.dtype), value.tobytes()]
    if value is pd.NaT:  # its class has no public name
        return ["NaT"]
    if value is pd.NA:
        return ["NA"]
    raise TypeError(
        f"{where} is a {cls.__name__} ({value!r:.60}), which cannot travel; use a str, a number, "
        f"a date or a tuple of these"
    )


def _is_numpy_scalar(value: Any) -> bool:
    """Whether NumPy gives the same scalar back for its bytes: it drops NULs at a string's end."""
    kind = value.dtype.kind
    if kind in "SU":
        return type(value) in (np.str_, np.bytes_) and value[-1:] not in ("\0", b"\0")
    return kind in "biufcmM"


def decode_value(code: Any, depth: int = 0) -> Any:
    """Give the value of a code.

    Raises
    ------
    SchemaError : not a code.
    """
    cls = type(code)
    if cls in _PLAIN or cls is int:
        return code if code == code else np.nan  # the one NaN: tuples that hold it are then equal
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


def encode_cells(values: list[Any], where: str) -> bytes:
    """Pack many values, for an object array that is not all strings.

    Raises
    ------
    TypeError : a value that has no code.
    ValueError : more values than msgpack can count, 2**32.
    """
    if set(map(type, values)) <= _PACKED:
        try:
            return _pack(values)
        except OverflowError:
            pass  # an int of more than 64 bits
    return _pack([encode_value(value, f"a value of {where}") for value in values])


def _pack(codes: list[Any]) -> bytes:
    packed: bytes = msgpack.packb(codes, use_bin_type=True, unicode_errors="surrogatepass")
    return packed


def decode_cells(packed: bytes, decode: Callable[[Any], Any]) -> list[Any]:
    """Unpack what `encode_cells` made, with `decode_value` or `decode_label` for each."""
    try:
        codes = msgpack.unpackb(
            packed, raw=False, unicode_errors="surrogatepass", max_ext_len=0, strict_map_key=True
        )
    except (ValueError, TypeError, RecursionError, msgpack.UnpackException) as error:
        raise SchemaError(f"objects: msgpack wanted, found {error!r}") from error
    if type(codes) is not list:
        raise SchemaError(f"objects: a list wanted, {found(codes)}")
    if set(map(type, codes)) <= _PACKED:
        return [code if code == code else np.nan for code in codes]
    return [decode(code) for code in codes]


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


def _encode_time(value: dt.time, where: str, depth: int) -> list[Any]:
    naive = value.replace(tzinfo=None, fold=0)
    return [naive.isoformat(), _encode_zone(value.tzinfo, where), value.fold]


def _decode_time(depth: int, text: str, zone: str | None, fold: int) -> dt.time:
    moment = dt.time.fromisoformat(text).replace(fold=fold)
    return moment if zone is None else moment.replace(tzinfo=decode_zone(zone))


def encode_period_dtype(dtype: pd.PeriodDtype) -> str:
    """Give the code of a period dtype: "Q-NOV" of period[Q-NOV]."""
    return dtype.name.removeprefix("period[").removesuffix("]")


def decode_period_dtype(code: object) -> pd.PeriodDtype:
    """Give the period dtype of a code."""
    if type(code) is not str or len(code) > _MAX_FREQ:
        raise SchemaError(f"schema 'freq': the name of a period's freq wanted, {found(code)}")
    try:
        with warnings.catch_warnings():  # the describing side was told that business days go
            warnings.simplefilter("ignore", FutureWarning)
            dtype = pd.PeriodDtype(code)
    except (ValueError, TypeError, AttributeError, ArithmeticError) as error:
        raise SchemaError(f"schema 'freq': {found(code)}: {error}") from error
    if not 0 < dtype.freq.n < 2**31:
        raise SchemaError(f"schema 'freq': a positive multiple wanted, {found(code)}")
    return dtype


def _encode_period(value: pd.Period, where: str, depth: int) -> list[Any]:
    return [value.ordinal, value.freqstr]


def _decode_period(depth: int, ordinal: int, code: str) -> Any:
    freq: Any = decode_period_dtype(code).freq
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return pd.Period(ordinal=ordinal, freq=freq)


def _encode_interval(value: Any, where: str, depth: int) -> list[Any]:
    return [*_encode_all((value.left, value.right), where, depth), value.closed]


def _decode_interval(depth: int, left: Any, right: Any, closed: Any) -> Any:
    read_choice({"closed": closed}, "closed", ("left", "right", "both", "neither"))
    make: Any = pd.Interval
    return make(decode_value(left, depth), decode_value(right, depth), closed)


def _decode_decimal(depth: int, text: str) -> decimal.Decimal:
    if type(text) is not str:
        raise SchemaError(f"schema value: a decimal number wanted, {found(text)}")
    return decimal.Decimal(text)


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
register_scalar("time", dt.time, _encode_time, _decode_time)
register_scalar("decimal", decimal.Decimal, lambda v, w, d: [str(v)], _decode_decimal)
register_scalar("uuid", uuid.UUID, lambda v, w, d: [v.bytes], lambda d, b: uuid.UUID(bytes=b))
register_scalar(
    "frozenset", frozenset, _encode_all, lambda depth, *v: frozenset(map(decode_label, v))
)
register_scalar("set", set, _encode_all, lambda depth, *v: set(map(decode_label, v)))
register_scalar("period", pd.Period, _encode_period, _decode_period)
register_scalar("interval", pd.Interval, _encode_interval, _decode_interval)
