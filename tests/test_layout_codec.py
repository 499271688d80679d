"""The layout codec: what goes in comes out, over the very bytes, and nothing damaged gets through.

A segment is simulated by 64-byte aligned arrays that are filled with `Buffer.copies`.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import decimal
import functools
import random
import subprocess
import sys
import weakref
import zoneinfo
from pathlib import Path

import msgpack
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from hypothesis.extra import pandas as hpd

import numpush.layout
from numpush.layout import (
    ALIGNMENT,
    VERSION,
    SchemaError,
    column_place,
    describe,
    pack,
    rebuild,
    unpack,
)

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


def travel(obj, *, validate=True):
    """Send an object through packed schema and buffers; gives it back with both."""
    schema, buffers = describe(obj)
    raws = fill(buffers)
    schema = unpack(pack(schema))
    return rebuild(schema, raws, validate=validate), schema, raws


def is_over(array, raws):
    """Whether the array's memory lies in one of the buffers."""
    return any(np.shares_memory(array, raw) for raw in raws)


# ndarrays


ARRAYS = {
    "bool": lambda: RNG.random(N) > 0.5,
    **{
        code: lambda code=code: RNG.integers(0, 100, N).astype(code)
        for code in words("i1 i2 i4 i8 u1 u2 u4 u8 f2 f4 f8 g c8 c16 G >i2 >f8 >c16 >g S7 U5 >U5")
    },
    **{
        f"{kind}8[{unit}]": lambda kind=kind, unit=unit: np.arange(N).astype(f"{kind}8[{unit}]")
        for kind in "mM"
        for unit in words("Y M W D h m s ms us ns ps fs as 25s")
    },
    ">M8[ms]": lambda: np.arange(N).astype(">M8[ms]"),
    "M8 without a unit": lambda: np.full(3, "NaT", "M8"),
    "m8 without a unit": lambda: np.full(3, "NaT", "m8"),
    "V5": lambda: np.zeros(N, "V5"),
    "0-d": lambda: np.array(3.5),
    "empty": lambda: np.zeros((5, 0, 3), "i2"),
    "empty strings": lambda: np.zeros(3, "S0"),
    "no fields": lambda: np.zeros(3, np.dtype([])),
    "5-d": lambda: RNG.random((3, 1, 4, 1, 5)),
    "structured": lambda: np.ones(
        N, [("a", "i4"), ("b", ">f8", (2, 3)), ("c", [("x", "M8[s]"), ("y", "S3")])]
    ),
    "structured with holes and titles": lambda: np.ones(
        N,
        np.dtype(
            {
                "names": ["a", "b"],
                "formats": ["u1", "f8"],
                "offsets": [3, 16],
                "titles": ["the a", "the b"],
                "itemsize": 29,
            }
        ),
    ),
    "structured with overlap": lambda: np.ones(
        N, np.dtype({"names": ["a", "b"], "formats": ["u4", "u2"], "offsets": [0, 2]})
    ),
    "aligned": lambda: np.ones(N, np.dtype([("a", "u1"), ("b", "f8")], align=True)),
    "record": lambda: np.ones(N, np.dtype((np.record, [("a", "u1"), ("b", "f8")]))),
}


def test_arrays_of_every_dtype_come_back_equal_over_the_given_bytes():
    for name in ARRAYS:
        with naming(name):
            array = ARRAYS[name]()
            back, _, raws = travel(array)
            assert type(back) is np.ndarray
            assert back.dtype == array.dtype
            assert back.dtype.str == array.dtype.str
            assert back.dtype.isalignedstruct == array.dtype.isalignedstruct
            assert back.dtype.type is array.dtype.type
            assert back.shape == array.shape
            assert back.tobytes() == array.tobytes()
            assert back.flags.writeable
            assert not back.nbytes or is_over(back, raws)


def test_holes_in_structured_items_are_copied_too():
    array = np.zeros(N, np.dtype({"names": ["a"], "formats": ["u1"], "itemsize": 8}))
    array.view(np.uint8)[:] = np.arange(8 * N, dtype=np.uint8)
    _, _, raws = travel(array)
    assert raws[0].tobytes() == array.view(np.uint8).tobytes()


ORDERS = {
    "C": lambda a: a,
    "F": lambda a: a.T,
    "rows of C": lambda a: a[1::2],
    "columns of C": lambda a: a[:, 1::2],
    "rows of F": lambda a: a.T[1::2],
    "reversed": lambda a: a[::-1],
    "reversed twice": lambda a: a[::-1, ::-2],
    "axes permuted": lambda a: a.transpose(1, 2, 0),
    "axes permuted and cut": lambda a: a.transpose(2, 0, 1)[:, 1:3],
    "broadcast": lambda a: np.broadcast_to(a[0], a.shape),
    "single axes": lambda a: a.transpose(1, 0, 2)[:, None, ::2],
}


def test_arrays_of_every_order_come_back_dense_in_the_order_of_their_strides():
    for name in ORDERS:
        with naming(name):
            array = ORDERS[name](RNG.random((5, 7, 3)))
            back, _, _ = travel(array)
            np.testing.assert_array_equal(back, array)
            wanted = np.copy(array, order="C" if name == "broadcast" else "K")
            assert back.strides == wanted.strides or 1 in array.shape


def test_reading_only_buffers_gives_arrays_that_cannot_be_written():
    schema, buffers = describe(np.arange(N))
    raw = fill(buffers)[0]
    raw.flags.writeable = False
    assert not rebuild(schema, [raw]).flags.writeable


def test_an_array_keeps_its_buffer_alive():
    schema, buffers = describe(np.arange(N))
    raw = fill(buffers)[0]
    back = rebuild(schema, [raw])
    base = back
    while base.base is not None and base is not raw:
        base = base.base
    assert base is raw or base is raw.base


def test_record_arrays_come_back_as_structured_arrays():
    array = np.rec.array([(1, 2.0), (3, 4.0)], dtype=[("a", "i4"), ("b", "f8")])
    back, _, _ = travel(array)
    assert type(back) is np.ndarray
    assert back.tolist() == array.tolist()


@pytest.mark.parametrize(
    ("obj", "text"),
    [
        (np.ma.array([1, 2], mask=[0, 1]), r"mask would be lost; pass \.filled"),
        (np.array([{}, 3]), r"dtype object holding <class 'dict'>"),
        (np.zeros(3, [("a", "O")]), r"holding Python objects"),
        ({"a": 1}, r"the object is a dict, which cannot be laid out"),
        (None, r"the object is a NoneType"),
    ],
)
def test_what_has_no_layout_is_a_type_error_with_a_remedy(obj, text):
    with pytest.raises(TypeError, match=text):
        describe(obj)


def test_numpy_strings_of_variable_width_are_refused():
    strings = pytest.importorskip("numpy", "2.0", reason="StringDType came with NumPy 2")
    with pytest.raises(TypeError, match=r"astype\('U'\)"):
        describe(np.array(["a"], dtype=strings.dtypes.StringDType()))


# Frames


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
ZONES = ["UTC", "Europe/Paris", "+05:30", zoneinfo.ZoneInfo("America/New_York")]
EXTENSION_COLUMNS = {
    **{
        f"zone {zone}": lambda zone=zone: pd.date_range("2020", periods=N, freq="h", tz=zone).array
        for zone in ZONES
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


@pytest.mark.parametrize("column", COLUMNS)
def test_frames_of_every_dtype_and_index_come_back_equal(column):
    frame = pd.DataFrame({"a": series(column), "z": np.arange(N) / 7}, copy=False)
    for name in INDEXES:
        frame.index = made_index(name)
        with naming(name):
            back, _, _ = travel(frame)
            assert_same(back, frame)


def test_slices_of_every_dtype_come_back_equal():
    for column in COLUMNS:
        with naming(column):
            frame = pd.DataFrame({"a": series(column), "b": series(column)})
            for part in (
                frame.iloc[3:1001],
                frame.iloc[::-7],
                frame.iloc[:0],
                frame.iloc[:, ::-1],
                frame["a"],
            ):
                back, _, _ = travel(part, validate=False)
                assert_same(back, part)


def test_series_and_columns_in_several_chunks_come_back_equal():
    for column in COLUMNS:
        with naming(column):
            first = series(column, name=("x", 3))
            several = pd.concat(
                [first.iloc[5:777], first.iloc[3:2222:2], first.iloc[:0], first.iloc[-1:]]
            )
            back, _, _ = travel(several)
            assert_same(back, several)


@pytest.mark.parametrize("index", INDEXES)
def test_indexes_come_back_equal_and_as_columns_too(index):
    obj = INDEXES[index]()
    back, _, _ = travel(obj)
    assert_same_index(back, obj)
    frame = pd.DataFrame(np.ones((3, N)), columns=obj)
    back, _, _ = travel(frame)
    assert_same(back, frame)
    few = frame.iloc[:, :3]
    back, _, raws = travel(few)
    assert_same(back, few)
    assert len(raws) <= 4


def test_extension_arrays_come_back_equal_by_themselves():
    for column in EXTENSION_COLUMNS:
        with naming(column):
            array = EXTENSION_COLUMNS[column]()
            back, _, _ = travel(array)
            assert type(back) is type(array)
            pd.testing.assert_extension_array_equal(back, array)


def test_numpy_columns_are_views_of_the_buffer_that_can_be_written():
    for column in NUMPY_COLUMNS:
        with naming(column):
            frame = pd.DataFrame({"a": NUMPY_COLUMNS[column](), "b": NUMPY_COLUMNS[column]()})
            back, schema, raws = travel(frame)
            assert len(raws) == 1
            (block,) = schema["blocks"]
            assert (block["at"], block["count"]) == ([0, 1], 2)
            assert is_over(back["a"].to_numpy(), raws)
            back.iloc[5, 1] = back.iloc[7, 1]
            place = column_place(schema, raws, 1)
            view = np.ndarray(
                place.shape, place.dtype, raws[place.buffer], place.offset, place.strides
            )
            assert view.dtype == frame["b"].dtype
            assert view[5] == view[7] or pd.isna(view[5])


def parts_of(array):
    """Give the memory of an extension array as ndarrays."""
    if hasattr(array, "__arrow_array__") and not hasattr(array, "_mask"):
        chunks = array.__arrow_array__().chunks
        if pa.types.is_dictionary(chunks[0].type):
            chunks = [chunks[0].indices, chunks[0].dictionary]
        return [np.frombuffer(b, "u1") for c in chunks for b in c.buffers() if b is not None]
    names = ("_ndarray", "_data", "_mask")
    return [getattr(array, name) for name in names if hasattr(array, name)]


def test_extension_columns_lie_in_the_buffers():
    for column in [c for c in EXTENSION_COLUMNS if "python" not in c]:
        with naming(column):
            back, _, raws = travel(pd.DataFrame({"a": EXTENSION_COLUMNS[column]()}), validate=False)
            parts = parts_of(back["a"].array)
            assert parts
            for part in parts:
                assert is_over(part, raws)
            categories = getattr(back["a"].dtype, "categories", None)
            if column == "categorical of many":
                assert is_over(categories.to_numpy(), raws)


@pytest.mark.parametrize("index", ["int", "float", "datetime with freq", "timedelta"])
def test_indexes_lie_in_the_buffers(index):
    back, _, raws = travel(pd.DataFrame({"a": np.arange(N)}, index=INDEXES[index]()))
    assert is_over(back.index.to_numpy(), raws)


def test_codes_of_a_multi_index_lie_in_the_buffers():
    back, _, raws = travel(INDEXES["multi"](), validate=False)
    for codes in back.codes:
        assert is_over(np.asarray(codes), raws)


def test_arrow_buffers_keep_the_segment_alive_and_have_its_address():
    obj = arrow(pa.int64(), np.arange(N))
    back, _, raws = travel(obj)
    buffer = back.__arrow_array__().chunk(0).buffers()[1]
    assert buffer.address == raws[0].ctypes.data
    segment = weakref.ref(raws[0].base)
    del raws, buffer
    assert segment() is not None
    assert back[N - 1] == N - 1
    del back
    assert segment() is None


# The shape of frames


def test_blocks_do_not_depend_on_how_the_frame_was_built():
    separate = pd.DataFrame({f"c{i}": np.arange(N) * i for i in range(40)}, copy=False)
    assert len(separate._mgr.blocks) == 40
    together = pd.DataFrame(separate.to_numpy(), columns=separate.columns)
    odd = separate[["c1"]].copy()
    odd.insert(0, "c0", separate["c0"])
    for name in separate.columns[:1:-1]:
        odd.insert(2, name, separate[name])
    schemas = []
    for frame in (separate, together, odd):
        blocks = [(b.values.ctypes.data, b.values.shape) for b in frame._mgr.blocks]
        back, schema, raws = travel(frame)
        assert blocks == [(b.values.ctypes.data, b.values.shape) for b in frame._mgr.blocks]
        assert_same(back, frame)
        assert len(back._mgr.blocks) == 1
        assert back._mgr.blocks[0].values.flags.c_contiguous
        schemas.append((pack(schema), [raw.tobytes() for raw in raws]))
    assert schemas[0] == schemas[1] == schemas[2]


def test_blocks_stand_in_the_order_of_their_first_column():
    frame = pd.DataFrame({"a": [1.0], "b": [1], "c": [2.0], "d": [True], "e": [2]})
    _, schema, _ = travel(frame)
    assert [(b["dtype"], b["at"], b["count"]) for b in schema["blocks"]] == [
        ("<f8", [0, 2], 2),
        ("<i8", [1, 3], 2),
        ("|b1", [3, 1], 1),
    ]


def test_a_schema_does_not_grow_with_the_number_of_columns():
    sizes = []
    for n_columns in (200, 2000):
        kinds = np.random.default_rng(3).integers(0, 3, n_columns)
        frame = pd.DataFrame(
            {i: np.arange(3).astype(words("i4 i8 f8")[k]) for i, k in enumerate(kinds)}
        )
        frame.columns = pd.RangeIndex(n_columns)
        back, schema, raws = travel(frame)
        assert_same(back, frame)
        sizes.append(len(pack(schema)))
        for i in range(n_columns):
            place = column_place(schema, raws, i)
            view = np.ndarray(
                place.shape, place.dtype, raws[place.buffer], place.offset, place.strides
            )
            assert view.dtype == frame[i].dtype
            assert np.array_equal(view, frame[i])
            if i % 97 == 0:
                assert np.shares_memory(view, back[i].to_numpy())
    assert abs(sizes[1] - sizes[0]) < 16
    assert sizes[1] < 600


def test_the_schema_of_a_small_frame_is_small():
    frame = pd.DataFrame({"a": [1.0], "b": [2.0], "c": [3.0]})
    schema, buffers = describe(frame)
    assert len(buffers) == 1
    assert len(pack(schema)) < 250


def test_columns_have_a_place_only_if_they_are_of_a_numpy_dtype():
    frame = pd.DataFrame(
        {"a": [1], "b": ["x"], "c": pd.Categorical(["x"]), "d": [pd.Timestamp("2020")]}
    )
    _, schema, raws = travel(frame)
    places = [column_place(schema, raws, i) for i in range(4)]
    assert [place is not None for place in places] == [True, False, False, True]
    assert places[3].dtype.kind == "M"
    with pytest.raises(IndexError, match="column 4 of a frame with 4"):
        column_place(schema, raws, 4)
    with pytest.raises(SchemaError, match="'frame' wanted"):
        column_place(describe(np.arange(3))[0], [], 0)


FRAMES = {
    "no columns": lambda: pd.DataFrame(index=pd.RangeIndex(5)),
    "no rows": lambda: pd.DataFrame({"a": np.zeros(0), "b": pd.Categorical([]), "c": []}),
    "nothing": lambda: pd.DataFrame(),
    "duplicate labels": lambda: pd.DataFrame(np.ones((2, 3)), columns=["a", "a", "b"]),
    "duplicate labels of several dtypes": lambda: pd.concat(
        [pd.DataFrame({"a": [1], "b": ["x"]}), pd.DataFrame({"a": [True], "b": [None]})], axis=1
    ),
    "columns in a MultiIndex": lambda: pd.DataFrame(
        np.ones((2, 4)), columns=pd.MultiIndex.from_product([["a", "b"], [1, 2]], names=["x", None])
    ),
    "labels of every type": lambda: pd.DataFrame(
        [[0.0] * 17],
        columns=pd.Index(
            [
                *("a", 1, 2**70, 1.5, True, None, b"x", ("t", 1, (2,)), np.int8(3), 1 + 2j),
                *(dt.date(2020, 1, 2), dt.datetime(2020, 1, 2, 3), dt.timedelta(1, 2, 3)),
                pd.Timestamp("2020", tz="Europe/Paris"),
                pd.Timedelta("3h"),
                pd.NA,
                pd.NaT,
            ],
            dtype=object,
            tupleize_cols=False,
        ),
    ),
    "labels with surrogates": lambda: pd.DataFrame(
        [[1]], columns=pd.Index(["\ud800"], dtype=object)
    ),
    "attrs": lambda: with_attrs(
        {"a": [1, (2, {"b": None})], "n": np.float32(2), ("k", 1): pd.Timestamp("2020"), "f": 1.5}
    ),
    "unique labels": lambda: pd.DataFrame({"a": [1]}).set_flags(allows_duplicate_labels=False),
    "string columns": lambda: pd.DataFrame({"a": ["x", None], "b": ["y", "z"]}, dtype=object),
}


class OwnZone(dt.tzinfo):
    """A zone that only its author knows."""

    def utcoffset(self, when):
        return dt.timedelta(hours=1)

    def dst(self, when):
        return dt.timedelta(0)


def with_attrs(attrs):
    frame = pd.DataFrame({"a": [1]})
    frame.attrs = attrs
    return frame


@pytest.mark.parametrize("name", FRAMES)
def test_odd_frames_come_back_equal(name):
    frame = FRAMES[name]()
    for validate in (False, True):
        back, _, _ = travel(frame, validate=validate)
        assert_same(back, frame)
        assert list(map(type, back.columns)) == list(map(type, frame.columns))


def test_names_attrs_and_flags_of_a_series_come_back():
    series = pd.Series([1, 2], name=("a", None), index=pd.Index([1, 2], name=3))
    series.attrs["x"] = [1]
    series.flags.allows_duplicate_labels = False
    back, _, _ = travel(series)
    assert_same(back, series)


def test_subclasses_come_back_as_plain_pandas():
    class Mine(pd.DataFrame):
        @property
        def _constructor(self):
            return Mine

    back, _, _ = travel(Mine({"a": [1]}))
    assert type(back) is pd.DataFrame


@pytest.mark.parametrize(
    ("obj", "text"),
    [
        (
            pd.DataFrame({"x": [{}, {}]}),
            r"column 'x' has dtype object holding <class 'dict'>; convert it, e\.g\. "
            r"df\['x'\] = df\['x'\]\.astype\('str'\) / 'category', or drop it",
        ),
        (pd.DataFrame({("x", 1): [1, "a"]}), r"column \('x', 1\) has dtype object holding .*int"),
        (pd.DataFrame({"x": [np.str_("a")]}, dtype=object), r"holding <class 'numpy\.str_'>"),
        (
            pd.DataFrame({"p": pd.period_range("2020", periods=2)}),
            r"column 'p' has dtype period\[D\]",
        ),
        (pd.DataFrame({"a": [1]}, index=[{1}.__class__]), r"a label of the index is a type"),
        (
            pd.DataFrame({"a": [1]}, index=pd.period_range("2020", periods=1)),
            r"period\[D\]|PeriodIndex",
        ),
        (pd.Series([[1]], name="s"), r"Series 's' has dtype object holding <class 'list'>"),
        (with_attrs({"a": {"b": [object()]}}), r"df\.attrs\['a'\]\['b'\]\[0\] is a object"),
        (
            pd.DataFrame({"x": pd.DatetimeIndex(["2020"]).tz_localize(OwnZone())}),
            r"OwnZone.*no IANA name.*df\['x'\]\.dt\.tz_convert",
        ),
        (
            pd.DataFrame({"x": pd.array([[1]], dtype=pd.ArrowDtype(pa.list_(pa.int64())))}),
            r"column 'x' has dtype list<.*that has no layout",
        ),
        (
            pd.date_range(
                "2020", periods=2, freq=pd.offsets.CustomBusinessDay(holidays=["2020-01-03"])
            ),
            r"freq .*set obj\.freq = None",
        ),
        (
            pd.DataFrame({"x": pd.Categorical([dt.time(1)])}),
            r"the categories of column 'x' is a time",
        ),
    ],
)
def test_what_cannot_travel_is_named_with_its_column_dtype_and_remedy(obj, text):
    with pytest.raises(TypeError, match=text):
        describe(obj)


def test_pytz_zones_stay_pytz_zones():
    pytz = pytest.importorskip("pytz", reason="pandas 3 does not bring it")
    for zone in (pytz.timezone("Europe/Paris"), pytz.FixedOffset(90), pytz.utc):
        index = pd.date_range("2020", periods=N, tz=zone)
        back, _, _ = travel(index)
        assert_same_index(back, index)


def test_missing_pyarrow_is_an_import_error_that_names_the_extra(monkeypatch):
    schema, buffers = describe(pd.DataFrame({"a": arrow(pa.int64())}))
    raws = fill(buffers)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ImportError, match=r'pip install "numpush\[arrow\]"'):
        rebuild(schema, raws)


def test_arrays_need_neither_pandas_nor_pyarrow():
    code = (
        "import sys, numpy as np; from numpush.layout import describe, rebuild, pack, unpack\n"
        "s, b = describe(np.arange(5)); rebuild(unpack(pack(s)), [np.zeros(40, 'u1')])\n"
        "print([m for m in ('pandas', 'pyarrow') if m in sys.modules])"
    )
    root = Path(numpush.layout.__file__).parents[2]
    run = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=root,
        check=True,
    )
    assert run.stdout.strip() == "[]"


def test_private_names_of_pandas_stand_in_one_module():
    private = ("._mgr", "._ndarray", "._data", "._mask", "._pa_array", "_simple_new", "_from_mgr")
    root = Path(numpush.layout.__file__).parents[1]
    for path in root.rglob("*.py"):
        if path.name != "_pandas.py" and "layout" in path.parts:
            assert not [name for name in private if name in path.read_text()], path


# Properties


@given(
    st.data(),
    hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=6),
    st.randoms(use_true_random=False),
)
def test_any_array_comes_back_equal(data, shape, order):
    scalars = hnp.scalar_dtypes() | hnp.byte_string_dtypes() | hnp.unicode_string_dtypes()
    dtype = data.draw(scalars | hnp.nested_dtypes(scalars, max_leaves=4))
    array = np.zeros(shape, dtype)
    array = np.frombuffer(order.randbytes(array.nbytes), np.uint8).copy() if array.nbytes else array
    if array.dtype != dtype:
        if dtype.subdtype is not None or np.dtype(dtype).kind in "bU":
            array = np.zeros(shape, dtype)
        else:
            array = array.view(dtype).reshape(shape)
    axes = list(range(array.ndim))
    order.shuffle(axes)
    array = array.transpose(axes)
    cuts = tuple(slice(None, None, order.choice([1, 1, 2, -1])) for _ in range(array.ndim))
    array = array[(*cuts, ...)]
    back, _, _ = travel(array)
    assert back.dtype == array.dtype
    assert back.shape == array.shape
    assert back.tobytes() == array.tobytes()


LABELS = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary(),
    lambda inner: st.lists(inner, max_size=3).map(tuple),
    max_leaves=4,
)


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None, max_examples=40)
@given(
    hpd.data_frames(
        [
            hpd.column("i", dtype=np.int16),
            hpd.column("f", dtype=np.float64),
            hpd.column("t", dtype="M8[ns]"),
            hpd.column("o", dtype=object, elements=st.text() | st.none()),
        ],
        index=hpd.range_indexes(max_size=20)
        | hpd.indexes(dtype=np.float32, unique=False, max_size=20),
    ),
    st.lists(LABELS, min_size=4, max_size=4),
    st.dictionaries(LABELS, st.lists(LABELS, max_size=2), max_size=3),
)
def test_any_frame_comes_back_equal(frame, labels, attrs):
    frame.columns = pd.Index(labels, dtype=object, tupleize_cols=False)
    frame.attrs = attrs
    back, _, _ = travel(frame)
    pd.testing.assert_frame_equal(back, frame, check_exact=True, check_column_type=False)
    assert list(map(repr, back.columns)) == list(map(repr, frame.columns))
    assert back.attrs == frame.attrs


# Damage


def sample_objects():
    """Give small objects that use every kind of node."""
    n = 37
    frame = pd.DataFrame(
        {
            "i": np.arange(n),
            "f": np.arange(n) / 3,
            "t": pd.date_range("2020", periods=n),
            "j": np.arange(n),
            "z": pd.date_range("2020", periods=n, tz="Europe/Paris"),
            "c": pd.Categorical(STRINGS[:n], ordered=True),
            "m": pd.array(np.arange(n), dtype="Int32"),
            "s": pd.array(STRINGS[:n], dtype="string[pyarrow]"),
            "p": pd.array(STRINGS[:n], dtype="string[python]"),
            "o": pd.Series(with_gaps(STRINGS, None)[:n], dtype=object),
            "b": arrow(pa.bool_(), [True, None] * 18 + [False]),
            "d": pd.arrays.ArrowExtensionArray(pa.array(STRINGS[:n]).dictionary_encode()),
        },
    )
    frame.index = INDEXES["multi"]()[:n]
    frame.attrs = {"a": (1, pd.Timestamp("2020"), {"x": [None]})}
    return [
        np.zeros((3, 4, 5), [("a", "i4"), ("b", "f8", (2,)), ("c", [("x", "M8[s]")])]).transpose(
            1, 2, 0
        ),
        frame,
        frame.reset_index(drop=True).set_flags(allows_duplicate_labels=False),
        frame.set_index("z")["s"],
        pd.DataFrame(np.ones((4, 70)), columns=INDEXES["mixed"]()[:70]),
        INDEXES["datetime with offset"]()[:9],
        pd.DataFrame(index=pd.RangeIndex(3), columns=pd.RangeIndex(0)),
    ]


SAMPLES = [(schema, fill(buffers)) for schema, buffers in map(describe, sample_objects())]
WILD = [
    *(None, True, False, 0, 1, -1, 2, 3, 7, 36, 38, 2**31, 2**62, 2**63 - 1, -(2**63), 1.5),
    *(
        float("nan"),
        float("inf"),
        "",
        "C",
        "F",
        "<i8",
        "|O",
        "O",
        "<f16",
        "object",
        "M8[D]",
        "nope",
    ),
    *(
        "i4,i4",
        "|V2147483647",
        "<U536870911",
        "frame",
        "multi",
        "range",
        "text",
        "utc",
        "zoneinfo:..",
    ),
    *("zoneinfo:Europe", "fixed:99999999999999", "D", "999999999999999999999D", "NA", "python"),
    *(b"", b"\x00" * 8, b"\xff" * 296, [], [0], [-1], [0, 0], [2**62, 2**62], [[]], ["t"], ["np"]),
    *({}, {"kind": "range", "start": 0, "stop": 2**62, "step": 1}, {"kind": "text", "items": []}),
    ["ts", 2**62, "s", "utc", 0],
    ["np", "<M8[Y]", b"\x01" * 8],
    ["int", 2**62],
    ["d", [[["l"], 1]]],
]


def spots(node, found):
    """List every place in a schema as (container, key)."""
    items = node.items() if isinstance(node, dict) else enumerate(node)
    for key, value in list(items):
        found.append((node, key))
        if isinstance(value, dict | list):
            spots(value, found)
    return found


def attempt(schema, raws, *, validate=True):
    """Rebuild, and look at every value; SchemaError or an object, nothing else."""
    try:
        back = rebuild(schema, raws, validate=validate)
    except SchemaError:
        return False
    # Looking must not crash; that pandas will not print the year 38554 is its affair.
    if validate and getattr(back, "size", 1) < 10_000:
        with contextlib.suppress(Exception):
            repr(back)
        if isinstance(back, pd.DataFrame) and len(back) < 1000:
            for position in range(back.shape[1]):
                with contextlib.suppress(Exception):
                    back.iloc[:, position].astype(str)
    return True


@pytest.mark.parametrize("number", range(len(SAMPLES)))
@pytest.mark.filterwarnings("ignore")  # what pandas says about odd but legal frames
def test_schemas_with_any_value_replaced_are_refused_or_rebuilt(number):
    schema, raws = SAMPLES[number]
    packed = pack(schema)
    n_spots = len(spots(unpack(packed), []))
    chance = random.Random(number)
    rebuilt = 0
    for spot in range(n_spots):
        for wild in chance.sample(WILD, 2):
            damaged = unpack(packed)
            node, key = spots(damaged, [])[spot]
            node[key] = wild
            rebuilt += attempt(damaged, raws)
            attempt(damaged, raws, validate=False)
        damaged = unpack(packed)
        node, key = spots(damaged, [])[spot]
        del node[key]
        attempt(damaged, raws)
        damaged = unpack(packed)
        every = spots(damaged, [])
        node, key = every[spot]
        other, other_key = chance.choice(every)
        node[key] = unpack(msgpack.packb({"x": other[other_key]}, unicode_errors="surrogatepass"))[
            "x"
        ]
        attempt(damaged, raws)
    assert rebuilt < n_spots * 2


@settings(deadline=None, max_examples=100)
@given(st.integers(0, len(SAMPLES) - 1), st.randoms(use_true_random=False))
@pytest.mark.filterwarnings("ignore")
def test_packed_schemas_with_damaged_bytes_are_refused_or_rebuilt(number, chance):
    schema, raws = SAMPLES[number]
    packed = bytearray(pack(schema))
    for _ in range(chance.choice([1, 1, 2, 5])):
        packed[chance.randrange(len(packed))] = chance.randrange(256)
    if chance.random() < 0.2:
        del packed[chance.randrange(len(packed)) :]
    try:
        damaged = unpack(packed)
    except SchemaError:
        return
    attempt(damaged, raws)


@settings(deadline=None, max_examples=80)
@given(st.integers(0, len(SAMPLES) - 1), st.randoms(use_true_random=False))
@pytest.mark.filterwarnings("ignore")
def test_damaged_buffers_are_refused_or_rebuilt_when_validated(number, chance):
    schema, raws = SAMPLES[number]
    damaged = [raw.copy() for raw in raws]
    for raw in damaged:
        if raw.size and chance.random() < 0.3:
            raw[chance.randrange(raw.size)] = chance.randrange(256)
    attempt(schema, damaged)


@given(st.binary(max_size=200))
def test_any_bytes_unpack_to_a_dict_or_a_schema_error(data):
    try:
        schema = unpack(data)
    except SchemaError:
        return
    attempt(schema, [])


def damaged(obj, change):
    schema, raws = describe(obj)[0], fill(describe(obj)[1])
    schema = unpack(pack(schema))
    raws = change(schema, raws) or raws
    return schema, raws


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda s, r: s.update(v=VERSION + 1), rf"version: {VERSION} wanted, {VERSION + 1} found"),
        (lambda s, r: s.update(kind="pickle"), "a known kind wanted, 'pickle' found"),
        (lambda s, r: s.update(kind=["ndarray"]), "a known kind wanted"),
        (lambda s, r: s.update(dtype="|O"), r"a NumPy dtype code wanted, '\|O' found"),
        (lambda s, r: s.update(dtype="f8,f8"), "a NumPy dtype code wanted"),
        (lambda s, r: s.update(dtype="<f16:64"), "longdouble of 63 mantissa bits|of 112"),
        (lambda s, r: s.update(shape=[-1, 5]), r"sizes in \[0, 2\*\*63\) wanted, -1 found"),
        (lambda s, r: s.update(shape=[True, 5]), "True found"),
        (lambda s, r: s.update(shape=[2**62, 2**62]), r"wants \d+ bytes, 120 found"),
        (lambda s, r: s.update(shape=[3, 6]), "wants 144 bytes, 120 found"),
        (lambda s, r: s.update(data=1), "a buffer index below 1 wanted, 1 found"),
        (lambda s, r: s.update(order=[0, 0]), "the axes wanted"),
        (lambda s, r: [*r, r[0]], "1 buffers wanted, 2 found"),
        (lambda s, r: [], "a buffer index below 0 wanted, 0 found"),
    ],
)
def test_the_error_says_what_was_wanted_and_what_was_found(change, text):
    schema, raws = describe(np.ones((3, 5)))[0], [allocate(120)]
    changed = change(schema, raws)
    with pytest.raises(SchemaError, match=text):
        rebuild(schema, changed if isinstance(changed, list) else raws)


def test_a_buffer_used_twice_is_refused():
    schema, buffers = describe(pd.DataFrame({"a": [1], "b": [1.0]}))
    schema["blocks"][1]["data"] = 0
    with pytest.raises(SchemaError, match="buffer 0 is used twice"):
        rebuild(schema, fill(buffers))


def test_columns_with_two_places_or_none_are_refused():
    schema, buffers = describe(pd.DataFrame({"a": [1], "b": [1.0]}))
    schema["blocks"][1]["at"] = [0, 1]
    with pytest.raises(SchemaError, match="each of 2 columns in one place wanted"):
        rebuild(schema, fill(buffers))


def test_codes_out_of_range_are_refused_when_validated():
    for obj in (pd.Categorical(["a", "b"]), pd.MultiIndex.from_arrays([["a", "b"]])):
        schema, buffers = describe(obj)
        raws = fill(buffers)
        raws[0][:1] = 100
        with pytest.raises(SchemaError, match=r"codes in|code max"):
            rebuild(schema, raws, validate=True)


def test_claims_without_bytes_behind_them_do_not_allocate():
    schema, _ = describe(pd.DataFrame({"a": np.zeros(0)}))
    schema["cols"] = 2**40
    schema["blocks"][0]["count"] = 2**40
    schema["columns"] = {"kind": "range", "start": 0, "stop": 2**40, "step": 1}
    with pytest.raises(SchemaError, match="at most"):
        rebuild(schema, [allocate(0)])


def test_deep_schemas_are_refused():
    node = {"kind": "index", "values": {}}
    for _ in range(100):
        node = {"kind": "index", "values": {"kind": "categorical", "categories": node}}
    with pytest.raises(SchemaError):
        rebuild({**node, "v": VERSION}, [])
    code: object = "<i4"
    for _ in range(100):
        code = {"fields": [["a", 0, code]], "size": 4}
    with pytest.raises(SchemaError, match="nested"):
        rebuild(
            {"v": VERSION, "kind": "ndarray", "dtype": code, "shape": [], "order": "C", "data": 0},
            [],
        )
    with pytest.raises(SchemaError):
        unpack(b"\x91" * 5000)


def test_buffers_must_be_bytes():
    schema, _ = describe(np.ones(3))
    for raw in (np.ones(3), np.zeros((24, 1), "u1"), np.zeros(48, "u1")[::2], b"x" * 24):
        with pytest.raises(TypeError, match="buffer 0: a contiguous 1-D uint8 array wanted"):
            rebuild(schema, [raw])
    with pytest.raises(ValueError, match=r"a \(24,\) uint8 array wanted"):
        describe(np.ones(3))[1][0].copies(np.zeros(23, "u1"))
