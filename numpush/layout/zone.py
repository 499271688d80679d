"""Time zones by name: the code of a tzinfo, and back.

    utc                                   datetime.timezone.utc
    fixed:3600000000                      a fixed offset of datetime's, in microseconds
    zoneinfo:Europe/Paris                 an IANA name
    pytz:Europe/Paris, pytzfixed:60       pytz's, the offset in minutes
    dateutil:Europe/Paris                 dateutil's tzfile
    tzutc, tzoffset:3600000000:name       dateutil's others; the name may be absent
    tzlocal:3600000000:7200000000         dateutil's tzlocal, whose offsets are these

(1) The library stands in the code since pandas holds that the same zone of two libraries makes two
    unequal dtypes (2.2: of pytz and zoneinfo; all: of dateutil and others).
(2) A tzfile is named by its zone, never by its file, which another machine need not have. What
    pandas would not hold equal to the zone of that name has no code.
(3) No file is opened for a code that zoneinfo does not take for a name: no path out of zone data.
(4) "tzlocal" is refused where the local zone has other offsets: the wall times would be others.
"""

from __future__ import annotations

import datetime as dt
import re
import zoneinfo
from functools import lru_cache
from importlib import import_module
from typing import Any

from .schema import SchemaError, found

_MICROSECOND = dt.timedelta(microseconds=1)
_DAY = dt.timedelta(days=1)
_INT = re.compile(r"-?\d{1,12}", re.ASCII)


def encode_zone(zone: dt.tzinfo) -> str | None:
    """Give the code of a zone, or None for one that has none (a file's, one's own)."""
    if zone is dt.UTC:
        return "utc"
    if type(zone) is dt.timezone:
        return f"fixed:{zone.utcoffset(None) // _MICROSECOND}"
    if isinstance(zone, zoneinfo.ZoneInfo):
        return f"zoneinfo:{zone.key}" if zone.key else None
    library = type(zone).__module__.partition(".")[0]
    if library == "pytz":
        name = getattr(zone, "zone", None)
        if name:
            return f"pytz:{name}"
        minutes = getattr(zone, "_minutes", None)  # pytz.FixedOffset
        return None if minutes is None else f"pytzfixed:{minutes}"
    return _encode_dateutil(zone) if library == "dateutil" else None


def _encode_dateutil(zone: Any) -> str | None:
    tz = _dateutil()
    if type(zone) is tz.tzutc:
        return "tzutc"
    if type(zone) is tz.tzlocal:
        return "tzlocal:" + ":".join(_local_offsets(zone))
    if type(zone) is tz.tzoffset:
        name = "" if zone._name is None else f":{zone._name}"
        return f"tzoffset:{zone._offset // _MICROSECOND}{name}"
    if type(zone) is not tz.tzfile:
        return None
    name = getattr(zone, "key", None) or _name_of_file(str(zone._filename))
    code = f"dateutil:{name}"
    try:
        known: Any = decode_zone(code)
    except SchemaError:
        return None
    is_same = known == zone and _parts_compared(known) == _parts_compared(zone)
    return code if is_same else None


def _local_offsets(zone: Any) -> tuple[str, str]:
    """Give what tells one tzlocal from another: its offsets in winter and summer."""
    return str(zone._std_offset // _MICROSECOND), str(zone._dst_offset // _MICROSECOND)


def _name_of_file(path: str) -> str:
    """Give the name that a file of zone data has: its path from there."""
    for root in (*zoneinfo.TZPATH, *getattr(_dateutil(), "TZPATHS", ())):
        if path.startswith(f"{root}/"):
            return path[len(root) + 1 :]
    return path


def _parts_compared(zone: Any) -> tuple[Any, Any]:
    """Give what pandas compares tzfiles by, beside their rules: dateutil 3 brought the key."""
    return zone._filename, getattr(zone, "key", None)


def decode_zone(code: object) -> dt.tzinfo:
    """Give the zone of a code.

    Without pytz (pandas 3 does not need it) its zones come as zoneinfo's of the same name.

    Raises
    ------
    SchemaError : not a code, a name that this machine's zone data does not have, or the local zone
        of another place.
    """
    if isinstance(code, str) and code.startswith("tzlocal:"):  # time.tzset() may change it
        zone: dt.tzinfo = _dateutil().tzlocal()
        here = _local_offsets(zone)
        if code.split(":")[1:] != list(here):
            raise SchemaError(f"schema zone: {found(code)}, the local zone here has {here}")
        return zone
    return _decode_constant(code)


@lru_cache(maxsize=256)
def _decode_constant(code: object) -> dt.tzinfo:
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
        if library in ("dateutil", "tzutc", "tzoffset"):
            return _dateutil_zone(library, name)
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


def _dateutil() -> Any:
    """Import dateutil, which pandas needs."""
    return import_module("dateutil.tz")


def _dateutil_zone(library: str, name: str) -> dt.tzinfo:
    tz = _dateutil()
    zone: dt.tzinfo
    if library == "tzutc" and not name:
        zone = tz.tzutc()
    elif library == "tzoffset":
        offset, has_label, label = name.partition(":")
        span = dt.timedelta(microseconds=int(offset)) if _INT.fullmatch(offset) else _DAY
        if abs(span) >= _DAY:
            raise ValueError("an offset below a day wanted")
        zone = tz.tzoffset(label if has_label else None, span)
    else:
        zoneinfo.ZoneInfo(name)  # rule (3): gettz opens any path, and guesses what it cannot find
        zone = tz.gettz(name)
        if type(zone) is not tz.tzfile:
            raise ValueError("a zone of dateutil's wanted")
    return zone


def _pytz_zone(name: str) -> dt.tzinfo:
    try:
        zone: dt.tzinfo = import_module("pytz").timezone(name)
    except ImportError:
        return zoneinfo.ZoneInfo(name)
    return zone
