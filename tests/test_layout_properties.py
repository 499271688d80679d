"""Any array, frame and index of any families comes back equal, through packed schemas."""

from __future__ import annotations

import contextlib
import functools

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from hypothesis.extra import pandas as hpd

from layout_families import FAMILY_COLUMNS, assert_same_array, assert_same_family, objects, tell
from layout_samples import COLUMNS, pa, travel


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


# Families


NAIVE = st.datetimes()
CELLS = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.binary()
    | st.decimals()
    | st.dates()
    | st.times()
    | NAIVE
    | st.timedeltas()
    | st.uuids()
    | st.sampled_from([pd.NA, pd.NaT, np.int8(3), np.float32(1.5), np.datetime64("2020"), 1j]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.text(max_size=3), inner, max_size=3)
        | st.sets(st.integers() | st.text(max_size=3), max_size=3)
    ),
    max_leaves=6,
)


@settings(deadline=None)
@given(st.lists(CELLS, max_size=12))
def test_any_objects_come_back_equal_and_of_their_types(cells):
    series = pd.Series(objects(cells.__getitem__, len(cells)), dtype=object)
    back, schema, _ = travel(series)
    assert schema["values"]["kind"] in ("text", "values")
    assert_same_family(back, series)


@functools.cache
def base(column):
    return {**COLUMNS, **FAMILY_COLUMNS}[column]()


def can_take(column):
    """Whether pandas and pyarrow can take rows of a column: not of views, or intervals of Arrow."""
    values = {**COLUMNS, **FAMILY_COLUMNS}[column]()
    try:
        values.take([0, 2, 1])
    except (pa.ArrowNotImplementedError, pa.ArrowInvalid, TypeError):
        return False
    return True


TAKEN = [column for column in (*COLUMNS, *FAMILY_COLUMNS) if can_take(column)]
ROWS = st.lists(st.integers(0, 300), max_size=9)


def draw_values(data, rows):
    return base(data.draw(st.sampled_from(TAKEN))).take(np.array(rows, np.intp))


@settings(deadline=None, max_examples=300)
@given(st.data(), ROWS, st.booleans())
def test_any_columns_of_any_families_come_back_equal(data, rows, validate):
    columns = [draw_values(data, rows) for _ in range(data.draw(st.integers(0, 4)))]
    frame = pd.DataFrame(
        {i: pd.Series(values, dtype=values.dtype) for i, values in enumerate(columns)},
        index=pd.RangeIndex(len(rows)),
    )
    start, step = data.draw(st.integers(0, 4)), data.draw(st.sampled_from([1, 1, 2, -1]))
    with contextlib.suppress(pa.ArrowNotImplementedError):
        frame = frame.iloc[start::step]
    back, _, _ = travel(frame, validate=validate)
    assert_same_family(back, frame)


HASHABLE = [
    column
    for column in TAKEN
    if not column.startswith(("arrow", "object lists", "object dicts", "object decimals"))
    and column
    not in ("f2", "g", "object sets", "object of surrogates", "object of all the missing")
]


# pandas, which makes a frame of tuples and text to sort them
@pytest.mark.filterwarnings("ignore:Constructing a DataFrame from a list of sequences")
@settings(deadline=None, max_examples=200)
@given(st.data(), ROWS, st.integers(1, 3))
def test_any_indexes_of_any_families_come_back_equal_on_both_axes(data, rows, n_levels):
    levels = []
    for at in range(n_levels):
        values = base(data.draw(st.sampled_from(HASHABLE))).take(np.array(rows, np.intp))
        levels.append(pd.Index(values, name=at, dtype=values.dtype, tupleize_cols=False))
    try:
        index = levels[0] if n_levels == 1 else pd.MultiIndex.from_arrays(levels)
    except (TypeError, ValueError, NotImplementedError):  # what pandas cannot sort or hash
        return
    frame = pd.DataFrame({"x": np.arange(len(rows))}, index=index)
    for obj in (frame, frame.T):
        back, _, _ = travel(obj)
        for mine, yours in zip(back.axes, obj.axes, strict=True):
            assert type(mine) is type(yours)
            assert mine.names == yours.names
            assert repr(mine.dtype) == repr(yours.dtype)
            assert list(map(tell, mine)) == list(map(tell, yours))
            if isinstance(yours, pd.MultiIndex):
                assert list(map(repr, mine.dtypes)) == list(map(repr, yours.dtypes))


@settings(deadline=None)
@given(
    st.sampled_from(["M", "Q", "Q-FEB", "Y", "Y-MAR", "W-WED", "D", "h", "min", "s", "ms", "us"]),
    st.integers(1, 500),
    st.lists(st.integers(-10_000, 10_000), max_size=9),
)
def test_any_periods_come_back_equal(freq, n, ordinals):
    array = pd.arrays.PeriodArray(np.array(ordinals, "i8"), dtype=pd.PeriodDtype(f"{n}{freq}"))
    for obj in (pd.Series(array), pd.Series(1, index=pd.PeriodIndex(array))):
        back, _, _ = travel(obj)
        assert_same_family(back, obj)
        pd.testing.assert_series_equal(back, obj, check_freq=True)


@settings(deadline=None)
@given(
    st.lists(st.sampled_from([0, 0, 0, 1, 2, -1]), max_size=40),
    st.sampled_from(["integer", "block"]),
    st.sampled_from(["i8", "f4", "u1"]),
    st.sampled_from([0, 1]),
)
def test_any_sparse_array_comes_back_equal(values, kind, dtype, fill):
    array = pd.arrays.SparseArray(np.array(values).astype(dtype), fill_value=fill, kind=kind)
    back, _, _ = travel(array)
    assert_same_array(back, array)
    assert (back.to_dense() == array.to_dense()).all()


LEAVES = {
    "bool": (pa.bool_(), st.booleans()),
    "int16": (pa.int16(), st.integers(-(2**15), 2**15 - 1)),
    "float64": (pa.float64(), st.floats(allow_nan=False)),
    "string": (pa.string(), st.text(max_size=4)),
    "large_binary": (pa.large_binary(), st.binary(max_size=4)),
    "fixed": (pa.binary(2), st.binary(min_size=2, max_size=2)),
    "decimal": (
        pa.decimal128(6, 2),
        st.decimals(-1000, 1000, places=2, allow_nan=False),
    ),
    "null": (pa.null(), st.none()),
    "date": (pa.date32(), st.dates()),
}


def extend(inner):
    """Give strategies of (type, strategy of values) that hold others."""

    def make_list(part, make):
        return make(part[0]), st.none() | st.lists(part[1], max_size=3)

    def make_fixed(part, size):
        values = st.lists(part[1], min_size=size, max_size=size)
        return pa.list_(part[0], size), st.none() | values

    def make_struct(parts):
        fields = [pa.field(f"f{i}", kind) for i, (kind, _) in enumerate(parts)]
        values = st.fixed_dictionaries({f"f{i}": part[1] for i, part in enumerate(parts)})
        return pa.struct(fields), st.none() | values

    def make_map(part):
        pairs = st.lists(st.tuples(st.text(max_size=2), part[1]), max_size=3)
        return pa.map_(pa.string(), part[0]), st.none() | pairs

    return (
        st.builds(make_list, inner, st.sampled_from([pa.list_, pa.large_list]))
        | st.builds(make_fixed, inner, st.integers(0, 2))
        | st.builds(make_struct, st.lists(inner, max_size=3))
        | st.builds(make_map, inner)
    )


ARROW = st.recursive(
    st.sampled_from(sorted(LEAVES)).map(
        lambda name: (LEAVES[name][0], st.none() | LEAVES[name][1])
    ),
    extend,
    max_leaves=4,
)


@settings(deadline=None, max_examples=300, suppress_health_check=[HealthCheck.too_slow])
@given(st.data(), ARROW, st.booleans())
def test_any_nested_arrow_array_comes_back_equal(data, part, validate):
    kind, values = part
    rows = data.draw(st.lists(values, max_size=8))
    array = pa.array(rows, kind)
    cuts = st.integers(0, len(rows))
    chunks = [
        array[data.draw(cuts) :][: data.draw(cuts)] for _ in range(data.draw(st.integers(0, 3)))
    ]
    whole = pd.arrays.ArrowExtensionArray(pa.chunked_array(chunks, kind))
    back, _, _ = travel(whole, validate=validate)
    assert_same_array(back, whole)
