"""Time zones by name: the code of a tzinfo, and back.

"utc" is datetime.timezone.utc, "fixed:3600000000" a fixed offset in microseconds,
"zoneinfo:Europe/Paris" and "pytz:Europe/Paris" an IANA name. The library stands in the code since
pandas 2.2 holds that the same zone from pytz and from zoneinfo makes two unequal dtypes.
"""

from __future__ import annotations

import datetime as dt
import re
import zoneinfo
from functools import lru_cache
from importlib import import_module

from .schema import SchemaError, found

_MICROSECOND = dt.timedelta(microseconds=1)
_INT = re.compile(r"-?\d{1,12}", re.ASCII)


def encode_zone(zone: dt.tzinfo) -> str | None:
    """Give the code of a zone, or None for one that has none (dateutil's, one's own)."""
    if zone is dt.UTC:
        return "utc"
    if type(zone) is dt.timezone:
        return f"fixed:{zone.utcoffset(None) // _MICROSECOND}"
    if isinstance(zone, zoneinfo.ZoneInfo):
        return f"zoneinfo:{zone.key}" if zone.key else None
    if type(zone).__module__.partition(".")[0] == "pytz":
        name = getattr(zone, "zone", None)
        if name:
            return f"pytz:{name}"
        minutes = getattr(zone, "_minutes", None)  # pytz.FixedOffset
        return None if minutes is None else f"pytzfixed:{minutes}"
    return None


@lru_cache(maxsize=256)
def decode_zone(code: object) -> dt.tzinfo:
    """Give the zone of a code.

    Without pytz (pandas 3 does not need it) its zones come as zoneinfo's of the same name.

    Raises
    ------
    SchemaError : not a code, or a name that this machine's zone data does not have.
    """
    if code == "utc":
        return dt.UTC
    library, _, name = code.partition(":") if isinstance(code, str) else ("", "", "")
    try:
        if library in ("fixed", "pytzfixed") and _INT.fullmatch(name):
            return _fixed(library, int(name))
        if library == "pytz" and name:
            return _pytz_zone(name)
        if library == "zoneinfo" and name:
            return zoneinfo.ZoneInfo(name)
    # zoneinfo raises KeyError for names it lacks, ValueError for paths, OSError for folders;
    # pytz a KeyError of its own.
    except (ValueError, KeyError, OSError, OverflowError) as error:
        raise SchemaError(f"schema zone: {found(code)}, unknown here: {error!r}") from error
    raise SchemaError(f"schema zone: an IANA name or fixed offset wanted, {found(code)}")


def _fixed(library: str, offset: int) -> dt.tzinfo:
    if library == "fixed":
        return dt.timezone(dt.timedelta(microseconds=offset))
    try:
        fixed: dt.tzinfo = import_module("pytz").FixedOffset(offset)
    except ImportError:
        return dt.timezone(dt.timedelta(minutes=offset))
    return fixed


def _pytz_zone(name: str) -> dt.tzinfo:
    try:
        zone: dt.tzinfo = import_module("pytz").timezone(name)
    except ImportError:
        return zoneinfo.ZoneInfo(name)
    return zone
