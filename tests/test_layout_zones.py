"""Time zones of every library come back equal, in this process and others, or are refused by name."""

from __future__ import annotations

import datetime as dt
import shutil
import subprocess
import sys
import time
import zoneinfo
from pathlib import Path

import pandas as pd
import pytest
from dateutil import tz
from hypothesis import given
from hypothesis import strategies as st

from layout_samples import assert_same_index, naming, travel
from numpush.layout import SchemaError, describe, pack, rebuild
from numpush.layout.zone import decode_zone, encode_zone

ZONES = {
    "UTC": dt.UTC,
    "fixed": dt.timezone(dt.timedelta(hours=-3, microseconds=1)),
    "zoneinfo": zoneinfo.ZoneInfo("Europe/Paris"),
    "tzutc": tz.tzutc(),
    "tzlocal": tz.tzlocal(),
    "tzfile": tz.gettz("Europe/Paris"),
    "tzfile of UTC": tz.gettz("UTC"),
    "tzoffset": tz.tzoffset("half: past", 5400),
    "tzoffset without a name": tz.tzoffset(None, -5400),
}


def days(zone):
    """Give days of summer and winter in a zone."""
    return pd.date_range("2020", periods=300, freq="29h", tz="UTC").tz_convert(zone)


@pytest.mark.parametrize("name", ZONES)
def test_zones_come_back_equal_and_of_their_library(name):
    zone = ZONES[name]
    back, _, _ = travel(days(zone))
    assert_same_index(back, days(zone))
    assert type(back.tz) is type(zone)
    assert back.tz == zone
    assert str(back.dtype) == str(days(zone).dtype)
    moment = pd.Timestamp("2020-07-01", tz=zone)
    again, _, _ = travel(pd.Series([moment, None, "x"], dtype=object))
    assert again[0] == moment
    assert type(again[0].tzinfo) is type(zone)


@given(st.sampled_from(sorted(zoneinfo.available_timezones())), st.sampled_from(["zoneinfo", "tz"]))
def test_every_name_gives_the_zone_back(name, library):
    zone = zoneinfo.ZoneInfo(name) if library == "zoneinfo" else tz.gettz(name)
    back = decode_zone(encode_zone(zone))
    assert type(back) is type(zone)
    assert pd.DatetimeTZDtype("ns", back) == pd.DatetimeTZDtype("ns", zone)


@given(
    st.timedeltas(dt.timedelta(-1, microseconds=1), dt.timedelta(1, microseconds=-1)),
    st.none() | st.text(max_size=4),
)
def test_every_offset_comes_back(offset, name):
    back = decode_zone(encode_zone(tz.tzoffset(name, offset)))
    assert back == tz.tzoffset(name, offset)
    assert back.tzname(None) == name
    assert decode_zone(encode_zone(dt.timezone(offset))) == dt.timezone(offset)


@given(st.text(max_size=12) | st.text("0123456789:-tzfutcoselaldi/.", max_size=24))
def test_any_text_is_a_zone_or_refused(code):
    for each in (
        code,
        *(f"{kind}:{code}" for kind in ("dateutil", "tzutc", "tzoffset", "tzlocal")),
    ):
        try:
            zone = decode_zone(each)
        except SchemaError:
            continue
        assert decode_zone(encode_zone(zone)) == zone


HERE = Path(__file__).parent
CHILD = """
import sys
from test_layout_zones import ZONES, days
from numpush.layout import SchemaError, rebuild, unpack
packed, raw = sys.stdin.buffer.read().split(b"----")
import numpy as np
try:
    back = rebuild(unpack(packed), [np.frombuffer(raw, np.uint8)])
except SchemaError as error:
    sys.exit(str(error))
assert back.equals(days(ZONES[sys.argv[1]])) and back.dtype == days(ZONES[sys.argv[1]]).dtype
"""


def ask_another(name, **environment):
    """Rebuild the days of a zone in another process; give what it says."""
    schema, buffers = describe(days(ZONES[name]))
    data = buffers[0].source().tobytes()
    done = subprocess.run(
        [sys.executable, "-c", CHILD, name],
        input=pack(schema) + b"----" + data,
        env={"PYTHONPATH": str(HERE), **environment},
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == bool(done.stderr), done.stderr
    return done.stderr.decode()


@pytest.mark.parametrize("name", ["tzutc", "tzfile", "tzlocal", "tzoffset"])
def test_another_process_makes_the_same_zone(name):
    assert ask_another(name) == ""


def test_the_local_zone_is_refused_where_it_is_another():
    assert "the local zone here has" in ask_another("tzlocal", TZ="Asia/Kathmandu")


def test_the_local_zone_is_the_one_of_now(monkeypatch):
    code = encode_zone(tz.tzlocal())
    try:
        with monkeypatch.context() as patch:
            patch.setenv("TZ", "Asia/Kathmandu")
            time.tzset()
            with pytest.raises(SchemaError, match="local zone"):
                decode_zone(code)
            assert encode_zone(decode_zone(encode_zone(tz.tzlocal()))) != code
    finally:
        time.tzset()
    assert decode_zone(code) == tz.tzlocal()


@pytest.fixture
def zone_file(tmp_path):
    """Give a file of a zone that lies outside of zone data."""
    root = next(root for root in zoneinfo.TZPATH if Path(root, "Europe/Paris").is_file())
    return str(shutil.copy(Path(root, "Europe/Paris"), tmp_path / "Paris"))


def test_zones_that_only_their_file_knows_are_refused(zone_file):
    mislabelled = tz.gettz.nocache("Europe/Paris")
    mislabelled._filename = "/usr/share/zoneinfo/Asia/Tokyo"
    mislabelled._key = "Asia/Tokyo"
    for zone in (tz.tzfile(zone_file), mislabelled, tz.tzstr("EST5EDT"), tz.tzrange("X", 3600)):
        with naming(repr(zone)), pytest.raises(TypeError, match=r"no IANA name.*tz_convert"):
            describe(pd.DataFrame({"x": days(zone)}))


def test_no_file_outside_of_zone_data_is_opened(zone_file):
    assert tz.gettz(zone_file) is not None  # as a path, dateutil would take it
    up = "../" * 12
    for path in (
        zone_file,
        f"{up}{zone_file}",
        f"Europe/{up}{zone_file}",
        f"Europe/../{zone_file}",
    ):
        for library in ("dateutil", "zoneinfo"):
            with naming(path), pytest.raises(SchemaError, match="unknown here"):
                decode_zone(f"{library}:{path}")


@pytest.mark.parametrize(
    "code",
    [
        *(
            "dateutil:",
            "dateutil:Nowhere/City",
            "dateutil:EST5EDT4,M3.2.0,M11.1.0",
            "dateutil:a\0b",
        ),
        *("dateutil:Europe", "tzutc:x", "tzoffset:", "tzoffset:1.5", "tzoffset:86400000000"),
        *("tzoffset:-999999999999:x", "tzlocal:", "tzlocal:1:2:3", "tzlocal", "tzstr:EST5EDT"),
    ],
)
def test_codes_of_no_zone_are_refused(code):
    with pytest.raises(SchemaError, match="zone"):
        decode_zone(code)
    schema, buffers = describe(days("UTC"))
    schema["values"]["zone"] = code
    raw = buffers[0].source().view("u1")
    with pytest.raises(SchemaError, match="zone"):
        rebuild(schema, [raw])
