"""arrow://, parquet://, csv:// and .npy: others read what we write, we read what they wrote."""

from __future__ import annotations

import datetime as dt
import threading
import uuid

import numpy as np
import pandas as pd
import pytest

from layout_samples import N, naming, pa
from numpush import SArray, SDataFrame, stores
from numpush.stores.directory import alone_in

pq = pytest.importorskip("pyarrow.parquet")
TABLES = ["arrow", "parquet"]
FRAME = pd.DataFrame(
    {
        "price": np.arange(N) / 7,
        "n": pd.array([i if i % 5 else None for i in range(N)], dtype="Int64"),
        "text": [f"s{i % 97}é" for i in range(N)],
        "kind": pd.Categorical([f"k{i % 3}" for i in range(N)]),
        "time": pd.date_range("2026-01-01", periods=N, tz="Europe/Berlin", unit="ns"),
        "ok": np.arange(N) % 3 == 0,
    }
)


def plain_read(scheme, path):
    return pd.read_parquet(path) if scheme == "parquet" else pd.read_feather(path)


@pytest.mark.parametrize("scheme", TABLES)
class TestTables:
    def test_pandas_and_pyarrow_read_what_we_write(self, tmp_path, scheme):
        with stores.open(f"{scheme}://{tmp_path}") as store:
            store.put("a/f", SDataFrame(FRAME))
        pd.testing.assert_frame_equal(plain_read(scheme, tmp_path / f"a/f.{scheme}"), FRAME)

    def test_we_read_what_pandas_wrote(self, tmp_path, scheme):
        if scheme == "parquet":
            FRAME.to_parquet(tmp_path / "f.parquet")
        else:
            FRAME.to_feather(tmp_path / "f.feather")
        with stores.open(f"{scheme}://{tmp_path}") as store:
            assert store.keys() == ["f"]
            pd.testing.assert_frame_equal(store.get("f").to_pandas(), FRAME)
            part = store.get("f", columns=["text", "time"], rows=slice(100, 110))
            pd.testing.assert_frame_equal(part.to_pandas(), FRAME[["text", "time"]][100:110])
            assert store.stat("f").shape == FRAME.shape
            store.put("f", FRAME[:5])  # in the file that is there
            assert len(list(tmp_path.iterdir())) == 1

    def test_tables_without_a_word_of_pandas_are_read(self, tmp_path, scheme):
        table = pa.table({"x": list(range(100)), "y": [f"t{i}" for i in range(100)]})
        if scheme == "parquet":
            pq.write_table(table, tmp_path / "f.parquet", row_group_size=30)
        else:
            with pa.ipc.new_file(str(tmp_path / "f.arrow"), table.schema) as out:
                out.write_table(table, max_chunksize=30)
        with stores.open(f"{scheme}://{tmp_path}") as store:
            assert store.get("f")["x"].tolist() == list(range(100))
            part = store.get("f", rows=slice(25, 65), columns=["y"])
            assert part["y"].tolist() == [f"t{i}" for i in range(25, 65)]
            assert part.index.tolist() == list(range(25, 65))

    def test_an_index_comes_back(self, tmp_path, scheme):
        frames = {
            "named": FRAME.set_index("time"),
            "multi": FRAME[:50].set_index(["kind", "price"]),
            "text": FRAME[:50].set_index("text"),
            "range": FRAME[:50].set_index(pd.RangeIndex(100, 200, 2, name="r")),
        }
        with stores.open(f"{scheme}://{tmp_path}") as store:
            for name, frame in frames.items():
                with naming(name):
                    store.put("f", frame)
                    pd.testing.assert_frame_equal(store.get("f").to_pandas(), frame)
                    pd.testing.assert_frame_equal(
                        store.get("f", columns=["ok", "n"], rows=slice(3, 9)).to_pandas(),
                        frame[["ok", "n"]][3:9],
                    )

    def test_series_come_back_with_their_names(self, tmp_path, scheme):
        with stores.open(f"{scheme}://{tmp_path}") as store:
            for series in (FRAME["text"], FRAME["price"].rename(None), FRAME["n"].rename(7)):
                with naming(series.name):
                    store.put("s", series)
                    pd.testing.assert_series_equal(store.get("s").to_pandas(), series)
                    assert store.stat("s").kind == "series"

    def test_what_has_no_form_in_arrow_is_named(self, tmp_path, scheme):
        with stores.open(f"{scheme}://{tmp_path}") as store:
            with pytest.raises(TypeError, match="no form in Arrow"):
                store.put("f", pd.DataFrame({"x": np.zeros(3, complex)}))
            with pytest.raises(TypeError, match="no form in Arrow"):
                store.put("f", pd.DataFrame(np.zeros((2, 2)), columns=["a", "a"]))
            with pytest.raises(TypeError, match="Python objects"):
                store.put("a", np.array([object()]))
            assert store.keys() == []
            assert list(tmp_path.iterdir()) == []

    def test_damaged_files_say_so(self, tmp_path, scheme):
        with stores.open(f"{scheme}://{tmp_path}") as store:
            store.put("f", FRAME)
            path = tmp_path / f"f.{scheme}"
            whole = path.read_bytes()
            for damaged in (b"", b"nonsense", whole[:100], whole[: len(whole) // 2]):
                path.write_bytes(damaged)
                for call in (
                    lambda: store.get("f"),
                    lambda: store.get("f", rows=slice(0, 3)),
                    lambda: store.stat("f"),
                ):
                    with pytest.raises(stores.StoreDamaged, match="'f'"):
                        call()

    def test_fsspec_reaches_other_file_systems(self, tmp_path, scheme):
        url = f"{scheme}+memory://{uuid.uuid4().hex}/data"
        with stores.open(url) as store:
            store.put("a/f", FRAME)
            store.put("a/s", FRAME["price"])
            store.put("b", np.arange(N))
            assert store.keys() == ["a/f", "a/s", "b"]
            pd.testing.assert_frame_equal(store.get("a/f").to_pandas(), FRAME)
            pd.testing.assert_frame_equal(
                store.get("a/f", columns=["ok"], rows=slice(5, 9)).to_pandas(), FRAME[["ok"]][5:9]
            )
            assert store.get("b", rows=slice(3, 6)).tolist() == [3, 4, 5]
            assert store.stat("b").shape == (N,)
            store.delete("a/f")
            with pytest.raises(stores.KeyNotFound):
                store.get("a/f")
            with pytest.raises(TypeError, match="no form in Arrow"):
                store.put("c", pd.DataFrame({"x": np.zeros(3, complex)}))
            assert store.keys() == ["a/s", "b"]
        with stores.open(f"{scheme}+file://{tmp_path}") as store:
            store.put("f", FRAME)
            pd.testing.assert_frame_equal(plain_read(scheme, tmp_path / f"f.{scheme}"), FRAME)


class TestOptions:
    @pytest.mark.parametrize("codec", ["lz4", "zstd", None])
    def test_arrow_compresses(self, tmp_path, codec):
        with stores.open(f"arrow://{tmp_path}", compression=codec) as store:
            store.put("f", FRAME)
            pd.testing.assert_frame_equal(store.get("f").to_pandas(), FRAME)
        pd.testing.assert_frame_equal(pd.read_feather(tmp_path / "f.arrow"), FRAME)

    def test_parquet_has_row_groups(self, tmp_path):
        with stores.open(f"parquet://{tmp_path}", row_group_size=100, compression="zstd") as store:
            store.put("f", FRAME)
            pd.testing.assert_frame_equal(store.get("f").to_pandas(), FRAME)
            for rows in (slice(95, 205), slice(100, 200), slice(3300, None), slice(7, 7)):
                pd.testing.assert_frame_equal(
                    store.get("f", rows=rows).to_pandas(), FRAME[rows], check_index_type=False
                )
        file = pq.ParquetFile(tmp_path / "f.parquet")
        assert file.num_row_groups == -(-N // 100)
        file.close()

    def test_wrong_options_are_named(self, tmp_path):
        with pytest.raises(ValueError, match="'gzip'"):
            stores.open(f"arrow://{tmp_path}", compression="gzip")
        with pytest.raises(ValueError, match="row_group_size 0"):
            stores.open(f"parquet://{tmp_path}", row_group_size=0)
        with pytest.raises(TypeError, match="fsspec"):
            stores.open(f"arrow://{tmp_path}", storage_options={"anon": True})
        with pytest.raises(ValueError, match="absolute"):
            stores.open("parquet://relative/path")


class TestArraysBesideTables:
    def test_numpy_reads_what_we_write(self, tmp_path):
        arrays = {
            "C": np.arange(12.0).reshape(3, 4),
            "F": np.asfortranarray(np.arange(12.0).reshape(3, 4)),
            "0-d": np.array(2.5),
            "times": np.arange(5).astype("M8[ns]"),
            "structured": np.array([(1, 2.5)], dtype=[("a", "i2"), ("b", "f8")]),
            "empty": np.empty((0, 3)),
        }
        with stores.open(f"parquet://{tmp_path}") as store:
            for name, array in arrays.items():
                with naming(name):
                    store.put("a", SArray(array))
                    for found in (store.get("a"), np.load(tmp_path / "a.npy")):
                        assert (found.dtype, found.shape) == (array.dtype, array.shape)
                        assert np.array_equal(found, array)

    def test_we_read_what_numpy_wrote(self, tmp_path):
        np.save(tmp_path / "a.npy", np.arange(N))
        np.save(tmp_path / "o.npy", np.array([{}]), allow_pickle=True)
        (tmp_path / "short.npy").write_bytes((tmp_path / "a.npy").read_bytes()[:-8])
        (tmp_path / "none.npy").write_bytes(b"none")
        with stores.open(f"arrow://{tmp_path}") as store:
            assert np.array_equal(store.get("a"), np.arange(N))
            for key in ("o", "short", "none"):
                with pytest.raises(stores.StoreDamaged, match=f"'{key}'"):
                    store.get(key)

    def test_a_table_counts_while_an_array_of_its_key_is_there(self, tmp_path):
        with stores.open(f"arrow://{tmp_path}") as store:
            store.put("k", FRAME)
            np.save(tmp_path / "k.npy", np.arange(3))  # a put of an array that was killed half way
            assert store.keys() == ["k"]
            assert store.stat("k").kind == "frame"
            store.delete("k")
            assert list(tmp_path.iterdir()) == []


class TestCsv:
    def test_frames_come_back_as_pandas_reads_them(self, tmp_path):
        with stores.open(f"csv://{tmp_path}", parse_dates=["time"]) as store:
            frame = FRAME[["price", "text", "ok"]].assign(
                time=pd.date_range("2026", periods=N, unit="us")
            )
            store.put("f", SDataFrame(frame))
            back = store.get("f").to_pandas()
            pd.testing.assert_frame_equal(back, frame, check_freq=False)
            wanted = pd.read_csv(tmp_path / "f.csv", parse_dates=["time"])
            pd.testing.assert_frame_equal(back, wanted)
            part = store.get("f", columns=["text"], rows=slice(3, 6))
            pd.testing.assert_frame_equal(part.to_pandas(), frame[["text"]][3:6])
            assert store.stat("f").shape == (None, 4)
            assert store.stat("f").dtypes["text"] == str(back["text"].dtype)

    def test_an_index_comes_back_where_it_is_asked_for(self, tmp_path):
        frame = pd.DataFrame({"x": [1, 2]}, index=pd.Index(["a", "b"], name="key"))
        with stores.open(f"csv://{tmp_path}", index_col="key", sep=";") as store:
            store.put("f", frame)
            assert (tmp_path / "f.csv").read_text() == "key;x\na;1\nb;2\n"
            pd.testing.assert_frame_equal(store.get("f").to_pandas(), frame)

    def test_series_and_arrays(self, tmp_path):
        with stores.open(f"csv://{tmp_path}") as store:
            store.put("s", pd.Series([1, 2], name="x"))
            assert store.get("s")["x"].tolist() == [1, 2]
            store.put("s", np.arange(3))
            assert store.get("s").tolist() == [0, 1, 2]
            assert sorted(each.name for each in tmp_path.iterdir()) == ["s.npy"]

    def test_damage_and_absence_are_named(self, tmp_path):
        (tmp_path / "bad.csv").write_text("a,b\n1,2\n3,4,5\n")
        with stores.open(f"csv://{tmp_path}") as store:
            with pytest.raises(stores.StoreDamaged, match="bad"):
                store.get("bad")
            with pytest.raises(stores.KeyNotFound):
                store.get("none")
            store.put("d", pd.DataFrame({"day": [dt.date(2026, 1, 1)]}))
            assert store.get("d")["day"].tolist() == ["2026-01-01"]


@pytest.mark.parametrize("scheme", ["arrow", "blosc2"])
def test_who_puts_an_array_waits_for_who_puts_a_frame_by_that_key(tmp_path, scheme):
    """Each removes the other's file after its own is there: at the same time, both would go."""
    with stores.open(f"{scheme}://{tmp_path}") as store:
        store.put("k", np.arange(3))
        with alone_in(str(tmp_path)):
            writer = threading.Thread(target=store.put, args=("k", pd.DataFrame({"x": [1, 2]})))
            writer.start()
            writer.join(0.5)
            assert writer.is_alive()
            assert store.stat("k").kind == "array"
        writer.join(60)
        assert store.stat("k").kind == "frame"
        assert len(list(tmp_path.iterdir())) == 1


def test_what_a_killed_writer_left_is_swept(tmp_path):
    left = tmp_path / f".f.arrow.{'0' * 32}.writing"
    left.write_bytes(b"half")
    with stores.open(f"arrow://{tmp_path}") as store:
        store.put("f", FRAME)
    assert [each.name for each in tmp_path.iterdir()] == ["f.arrow"]
