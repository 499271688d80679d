"""Nothing damaged gets through: a schema with anything wrong is refused or rebuilt, never a crash."""

from __future__ import annotations

import contextlib
import random

import msgpack
import numpy as np
import pandas as pd
import pytest
from dateutil import tz
from hypothesis import given, settings
from hypothesis import strategies as st

from layout_families import FAMILY_COLUMNS
from layout_samples import INDEXES, STRINGS, allocate, arrow, fill, pa, with_gaps
from numpush.layout import VERSION, SchemaError, describe, pack, rebuild, unpack


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
            "l": pd.date_range("2020", periods=n, tz=tz.tzlocal()),
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


def sample_families():
    """Give a small object for every kind of node of the families beyond."""
    some = {name: make() for name, make in FAMILY_COLUMNS.items()}
    few = ["period M", "interval both", "interval of zoned", "sparse", "sparse in blocks"]
    few += ["sparse of objects", "object of all kinds", "object dicts"]
    few += [name for name in some if name.startswith("arrow")]
    columns = {name: pd.Series(some[name][:41], dtype=some[name].dtype) for name in few}
    first = pd.DataFrame({name: columns[name] for name in few[:8]})
    index = pd.MultiIndex.from_arrays([columns["period M"], columns["interval both"]])
    nested = [name for name in few[8:] if "view" not in name]
    return [
        first,
        first.iloc[:, 5:].set_axis(index),
        first.set_index("interval of zoned")[["sparse"]],
        pd.Series(range(41), index=pd.PeriodIndex(columns["period M"]), name=pd.Period("2020")),
        pd.DataFrame({name: columns[name] for name in nested[: len(nested) // 2]}),
        pd.DataFrame({name: columns[name] for name in nested[len(nested) // 2 :]}),
        pd.DataFrame({name: columns[name] for name in few if "view" in name}),
    ]


SAMPLES = [
    (schema, fill(buffers))
    for schema, buffers in map(describe, [*sample_objects(), *sample_families()])
]
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
    *("dateutil:..", "dateutil:Europe/Paris", "tzutc", "tzlocal:0:0", "tzoffset:0:x", "tzoffset:"),
    *("zoneinfo:Europe", "fixed:99999999999999", "D", "999999999999999999999D", "NA", "python"),
    *(b"", b"\x00" * 8, b"\xff" * 296, [], [0], [-1], [0, 0], [2**62, 2**62], [[]], ["t"], ["np"]),
    *({}, {"kind": "range", "start": 0, "stop": 2**62, "step": 1}, {"kind": "text", "items": []}),
    ["ts", 2**62, "s", "utc", 0],
    *(["list"], ["large_list"], ["list_view"], ["struct"], ["map", True], ["fixed_list", 2]),
    *(["run_ends", "int16"], ["extension", "arrow.uuid"], ["null"], ["string_view"], ["bool_"]),
    *(["decimal128", 5, 2], ["decimal32", -1, 2**70], ["fixed", 0], ["fixed", 2**27]),
    *("M", "0D", "999999999M", "-3D", "B", "both", "pickled", "values", "sparse", "interval"),
    ["period", 2**62, "ns"],
    ["interval", ["l"], 1, "both"],
    ["decimal", "1e999999999"],
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


@pytest.mark.parametrize(
    ("column", "change", "text"),
    [
        ([1], {"zone": "utc"}, "the zone of a datetime wanted"),
        ([1.5], {"freq": "M"}, "int64 ordinals wanted"),
        ([1], {"freq": "M", "zone": "utc"}, "one of"),
        ([1], {"freq": None}, "freq"),
        (pd.to_timedelta([1]), {"zone": "utc"}, "the zone of a datetime wanted"),
        (pd.date_range("2020", periods=1), {"zone": 3}, "the zone of a datetime wanted"),
        (pd.date_range("2020", periods=1), {"zone": None}, "the zone of a datetime wanted"),
        (pd.date_range("2020", periods=1, tz="UTC"), {"zone": "zoneinfo:../etc"}, "unknown here"),
        (pd.date_range("2020", periods=1, tz="UTC"), {"dtype": "<M8[D]"}, "in one of"),
        (pd.period_range("2020", periods=1, freq="M"), {"freq": "no such"}, "freq"),
        (pd.period_range("2020", periods=1, freq="M"), {"dtype": "<u8"}, "int64 ordinals wanted"),
    ],
)
def test_blocks_whose_kind_does_not_fit_their_dtype_are_refused(column, change, text):
    schema, buffers = describe(pd.DataFrame({"a": column}))
    schema["blocks"][0].update(change)
    with pytest.raises(SchemaError, match=text):
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
