"""hdf5://: an array of float64 out of an HDF5 file into shared memory, and into the file, against h5py.

h5py reads into memory that is there (read_direct), or into new, private memory, in one thread, as all of HDF5
works; numpush into the same memory (into=), and into a new segment. Chunks of 1 MiB.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from typing import Any

import h5py
import numpy as np

import numpush
from harness import Race, arguments, finish
from numpush import stores
from numpush.shm import warm


def main() -> None:
    args = arguments(__doc__, mib=256)
    n = args.mib << 17
    rng = np.random.default_rng(0)
    prices = np.round(100 + np.cumsum(rng.normal(0, 0.01, n)), 2)
    target = numpush.SArray(prices)
    folder = tempfile.mkdtemp()
    races = []
    ways: dict[str, dict[str, Any]] = {
        "gzip": {"compression": "gzip", "shuffle": False},
        "gzip + shuffle": {"compression": "gzip", "shuffle": True},
        "not compressed": {},
    }
    try:
        for name, options in ways.items():
            races += _races(name, options, folder, prices, target, args.mib)
        for race in races:
            race.run(args.rounds)
        finish(races, args.json)
    finally:
        shutil.rmtree(folder)


def _races(
    name: str, options: dict[str, Any], folder: str, prices: Any, target: Any, mib: int
) -> list[Race]:
    path = os.path.join(folder, f"{name}.h5")
    one = stores.open(f"hdf5://{path}", threads=1, **options)
    store = stores.open(f"hdf5://{path}", **options)
    store.put("a", prices)
    with h5py.File(path) as file:
        stored = file["a"].id.get_storage_size() / prices.nbytes
    what = f"{mib} MiB float64, {name} ({stored:.2f} of its size)"
    read = Race(f"HDF5 into shared memory: {what}", "h5py, read_direct")
    write = Race(f"Shared memory to HDF5: {what}", "h5py, create_dataset")

    def check(found: Any) -> Any:
        if found[0] != prices[0] or found[-1] != prices[-1]:
            raise AssertionError("wrong data")
        return found

    def read_direct() -> Any:
        with h5py.File(path) as file:
            file["a"].read_direct(target.view(np.ndarray))
        return check(target)

    def read_private() -> Any:
        with h5py.File(path) as file:
            return check(file["a"][:])

    def read_whole() -> Any:
        with h5py.File(path) as file:
            return check(numpush.SArray(file["a"][:]))

    read.add("h5py, read_direct", read_direct)
    read.add("numpush, get(into=)", lambda: check(store.get("a", into=target)))
    read.add("numpush, get(into=), threads=1", lambda: check(one.get("a", into=target)))
    read.add("numpush, get", lambda: check(store.get("a")), before=warm.drop_all)
    read.add("h5py, dataset[:] (private)", read_private)
    read.add("h5py, SArray(dataset[:])", read_whole, before=warm.drop_all)

    def create() -> None:
        with h5py.File(path + ".new", "w") as file:
            chunks = ((1 << 20) // 8,) if options else None
            level = {"compression_opts": 1} if options else {}
            file.create_dataset(
                "a", data=target.view(np.ndarray), chunks=chunks, **options, **level
            )

    def put() -> None:
        if os.path.exists(path + ".put"):
            os.unlink(path + ".put")
        with stores.open(f"hdf5://{path}.put", **options) as new:
            new.put("a", target)

    write.add("h5py, create_dataset", create)
    write.add("numpush, put (with fsync)", put)
    return [read, write]


if __name__ == "__main__":
    main()
