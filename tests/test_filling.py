"""Empty frames, and frames from Arrow data: equal to what pandas makes, whatever types and pieces."""

from __future__ import annotations

import datetime as dt
import decimal
import os

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import processes
from arrow_tables import BACKENDS, check, for_backend, holes, make_arrays, pieces
from layout_samples import PANDAS_3
from numpush import SArray, SegmentExists, filling
from numpush.filling.plan import types_mapper
from numpush.shm import naming

N = 3333


@pytest.fixture(scope="module")
def table():
    return pa.table(make_arrays(N))


class TestEmpty:
    DTYPES = {
        "bool": "bool", "i1": "i1", "u8": "u8", "f2": "f2", "f8": "f8", "c16": "c16",
        "time": "M8[us]", "delta": "m8[ns]", "zone": "datetime64[s, Europe/Paris]",
        "Int8": "Int8", "Float64": "Float64", "boolean": "boolean",
    }  # fmt: skip

    def test_values_are_zero_and_columns_can_be_written(self):
        sdf = filling.empty(N, self.DTYPES)
        assert {k: str(v) for k, v in sdf.dtypes.items()} == {
            k: str(pd.api.types.pandas_dtype(v)) for k, v in self.DTYPES.items()
        }
        assert not sdf.isna().any().any()
        for label in ("bool", "i1", "u8", "f2", "f8", "c16"):
            assert not sdf[label].any()
        for label in ("time", "delta"):
            assert (sdf.column(label).view("i8") == 0).all()
        assert (sdf["zone"] == pd.Timestamp(0, tz="UTC")).all()
        sdf.column("f8")[:] = np.arange(N)
        sdf.loc[5, "Int8"] = 7
        assert sdf["f8"].sum() == N * (N - 1) / 2
        assert sdf["Int8"].sum() == 7

    def test_columns_of_one_zone_or_freq_are_one_block(self):
        zone, freq = "datetime64[s, Europe/Paris]", "period[M]"
        dtypes = {
            "z0": zone,
            "f": "f8",
            "p0": freq,
            "z1": zone,
            "p1": freq,
            "u": "datetime64[s, UTC]",
        }
        sdf = filling.empty(5, dtypes)
        assert {k: str(v) for k, v in sdf.dtypes.items()} == dtypes | {"f": "float64"}
        widths = [1, 1, 2, 2] if PANDAS_3 else [1, 1, 1, 1, 2]  # pandas 2: none of periods
        assert sorted(block.values.shape[0] for block in sdf._mgr.blocks) == widths
        assert sdf[["p0", "p1"]].isna().all().all()
        assert (sdf[["z0", "z1"]] == pd.Timestamp(0, tz="UTC")).all().all()
        sdf.loc[3, "z1"] = when = pd.Timestamp("2020", tz="Europe/Paris")
        assert sdf["z1"].tolist() == [
            *[pd.Timestamp(0, tz="UTC")] * 3,
            when,
            pd.Timestamp(0, tz="UTC"),
        ]
        table = pa.Table.from_pandas(sdf.to_pandas())
        pd.testing.assert_frame_equal(filling.from_arrow(table), table.to_pandas())

    def test_categoricals_are_missing(self):
        kind = pd.CategoricalDtype(["x", "y"], ordered=True)
        sdf = filling.empty(N, {"c": kind, "n": "i4"})
        assert sdf["c"].isna().all()
        assert sdf["c"].dtype == kind
        sdf.loc[3, "c"] = "y"
        assert sdf["c"].dropna().tolist() == ["y"]

    def test_warm_memory_is_cleared(self):
        old = SArray.full(1 << 19, 7.0)
        del old
        sdf = filling.empty(1 << 19, {"a": "f8"})
        assert not sdf["a"].any()

    def test_schemas_of_every_kind(self):
        frame = pd.DataFrame({"a": [1], ("b", 1): [2.5]}, index=["x"])
        frame.attrs["k"] = 1
        for schema in (frame, frame.dtypes, frame.iloc[:0]):
            sdf = filling.empty(5, schema)
            assert list(sdf.columns) == list(frame.columns)
            assert list(sdf.dtypes) == list(frame.dtypes)
            assert sdf.shape == (5, 2)
        assert filling.empty(5, frame).attrs == {"k": 1}
        double = pd.DataFrame([[1, 2.0, 3]], columns=["a", "b", "a"])
        assert list(filling.empty(2, double).columns) == ["a", "b", "a"]

    def test_index_and_name(self):
        index = pd.MultiIndex.from_product([["a", "b"], range(3)], names=["x", "y"])
        sdf = filling.empty(6, {"v": "f8"}, index=index, name="my-frame")
        pd.testing.assert_index_equal(sdf.index, index)
        assert sdf.name == "my-frame"
        with pytest.raises(SegmentExists):
            filling.empty(6, {"v": "f8"}, name="my-frame")
        assert list(filling.empty(2, {"v": "i8"}, index=["p", "q"]).index) == ["p", "q"]
        with pytest.raises(ValueError, match="index of 5 labels"):
            filling.empty(5, {"v": "f8"}, index=index)
        with pytest.raises(ValueError, match="-1 rows"):
            filling.empty(-1, {"v": "f8"})

    @pytest.mark.parametrize(
        "dtype", ["str", "object", "string", "S5", "M8", "M8[D]", "category", "interval", "Sparse"]
    )
    def test_what_has_no_fixed_width_is_refused_by_name(self, dtype):
        with pytest.raises(TypeError, match="column 'bad'"):
            filling.empty(3, {"good": "f8", "bad": dtype})

    def test_nothing_at_all(self):
        assert filling.empty(0, {"a": "f8"}).shape == (0, 1)
        assert filling.empty(4, {}).shape == (4, 0)
        with pytest.raises(TypeError, match="a mapping of label -> dtype"):
            filling.empty(4, "f8")
        with pytest.raises(TypeError, match="column 'a': a dtype wanted"):
            filling.empty(4, {"a": "nonsense"})

    def test_it_needs_no_memory_until_it_is_written_if_not_reserved(self):
        sdf = filling.empty(1 << 28, {"a": "f8", "b": "f8"}, reserve=False)
        sdf.column("b")[-1] = 1
        file = naming.path(naming.segment_file(sdf.name))
        assert os.stat(file).st_blocks < 200

    def test_workers_fill_it(self, ctx):
        sdf = filling.empty(100, {"a": "i8", "t": "M8[ns]"})
        children = [ctx.Process(target=fill_part, args=(part,)) for part in sdf.partitions(3)]
        for child in children:
            child.start()
        assert processes.join(*children) == [0, 0, 0]
        assert (sdf["a"] == 7).all()


def fill_part(part):
    part.column("a")[:] = 7


class TestFromArrow:
    @pytest.mark.parametrize("backend", BACKENDS)
    @pytest.mark.parametrize("cuts", [(), (100, 1001), (0, 1, 1, 8, 9, 3332)], ids=str)
    def test_every_type_in_any_chunks(self, table, cuts, backend):
        table = for_backend(table, backend)
        given = pieces(table, *cuts)
        expected = given.to_pandas(types_mapper=types_mapper(backend))
        check(filling.from_arrow(given, dtype_backend=backend), expected)

    def test_readers_batches_and_iterables(self, table):
        expected = table.to_pandas()
        check(filling.from_arrow(table.to_reader(max_chunksize=77)), expected)
        check(filling.from_arrow(iter(table.to_batches(100))), expected)
        check(filling.from_arrow(table.combine_chunks().to_batches()[0]), expected)

        class Exporter:
            def __arrow_c_stream__(self, requested=None):
                return table.__arrow_c_stream__(requested)

        check(filling.from_arrow(Exporter()), expected)

    def test_slices_with_every_offset(self, table):
        for start in (1, 7, 8, 9, 63):
            part = table.slice(start, 100)
            check(filling.from_arrow(part), part.to_pandas())
            check(
                filling.from_arrow(part, dtype_backend="pyarrow"),
                part.to_pandas(types_mapper=pd.ArrowDtype),
            )

    FRAMES = {
        "range": pd.DataFrame({"a": [1, 2, 3]}),
        "range_step": pd.DataFrame({"a": [1, 2]}, index=pd.RangeIndex(5, 1, -2, name="r")),
        "names": pd.DataFrame({"a": [1, 2]}, index=pd.Index([3, 4], name="n")),
        "strings": pd.DataFrame({"a": [1, 2]}, index=["x", "y"]),
        "dates": pd.DataFrame({"a": [1, 2]}, index=pd.date_range("2024", periods=2, tz="UTC")),
        "floats": pd.DataFrame({"a": [1, 2]}, index=[0.5, np.nan]),
        "categories": pd.DataFrame({"a": [1, 2]}, index=pd.CategoricalIndex(["p", "q"])),
        "multi": pd.DataFrame(
            {"a": range(4)},
            index=pd.MultiIndex.from_product([["x", "y"], [1, 2]], names=["k", None]),
        ),
        "columns": pd.DataFrame(
            [[1, 2.5]], columns=pd.MultiIndex.from_tuples([("a", 1), ("b", 2)], names=["p", "q"])
        ),
        "numbered": pd.DataFrame([[1, 2.5]], columns=pd.Index([10, 20], name="c")),
        "masked": pd.DataFrame(
            {
                "i": pd.array([1, None], "Int16"),
                "f": pd.array([1.5, None], "Float32"),
                "b": pd.array([True, None], "boolean"),
                "s": pd.array(["x", None], "string"),
            }
        ),
        "masked_index": pd.DataFrame({"a": [1, 2]}, index=pd.array([1, None], "Int64")),
        "ordered": pd.DataFrame({"c": pd.Categorical(["b", "a"], ["b", "z", "a"], ordered=True)}),
        "no_columns": pd.DataFrame(index=[1, 2, 3]),
        "no_rows": pd.DataFrame({"a": [1], "s": ["x"], "c": pd.Categorical(["x"])}).iloc[:0],
        "nothing": pd.DataFrame(),
    }

    @pytest.mark.parametrize("kind", FRAMES)
    def test_what_pandas_wrote_comes_back(self, kind, tmp_path):
        frame = self.FRAMES[kind]
        table = pa.Table.from_pandas(frame)
        check(filling.from_arrow(table), table.to_pandas())
        path = tmp_path / "file"
        pq.write_table(table, path)
        check(filling.read_parquet(path), pd.read_parquet(path))
        feather.write_feather(table, path)
        check(filling.read_feather(path), pd.read_feather(path))

    def test_attrs_come_along(self, tmp_path):
        frame = pd.DataFrame({"a": [1]})
        frame.attrs = {"unit": "m"}
        frame.to_parquet(tmp_path / "f")
        check(filling.read_parquet(tmp_path / "f"), pd.read_parquet(tmp_path / "f"))

    def test_an_index_in_chunks_is_one(self):
        frame = pd.DataFrame({"v": range(N)}, index=[f"k{i}" for i in range(N)])
        batches = pa.Table.from_pandas(frame).to_batches(max_chunksize=100)
        table = pa.Table.from_batches(batches)
        check(filling.from_arrow(table), table.to_pandas())
        multi = frame.set_index(pd.Index(range(N), name="n"), append=True)
        table = pa.Table.from_batches(pa.Table.from_pandas(multi).to_batches(max_chunksize=100))
        check(filling.from_arrow(table), table.to_pandas())

    def test_dictionaries_are_unified_in_their_order(self):
        chunks = [
            pa.DictionaryArray.from_arrays(pa.array([0, 1, None], "i1"), ["b", "a"]),
            pa.DictionaryArray.from_arrays(pa.array([], "i1"), ["unused"]),
            pa.DictionaryArray.from_arrays(pa.array([1, 0, 2], "i1"), ["z", "a", "é"]),
            pa.DictionaryArray.from_arrays(pa.array([None], "i1"), pa.array([], "string")),
        ]
        table = pa.table({"c": pa.chunked_array(chunks)})
        check(filling.from_arrow(table), table.to_pandas())
        assert list(filling.from_arrow(table)["c"].cat.categories) == ["b", "a", "unused", "z", "é"]

    def test_codes_get_wider_with_the_categories(self):
        for n in (127, 128, 129, 40_000):
            table = pa.table({"c": pa.array([f"k{i}" for i in range(n)]).dictionary_encode()})
            check(filling.from_arrow(table), table.to_pandas())

    def test_duplicate_labels(self):
        arrays = [
            pa.array([1, 2]),
            pa.array([None, 0.5]),
            pa.array(["x", None]),
            pa.array(["y"] * 2),
        ]
        table = pa.Table.from_arrays(arrays, names=["a", "a", "b", "b"])
        check(filling.from_arrow(table), table.to_pandas())

    OBJECTS = {
        "bools": (pa.bool_(), [True, None]),
        "dates": (pa.date32(), [dt.date(2024, 1, 1)]),
        "times": (pa.time64("us"), [dt.time(1, 2)]),
        "decimals": (pa.decimal128(9, 2), [decimal.Decimal("1.50")]),
        "bytes": (pa.binary(), [b"x"]),
        "lists": (pa.list_(pa.int64()), [[1, 2], None]),
        "structs": (pa.struct({"x": pa.int64()}), [{"x": 1}]),
        "nulls": (pa.null(), [None, None]),
    }

    @pytest.mark.parametrize("kind", OBJECTS)
    def test_python_objects_come_equal_or_are_refused_by_name(self, kind, tmp_path):
        """Which of them have a layout is the codec's; here none may come out wrong, or be lost."""
        type_, values = self.OBJECTS[kind]
        table = pa.table({"good": range(len(values)), "bad": pa.array(values, type_)})
        pq.write_table(table, tmp_path / "f")
        for mapper, backend in ((None, None), (pd.ArrowDtype, "pyarrow")):
            for make in (
                filling.from_arrow,
                lambda _, **k: filling.read_parquet(tmp_path / "f", **k),
            ):
                try:
                    shared = make(table, dtype_backend=backend)
                except TypeError as error:
                    said = str(error)
                else:
                    check(shared, table.to_pandas(types_mapper=mapper))
                    continue
                assert "column 'bad'" in said
                assert "dtype_backend='pyarrow'" in said
        only = filling.read_parquet(tmp_path / "f", columns=["good"])
        check(only, pd.read_parquet(tmp_path / "f", columns=["good"]))

    def test_flat_arrow_types_stay_arrow(self):
        arrays = {
            "date": pa.array(holes([dt.date(2024, 1, 1)] * 20)),
            "time": pa.array(holes([dt.time(1, 2)] * 20)),
            "decimal": pa.array(holes([decimal.Decimal("1.50")] * 20)),
            "bytes": pa.array(holes([b"x", b"yy"] * 10)),
            "fixed": pa.array(holes([b"xyz"] * 20), pa.binary(3)),
            "bool": pa.array(holes([True, False] * 10)),
        }
        table = pieces(pa.table(arrays), 3, 8, 13)
        expected = table.to_pandas(types_mapper=pd.ArrowDtype)
        check(filling.from_arrow(table, dtype_backend="pyarrow"), expected)

    def test_views_of_strings(self):
        if not hasattr(pa, "string_view"):
            pytest.skip("this pyarrow has no string_view")
        table = pa.table(
            {"s": pa.array(holes(["x", "a long string of its own"] * 9), pa.string_view())}
        )
        try:
            expected = table.to_pandas()
        except pa.ArrowNotImplementedError:
            pytest.skip("this pyarrow cannot convert string_view")
        check(filling.from_arrow(table), expected)

    def test_what_is_no_arrow_data_is_refused(self):
        for wrong in (5, "path", {"a": [1]}, [1, 2]):
            with pytest.raises(TypeError, match="wanted"):
                filling.from_arrow(wrong)
        with pytest.raises(ValueError, match="no schema"):
            filling.from_arrow([])
        batches = [pa.record_batch({"a": [1]}), pa.record_batch({"a": ["x"]})]
        with pytest.raises(ValueError, match="batches of one schema"):
            filling.from_arrow(batches)
        with pytest.raises(ValueError, match="dtype_backend"):
            filling.from_arrow(pa.table({"a": [1]}), dtype_backend="nonsense")
        with pytest.raises(ValueError, match="0 threads"):
            filling.from_arrow(pa.table({"a": [1]}), threads=0)

    @settings(max_examples=60, deadline=None)
    @given(st.data())
    def test_any_table_in_any_chunks(self, data):
        n = data.draw(st.integers(0, 40))
        values = {
            "i": st.integers(-(2**62), 2**62),
            "f": st.floats(width=64),
            "b": st.booleans(),
            "s": st.text(st.characters(exclude_categories=["Cs"]), max_size=5),
            "t": st.integers(-(2**40), 2**40),
            "c": st.sampled_from(["x", "y", "zz"]),
        }
        types = {"i": pa.int64(), "f": pa.float64(), "s": pa.string(), "t": pa.timestamp("us"),
                 "c": pa.string(), "b": pa.bool_()}  # fmt: skip
        columns = {}
        for name in data.draw(st.lists(st.sampled_from(sorted(values)), max_size=4)):
            some = values[name] if name == "b" else st.none() | values[name]
            column = data.draw(st.lists(some, min_size=n, max_size=n))
            array = pa.array(column, types[name])
            label = f"{name}{len(columns)}"
            columns[label] = array.dictionary_encode() if name == "c" else array
        table = pa.table(columns)
        cuts = sorted(data.draw(st.lists(st.integers(0, table.num_rows), max_size=3)))
        table = pieces(table, *cuts)
        backend = data.draw(st.sampled_from([None, "numpy_nullable"]))
        expected = table.to_pandas(types_mapper=types_mapper(backend))
        check(filling.from_arrow(table, dtype_backend=backend), expected)


def test_without_pyarrow_the_extra_is_named():
    code = (
        "import sys\nsys.modules['pyarrow'] = None\nfrom numpush import filling\n"
        "print(filling.empty(3, {'a': 'f8'}).shape)\n"
        "for read in (filling.read_parquet, filling.read_feather, filling.read_csv):\n"
        "    try: read('/nonexistent')\n"
        "    except ImportError as error: print('numpush[arrow]' in str(error))\n"
    )
    done = processes.run_script(code)
    assert done.stdout.split("\n")[:-1] == ["(3, 1)", "True", "True", "True"], done.stderr


class OnlyAnArray:
    """Some other library's batch."""

    def __init__(self, batch):
        self.batch = batch

    def __arrow_c_array__(self, requested_schema=None):
        return self.batch.__arrow_c_array__(requested_schema)


def test_any_object_with_the_arrow_interface_is_taken():
    batch = pa.record_batch({"a": [1, 2, 3], "b": ["x", "y", None]})
    sdf = filling.from_arrow(OnlyAnArray(batch))
    pd.testing.assert_frame_equal(sdf.to_pandas(), batch.to_pandas())
