"""Frames, Series and indexes of every dtype: equal in, equal out, over the very bytes."""

from __future__ import annotations

import datetime as dt
import weakref
import zoneinfo

import numpy as np
import pandas as pd
import pytest
from dateutil import tz

from layout_samples import (
    COLUMNS,
    EXTENSION_COLUMNS,
    INDEXES,
    NUMPY_COLUMNS,
    PANDAS_3,
    N,
    arrow,
    assert_same,
    assert_same_index,
    is_over,
    made_index,
    naming,
    pa,
    series,
    travel,
    words,
)
from numpush.layout import SchemaError, column_place, describe, pack


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


ZONED = {
    "zoned": (lambda i: pd.date_range("2020", periods=7, tz="Europe/Paris") + pd.Timedelta(i, "h")),
    "of another zone": (
        lambda i: pd.date_range("2020", periods=7, tz="UTC") + pd.Timedelta(i, "h")
    ),
    "in seconds": (lambda i: pd.date_range("2020", periods=7, tz="UTC").as_unit("s")),
    "months": (lambda i: pd.period_range("2020", periods=7, freq="M") + i),
    "days": (lambda i: pd.period_range("2020", periods=7, freq="D") + i),
}


def test_columns_of_one_zone_or_freq_are_one_block():
    frame = pd.DataFrame({f"{name} {i}": make(i) for i in range(3) for name, make in ZONED.items()})
    frame["numbers"] = np.arange(7.0)
    for each in (frame, frame.iloc[:, ::-1], frame.iloc[2:5], frame.iloc[:0], frame.iloc[::2]):
        back, schema, raws = travel(each)
        assert_same(back, each)
        assert schema["arrays"] == []
        assert sorted(b["count"] for b in schema["blocks"]) == [1, 3, 3, 3, 3, 3]
        blocks = back._mgr.blocks
        widths = [1, 3, 3, 3, 3, 3] if PANDAS_3 else [1, 1, 1, 1, 1, 1, 1, 3, 3, 3]  # of periods: 1
        assert sorted(block.values.shape[0] for block in blocks) == widths
        for block in blocks:
            data = getattr(block.values, "_ndarray", block.values)
            assert is_over(data, raws) or not data.size
        again, other, _ = travel(back)
        assert pack(other) == pack(schema)
        assert_same(again, each)
        assert column_place(schema, raws, each.columns.get_loc("zoned 1")) is None
        assert column_place(schema, raws, each.columns.get_loc("numbers")) is not None


def test_a_schema_does_not_grow_with_the_number_of_zoned_columns():
    sizes = []
    for n_columns in (20, 700):
        days = np.arange(3 * n_columns).astype("M8[D]").astype("M8[s]").reshape(3, n_columns)
        frame = pd.DataFrame(days).apply(lambda column: column.dt.tz_localize("Europe/Paris"))
        together = pd.DataFrame(pd.array(days[0], dtype="M8[s]").tz_localize("UTC")[None, :])
        for each in (frame, together):
            back, schema, _ = travel(each)
            assert_same(back, each)
            assert len(back._mgr.blocks) == len(schema["blocks"]) == 1
        sizes.append(len(pack(schema)))
    assert sizes[1] - sizes[0] < 16


def test_zones_of_two_libraries_are_two_blocks():
    zones = [zoneinfo.ZoneInfo("Europe/Paris"), tz.gettz("Europe/Paris")] * 2
    frame = pd.DataFrame({i: pd.date_range("2020", periods=3, tz=z) for i, z in enumerate(zones)})
    back, schema, _ = travel(frame)
    assert [block["count"] for block in schema["blocks"]] == [2, 2]
    assert [type(dtype.tz) for dtype in back.dtypes] == list(map(type, zones))


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
        {
            "a": [1, (2, {"b": None})],
            "s": {1, frozenset("x")},
            "n": np.float32(2),
            ("k", 1): pd.Timestamp("2020"),
            "f": 1.5,
        }
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
            pd.DataFrame({"x": [{}, range(1)]}),
            r"column 'x' has dtype object holding <class 'range'> \(in row 1\); convert it, e\.g\. "
            r"df\['x'\] = df\['x'\]\.astype\('str'\) / 'category' / an ArrowDtype, or drop it",
        ),
        (
            pd.DataFrame({("x", 1): [1, print]}),
            r"column \('x', 1\) has dtype object holding .*func",
        ),
        (pd.DataFrame({"x": [np.str_("a\0")]}, dtype=object), r"holding <class 'numpy\.str_'>"),
        (pd.DataFrame({"a": [1]}, index=[{1}.__class__]), r"a label of the index is a type"),
        (
            pd.DataFrame({"a": [1]}, index=pd.Index([[1]])),
            r"a label of the index cannot be looked up: unhashable type: 'list'",
        ),
        (pd.Series([[range(1)]], name="s"), r"Series 's' has dtype object holding <class 'list'>"),
        (with_attrs({"a": {"b": [object()]}}), r"df\.attrs\['a'\]\['b'\]\[0\] is a object"),
        (
            pd.DataFrame({"x": pd.DatetimeIndex(["2020"]).tz_localize(OwnZone())}),
            r"OwnZone.*no IANA name.*df\['x'\]\.dt\.tz_convert",
        ),
        (
            pd.date_range(
                "2020", periods=2, freq=pd.offsets.CustomBusinessDay(holidays=["2020-01-03"])
            ),
            r"freq .*set obj\.freq = None",
        ),
        (
            pd.DataFrame({"x": pd.Categorical([OwnZone()])}),
            r"a label of the categories of column 'x' is a OwnZone",
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
