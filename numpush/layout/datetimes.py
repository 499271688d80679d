"""pandas datetime and timedelta arrays, with and without a zone; offsets of their indexes.

Node: {"kind": "datetimes", "dtype", "rows", "data"}, with "zone" (see zone.py) for zoned ones,
whose data is UTC. The unit is the dtype's. The columns of a frame lie in its blocks instead
(block.py).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from pandas.tseries.frequencies import to_offset

from .. import _pandas
from .array import describe_rows, read_rows
from .buffer import Array, Sink
from .registry import register_kind, register_type
from .scalar import decode_value, encode_value
from .schema import Node, SchemaError, found
from .source import Source
from .zone import decode_zone, encode_zone

#: pandas reads every other unit as one of these, so it would misread the bytes.
UNITS = ("s", "ms", "us", "ns")

_DATE_OFFSET: Any = pd.DateOffset  # its stubs lack the arguments


def check_unit(dtype: np.dtype[Any]) -> None:
    """Check that pandas has the unit of a "M8" or "m8" dtype."""
    if np.datetime_data(dtype) not in [(unit, 1) for unit in UNITS]:
        raise SchemaError(f"schema dtype: a datetime in one of {UNITS} wanted, {found(dtype.str)}")


def describe_datetimes(array: Any, sink: Sink) -> Node:
    """Describe a DatetimeArray or TimedeltaArray."""
    node = {"kind": "datetimes", **describe_rows(_pandas.datetime_values(array), sink)}
    if getattr(array, "tz", None) is not None:
        node["zone"] = encode_zone_of(array, sink)
    return node


def encode_zone_of(array: Any, sink: Sink) -> str:
    """Give the code of the zone of a DatetimeArray.

    Raises
    ------
    TypeError : it has none.
    """
    code = encode_zone(array.tz)
    if code is None:
        name = sink.expression
        accessor = "dt." if name == "s" or name.endswith("]") else ""
        raise sink.refuse(
            array.dtype,
            f"whose zone {array.tz!r} has no IANA name or fixed offset",
            f"{name} = {name}.{accessor}tz_convert('Europe/Paris')",
        )
    return code


def rebuild_datetimes(node: Node, source: Source) -> Any:
    """Build a DatetimeArray or TimedeltaArray over its buffer; no copy."""
    values: Array = read_rows(node, source, "mM", "'datetimes'")
    check_unit(values.dtype)
    code = node.get("zone")
    return _pandas.make_datetimes(values, None) if code is None else make_zoned(values, code)


def make_zoned(values: Array, code: object) -> Any:
    """Build a DatetimeArray in the zone of a code over an array of any shape; no copy."""
    if values.dtype.kind != "M" or type(code) is not str:
        raise SchemaError(f"schema 'zone': the zone of a datetime wanted, {found(code)}")
    return _pandas.make_datetimes(values, decode_zone(code))


def encode_freq(freq: Any, sink: Sink) -> Any:
    """Give the code of an index's freq: its name, or the parts of a DateOffset.

    Raises
    ------
    TypeError : neither gives the same offset back (holiday calendars).
    """
    try:
        if to_offset(freq.freqstr) == freq:
            return freq.freqstr
    except (ValueError, TypeError, AttributeError):
        pass  # "<DateOffset: hours=3>" is no name
    if type(freq) is _DATE_OFFSET:
        where = f"the freq of {sink.where}"
        return [freq.n, freq.normalize, encode_value(dict(freq.kwds), where)]
    name = sink.expression
    raise TypeError(
        f"{sink.where} has freq {freq!r}, which has no name that gives it back; "
        f"set {name}.freq = None"
    )


def decode_freq(code: object) -> Any:
    """Give the offset of a code."""
    if type(code) is str:
        return to_offset(code)
    if type(code) is list and len(code) == 3:
        n, normalize, kwds = code
        parts = decode_value(kwds)
        if type(n) is int and type(normalize) is bool and type(parts) is dict:
            return _DATE_OFFSET(n, normalize, **parts)
    raise SchemaError(f"schema 'freq': a name or [n, normalize, parts] wanted, {found(code)}")


register_type(pd.arrays.DatetimeArray, describe_datetimes)
register_type(pd.arrays.TimedeltaArray, describe_datetimes)
register_kind("datetimes", "array", rebuild_datetimes)
