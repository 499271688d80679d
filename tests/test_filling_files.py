"""Parquet and Feather files into shared frames: what pandas reads, with damage, and with little memory."""

from __future__ import annotations

import io
import json
import signal
import threading
import time

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import processes
from arrow_tables import BACKENDS, check, for_backend, make_arrays, segments
from numpush import SegmentExists, SegmentFull, filling
from numpush.filling import parquet, pour
from numpush.filling.parquet_sizes import read_text_sizes
from numpush.filling.plan import types_mapper
from numpush.shm import naming, space

N = 3333


@pytest.fixture(scope="module")
def table():
    return pa.table(make_arrays(N))


WRITTEN = {
    "default": {},
    "small_groups": {"row_group_size": 100},
    "odd_groups_zstd": {"row_group_size": 333, "compression": "zstd"},
    "no_statistics": {"row_group_size": 1000, "write_statistics": False},
    "plain": {"row_group_size": 1000, "use_dictionary": False, "compression": "none"},
    "pages_v2": {"row_group_size": 1000, "data_page_version": "2.0"},
}


class TestParquet:
    @pytest.mark.parametrize("backend", BACKENDS)
    @pytest.mark.parametrize("how", WRITTEN)
    def test_every_type_in_many_row_groups(self, table, tmp_path, how, backend):
        table = for_backend(table, backend)
        path = tmp_path / "f.parquet"
        pq.write_table(table, path, **WRITTEN[how])
        kwargs = {} if backend is None else {"dtype_backend": backend}
        check(filling.read_parquet(path, **kwargs), pd.read_parquet(path, **kwargs))

    def test_without_sizes_in_the_file(self, table, tmp_path, monkeypatch):
        """As pyarrow before 20 wrote them: strings are surveyed; kept if little, else read twice."""
        path = tmp_path / "f.parquet"
        pq.write_table(table, path, row_group_size=500)
        monkeypatch.setattr(parquet, "read_text_sizes", lambda metadata: [])
        check(filling.read_parquet(path), pd.read_parquet(path))
        monkeypatch.setattr(pour, "KEEP", 5000)
        check(filling.read_parquet(path), pd.read_parquet(path))

    @pytest.mark.parametrize(
        "lie", [lambda n: n + 1, lambda n: n - 1, lambda n: 0], ids=["more", "less", "none"]
    )
    def test_a_file_that_lies_of_its_sizes_is_read_all_the_same(
        self, table, tmp_path, monkeypatch, lie
    ):
        path = tmp_path / "f.parquet"
        pq.write_table(table.select(["string", "int8"]), path, row_group_size=500)

        def wrong(metadata):
            sizes = read_text_sizes(metadata)
            return [[n and lie(n) for n in group] for group in sizes]

        monkeypatch.setattr(parquet, "read_text_sizes", wrong)
        check(filling.read_parquet(path), pd.read_parquet(path))

    def test_sizes_are_what_the_text_has(self, tmp_path):
        words = pa.array(["a", "bb", None, "ö"] * 25)
        pq.write_table(pa.table({"n": range(100), "w": words}), tmp_path / "f", row_group_size=40)
        sizes = read_text_sizes(pq.ParquetFile(tmp_path / "f").metadata)
        if not sizes or sizes[0][1] is None:
            pytest.skip("this pyarrow writes no sizes")
        assert [group[1] for group in sizes] == [50, 50, 25]

    @settings(max_examples=100, deadline=None)
    @given(st.binary(max_size=200), st.integers(0, 150))
    def test_a_footer_of_any_bytes_says_nothing(self, noise, at):
        out = io.BytesIO()
        pq.write_table(pa.table({"w": ["x"]}), out)
        real = pq.ParquetFile(out).metadata

        class Fake:
            serialized_size = 100

            def write_metadata_file(self, file):
                own = io.BytesIO()
                real.write_metadata_file(own)
                raw = bytearray(own.getvalue())
                raw[4 + at : 4 + at + len(noise)] = noise
                file.write(raw)

        sizes = read_text_sizes(Fake())
        assert isinstance(sizes, list)

    def test_categories_that_differ_between_row_groups(self, tmp_path):
        path = tmp_path / "f.parquet"
        parts = [
            pa.table({"c": pa.array(words).dictionary_encode()})
            for words in (["b", "a", None], ["z", "a"], ["q"] * 5)
        ]
        with pq.ParquetWriter(path, parts[0].schema) as writer:
            for part in parts:
                writer.write_table(part)
        check(filling.read_parquet(path), pd.read_parquet(path))

    def test_columns_and_the_index_with_them(self, tmp_path):
        path = tmp_path / "f.parquet"
        frame = pd.DataFrame({"a": [1, 2], "b": [3, 4], "c": ["x", "y"]}, index=["p", "q"])
        frame.to_parquet(path)
        for columns in (["b"], ["c", "a"], [], None):
            check(
                filling.read_parquet(path, columns=columns), pd.read_parquet(path, columns=columns)
            )
        frame.reset_index(drop=True).to_parquet(path)
        check(filling.read_parquet(path, columns=["b"]), pd.read_parquet(path, columns=["b"]))

    def test_names_with_dots_and_nested_columns(self, tmp_path):
        path = tmp_path / "f.parquet"
        table = pa.table({"a": [1, 2], "a.b": ["x", "y"], "a.c": [0.5, None]})
        pq.write_table(table, path)
        check(filling.read_parquet(path), table.to_pandas())
        nested = pa.table({"n": pa.array([[1], [2, 3]]), "x": [1, 2]})
        pq.write_table(nested, path)
        check(filling.read_parquet(path, columns=["x"]), nested.select(["x"]).to_pandas())

    def test_directories_partitions_and_filters(self, tmp_path):
        frame = pd.DataFrame(
            {
                "year": np.repeat([2023, 2024], 50),
                "x": np.arange(100),
                "s": [f"w{i}" for i in range(100)],
            }
        )
        frame.to_parquet(tmp_path / "hive", partition_cols=["year"])
        check(filling.read_parquet(tmp_path / "hive"), pd.read_parquet(tmp_path / "hive"))
        (tmp_path / "flat").mkdir()
        for i in range(3):
            frame.iloc[i * 30 : i * 30 + 30].reset_index(drop=True).to_parquet(
                tmp_path / "flat" / f"{i}.parquet"
            )
        check(filling.read_parquet(tmp_path / "flat"), pd.read_parquet(tmp_path / "flat"))
        for filters in ([("x", ">", 50)], [("x", "<", 0)], [[("x", "<", 5)], [("x", ">", 95)]]):
            for where in ("hive", "flat"):
                check(
                    filling.read_parquet(tmp_path / where, filters=filters),
                    pd.read_parquet(tmp_path / where, filters=filters),
                )
        inner = next((tmp_path / "hive" / "year=2023").iterdir())
        check(filling.read_parquet(inner), pd.read_parquet(inner))

    def test_file_objects_and_paths(self, table, tmp_path):
        path = tmp_path / "f.parquet"
        pq.write_table(table, path, row_group_size=1000)
        expected = pd.read_parquet(path)
        check(filling.read_parquet(str(path)), expected)
        with open(path, "rb") as file:
            check(filling.read_parquet(file), expected)
        check(filling.read_parquet(io.BytesIO(path.read_bytes())), expected)

    def test_threads_share_the_position_of_a_file_object(self, table, tmp_path):
        path = tmp_path / "f.parquet"
        pq.write_table(table, path, row_group_size=100)
        expected = pd.read_parquet(path)
        for _ in range(20):
            with open(path, "rb") as file:
                check(filling.read_parquet(file, threads=8), expected)

    def test_empty_files(self, tmp_path):
        path = tmp_path / "f.parquet"
        for table in (pa.table(make_arrays(0)), pa.table({})):
            pq.write_table(table, path)
            check(filling.read_parquet(path), pd.read_parquet(path))
        path.write_bytes(b"")
        with pytest.raises(ValueError, match=r"f\.parquet: cannot be read as Parquet"):
            filling.read_parquet(path)

    @pytest.mark.parametrize("threads", [1, 2, 8])
    def test_any_number_of_threads(self, table, tmp_path, threads):
        path = tmp_path / "f.parquet"
        pq.write_table(table, path, row_group_size=100)
        check(filling.read_parquet(path, threads=threads), pd.read_parquet(path))

    def test_progress_shows_a_bar(self, tmp_path, capsys):
        pytest.importorskip("tqdm", reason="no tqdm")
        path = tmp_path / "f.parquet"
        pq.write_table(pa.table({"a": range(1000)}), path)
        filling.read_parquet(path, progress=True)
        assert "1.00k" in capsys.readouterr().err

    def test_the_name_is_that_of_the_segment(self, tmp_path):
        path = tmp_path / "f.parquet"
        pq.write_table(pa.table({"a": range(10)}), path)
        sdf = filling.read_parquet(path, name="prices")
        assert sdf.name == "prices"
        with pytest.raises(SegmentExists):
            filling.read_parquet(path, name="prices")


class TestFailures:
    @pytest.fixture
    def path(self, table, tmp_path):
        path = tmp_path / "f.parquet"
        pq.write_table(table, path, row_group_size=300, compression="snappy")
        return path

    def test_no_such_file(self):
        for read in (filling.read_parquet, filling.read_feather, filling.read_csv):
            with pytest.raises(FileNotFoundError):
                read("/nonexistent/file")

    def test_truncated_files_name_the_path(self, path):
        whole = path.read_bytes()
        for n in (1, 7, len(whole) // 2, len(whole) - 9, len(whole) - 1):
            path.write_bytes(whole[:n])
            with pytest.raises(ValueError, match=r"f\.parquet: cannot be read as Parquet"):
                filling.read_parquet(path)
            assert segments() == set()

    @pytest.mark.parametrize("threads", [1, 4])
    def test_damage_in_the_middle_names_the_path_and_leaves_nothing(self, path, threads):
        raw = bytearray(path.read_bytes())
        for group in (3, 7):
            chunk = pq.ParquetFile(path).metadata.row_group(group).column(20)
            at = chunk.data_page_offset
            raw[at : at + chunk.total_compressed_size] = b"\xff" * chunk.total_compressed_size
        path.write_bytes(raw)
        with pytest.raises(ValueError, match=r"f\.parquet: cannot be read as Parquet"):
            filling.read_parquet(path, threads=threads)
        assert segments() == set()

    @pytest.mark.parametrize("compression", ["uncompressed", "lz4"])
    def test_damaged_feather(self, table, tmp_path, compression):
        path = tmp_path / "f.feather"
        feather.write_feather(table, path, compression=compression, chunksize=500)
        whole = path.read_bytes()
        for n in (3, 100, len(whole) // 2, len(whole) - 5):
            path.write_bytes(whole[:n])
            with pytest.raises(ValueError, match=r"f\.feather: cannot be read as Feather"):
                filling.read_feather(path)
        assert segments() == set()

    def test_offsets_of_strings_are_checked(self):
        """A damaged file may hold any: pandas would read beyond the text."""
        for offsets in ([0, 5, 2], [0, 1000, 7]):
            raw = [None, pa.py_buffer(np.array(offsets, "i4")), pa.py_buffer(b"abcdefg")]
            batch = pa.record_batch({"s": pa.Array.from_buffers(pa.string(), 2, raw)})
            with pytest.raises(ValueError, match="offsets of strings"):
                filling.from_arrow(batch)
        assert segments() == set()

    def test_a_full_dev_shm(self, path, monkeypatch):
        monkeypatch.setattr(space, "room", lambda n=0: space.Room(1000, 64 << 20, naming.DIR))
        with pytest.raises(SegmentFull, match="of shared memory wanted"):
            filling.read_parquet(path)
        assert processes.files() == set()

    def test_shared_memory_that_runs_out_while_it_is_filled(self, monkeypatch):
        """Only where nothing was reserved; the store is a write then, so it fails with an error."""

        def pwrite(fd, data, offset):
            raise OSError(28, "No space left on device")

        real = filling.arrow_source.pour
        table = pa.table({"a": np.arange(1 << 16)})
        monkeypatch.setattr("numpush.filling.pages.os.pwrite", pwrite)
        assert real is pour.pour
        with pytest.raises(SegmentFull, match="ran out"):
            filling.from_arrow(table)
        assert segments() == set()

    @pytest.mark.parametrize("threads", [1, 4])
    def test_an_interrupt_leaves_nothing(self, path, monkeypatch, threads):
        n_stored = []
        real = filling.columns.FixedColumn.write
        me = threading.main_thread().ident

        def write(self, *args):
            n_stored.append(1)
            if len(n_stored) == 50:
                signal.pthread_kill(me, signal.SIGINT)
            time.sleep(0.001)
            return real(self, *args)

        monkeypatch.setattr(filling.columns.FixedColumn, "write", write)
        with pytest.raises(KeyboardInterrupt):
            filling.read_parquet(path, threads=threads)
        assert len(n_stored) < 300
        assert segments() == set()

    def test_a_file_that_changes_while_it_is_read(self, table, tmp_path, monkeypatch):
        """What a survey found no longer holds: an error, never a frame that is torn."""
        path = tmp_path / "f.parquet"
        pq.write_table(table.select(["string"]), path)
        real = filling.text._OffsetColumn.survey

        def survey(self, piece, chunk):
            real(self, piece, chunk)
            self.n_bytes[piece] += 1

        monkeypatch.setattr(parquet, "read_text_sizes", lambda metadata: [])
        monkeypatch.setattr(filling.text._OffsetColumn, "survey", survey)
        with pytest.raises(ValueError, match="it changed while it was read"):
            filling.read_parquet(path)
        assert segments() == set()


class TestFeather:
    @pytest.mark.parametrize("backend", BACKENDS)
    @pytest.mark.parametrize("compression", ["uncompressed", "lz4", "zstd"])
    def test_every_type(self, table, tmp_path, compression, backend):
        table = for_backend(table, backend)
        path = tmp_path / "f.feather"
        feather.write_feather(table, path, compression=compression, chunksize=500)
        kwargs = {} if backend is None else {"dtype_backend": backend}
        expected = table.to_pandas(types_mapper=types_mapper(backend))
        if backend != "numpy_nullable":
            pd.testing.assert_frame_equal(pd.read_feather(path, **kwargs), expected)
        check(filling.read_feather(path, **kwargs), expected)

    @pytest.mark.filterwarnings("ignore:Feather V1:DeprecationWarning")  # pyarrow is to forget it
    def test_columns_file_objects_streams_and_version_1(self, tmp_path):
        table = pa.table({"a": [1, 2], "b": ["x", None], "c": [0.5, 1.5]})
        path = tmp_path / "f"
        for write in (
            lambda: feather.write_feather(table, path),
            lambda: feather.write_feather(table, path, version=1),
            lambda: path.write_bytes(_stream(table)),
        ):
            write()
            check(filling.read_feather(path), table.to_pandas())
            check(
                filling.read_feather(path, columns=["c", "a"]), table.select(["c", "a"]).to_pandas()
            )
            with open(path, "rb") as file:
                check(filling.read_feather(file), table.to_pandas())

    def test_threads_share_the_position_of_a_file_object(self, table, tmp_path):
        path = tmp_path / "f.feather"
        feather.write_feather(table, path, compression="uncompressed", chunksize=100)
        expected = pd.read_feather(path)
        for _ in range(10):
            with open(path, "rb") as file:
                check(filling.read_feather(file, threads=8), expected)

    def test_dictionaries_in_deltas_and_replaced(self, tmp_path):
        chunks = [
            pa.DictionaryArray.from_arrays(pa.array([0, 1], "i1"), ["b", "a"]),
            pa.DictionaryArray.from_arrays(pa.array([2, 0], "i1"), ["b", "a", "c"]),
        ]
        schema = pa.schema({"c": chunks[0].type})
        options = pa.ipc.IpcWriteOptions(emit_dictionary_deltas=True)
        path = tmp_path / "f"
        with pa.ipc.new_file(str(path), schema, options=options) as writer:
            for chunk in chunks:
                writer.write_batch(pa.record_batch([chunk], schema))
        check(filling.read_feather(path), pd.read_feather(path))


def _stream(table):
    out = io.BytesIO()
    with pa.ipc.new_stream(out, table.schema) as writer:
        writer.write_table(table)
    return out.getvalue()


class TestMemory:
    def test_reading_takes_a_fraction_of_what_pandas_takes(self, tmp_path):
        """Private memory at its highest, in a process each; the bound is generous: it is a tenth."""
        n = 1 << 21
        path = tmp_path / "f.parquet"
        columns = {f"f{i}": np.random.default_rng(i).random(n) for i in range(4)}
        columns["s"] = [f"text {i}" for i in range(n)]
        pq.write_table(pa.table(columns), path, row_group_size=n // 16)
        del columns
        peaks = {}
        for how in ("filling.read_parquet(path, threads=2)", "SDataFrame(pd.read_parquet(path))"):
            done = processes.run_script(MEASURE.replace("HOW", how), str(path), limit=120)
            assert done.returncode == 0, done.stderr
            peaks[how] = json.loads(done.stdout)
        ours, theirs = peaks.values()
        assert theirs > 80 << 20
        assert ours < theirs / 2


MEASURE = """
import sys, threading, time
import pandas as pd, pyarrow as pa, pyarrow.parquet
from numpush import SDataFrame, filling
def private():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) << 10 for line in file if line.startswith("RssAnon"))
def watch():
    global most
    while not done.wait(0.002):
        most = max(most, private())
path, done = sys.argv[1], threading.Event()
filling.from_arrow(pa.table({"a": [1], "s": ["x"]}))
base = most = private()
watcher = threading.Thread(target=watch)
watcher.start()
frame = HOW
most = max(most, private())
done.set()
watcher.join()
print(most - base)
"""
