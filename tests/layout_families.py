"""Columns of the families that few frames have: period, interval, sparse, nested Arrow, objects.

pandas' own comparisons let differences pass, or fail on what is equal (lists in cells), so these
are compared by `assert_same_family`.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import decimal
import enum
import uuid

import numpy as np
import pandas as pd

from layout_samples import PANDAS_3, assert_same_index, pa, words

M = 333
FREQS = words("M Q-NOV 3M W-TUE 25h ns D 2Y-MAR min")


def ints(low=0):
    return np.arange(low, low + M)


def intervals(left, right, closed="right"):
    return pd.arrays.IntervalArray.from_arrays(left, right, closed)


def interval_gaps(values):
    values = values.astype("f8")
    values[::7] = np.nan
    return values


def sparse(values, kind="integer", fill=0, dtype=None):
    return pd.arrays.SparseArray(values, kind=kind, fill_value=fill, dtype=dtype)


def tiled(kind, values):
    """Make an Arrow array of M rows that repeats a few values."""
    every = [values[i % len(values)] for i in range(M)]
    if isinstance(kind, pa.BaseExtensionType):
        stored = pa.array(every, kind.storage_type)
        return pa.ExtensionArray.from_storage(kind, stored)
    if pa.types.is_run_end_encoded(kind):
        ends = np.minimum(np.arange(2, M + 2, 2), M)
        runs = pa.array(every[: len(ends)], kind.value_type)
        return pa.RunEndEncodedArray.from_arrays(pa.array(ends, kind.run_end_type), runs)
    if pa.types.is_dictionary(kind):  # pyarrow makes them of strings and numbers only
        labels = list(dict.fromkeys(value for value in values if value is not None))
        codes = [None if value is None else labels.index(value) for value in every]
        return pa.DictionaryArray.from_arrays(
            pa.array(codes, kind.index_type),
            pa.array(labels, kind.value_type),
            ordered=kind.ordered,
        )
    return pa.array(every, kind)


D = decimal.Decimal
LONG = "a string of more than twelve bytes"
ARROW_TYPES = {
    "list": (pa.list_(pa.int64()), [[1, 2], None, [], [3, None, 5]]),
    "list, not null": (
        pa.list_(pa.field("x", pa.int64(), False, {"a": "b"})),
        [[1, 2], None, [], [3, 5]],
    ),
    "large list": (pa.large_list(pa.string()), [["a", "bc"], None, [], ["é", None]]),
    "fixed list": (pa.list_(pa.float64(), 2), [[1, 2], None, [3, None]]),
    "fixed list of nothing": (pa.list_(pa.float64(), 0), [[], None]),
    "list of bools": (pa.list_(pa.bool_()), [[True, None, False], None, [], [True]]),
    "list of null": (pa.list_(pa.null()), [[None], None, [None, None], []]),
    "struct": (
        pa.struct([pa.field("a", pa.int8()), pa.field("b", pa.list_(pa.string()))]),
        [{"a": 1, "b": ["x"]}, None, {"a": None, "b": None}, {"a": 3, "b": []}],
    ),
    "struct of nothing": (pa.struct([]), [{}, None]),
    "map": (pa.map_(pa.string(), pa.int64()), [[("a", 1)], None, [], [("b", 2), ("c", None)]]),
    "map, sorted": (
        pa.map_(pa.string(), pa.list_(pa.int8()), True),
        [[("a", [1])], None, [("b", [2, 3]), ("c", None)]],
    ),
    "dictionary, ordered": (pa.dictionary(pa.int8(), pa.string(), True), ["a", None, "b", "a"]),
    "dictionary of decimals": (pa.dictionary(pa.int16(), pa.decimal128(5, 2)), [D("1.5"), None]),
    "list of dictionary": (pa.list_(pa.dictionary(pa.int8(), pa.string())), [["a"], None, ["b"]]),
    "deep": (
        pa.list_(pa.struct([("m", pa.map_(pa.int8(), pa.list_(pa.struct([("q", pa.bool_())]))))])),
        [[{"m": [(1, [{"q": True}, None])]}], None, [], [{"m": None}, None], [{"m": []}]],
    ),
    "null": (pa.null(), [None]),
    "interval of months, days, ns": (pa.month_day_nano_interval(), [(1, 2, 3), None]),
    "decimal128, negative scale": (pa.decimal128(10, -2), [D("100"), None, D("-200")]),
    "decimal256": (pa.decimal256(60, 2), [D("1.5"), None, D(10) ** 50]),
    "fixed binary": (pa.binary(3), [b"abc", None, b"\0\xffx"]),
    "fixed binary of nothing": (pa.binary(0), [b"", None]),
    "timestamp with zone": (pa.timestamp("ns", "Europe/Paris"), [1, None, 2**60]),
    "duration": (pa.duration("us"), [1, None, -3]),
    "date64": (pa.date64(), [0, None, 86_400_000]),
    "time32": (pa.time32("ms"), [0, None, 1]),
    "float16": (pa.float16(), [np.float16(1.5), None]),
    "runs": (pa.run_end_encoded(pa.int32(), pa.string()), ["a", None, "c"]),
}
#: What this pyarrow may not have yet.
for _name, _make in {
    "string view": lambda: (pa.string_view(), ["a", None, LONG, "é"]),
    "binary view": lambda: (pa.binary_view(), [b"a", None, LONG.encode(), b""]),
    "list view": lambda: (pa.list_view(pa.int64()), [[1, 2], None, [], [3, None]]),
    "large list view of views": lambda: (
        pa.large_list_view(pa.string_view()),
        [["a", "b"], None, [], ["c", None, LONG]],
    ),
    "decimal32": lambda: (pa.decimal32(5, 2), [D("1.5"), None]),
    "decimal64": lambda: (pa.decimal64(10, 2), [D("1.5"), None]),
    "uuid": lambda: (pa.uuid(), [b"a" * 16, None, bytes(range(16))]),
    "json": lambda: (pa.json_(), ["{}", None, "[1]"]),
    "bool8": lambda: (pa.bool8(), [1, None, 0]),
}.items():
    with contextlib.suppress(AttributeError):
        ARROW_TYPES[_name] = _make()
ARROW_COLUMNS = {
    f"arrow {name}": lambda kind=kind, values=values: pd.arrays.ArrowExtensionArray(
        pa.chunked_array([tiled(kind, values)])
    )
    for name, (kind, values) in ARROW_TYPES.items()
}

PERIOD_COLUMNS = {
    **{
        f"period {freq}": lambda freq=freq: pd.arrays.PeriodArray(
            np.where(ints() % 5 == 0, np.iinfo("i8").min, ints()), dtype=pd.PeriodDtype(freq)
        )
        for freq in FREQS
    },
}
INTERVAL_COLUMNS = {
    **{
        f"interval {closed}": lambda closed=closed: intervals(ints(), ints(2), closed)
        for closed in words("left right both neither")
    },
    "interval with gaps": lambda: intervals(interval_gaps(ints()), interval_gaps(ints(1))),
    "interval of unsigned": lambda: intervals(ints().astype("u8"), ints(1).astype("u8")),
    "interval of datetimes": lambda: intervals(
        pd.date_range("2020", periods=M), pd.date_range("2021", periods=M), "both"
    ),
    "interval of zoned": lambda: intervals(
        pd.date_range("2020", periods=M, tz="Europe/Paris"),
        pd.date_range("2021", periods=M, tz="Europe/Paris"),
    ),
    "interval of timedeltas": lambda: intervals(
        pd.timedelta_range("1s", periods=M), pd.timedelta_range("1D", periods=M)
    ),
}
if PANDAS_3:
    INTERVAL_COLUMNS |= {
        "interval of int32": lambda: intervals(ints().astype("i4"), ints(1).astype("i4")),
        "interval of float32": lambda: intervals(ints().astype("f4"), ints(1).astype("f4")),
        "interval of masked": lambda: intervals(
            pd.array(ints(), dtype="Int64"), pd.array(ints(1), dtype="Int64")
        ),
        "interval of arrow": lambda: intervals(
            pd.array(ints(), dtype="int64[pyarrow]"), pd.array(ints(1), dtype="int64[pyarrow]")
        ),
    }
SPARSE_COLUMNS = {
    "sparse": lambda: sparse(ints() % 3),
    "sparse of nan": lambda: sparse(interval_gaps(ints()), fill=np.nan),
    "sparse in blocks": lambda: sparse(ints() // 10 % 3, "block"),
    "sparse, full": lambda: sparse(ints() + 1, "block"),
    "sparse, nothing": lambda: sparse(np.zeros(M), fill=0.0),
    "sparse of bool": lambda: sparse(ints() % 4 == 0, fill=False),
    "sparse of 7": lambda: sparse(ints() % 8, fill=7, dtype="i1"),
    "sparse of complex": lambda: sparse((ints() % 3) * 1j, fill=0j),
    "sparse of datetimes": lambda: sparse(
        pd.date_range("2020", periods=M).where(ints() % 2 == 0).to_numpy(),
        fill=np.datetime64("NaT"),
    ),
    "sparse of objects": lambda: sparse(
        np.array([None if i % 3 else f"s{i}" for i in range(M)], object), fill=None
    ),
}
CELLS = {
    "ints": lambda i: i,
    "ints of any size": lambda i: 3**i,
    "floats": lambda i: i / 3 if i % 5 else np.nan,
    "bools": lambda i: i % 3 == 0,
    "bools and None": lambda i: i % 3 == 0 if i % 4 else None,
    "bytes": lambda i: bytes([i % 256]),
    "decimals": lambda i: D(i).scaleb(-i % 40) if i % 5 else D("sNaN" if i % 2 else "-Infinity"),
    "dates": lambda i: dt.date.fromordinal(700_000 + i),
    "times": lambda i: dt.time(i % 24, i % 60, i % 60, i, dt.UTC if i % 2 else None, fold=i % 2),
    "datetimes": lambda i: dt.datetime(2020, 1, 1, tzinfo=dt.UTC) + dt.timedelta(hours=i),
    "timedeltas": lambda i: dt.timedelta(i, i, i),
    "Timestamps": lambda i: pd.Timestamp(i, unit="ns", tz="Europe/Paris") if i % 5 else pd.NaT,
    "Timedeltas": lambda i: pd.Timedelta(i, unit="s"),
    "Periods": lambda i: pd.Period(ordinal=i, freq="Q-NOV"),
    "Intervals": lambda i: pd.Interval(pd.Timestamp(i), pd.Timestamp(i + 5), "both"),
    "UUIDs": lambda i: uuid.UUID(int=i),
    "NumPy scalars": lambda i: (np.int8(i % 100), np.float32(i), np.datetime64(i, "D"))[i % 3],
    "longdoubles": lambda i: np.longdouble(i) / 3,
    "tuples": lambda i: (i, (str(i), None), np.nan),
    "frozen sets": lambda i: frozenset((i, str(i))),
    "of all kinds": lambda i: (i, str(i), None, 1.5, True, pd.NA, pd.NaT, b"", (1,))[i % 9],
    "subnormals": lambda i: (5e-324, -0.0, float("inf"))[i % 3],
}
CONTAINERS = {
    "sets": lambda i: {i, str(i)},
    "lists": lambda i: list(range(i % 4)),
    "dicts": lambda i: {"a": i, i: [None, {"b": 1.5}], (1, 2): []},
}


def objects(cell, n=M):
    """Make an object array of a function of the row."""
    array = np.empty(n, object)
    for i in range(n):
        array[i] = cell(i)
    return array


class Color(enum.Enum):
    """Cells that are pickled by reference."""

    RED = 1
    BLUE = 2


PICKLED = {
    "ranges": lambda i: range(i),
    "enums": lambda i: Color.RED if i % 2 else Color.BLUE,
    "ndarrays": lambda i: np.arange(i % 5),
    "frames": lambda i: pd.DataFrame({"a": [i]}),
    "functions": lambda i: (len, print)[i % 2],
    "mixed": lambda i: (i, range(i), "x", None)[i % 4],
    "offsets": lambda i: pd.DateOffset(months=i),
}
OBJECT_FAMILIES = {
    f"object {name}": lambda cell=cell: objects(cell)
    for name, cell in {**CELLS, **CONTAINERS}.items()
}
PICKLED_COLUMNS = {
    f"pickled {name}": lambda cell=cell: objects(cell) for name, cell in PICKLED.items()
}
FAMILY_COLUMNS = {
    **PERIOD_COLUMNS,
    **INTERVAL_COLUMNS,
    **SPARSE_COLUMNS,
    **ARROW_COLUMNS,
    **OBJECT_FAMILIES,
}


def family(column, name=None):
    """Make a Series of M rows of a family, of exactly its dtype."""
    values = {**FAMILY_COLUMNS, **PICKLED_COLUMNS}[column]()
    return pd.Series(values, dtype=values.dtype, name=name, copy=False)


def tell(cell):
    """Say what a cell is; a set's order is chance, wherever it lies."""
    if isinstance(cell, set | frozenset):
        return f"{type(cell).__name__} {sorted(map(tell, cell))}"
    if type(cell) in (list, tuple):
        return f"{type(cell).__name__} {list(map(tell, cell))}"
    if type(cell) is dict:
        return f"dict {[(tell(key), tell(value)) for key, value in cell.items()]}"
    return repr(cell)


def assert_same_array(back, array):
    """Compare arrays of any family as strictly as each lets itself be compared."""
    assert type(back) is type(array)
    assert repr(back.dtype) == repr(array.dtype)
    assert len(back) == len(array)
    if isinstance(array, pd.arrays.ArrowExtensionArray):
        mine, yours = back.__arrow_array__(), array.__arrow_array__()
        assert mine.type.equals(yours.type, check_metadata=True)
        assert repr(mine.to_pylist()) == repr(yours.to_pylist())
        mine.validate(full=True)
    elif isinstance(array, pd.arrays.SparseArray):
        assert back.kind == array.kind
        assert back.sp_index.equals(array.sp_index)
        assert repr(back.fill_value) == repr(array.fill_value)
        assert repr(back.sp_values) == repr(array.sp_values)
        assert list(map(repr, back)) == list(map(repr, array))
    elif isinstance(array, np.ndarray):
        assert list(map(type, back)) == list(map(type, array))
        assert list(map(tell, back)) == list(map(tell, array))
    else:
        assert back.equals(array)
        assert list(map(repr, back)) == list(map(repr, array))


def assert_same_family(back, obj):
    """Compare frames or Series column by column, and what belongs to them."""
    assert type(back) is type(obj)
    for mine, yours in zip(back.axes, obj.axes, strict=True):
        assert_same_index(mine, yours)
    if isinstance(obj, pd.Series):
        assert back.name == obj.name
        pairs = [(back, obj)]
    else:
        pairs = [(back.iloc[:, at], obj.iloc[:, at]) for at in range(obj.shape[1])]
    for mine, yours in pairs:
        if yours.dtype == object:
            assert_same_array(mine.to_numpy(), yours.to_numpy())
        else:
            assert_same_array(mine.array, yours.array)
    assert back.attrs == obj.attrs
