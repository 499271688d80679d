"""Period, interval, sparse, nested Arrow and object columns: equal in, equal out."""

from __future__ import annotations

import contextlib
import pickle
import threading

import numpy as np
import pandas as pd
import pytest

from layout_families import (
    ARROW_COLUMNS,
    CELLS,
    FAMILY_COLUMNS,
    INTERVAL_COLUMNS,
    PERIOD_COLUMNS,
    PICKLED,
    PICKLED_COLUMNS,
    SPARSE_COLUMNS,
    M,
    assert_same_array,
    assert_same_family,
    family,
    objects,
    tell,
)
from layout_samples import assert_same_index, fill, is_over, naming, pa, travel
from numpush.layout import SchemaError, describe, pack, rebuild

OBJECTS = [name for name in FAMILY_COLUMNS if name.startswith("object")]


@pytest.mark.parametrize("column", FAMILY_COLUMNS)
def test_columns_of_every_family_come_back_equal(column):
    one = family(column, name=("x", 3))
    one.attrs["a"] = 1
    frame = pd.DataFrame({"a": family(column), "z": np.arange(M) / 7, "b": family(column)})
    cases = {
        "series": one,
        "frame": frame,
        "rows": frame.iloc[3:101],
        "row": frame.iloc[7:8],
        "no rows": frame.iloc[:0],
        "columns": frame.iloc[:, ::-1],
        "chunks": pd.concat([one.iloc[5:77], one.iloc[3:222], one.iloc[:0], one.iloc[-1:]]),
        "duplicate labels": frame.set_axis(["a", "a", "a"], axis=1),
    }
    with contextlib.suppress(pa.ArrowNotImplementedError):  # pyarrow takes from no views, runs
        cases["odd rows"] = frame.iloc[::-7]
    for name, case in cases.items():
        for validate in (True, False):
            with naming(name):
                back, _, _ = travel(case, validate=validate)
                assert_same_family(back, case)


def test_extension_arrays_of_every_family_come_back_by_themselves():
    for column in FAMILY_COLUMNS:
        with naming(column):
            array = FAMILY_COLUMNS[column]()
            if not isinstance(array, np.ndarray):
                back, _, _ = travel(array)
                assert_same_array(back, array)


@pytest.mark.parametrize("column", FAMILY_COLUMNS)
def test_indexes_of_every_family_come_back_equal_on_both_axes(column):
    values = FAMILY_COLUMNS[column]()
    if column in ("object lists", "object sets", "object dicts", "object decimals"):
        with pytest.raises(TypeError, match="a label of the object cannot be looked up"):
            describe(pd.Index(values, dtype=object))
        return
    index = pd.Index(values, dtype=values.dtype, name=("n", 1), tupleize_cols=False)
    back, _, _ = travel(index)
    assert type(back) is type(index)
    assert back.names == index.names
    assert_same_array(back.array if index.dtype != object else np.asarray(back), values)
    frame = pd.DataFrame({"a": np.arange(M)}, index=index)
    back, _, _ = travel(frame)
    assert list(map(tell, back.index)) == list(map(tell, index))
    few = frame.iloc[:5].T
    back, _, _ = travel(few)
    assert list(map(tell, back.columns)) == list(map(tell, few.columns))
    assert back.columns.dtype == few.columns.dtype


LEVELS = [*PERIOD_COLUMNS, *INTERVAL_COLUMNS, "object dates", "object tuples", "object decimals"]


def test_multi_indexes_of_such_levels_come_back_equal_on_both_axes():
    for column in LEVELS:
        with naming(column):
            values = pd.Index(FAMILY_COLUMNS[column](), tupleize_cols=False)
            if column == "object decimals":
                values = values[[i for i in range(M) if i % 5]]  # sNaN cannot be looked up
            values = values[:40]
            index = pd.MultiIndex.from_arrays([np.arange(40) % 3, values], names=["a", ("b", 2)])
            frame = pd.DataFrame({"x": np.arange(40)}, index=index)
            for obj in (frame, frame.T, frame.iloc[3:9], frame.iloc[:0]):
                back, _, _ = travel(obj)
                assert_same_family(back, obj)


def test_categoricals_of_such_categories_come_back_equal():
    for column in LEVELS:
        with naming(column):
            labels = pd.Index(FAMILY_COLUMNS[column](), tupleize_cols=False)[1:5].dropna()
            dtype = pd.CategoricalDtype(labels, ordered=True)
            array = pd.Categorical.from_codes([0, 1, -1, 1, 0], dtype=dtype)
            back, _, _ = travel(pd.Series(array))
            assert back.dtype.ordered
            assert_same_index(back.cat.categories, labels)
            assert back.cat.codes.tolist() == [0, 1, -1, 1, 0]
    cut = pd.cut(pd.Series(np.arange(M)), 7)
    back, _, _ = travel(cut)
    pd.testing.assert_series_equal(back, cut)


def test_arrays_whose_labels_only_pandas_has_may_be_names_and_attrs():
    frame = pd.DataFrame({"a": [1]}, index=pd.Index([1], name=pd.Period("2020-03")))
    frame.columns.name = pd.Interval(1, 2.5, "neither")
    frame.attrs = {CELLS["decimals"](3): [CELLS["UUIDs"](5), CELLS["times"](7)]}
    back, _, _ = travel(frame)
    assert_same_family(back, frame)
    assert repr((back.index.name, back.columns.name)) == repr(
        (frame.index.name, frame.columns.name)
    )


# Over the very bytes.


def leaves_of(array):
    """Give the memory of an array of a family."""
    if isinstance(array, pd.arrays.ArrowExtensionArray):
        return arrow_leaves(array.__arrow_array__().chunk(0))
    if isinstance(array, pd.arrays.SparseArray):
        places = array.sp_index
        if array.kind == "block":
            return [array.sp_values, places.blocs, places.blengths]
        return [array.sp_values, places.indices]
    if isinstance(array, pd.arrays.IntervalArray):
        return [leaf for side in (array._left, array._right) for leaf in leaves_of(side)]
    names = ("_ndarray", "_data", "_mask")
    return [getattr(array, name) for name in names if hasattr(array, name)] or [array]


def arrow_leaves(array):
    if isinstance(array, pa.DictionaryArray):
        return arrow_leaves(array.indices) + arrow_leaves(array.dictionary)
    return [np.frombuffer(b, "u1") for b in array.buffers() if b is not None and b.size]


def test_what_is_not_made_of_objects_or_views_lies_in_the_buffers():
    for column in (*PERIOD_COLUMNS, *INTERVAL_COLUMNS, *SPARSE_COLUMNS, *ARROW_COLUMNS):
        if "view" in column or "objects" in column:
            continue
        with naming(column):
            back, _, raws = travel(pd.DataFrame({"a": FAMILY_COLUMNS[column]()}), validate=False)
            for leaf in leaves_of(back["a"].array):
                assert not leaf.size or is_over(leaf, raws)


def test_periods_and_intervals_are_written_in_place():
    for column in (*PERIOD_COLUMNS, *INTERVAL_COLUMNS):
        if "arrow" in column:
            continue  # Arrow's buffers are never written to
        with naming(column):
            schema, buffers = describe(FAMILY_COLUMNS[column]())
            raws = fill(buffers)
            first, second = rebuild(schema, raws), rebuild(schema, raws)
            first[3] = first[11]
            assert second[3] == first[11]


def test_an_index_of_intervals_lies_in_the_buffers():
    index = pd.IntervalIndex(INTERVAL_COLUMNS["interval both"]())
    back, _, raws = travel(pd.DataFrame({"a": np.arange(M)}, index=index))
    for leaf in leaves_of(back.index.array):
        assert is_over(leaf, raws)


def test_slices_carry_only_their_part():
    kind = pa.list_(pa.struct([("a", pa.int64()), ("b", pa.list_(pa.string()))]))
    rows = [[{"a": i, "b": ["x" * 10] * 3}] * 2 for i in range(10_000)]
    array = pd.arrays.ArrowExtensionArray(pa.array(rows, kind))
    _, _, raws = travel(array[5000:5010])
    assert sum(raw.nbytes for raw in raws) < 2000


def test_nothing_is_copied_for_one_chunk():
    array = FAMILY_COLUMNS["arrow deep"]()
    _, buffers = describe(array)
    whole = leaves_of(array)
    sources = [
        pair[1] for buffer in buffers for pair in buffer.copies(np.empty(buffer.nbytes, "u1"))
    ]
    for source in sources:
        assert any(np.shares_memory(source, leaf) for leaf in whole)


def test_chunks_of_nothing_but_empty_values_come_back():
    for kind, value in ((pa.string(), ""), (pa.list_(pa.int8()), [])):
        chunks = [pa.array([value], kind), pa.array([value, None], kind), pa.array([value], kind)]
        array = pd.arrays.ArrowExtensionArray(pa.chunked_array(chunks))
        back, _, _ = travel(array)
        assert_same_array(back, array)


# Objects.


def kind_of(schema):
    (column,) = schema["arrays"]
    return column[1]["kind"]


def test_scalars_need_no_pickle_even_where_it_is_allowed():
    for column in OBJECTS:
        with naming(column):
            schema, _ = describe(pd.DataFrame({"a": family(column)}), allow_pickle=True)
            assert kind_of(schema) == "values"


@pytest.mark.parametrize("column", PICKLED_COLUMNS)
def test_other_objects_are_pickled_only_if_both_sides_allow_it(column):
    frame = pd.DataFrame({"a": np.arange(M), "x": family(column)})
    with pytest.raises(TypeError, match=r"column 'x' has dtype object holding <.*df\['x'\] = "):
        describe(frame)
    back, schema, raws = travel(frame, allow_pickle=True)
    assert kind_of(schema) == "pickled"
    assert_same_family(back, frame)
    for validate in (True, False):
        with pytest.raises(SchemaError, match="'pickled' objects are not read here"):
            rebuild(schema, raws, validate=validate)


def test_labels_that_have_no_code_are_pickled_only_if_both_sides_allow_it():
    labels = pd.Index(objects(PICKLED["functions"], 2), name="f")
    assert labels.dtype == object
    multi = pd.MultiIndex.from_arrays([labels, [1, 2]])
    categories = pd.Series(pd.Categorical.from_codes([0, 1, 1], labels))
    frame = pd.DataFrame({"a": [1, 2]}, index=labels)
    for obj in (frame, frame.T, pd.Series([1, 2], index=multi), categories):
        with pytest.raises(TypeError, match=r"a label of .* is a builtin_function"):
            describe(obj)
        back, schema, raws = travel(obj, allow_pickle=True)
        assert repr(back) == repr(obj)
        with pytest.raises(SchemaError, match="'pickled' objects are not read here"):
            rebuild(schema, raws)


def test_what_cannot_be_pickled_is_named():
    frame = pd.DataFrame({"a": [1], "x": [threading.Lock()]})
    with pytest.raises(TypeError, match=r"column 'x' .*cannot be pickled \(TypeError: .*lock"):
        describe(frame, allow_pickle=True)
    with pytest.raises(TypeError, match=r"the index .*cannot be pickled"):
        describe(pd.DataFrame({"a": [1]}, index=[lambda: 1]), allow_pickle=True)


def test_an_ndarray_of_objects_is_refused_whatever_is_allowed():
    with pytest.raises(TypeError, match="dtype object holding"):
        describe(np.array([range(1), 3], object), allow_pickle=True)


class Bomb:
    """An object that says when it is unpickled."""

    went_off = False

    def __reduce__(self):
        return _go_off, ()


def _go_off():
    Bomb.went_off = True
    raise RuntimeError("it went off")


def test_a_pickle_is_not_even_looked_at_unless_it_is_allowed():
    schema, buffers = describe(pd.Series([Bomb()]), allow_pickle=True)
    raws = fill(buffers)
    with pytest.raises(SchemaError, match="not read here"):
        rebuild(schema, raws)
    assert not Bomb.went_off
    with pytest.raises(SchemaError, match=r"this process can unpickle wanted, .*it went off"):
        rebuild(schema, raws, allow_pickle=True)
    assert Bomb.went_off


def test_damaged_pickles_are_schema_errors():
    schema, _ = describe(pd.Series([range(1)]), allow_pickle=True)
    for cells, text in (((), "a pickled list wanted"), ([1, 2], "2 cells in the buffer")):
        raw = np.frombuffer(pickle.dumps(cells), np.uint8).copy()
        with pytest.raises(SchemaError, match=text):
            rebuild(schema, [raw], allow_pickle=True)
    with pytest.raises(SchemaError, match="unpickle wanted"):
        rebuild(schema, [np.zeros(7, "u1")], allow_pickle=True)


def test_missing_markers_of_objects_are_the_very_ones():
    cells = [None, np.nan, pd.NA, pd.NaT, 1, (np.nan, 2)]
    back, _, _ = travel(pd.Series(cells, dtype=object))
    for mine, yours in zip(back.tolist()[:4], cells, strict=False):
        assert mine is yours
    assert back.tolist() == cells


# What is refused.


def test_arrow_types_without_a_layout_are_named_with_a_remedy():
    union = pa.UnionArray.from_sparse(
        pa.array([0, 1], pa.int8()), [pa.array([1, 2]), pa.array(["a", "b"])]
    )
    frame = pd.DataFrame({"u": pd.arrays.ArrowExtensionArray(union)})
    with pytest.raises(TypeError, match=r"column 'u' has dtype sparse_union.*df\['u'\] = df\["):
        describe(frame)


def test_types_that_nest_too_deep_are_refused_on_both_sides():
    kind, value = pa.int8(), 1
    for _ in range(30):
        kind, value = pa.list_(kind), [value]
    with pytest.raises(TypeError, match="nests deeper than 24"):
        describe(pd.arrays.ArrowExtensionArray(pa.array([value], kind)))
    schema, buffers = describe(pd.arrays.ArrowExtensionArray(pa.array([[1]], pa.list_(pa.int8()))))
    node = schema
    for _ in range(30):
        inner = {k: v for k, v in node.items() if k != "v"}
        node = {**inner, "fields": [["x", True, None, inner]], "v": 1}
    with pytest.raises(SchemaError):
        rebuild(node, fill(buffers), validate=True)


def damaged(obj, **changes):
    """Describe an object and change its node; lists of keys lead to nodes inside."""
    schema, buffers = describe(obj)
    schema.update(changes)
    return schema, fill(buffers)


@pytest.mark.parametrize(
    ("column", "changes", "text"),
    [
        ("period M", {"freq": "nonsense"}, "schema 'freq': 'nonsense' found"),
        ("period M", {"freq": "0D"}, "a positive multiple wanted"),
        ("period M", {"freq": "D" * 100}, "the name of a period's freq wanted"),
        ("period M", {"rows": 7}, "wants 56 bytes, 2664 found"),
        ("interval both", {"closed": "up"}, "one of .* wanted"),
        ("interval both", {"rows": 5}, "5 values wanted"),
        ("interval both", {"left": None}, "a dict wanted"),
        ("interval both", {"left": {"kind": "text", "items": ["a"]}}, "one of .*'text' found"),
        ("sparse", {"rows": 3}, "an int in"),
        ("sparse", {"rows": 2**31}, "an int in"),
        ("sparse", {"points": 5}, "5 values wanted|wanted"),
        ("sparse", {"fill": ["t", ["l"]]}, "hashable|fill"),
        ("sparse in blocks", {"blocks": 1}, "wants 4 bytes"),
        ("sparse in blocks", {"rows": 250}, "ascending blocks of"),
        ("arrow list", {"rows": 332}, "wants 1332 bytes"),
        ("arrow list", {"rows": 2**60}, "an int in"),
        ("arrow list", {"fields": []}, "1 wanted, 0 found"),
        ("arrow list", {"fields": [["x", True, None]]}, "name, nullable, metadata, node"),
        ("arrow list", {"type": ["large_list"]}, "wants 2672 bytes"),
        ("arrow list", {"type": ["unknown"]}, "a known Arrow type|unknown"),
        ("arrow fixed list", {"type": ["fixed_list", 3]}, "999 values wanted, 666 found"),
        ("arrow fixed list", {"type": ["fixed_list", -1]}, "size"),
        ("arrow struct", {"rows": 300}, "wants 38 bytes|300 values wanted"),
        ("arrow map", {"type": ["map", 1]}, "sorted"),
        ("arrow runs", {"rows": 300}, "300 as the last wanted"),
        ("arrow runs", {"type": ["run_ends", "float64"]}, "int"),
    ],
)
def test_damaged_nodes_say_what_was_wanted(column, changes, text):
    schema, raws = damaged(FAMILY_COLUMNS[column](), **changes)
    for validate in (True, False):
        with pytest.raises(SchemaError, match=text):
            rebuild(schema, raws, validate=validate)


def test_ends_of_offsets_are_checked_at_every_depth():
    schema, buffers = describe(FAMILY_COLUMNS["arrow large list"]())
    raws = fill(buffers)
    raws[schema["offsets"]].view("<i8")[-1] += 1
    with pytest.raises(SchemaError, match="at the ends wanted"):
        rebuild(schema, raws)
    raws = fill(buffers)
    inner = schema["fields"][0][3]
    raws[inner["offsets"]].view("<i4")[-1] += 1
    with pytest.raises(SchemaError, match="at the ends wanted"):
        rebuild(schema, raws)


def test_lefts_greater_than_rights_are_refused_when_validated():
    schema, buffers = describe(INTERVAL_COLUMNS["interval both"]())
    raws = fill(buffers)
    raws[0].view("i8")[5] = 1000
    with pytest.raises(SchemaError, match="left side of interval must be"):
        rebuild(schema, raws, validate=True)


def test_positions_of_sparse_values_are_checked():
    schema, buffers = describe(SPARSE_COLUMNS["sparse"]())
    raws = fill(buffers)
    raws[schema["positions"]].view("<i4")[-1] = 2**30
    with pytest.raises(SchemaError):
        rebuild(schema, raws, validate=True)
    schema, buffers = describe(SPARSE_COLUMNS["sparse in blocks"]())
    for value in (-5, 2**31 - 1, 0):
        raws = fill(buffers)
        raws[schema["starts"]].view("<i4")[1] = value
        with pytest.raises(SchemaError, match="ascending blocks"):
            rebuild(schema, raws)


def test_claims_of_rows_without_bytes_do_not_allocate():
    schema, _ = describe(pd.arrays.ArrowExtensionArray(pa.nulls(3)))
    schema["rows"] = 2**47
    assert len(rebuild(schema, [], validate=False)) == 2**47
    schema["rows"] = 2**62
    with pytest.raises(SchemaError):
        rebuild(schema, [])


def test_schemas_of_families_are_small():
    for column in (*PERIOD_COLUMNS, *INTERVAL_COLUMNS, *SPARSE_COLUMNS, *ARROW_COLUMNS):
        with naming(column):
            assert len(pack(describe(FAMILY_COLUMNS[column]())[0])) < 600
