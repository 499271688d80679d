"""hdf5://: h5py and pandas read it, theirs is read, damage."""

from __future__ import annotations

import gzip
import os
import runpy
import subprocess
import sys
import textwrap

import numpy as np
import pandas as pd
import pytest

from hdf5_samples import FRAME, GOLDEN, WAYS
from layout_samples import N, assert_same, naming
from numpush import SDataFrame, stores

h5py = pytest.importorskip("h5py", reason='needs h5py: pip install "numpush[hdf5]"')


@pytest.fixture(params=WAYS, ids=["plain", "gzip+shuffle", "gzip"])
def store(request, tmp_path):
    with stores.open(f"hdf5://{tmp_path}/a.h5", chunk=4096, **request.param) as made:
        yield made


@pytest.fixture(params=["isal.isal_zlib", "zlib"])
def inflating(request, monkeypatch):
    engine = pytest.importorskip(request.param)
    monkeypatch.setattr("numpush.stores.hdf5_data._inflating", engine)


def unpack_golden(name, folder):
    (folder / name).write_bytes(gzip.decompress((GOLDEN / f"{name}.gz").read_bytes()))


def test_old_files_are_read(tmp_path):
    """They are tests/golden/write_hdf5.py's."""
    unpack_golden("store.h5", tmp_path)
    wanted = runpy.run_path(str(GOLDEN / "write_wire.py"))["objects"]()
    with stores.open(f"hdf5://{tmp_path}/store.h5") as store:
        assert store.keys() == sorted(
            f"{way}/{name}" for way in ("gzip", "plain") for name in wanted
        )
        for key in store:
            with naming(key):
                back, obj = store.get(key), wanted[key.partition("/")[2]][0]
                if isinstance(obj, np.ndarray):
                    assert back.dtype == obj.dtype
                    assert np.array_equal(back, obj)
                else:
                    assert_same(back.to_pandas(), obj)


class TestOthersRead:
    def test_arrays_are_datasets(self, store, tmp_path):
        arrays = {
            "2-D": np.arange(N * 4.0).reshape(N, 4),
            "3-D": np.arange(60000, dtype=">i2").reshape(30, 40, 50),
            "wide rows": np.arange(40000.0).reshape(4, 10000),
            "Fortran": np.asfortranarray(np.arange(12.0).reshape(3, 4)),
            "bool": np.arange(9) % 2 == 0,
            "complex": np.arange(9) * 1j,
            "structured": np.array([(1, 2.5)], dtype=[("a", "i2"), ("b", "f8")]),
            "0-d": np.array(2.5),
        }
        for name, array in arrays.items():
            store.put(f"x/{name}", array)
        store.put("times", np.arange(5).astype("M8[s]"))
        with h5py.File(tmp_path / "a.h5") as file:
            for name, array in arrays.items():
                with naming(name):
                    found = file["x"][name][()]
                    assert found.dtype == array.dtype
                    assert np.array_equal(found, array)
            times = file["times"]
            assert np.array_equal(times[:].view(times.attrs["dtype"]), np.arange(5).astype("M8[s]"))

    def test_frames_are_groups_of_columns(self, store, tmp_path):
        store.put("f", SDataFrame(FRAME))
        with h5py.File(tmp_path / "a.h5") as file:
            group = file["f"]
            assert np.array_equal(group["price"], FRAME["price"])
            assert group["volume"].dtype == np.int32
            assert np.array_equal(group["index"], FRAME.index)
            assert np.array_equal(
                group["time"][:].view(group["time"].attrs["dtype"]), FRAME["time"].to_numpy()
            )
            kinds = np.array(group["kind"].attrs["categories"])[group["kind"][:]]
            assert kinds.tolist() == FRAME["kind"].tolist()
            assert group["gaps/mask"].dtype == bool
            assert list(group.attrs["columns"]) == list(FRAME.columns)

    def test_pandas_has_it_in_three_lines(self, tmp_path):
        with stores.open(f"hdf5://{tmp_path}/a.h5") as store:
            store.put("f", FRAME[["price", "volume"]].reset_index(drop=True))
        code = """
            import sys, h5py, pandas as pd
            with h5py.File(sys.argv[1]) as file:
                frame = pd.DataFrame({name: file["f"][name][:] for name in file["f"].attrs["columns"]})
            print(frame["price"].sum(), "numpush" in sys.modules)
        """
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(code), str(tmp_path / "a.h5")],
            capture_output=True, text=True, check=True, timeout=60,
        )  # fmt: skip
        assert done.stdout.split() == [str(FRAME["price"].sum()), "False"]


class TestOthersWrote:
    @pytest.mark.usefixtures("inflating")
    def test_every_kind_of_dataset_is_read(self, tmp_path):
        array = np.arange(N * 6.0).reshape(N, 6)
        made = {
            "contiguous": {},
            "chunked": {"chunks": (100, 4)},
            "gzip": {"chunks": (77, 6), "compression": "gzip"},
            "shuffled": {"chunks": (50, 5), "compression": "gzip", "shuffle": True},
            "lzf": {"chunks": True, "compression": "lzf"},
            "fletcher32": {"chunks": (100, 6), "fletcher32": True},
            "big-endian": {"dtype": ">f4", "chunks": (100, 6)},
        }
        with h5py.File(tmp_path / "a.h5", "w") as file:
            for name, options in made.items():
                file.create_dataset(f"g/{name}", data=array, **options)
            file.create_dataset("part", (100, 3), "i4", chunks=(10, 3), fillvalue=7)[20:30] = 1
            file.create_dataset("never", (10,), "f8")
            file.create_dataset("text", data=["a", "bb"])  # of variable length: no array of ours
            compact = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
            compact.set_layout(h5py.h5d.COMPACT)
            space = h5py.h5s.create_simple((5,))
            kind = h5py.h5t.NATIVE_INT64
            h5py.Dataset(h5py.h5d.create(file.id, b"compact", kind, space, compact))[:] = range(5)
        with stores.open(f"hdf5://{tmp_path}/a.h5") as store:
            assert store.keys() == sorted([*(f"g/{n}" for n in made), "part", "never", "compact"])
            for name, options in made.items():
                with naming(name):
                    wanted = array.astype(options.get("dtype", "f8"))
                    found = store.get(f"g/{name}")
                    assert found.dtype == wanted.dtype
                    assert np.array_equal(found, wanted)
                    assert np.array_equal(
                        store.get(f"g/{name}", rows=slice(95, 303)), wanted[95:303]
                    )
                    assert store.stat(f"g/{name}").shape == (N, 6)
            part = store.get("part")
            assert part[19:31, 0].tolist() == [7, *[1] * 10, 7]
            assert store.get("never").tolist() == [0.0] * 10
            assert store.get("compact").tolist() == [0, 1, 2, 3, 4]
            with pytest.raises(stores.KeyNotFound):
                store.get("text")

    def test_what_is_stored_in_odd_ways_is_right_or_refused(self, tmp_path):
        wanted = np.arange(100, dtype="i4")
        with h5py.File(tmp_path / "b.h5", "w") as file:
            file["source"] = wanted
        with h5py.File(tmp_path / "a.h5", "w") as file:
            virtual = h5py.VirtualLayout((100,), "i4")
            virtual[:] = h5py.VirtualSource(str(tmp_path / "b.h5"), "source", (100,))
            file.create_virtual_dataset("virtual", virtual)
            odd = h5py.h5t.STD_I32LE.copy()  # 24 bits, from the eighth on
            odd.set_precision(24)
            odd.set_offset(8)
            space = h5py.h5s.create_simple((100,))
            h5py.Dataset(h5py.h5d.create(file.id, b"odd", odd, space))[:] = wanted
            file.create_dataset("outside", (100,), "i4", external=[(tmp_path / "raw", 0, 400)])[
                :
            ] = wanted
            file["nothing"] = h5py.Empty("f8")
            file["dangling"] = h5py.SoftLink("/not/there")
            file["elsewhere"] = h5py.ExternalLink("not-there.h5", "x")
            made = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
            made.set_chunk((10,))
            made.set_filter(32123, h5py.h5z.FLAG_OPTIONAL)  # nobody's
            h5py.h5d.create(file.id, b"strange", h5py.h5t.NATIVE_INT32, space, made)
        with stores.open(f"hdf5://{tmp_path}/a.h5") as store:
            assert store.keys() == ["odd", "outside", "strange", "virtual"]
            for key in ("odd", "outside", "virtual"):
                with naming(key):
                    assert np.array_equal(store.get(key), wanted)
            with pytest.raises(stores.StoreDamaged, match="filter 32123"):
                store.get("strange")
            for key in ("nothing", "dangling", "elsewhere"):
                with pytest.raises(stores.KeyNotFound):
                    store.get(key)

    def test_a_group_of_columns_is_a_frame(self, tmp_path):
        with h5py.File(tmp_path / "a.h5", "w") as file:
            group = file.create_group("data/f", track_order=True)
            group["z"] = np.arange(N)
            group.create_dataset("a", data=np.arange(N) / 3, compression="gzip")
        with stores.open(f"hdf5://{tmp_path}/a.h5") as store:
            assert store.keys() == ["data/f"]
            wanted = pd.DataFrame({"z": np.arange(N), "a": np.arange(N) / 3})
            assert_same(store.get("data/f").to_pandas(), wanted)
            part = store.get("data/f", columns=["a"], rows=slice(5, 50))
            assert_same(part.to_pandas(), wanted[["a"]][5:50])

    def test_files_of_pandas_are_read(self, tmp_path):
        """The golden file is tests/golden/write_hdf5.py's."""
        unpack_golden("pandas.h5", tmp_path)
        wanted = runpy.run_path(str(GOLDEN / "write_hdf5.py"))["pandas_objects"]()
        with stores.open(f"hdf5://{tmp_path}/pandas.h5") as store:
            for key, obj in wanted.items():
                with naming(key):
                    assert_same(store.get(key).to_pandas(), obj)
            assert store.stat("frame").kind == "frame"
            part = store.get("frame", columns=["n"], rows=slice(1, 3)).to_pandas()
            assert_same(part, wanted["frame"][["n"]][1:3])
            for key in ("table", "text"):
                with pytest.raises(stores.StoreDamaged, match=r"pandas\.read_hdf"):
                    store.get(key)
            assert store.keys() == sorted([*wanted, "table", "text"])

    def test_what_is_no_hdf5_file_says_so(self, tmp_path):
        (tmp_path / "a.h5").write_bytes(b"nonsense" * 100)
        with stores.open(f"hdf5://{tmp_path}/a.h5") as store:
            for call in (store.keys, lambda: store.get("a"), lambda: store.put("a", np.zeros(3))):
                with pytest.raises(stores.StoreDamaged):
                    call()
        assert (tmp_path / "a.h5").read_bytes() == b"nonsense" * 100


class TestKeys:
    def test_an_object_is_no_folder(self, store):
        store.put("a/b", FRAME)
        with pytest.raises(ValueError, match="'a/b' is an object"):
            store.put("a/b/c", np.zeros(3))
        with pytest.raises(ValueError, match="objects below"):
            store.put("a", np.zeros(3))
        with pytest.raises(stores.KeyNotFound):
            store.get("a")
        assert store.keys() == ["a/b"]
        store.delete("a/b")
        store.put("a", np.zeros(3))
        assert store.keys() == ["a"]

    def test_wrong_options_are_named(self, tmp_path):
        url = f"hdf5://{tmp_path}/a.h5"
        for options in ({"compression": "lz4"}, {"level": 10}, {"chunk": 1}, {"threads": 0}):
            with pytest.raises(ValueError, match=str(next(iter(options.values())))):
                stores.open(url, **options)
        with pytest.raises(ValueError, match="absolute"):
            stores.open("hdf5://a.h5")


class TestDamage:
    @pytest.mark.parametrize("compression", [None, "gzip"])
    def test_no_byte_of_a_file_ends_the_process(self, tmp_path, compression):
        path = tmp_path / "a.h5"
        with stores.open(f"hdf5://{path}", compression=compression, checksum=True) as store:
            store.put("f", FRAME[:50])
            store.put("a", np.arange(300.0))
        whole = path.read_bytes()
        code = """
            import sys, random, warnings
            import numpy as np
            from numpush import stores
            path, seed = sys.argv[1], int(sys.argv[2])
            whole = open(path + ".whole", "rb").read()
            rng = random.Random(seed)
            for _ in range(120):
                damaged = bytearray(whole)
                damaged[rng.randrange(len(damaged))] ^= rng.randrange(1, 256)
                open(path, "wb").write(damaged)
                with stores.open(f"hdf5://{path}") as store:
                    for key in ("f", "a"):
                        try:
                            found = store.get(key)
                        except (stores.StoreError, ImportError):
                            continue
                        if key == "a":
                            assert np.array_equal(found, np.arange(300.0))
            print("done")
        """
        (tmp_path / "a.h5.whole").write_bytes(whole)
        for seed in range(2):
            done = subprocess.run(
                [sys.executable, "-W", "ignore", "-c", textwrap.dedent(code), str(path), str(seed)],
                capture_output=True, text=True, check=False, timeout=120,
            )  # fmt: skip
            assert done.stdout.strip() == "done", done.stderr[-2000:]

    @pytest.mark.usefixtures("inflating")
    def test_a_damaged_chunk_is_named(self, tmp_path):
        path = tmp_path / "a.h5"
        with stores.open(f"hdf5://{path}", compression="gzip", chunk=4096) as store:
            store.put("a", np.arange(N * 10.0))
            with h5py.File(path) as file:
                chunk = file["a"].id.get_chunk_info(1)
            whole = path.read_bytes()
            for at in (0, chunk.size // 2, chunk.size - 1):  # its head, its data, its checksum
                damaged = bytearray(whole)
                damaged[chunk.byte_offset + at] ^= 0xFF
                path.write_bytes(damaged)
                with pytest.raises(stores.StoreDamaged, match=r"a chunk of '/?a'"):
                    store.get("a")

    def test_a_file_cut_short_says_so(self, tmp_path):
        path = tmp_path / "a.h5"
        with stores.open(f"hdf5://{path}") as store:
            store.put("a", np.arange(N * 10.0))
            os.truncate(path, os.stat(path).st_size - 5000)
            for call in (store.keys, lambda: store.get("a"), lambda: store.put("b", np.zeros(3))):
                with pytest.raises(stores.StoreDamaged):
                    call()
