"""blosc2://: files that blosc2 opens, and files of its users."""

from __future__ import annotations

import zipfile

import numpy as np
import pandas as pd
import pytest

from blosc2_samples import ARRAYS, BIG, FRAME, RNG, open_store
from layout_samples import N, naming
from numpush import SArray, blosc2_chunks, stores

blosc2 = pytest.importorskip("blosc2", reason="needs blosc2")


class TestFilesThatBlosc2Opens:
    @pytest.mark.parametrize("name", ARRAYS)
    def test_an_array_is_an_ndarray_of_its_dtype_and_shape(self, tmp_path, name):
        array, chunk = ARRAYS[name]
        with open_store(tmp_path, chunk=chunk) as store:
            store.put("a", array)
            assert np.asarray(store.get("a")).tobytes() == array.tobytes()
        found = blosc2.open(str(tmp_path / "a.b2nd"), mode="r")
        assert (found.dtype, found.shape) == (array.dtype, array.shape)
        assert np.ascontiguousarray(found[()]).tobytes() == array.tobytes()
        if array.ndim:
            assert np.array_equal(found[1:3], array[1:3])
        assert found.schunk.vlmeta["numpush"]["v"] == 1

    @pytest.mark.parametrize("codec", blosc2_chunks.CODECS)
    @pytest.mark.parametrize("filter", blosc2_chunks.FILTERS)
    def test_every_codec_and_filter(self, tmp_path, codec, filter):
        for level in (0, None, 9):
            with open_store(tmp_path, codec=codec, filter=filter, level=level) as store:
                store.put("a", BIG)
                assert np.array_equal(store.get("a"), BIG)
            assert np.array_equal(blosc2.open(str(tmp_path / "a.b2nd"), mode="r")[:], BIG)

    def test_a_dtype_and_a_shape_that_blosc2_has_not_come_back_all_the_same(self, tmp_path):
        titled = np.ones(3, np.dtype({"names": ["a"], "formats": ["f8"], "titles": ["A"]}))
        deep = np.arange(512.0).reshape((2,) * 9)
        with open_store(tmp_path) as store:
            for array, there in ((titled, titled.tobytes()), (deep, deep.tobytes())):
                store.put("a", array)
                back = store.get("a")
                assert (back.dtype, back.shape) == (array.dtype, array.shape)
                assert back.tobytes() == there
                assert blosc2.open(str(tmp_path / "a.b2nd"), mode="r")[:].tobytes() == there

    def test_a_frame_is_a_tree_of_its_columns(self, tmp_path):
        frame = FRAME.assign(
            **{"a/b": 1.0, "kind": pd.Categorical(["a", "b", "c"] * (N // 3) + ["a"] * (N % 3))}
        )
        frame[7] = 2
        with open_store(tmp_path) as store:
            store.put("f", frame)
            pd.testing.assert_frame_equal(store.get("f").to_pandas(), frame)
        tree = blosc2.open(str(tmp_path / "f.b2z"), mode="r")
        assert type(tree) is blosc2.TreeStore
        for key, label in (("/x", "x"), ("/n", "n"), ("/a_b", "a/b"), ("/7", 7)):
            assert tree[key].dtype == frame[label].dtype
            assert np.array_equal(tree[key][:], frame[label])
        assert np.array_equal(tree["/kind"][:], frame["kind"].cat.codes)
        assert {"/text/data", "/text/offsets"} <= set(tree.keys())
        assert tree.vlmeta["numpush"]["v"] == 1
        with zipfile.ZipFile(tmp_path / "f.b2z") as archive:
            assert archive.testzip() is None  # each CRC-32 holds

    def test_labels_that_would_be_one_name_are_told_apart(self, tmp_path):
        frame = pd.DataFrame([[1, 2.0, 3, 4.0]], columns=["a", "A", "a?", "a!"])
        frame.insert(4, "embed", [5])
        frame.insert(5, "", [6])
        with open_store(tmp_path) as store:
            store.put("f", frame)
            pd.testing.assert_frame_equal(store.get("f").to_pandas(), frame)
            assert store.get("f", columns=["a!"]).to_pandas()["a!"].tolist() == [4.0]
        with zipfile.ZipFile(tmp_path / "f.b2z") as archive:
            names = archive.namelist()
        assert len({each.casefold() for each in names}) == len(names) == 8

    def test_the_same_object_gives_the_same_file(self, tmp_path):
        for threads, folder in ((1, "one"), (3, "three")):
            with open_store(tmp_path / folder, threads=threads, chunk=1 << 14) as store:
                store.put("a", BIG)
                store.put("f", FRAME)
        for file in ("a.b2nd", "f.b2z"):
            one, three = (tmp_path / each / file for each in ("one", "three"))
            assert one.read_bytes() == three.read_bytes()


class TestFilesOfBlosc2sUsers:
    @pytest.mark.parametrize(
        ("array", "options"),
        [
            (RNG.normal(size=(333, 77)), {"chunks": (50, 30), "blocks": (16, 7)}),
            (
                np.arange(24_000).reshape(20, 30, 40),
                {"chunks": (7, 11, 13), "blocks": (3, 4, 5)},
            ),
            (np.arange(6_000, dtype="i2").reshape(2, 3, 1000), {"chunks": (1, 2, 300)}),
            (np.array(["ab", "c" * 30] * 500).reshape(10, 100), {"chunks": (3, 7)}),
            (np.cumsum(RNG.normal(size=300_000)), {}),
            (np.arange(3000 * 50.0).reshape(3000, 50), {}),
        ],
    )
    def test_chunks_of_every_shape(self, tmp_path, array, options):
        blosc2.asarray(array, urlpath=str(tmp_path / "a.b2nd"), mode="w", **options)
        with open_store(tmp_path) as store:
            found = store.get("a")
            assert type(found) is SArray
            assert found.dtype == array.dtype
            assert np.array_equal(found, array)
            assert np.array_equal(store.get("a", rows=slice(1, 19)), array[1:19])
            assert store.get("a", rows=slice(2, 2)).shape == (0, *array.shape[1:])
            into = np.zeros_like(array)
            assert np.array_equal(store.get("a", into=into), array)
            stat = store.stat("a")
            assert (stat.shape, stat.dtypes) == (array.shape, str(array.dtype))

    @pytest.mark.parametrize(
        "options",
        [
            {"codec": "ZSTD", "use_dict": True},
            {"codec": "ZLIB"},
            {"codec": "LZ4HC"},
            {"codec": "LZ4", "filters": ["DELTA", "SHUFFLE"]},
            {"codec": "LZ4", "filters": ["SHUFFLE", "BYTEDELTA"]},
        ],
        ids=str,
    )
    def test_other_codecs_and_filters(self, tmp_path, options):
        options = {**options, "codec": blosc2.Codec[options["codec"]]}
        if "filters" in options:
            options["filters"] = [blosc2.Filter[each] for each in options["filters"]]
        array = np.arange(100_000.0)
        blosc2.asarray(array, urlpath=str(tmp_path / "a.b2nd"), mode="w", cparams=options)
        with open_store(tmp_path) as store:
            assert np.array_equal(store.get("a"), array)

    def test_chunks_that_are_no_bytes_in_the_file(self, tmp_path):
        where = {"urlpath": str(tmp_path / "a.b2nd"), "mode": "w", "chunks": (100, 10)}
        with open_store(tmp_path) as store:
            blosc2.zeros((1000, 10), **where)
            assert not store.get("a").any()
            blosc2.nans((1000, 10), **where)
            assert np.isnan(store.get("a")).all()
            blosc2.uninit((1000, 10), **where)
            assert store.get("a").shape == (1000, 10)
            blosc2.full((1000, 10), 3.5, **where)
            assert (store.get("a") == 3.5).all()

    def test_arrays_that_were_changed_in_place(self, tmp_path):
        array = blosc2.zeros((1000,), urlpath=str(tmp_path / "a.b2nd"), mode="w", chunks=(100,))
        with open_store(tmp_path) as store:
            array[50:350] = RNG.random(300)
            array.resize((1500,))
            assert np.array_equal(store.get("a"), array[:])
            array[90:110] = 7.0
            array.resize((420,))
            assert np.array_equal(store.get("a"), array[:])

    def test_a_super_chunk_is_an_array_by_its_typesize(self, tmp_path):
        for typesize, dtype in ((1, "u1"), (4, "u4"), (8, "u8"), (3, "V3")):
            file = tmp_path / f"s{typesize}.b2frame"
            chunk = blosc2.SChunk(
                chunksize=1200, urlpath=str(file), mode="w", cparams={"typesize": typesize}
            )
            data = RNG.bytes(1200 * 2 + 600)
            for at in range(0, len(data), 1200):
                chunk.append_data(data[at : at + 1200])
            with open_store(tmp_path) as store, naming(dtype):
                found = store.get(f"s{typesize}")
                assert found.dtype == dtype
                assert found.tobytes() == data
                assert store.get(f"s{typesize}", rows=slice(7, 9)).tobytes() == found[7:9].tobytes()

    def test_what_is_not_read_says_so(self, tmp_path):
        array = np.arange(1000.0).reshape(10, 100)
        blosc2.asarray(
            array,
            urlpath=str(tmp_path / "plugin.b2nd"),
            mode="w",
            cparams={"codec": blosc2.Codec.ZFP_RATE, "codec_meta": 37, "filters": []},
        )
        tree = blosc2.TreeStore(str(tmp_path / "tree.b2z"), mode="w")
        tree["/x"] = array
        tree.close()
        blosc2.asarray(array, urlpath=str(tmp_path / "sparse.b2nd"), mode="w", contiguous=False)
        (tmp_path / "other.b2nd").write_bytes(b"no frame at all" * 100)
        with open_store(tmp_path) as store:
            for key, why in (
                ("plugin", "plug-ins"),
                ("tree", "numpush did not write"),
                ("sparse", "a directory"),
                ("other", "no frame of blosc2"),
            ):
                with pytest.raises(stores.StoreDamaged, match=f"'{key}'.*{why}"):
                    store.get(key)
