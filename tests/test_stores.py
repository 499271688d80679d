"""One contract over all kinds of stores (store_kinds.py): what is put comes back, whole or in part."""

from __future__ import annotations

import gc
import multiprocessing
import pickle
import threading

import numpy as np
import pandas as pd
import pytest

import numpush
from layout_families import FAMILY_COLUMNS, M, assert_same_family, family
from layout_samples import INDEXES, N, assert_same, made_index, naming
from numpush import SArray, SDataFrame, SSeries, stores
from store_kinds import ALL, LOSSLESS, servers

FRAME = pd.DataFrame(
    {
        "price": np.arange(N) / 7,
        "volume": np.arange(N, dtype=np.int32),
        "time": pd.date_range("2026-01-01", periods=N, freq="s", unit="ns"),
        "size": np.arange(N) * 2.0,
    }
)
ARRAYS = {
    "2-D": np.arange(N * 4.0).reshape(N, 4),
    "3-D int16": np.arange(60, dtype=np.int16).reshape(3, 4, 5),
    "1-D bool": np.arange(N) % 3 == 0,
}
ODD_ARRAYS = {
    "Fortran": np.asfortranarray(np.arange(12.0).reshape(3, 4)),
    "negative strides": np.arange(N)[::-1],
    "strided": np.arange(N * 2.0).reshape(N, 2)[:, 1],
    "permuted": np.arange(24.0).reshape(2, 3, 4).transpose(1, 0, 2),
    "0-d": np.array(3.5),
    "empty": np.empty((0, 3)),
    "structured": np.array([(1, 2.5), (3, 4.5)], dtype=[("a", "i2"), ("b", "f8")]),
    "big-endian": np.arange(5, dtype=">i4"),
    "datetimes": np.arange(5).astype("M8[ns]"),
    "complex": np.arange(5) * 1j,
    "text": np.array(["ab", "c"]),
}


@pytest.fixture(scope="module", autouse=True)
def _servers():
    with servers():
        yield


@pytest.fixture
def store(request, tmp_path):
    url, options = request.param.make(tmp_path)
    with stores.open(url, **options) as made:
        yield made


every = pytest.mark.parametrize("store", ALL, indirect=True)
lossless = pytest.mark.parametrize("store", LOSSLESS, indirect=True)


@every
class TestEveryStore:
    def test_arrays_come_back_as_shared_arrays(self, store):
        for name, array in ARRAYS.items():
            with naming(name):
                store.put("a", array)
                back = store.get("a")
                assert type(back) is SArray
                assert back.mode == "rw"
                assert back.dtype == array.dtype
                assert np.array_equal(back, array)

    def test_frames_come_back_as_shared_frames(self, store):
        store.put("f", FRAME)
        back = store.get("f")
        assert type(back) is SDataFrame
        pd.testing.assert_frame_equal(back.to_pandas(), FRAME)
        back.loc[0, "price"] = 9.0  # and can be written to
        assert store.get("f").loc[0, "price"] == 0.0

    def test_series_come_back_as_shared_series(self, store):
        store.put("s", FRAME["price"])
        back = store.get("s")
        assert type(back) is SSeries
        pd.testing.assert_series_equal(back.to_pandas(), FRAME["price"])

    def test_shared_objects_are_put_as_they_are(self, store):
        store.put("f", SDataFrame(FRAME))
        store.put("s", SSeries(FRAME["volume"]))
        store.put("a", SArray(ARRAYS["2-D"])[10:20])
        pd.testing.assert_frame_equal(store.get("f").to_pandas(), FRAME)
        pd.testing.assert_series_equal(store.get("s").to_pandas(), FRAME["volume"])
        assert np.array_equal(store.get("a"), ARRAYS["2-D"][10:20])

    def test_columns_and_rows_can_be_chosen(self, store):
        store.put("f", FRAME)
        pairs = [
            (store.get("f", columns=["size", "price"]), FRAME[["size", "price"]]),
            (store.get("f", rows=slice(10, 20)), FRAME[10:20]),
            (store.get("f", rows=slice(-5, None)), FRAME[-5:]),
            (store.get("f", columns=["time"], rows=slice(5, 5)), FRAME[["time"]][5:5]),
            (
                store.get("f", columns=["volume", "size"], rows=slice(7, 9999)),
                FRAME[["volume", "size"]][7:],
            ),
        ]
        for found, wanted in pairs:
            assert type(found) is SDataFrame
            pd.testing.assert_frame_equal(found.to_pandas(), wanted, check_index_type=False)
        store.put("a", ARRAYS["2-D"])
        assert np.array_equal(store.get("a", rows=slice(3, 9)), ARRAYS["2-D"][3:9])
        store.put("s", FRAME["price"])
        pd.testing.assert_series_equal(
            store.get("s", rows=slice(0, 4)).to_pandas(), FRAME["price"][:4], check_index_type=False
        )

    def test_a_choice_that_is_none_says_why(self, store):
        store.put("f", FRAME)
        store.put("a", ARRAYS["2-D"])
        with pytest.raises(ValueError, match=r"no column 'prise'.*'price'"):
            store.get("f", columns=["prise"])
        with pytest.raises(ValueError, match="twice"):
            store.get("f", columns=["price", "price"])
        with pytest.raises(TypeError, match="list of labels"):
            store.get("f", columns="price")
        with pytest.raises(TypeError, match="slice"):
            store.get("f", rows=3)
        with pytest.raises(TypeError, match="slice"):
            store.get("f", rows=slice(0, 9, 2))
        with pytest.raises(TypeError, match="no columns"):
            store.get("a", columns=["price"])

    def test_what_is_there_is_read_into(self, store):
        array = SArray.zeros((N, 4))
        store.put("a", ARRAYS["2-D"])
        assert store.get("a", into=array) is array
        assert np.array_equal(array, ARRAYS["2-D"])
        frame = SDataFrame(FRAME.assign(price=0.0, volume=np.int32(0), size=0.0))
        store.put("f", FRAME)
        assert store.get("f", into=frame) is frame
        pd.testing.assert_frame_equal(frame.to_pandas(), FRAME)
        series = SSeries(FRAME["price"] * 0)
        store.put("s", FRAME["price"])
        assert store.get("s", into=series) is series
        pd.testing.assert_series_equal(series.to_pandas(), FRAME["price"])

    def test_what_does_not_fit_is_not_written_to(self, store):
        store.put("a", ARRAYS["2-D"])
        store.put("f", FRAME)
        short = SArray.zeros((N - 1, 4))
        wrong = SDataFrame(FRAME.astype({"volume": np.int64}))
        moved = SDataFrame(FRAME.set_index(FRAME.index + 1))
        for key, into in (
            ("a", short),
            ("a", SArray.zeros((N, 4), np.float32)),
            ("f", wrong),
            ("f", moved),
        ):
            with pytest.raises(ValueError, match="into="):
                store.get(key, into=into)
        for key, other in (("a", wrong), ("f", short), ("f", FRAME)):
            with pytest.raises(TypeError, match="into="):
                store.get(key, into=other)
        assert not short.any()
        assert wrong["price"].iloc[1] == FRAME["price"].iloc[1]

    def test_a_put_replaces(self, store):
        store.put("k", FRAME)
        store.put("k", ARRAYS["2-D"])
        assert np.array_equal(store.get("k"), ARRAYS["2-D"])
        store.put("k", FRAME[:7])
        pd.testing.assert_frame_equal(store.get("k").to_pandas(), FRAME[:7])
        assert store.keys() == ["k"]

    def test_keys_are_listed_by_prefix_and_deleted(self, store):
        for key in ("b", "a/x", "a/y", "a/z/1", "é ü"):
            store.put(key, ARRAYS["1-D bool"])
        assert store.keys() == list(store) == sorted(["a/x", "a/y", "a/z/1", "b", "é ü"])
        assert store.keys("a/") == ["a/x", "a/y", "a/z/1"]
        assert store.keys("a/z") == ["a/z/1"]
        assert "a/x" in store
        assert "a" not in store
        store.delete("a/x")
        assert "a/x" not in store
        assert store.keys("a/") == ["a/y", "a/z/1"]

    def test_what_is_not_there_is_a_key_error_that_names_it(self, store):
        for call in (store.get, store.delete, store.stat):
            with pytest.raises(stores.KeyNotFound, match="'nothing'") as caught:
                call("nothing")
            assert isinstance(caught.value, KeyError)

    def test_stat_tells_what_is_there_without_reading_it(self, store):
        store.put("f", FRAME)
        store.put("a", ARRAYS["2-D"])
        store.put("s", FRAME["price"])
        array, frame, series = store.stat("a"), store.stat("f"), store.stat("s")
        assert (array.kind, array.shape, array.dtypes) == ("array", (N, 4), "float64")
        assert array.nbytes in (None, N * 4 * 8)
        assert array.stored > 0
        assert (frame.kind, frame.shape) == ("frame", FRAME.shape)
        assert frame.dtypes == {label: str(dtype) for label, dtype in FRAME.dtypes.items()}
        assert (series.kind, series.shape, series.dtypes) == ("series", (N,), "float64")

    @pytest.mark.parametrize(
        "key",
        [
            "",
            "/a",
            "a/",
            "a//b",
            "../a",
            "a/../b",
            ".hidden",
            "a\0b",
            "a\nb",
            "x" * 201,
            "a/" * 501 + "a",
        ],
    )
    def test_keys_that_cannot_be_are_refused(self, store, key):
        for call in (store.get, store.delete, store.stat, lambda key: store.put(key, FRAME)):
            with pytest.raises(ValueError, match="key "):
                call(key)
        with pytest.raises(TypeError, match="a key is a str"):
            store.get(3)

    def test_what_cannot_be_stored_leaves_what_was_there(self, store):
        store.put("k", ARRAYS["2-D"])
        frame = pd.DataFrame({"x": [object(), object()]})
        with pytest.raises(TypeError, match="x"):
            store.put("k", frame)
        with pytest.raises(TypeError):
            store.put("k", {"a": 1})
        assert np.array_equal(store.get("k"), ARRAYS["2-D"])

    def test_names_are_for_new_segments(self, store):
        store.put("a", ARRAYS["2-D"])
        array = store.get("a", name="named")
        assert np.array_equal(numpush.attach("named"), array)
        with pytest.raises(ValueError, match="name="):
            store.get("a", into=array, name="other")
        with pytest.raises(numpush.SegmentExists):
            store.get("a", name="named")

    def test_a_bar_shows_the_bytes(self, store, capfd):
        store.put("a", ARRAYS["2-D"], progress=True)
        store.get("a", progress=True)
        shown = capfd.readouterr().err
        assert "put a" in shown
        assert "get a" in shown

    def test_it_travels_to_other_processes(self, store):
        store.put("f", FRAME)
        for method in ("fork", "spawn", "forkserver"):
            with multiprocessing.get_context(method).Pool(1) as pool:
                assert pool.apply(total, (store, "f")) == FRAME["price"].sum()
        assert pickle.loads(pickle.dumps(store)).keys() == ["f"]

    def test_threads_share_it(self, store):
        store.put("a", ARRAYS["2-D"])
        wrong = []

        def work(i):
            for _ in range(5):
                store.put(f"own/{i}", ARRAYS["2-D"] + i)
                if not np.array_equal(store.get(f"own/{i}"), ARRAYS["2-D"] + i):
                    wrong.append(i)
                if not np.array_equal(store.get("a"), ARRAYS["2-D"]):
                    wrong.append("a")

        threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert wrong == []

    def test_a_closed_store_says_so(self, store):
        store.close()
        store.close()
        for call in (
            store.keys,
            lambda: store.get("a"),
            lambda: "a" in store,
            lambda: store.put("a", FRAME),
        ):
            with pytest.raises(stores.StoreClosed, match="closed"):
                call()

    def test_who_reads_while_it_is_replaced_gets_one_of_both(self, store):
        ones, twos = np.ones((200, 500)), np.full((300, 500), 2.0)
        store.put("k", ones)
        stop = threading.Event()

        def write():
            while not stop.is_set():
                store.put("k", twos)
                store.put("k", ones)

        writer = threading.Thread(target=write)
        writer.start()
        try:
            for _ in range(50):
                found = store.get("k")
                assert found.shape in ((200, 500), (300, 500))
                assert (found == (1 if len(found) == 200 else 2)).all()
        finally:
            stop.set()
            writer.join(60)
        assert not writer.is_alive()


def total(store, key):
    return float(store.get(key)["price"].sum())


@lossless
class TestLosslessStores:
    def test_arrays_of_every_form_come_back_equal(self, store):
        for name, array in ODD_ARRAYS.items():
            with naming(name):
                store.put("a", array)
                back = store.get("a")
                assert (back.dtype, back.shape) == (array.dtype, array.shape)
                assert np.array_equal(back, array)
                if array.ndim:
                    assert np.array_equal(store.get("a", rows=slice(1, 3)), array[1:3])

    def test_every_family_comes_back_equal_and_in_part(self, store):
        names = [*FAMILY_COLUMNS]
        for start in range(0, len(names), 12):
            some = names[start : start + 12]
            frame = pd.DataFrame(
                {"f": np.arange(M) / 3, **{each: family(each) for each in some}}, copy=False
            )
            store.put("f", frame)
            assert_same_family(store.get("f").to_pandas(), frame)
            for label in some:
                with naming(label):
                    assert_same_family(store.get("f", columns=[label]).to_pandas(), frame[[label]])
            rows = slice(5, 50)
            assert_same_family(store.get("f", rows=rows).to_pandas(), frame[rows])

    def test_every_index_comes_back_equal(self, store):
        for name in INDEXES:
            with naming(name):
                index = made_index(name)
                frame = pd.DataFrame({"x": np.arange(len(index)), "y": 1.5}, index=index)
                frame.attrs = {"unit": "m", "nested": {"a": [1, 2]}}
                store.put("f", frame)
                assert_same(store.get("f").to_pandas(), frame)
                part = store.get("f", columns=["y"]).to_pandas()
                assert_same(part, frame[["y"]])

    def test_labels_of_every_kind_are_chosen_from(self, store):
        wide = pd.DataFrame(np.arange(3000.0).reshape(3, 1000), columns=pd.RangeIndex(1000))
        wide.insert(500, "text", ["a", "b", "c"])
        store.put("f", wide)
        assert_same(store.get("f", columns=[7, "text", 3]).to_pandas(), wide[[7, "text", 3]])
        multi = pd.DataFrame(
            np.arange(12.0).reshape(3, 4), columns=pd.MultiIndex.from_product([["a", "b"], [1, 2]])
        )
        store.put("f", multi)
        assert_same(
            store.get("f", columns=[("b", 1), ("a", 2)]).to_pandas(), multi[[("b", 1), ("a", 2)]]
        )
        twice = pd.DataFrame(np.arange(9.0).reshape(3, 3), columns=["a", "b", "a"])
        store.put("f", twice)
        assert_same(store.get("f", columns=["a"]).to_pandas(), twice[["a"]])

    def test_empty_frames_come_back(self, store):
        for frame in (pd.DataFrame(), pd.DataFrame({"x": []}), pd.DataFrame(index=[1, 2])):
            store.put("f", frame)
            assert_same(store.get("f").to_pandas(), frame)

    def test_nothing_stays_of_what_was_read(self, store):
        store.put("f", FRAME)
        frame = store.get("f")
        name = frame.name
        del frame
        gc.collect()
        with pytest.raises(numpush.SegmentNotFound):
            numpush.attach(name)


def test_urls_that_mean_no_store_say_what_does():
    with pytest.raises(ValueError, match=r"nfs://.*file://"):
        stores.open("nfs://host/dir")
    with pytest.raises(TypeError, match="URL"):
        stores.open(b"file:///x")
    with pytest.raises(ValueError, match="absolute"):
        stores.open("file://relative")
    with pytest.raises(TypeError, match="compession"):
        stores.open("file:///tmp", compession="lz4")
