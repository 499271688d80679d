"""What the tests of the layout codec send: columns and indexes of every kind, and how they compare.

A segment is simulated by 64-byte aligned arrays that are filled with `Buffer.copies`.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import decimal
import functools
import zoneinfo

import numpy as np
import pandas as pd
import pytest
from dateutil import tz

from numpush.layout import ALIGNMENT, describe, pack, rebuild, unpack

pa = pytest.importorskip("pyarrow", reason='these tests need pyarrow: pip install "numpush[arrow]"')

N = 3333
PANDAS_3 = int(pd.__version__.split(".")[0]) >= 3
RNG = np.random.default_rng(7)


def words(text):
    return text.split()


@contextlib.contextmanager
def naming(name):
    """Say in an error which of many it was. One test for each would cost more than it tests."""
    try:
        yield
    except BaseException as error:
        error.add_note(f"with {name!r}")
        raise


def allocate(nbytes):
    """Give uninitialised bytes that start at a multiple of 64, as a segment's do."""
    raw = np.empty(nbytes + ALIGNMENT, np.uint8)
    raw[:] = 0xA5
    start = -raw.ctypes.data % ALIGNMENT
    return raw[start : start + nbytes]


def fill(buffers):
    """Allocate and fill the buffers of a describe."""
    filled = []
    for buffer in buffers:
        dest = allocate(buffer.nbytes)
        written = 0
        for target, source in buffer.copies(dest):
            assert target.shape == source.shape
            assert target.dtype == source.dtype
            assert not target.dtype.hasobject
            assert not target.nbytes or np.shares_memory(target, dest)
            np.copyto(target, source)
            written += target.nbytes
        assert written == buffer.nbytes, "each byte is written exactly once"
        filled.append(dest)
    return filled


def travel(obj, *, validate=True, allow_pickle=False):
    """Send an object through packed schema and buffers; gives it back with both."""
    schema, buffers = describe(obj, allow_pickle=allow_pickle)
    raws = fill(buffers)
    schema = unpack(pack(schema))
    back = rebuild(schema, raws, validate=validate, allow_pickle=allow_pickle)
    return back, schema, raws


def is_over(array, raws):
    """Whether the array's memory lies in one of the buffers."""
    return any(np.shares_memory(array, raw) for raw in raws)


STRINGS = np.array([f"s{i % 97}é" if i % 3 else "" for i in range(N)], dtype=object)
GAPS = np.arange(N) % 5 == 0


def with_gaps(values, gap):
    values = np.array(values, dtype=object)
    values[GAPS] = gap
    return values


def arrow(kind, values=None):
    values = [None if gap else i % 100 for i, gap in enumerate(GAPS)] if values is None else values
    return pd.arrays.ArrowExtensionArray(pa.chunked_array([pa.array(values, kind)]))


NUMPY_COLUMNS = {
    **{
        code: lambda code=code: RNG.integers(0, 100, N).astype(code)
        for code in words("bool i1 i2 i4 i8 u1 u2 u4 u8 f2 f4 f8 g c8 c16 >f8")
    },
    **{
        f"{kind}8[{unit}]": lambda kind=kind, unit=unit: np.where(
            GAPS, np.iinfo("i8").min, np.arange(N)
        ).view(f"{kind}8[{unit}]")
        for kind in "mM"
        for unit in ("s", "ms", "us", "ns")
    },
}
ZONES = {
    **{zone: zone for zone in ("UTC", "Europe/Paris", "+05:30")},
    "of zoneinfo": zoneinfo.ZoneInfo("America/New_York"),
    "of dateutil": tz.gettz("America/New_York"),
    "tzlocal": tz.tzlocal(),
}
EXTENSION_COLUMNS = {
    **{
        f"zone {name}": lambda zone=zone: pd.date_range("2020", periods=N, freq="h", tz=zone).array
        for name, zone in ZONES.items()
    },
    "zone, s": lambda: pd.date_range("2020", periods=N, tz="UTC").as_unit("s").array,
    "categorical of str": lambda: pd.Categorical(STRINGS),
    "categorical with gaps": lambda: pd.Categorical(with_gaps(STRINGS, None), ordered=True),
    "categorical of int": lambda: pd.Categorical(np.arange(N) % 7, ordered=True),
    "categorical of many": lambda: pd.Categorical(np.arange(N) * 2.0),
    "categorical of datetimes": lambda: pd.Categorical(pd.date_range("2020", periods=N, tz="UTC")),
    "categorical of mixed": lambda: pd.Categorical(
        with_gaps(["x", b"y", 3, None] * 833 + ["x"], None)
    ),
    "categorical, empty": lambda: pd.Categorical([None] * N),
    "Int8": lambda: pd.array(with_gaps(np.arange(N) % 100, None), dtype="Int8"),
    "UInt64": lambda: pd.array(np.arange(N), dtype="UInt64"),
    "Float32": lambda: pd.array(with_gaps(np.arange(N) / 3, None), dtype="Float32"),
    "Float64": lambda: pd.array(np.arange(N) / 3, dtype="Float64"),
    "boolean": lambda: pd.array(with_gaps(np.arange(N) % 2 == 0, None), dtype="boolean"),
    "string[python]": lambda: pd.array(with_gaps(STRINGS, None), dtype="string[python]"),
    "string[pyarrow]": lambda: pd.array(with_gaps(STRINGS, None), dtype="string[pyarrow]"),
    "arrow bool": lambda: arrow(
        pa.bool_(), [None if g else bool(i % 3) for i, g in enumerate(GAPS)]
    ),
    **{
        f"arrow {kind}": lambda kind=kind: arrow(kind)
        for kind in [
            pa.int8(),
            pa.uint32(),
            pa.int64(),
            pa.float32(),
            pa.float64(),
            pa.timestamp("us"),
            pa.timestamp("ns", "Europe/Paris"),
            pa.date32(),
            pa.time32("s"),
            pa.time64("ns"),
            pa.duration("ms"),
        ]
    },
    "arrow without nulls": lambda: arrow(pa.int16(), np.arange(N)),
    **{
        f"arrow {kind}": lambda kind=kind: arrow(kind, with_gaps(STRINGS, None))
        for kind in [pa.string(), pa.large_string(), pa.binary(), pa.large_binary()]
    },
    "arrow fixed": lambda: arrow(pa.binary(3), [b"abc"] * N),
    "arrow decimal": lambda: arrow(
        pa.decimal128(10, 2), [decimal.Decimal("1.5"), None, None] * 1111
    ),
    "arrow dictionary": lambda: pd.arrays.ArrowExtensionArray(
        pa.array(with_gaps(STRINGS, None)).dictionary_encode()
    ),
}
OBJECT_COLUMNS = {
    "object of str": lambda: STRINGS,
    "object of str and None": lambda: with_gaps(STRINGS, None),
    "object of str and nan": lambda: with_gaps(STRINGS, np.nan),
    "object of str and NA": lambda: with_gaps(STRINGS, pd.NA),
    "object of nothing": lambda: np.full(N, None, object),
    "object of surrogates": lambda: np.full(N, "\ud800x\udfff", object),
    "object of all the missing": lambda: np.array(
        [None, np.nan, pd.NA, pd.NaT, "x", ""] * (N // 6) + ["y", None, None], object
    ),
}
if PANDAS_3:
    for _storage in ("python", "pyarrow"):
        EXTENSION_COLUMNS[f"str[{_storage}]"] = lambda storage=_storage: pd.array(
            with_gaps(STRINGS, None), dtype=pd.StringDtype(storage, na_value=np.nan)
        )
else:
    EXTENSION_COLUMNS["string[pyarrow_numpy]"] = lambda: pd.array(
        with_gaps(STRINGS, None), dtype="string[pyarrow_numpy]"
    )
COLUMNS = {**NUMPY_COLUMNS, **EXTENSION_COLUMNS, **OBJECT_COLUMNS}

INDEXES = {
    "range": lambda: pd.RangeIndex(10, 10 - 3 * N, -3, name="r"),
    "int": lambda: pd.Index(np.arange(N)[::-1], name=("a", 1)),
    "uint8 with duplicates": lambda: pd.Index(np.zeros(N, "u1")),
    "float": lambda: pd.Index(np.where(GAPS, np.nan, np.arange(N) / 3), name=1.5),
    "bool": lambda: pd.Index(GAPS, name=True),
    "complex": lambda: pd.Index(np.arange(N) * 1j),
    "str": lambda: pd.Index([f"é{i}" for i in range(N)], name="s"),
    "object": lambda: pd.Index([f"é{i}" for i in range(N)], dtype=object),
    "mixed": lambda: pd.Index(
        [i if i % 2 else (str(i), pd.Timestamp(i, unit="s", tz="UTC")) for i in range(N)],
        tupleize_cols=False,
    ),
    "Int64": lambda: pd.Index(pd.array(np.arange(N), dtype="Int64")),
    "arrow": lambda: pd.Index(arrow(pa.int64(), np.arange(N))),
    "datetime": lambda: pd.DatetimeIndex(
        np.arange(N)[::-1].astype("M8[s]"), name=pd.Timestamp("2020")
    ),
    "datetime with freq": lambda: pd.date_range("2020", periods=N, freq="2h"),
    "datetime with freq and zone": lambda: pd.date_range("2020", periods=N, tz="Europe/Paris"),
    "datetime with business freq": lambda: pd.date_range("2020", periods=N, freq="W-TUE"),
    "datetime with offset": lambda: pd.date_range(
        "2020", periods=N, freq=pd.DateOffset(hours=3, minutes=1)
    ),
    "timedelta": lambda: pd.timedelta_range("1s", periods=N, freq="3s", name=dt.date(2020, 1, 1)),
    "categorical": lambda: pd.CategoricalIndex(STRINGS, ordered=True, name="c"),
    "multi": lambda: pd.MultiIndex.from_arrays(
        [np.arange(N) % 11, STRINGS, pd.date_range("2020", periods=N, tz="UTC")],
        names=["a", None, ("b", 2)],
    ),
    "multi with gaps": lambda: pd.MultiIndex.from_arrays([with_gaps(np.arange(N), None), GAPS]),
    "multi of product": lambda: pd.MultiIndex.from_product([range(3), range(N // 3)]),
}


@functools.cache
def made_index(name):
    return INDEXES[name]()


def assert_same(back, obj):
    """Check what pandas compares, and what it lets pass."""
    if isinstance(obj, pd.DataFrame):
        assert type(back) is pd.DataFrame
        pd.testing.assert_frame_equal(back, obj, check_exact=True, check_freq=True)
        assert list(map(repr, back.dtypes)) == list(map(repr, obj.dtypes))
        axes = zip(back.axes, obj.axes, strict=True)
    else:
        assert type(back) is pd.Series
        pd.testing.assert_series_equal(back, obj, check_exact=True, check_freq=True)
        assert repr(back.dtype) == repr(obj.dtype)
        assert type(back.name) is type(obj.name)
        axes = [(back.index, obj.index)]
    for mine, yours in axes:
        assert_same_index(mine, yours)
    assert back.attrs == obj.attrs
    assert back.flags.allows_duplicate_labels == obj.flags.allows_duplicate_labels


def assert_same_index(back, index):
    assert type(back) is type(index)
    assert back.identical(index)
    assert repr(back.dtype) == repr(index.dtype)
    assert list(map(type, back.names)) == list(map(type, index.names))
    if isinstance(index, pd.MultiIndex):
        for mine, yours in zip(back.levels, index.levels, strict=True):
            assert_same_index(mine, yours)
    else:
        assert getattr(back, "freq", None) == getattr(index, "freq", None)


def series(column, name=None):
    """Make a Series of exactly the dtype (pandas 3 would take object columns of str for str)."""
    values = COLUMNS[column]()
    return pd.Series(values, dtype=values.dtype, name=name, copy=False)
