"""256 MB of prices, compressed by LZ4 after bitshuffle: out of files into shared memory, and into files.

blosc2's own way into a plain array is a new one (`blosc2.open(path)[:]`) or one that is there
(`get_slice_numpy`), with its own threads as many as it thinks best; the file is its own, with the chunks
that it chose. Nothing is brought to the disk (fsync), which all read from the page cache. Reading is
timed twice, by the clock and by the seconds of CPU that it took: on a machine that others use too the
second says more.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from harness import Race, arguments, finish
from numpush import SArray, stores

BASE = "numpush get, into="
CHUNKS = {"256 KiB": 1 << 18, "1 MiB": 1 << 20, "4 MiB": 1 << 22}


def main() -> None:
    import blosc2

    args = arguments(__doc__, mib=256)
    steps = np.random.default_rng(0).normal(0, 0.01, (args.mib << 20) // 8)
    data = SArray(np.round(100 + np.cumsum(steps), 2))
    what = f"{args.mib} MiB {data.shape} float64"
    with tempfile.TemporaryDirectory() as folder:
        races = [
            *_reading(blosc2, folder, data, what),
            _chunks(folder, data, what),
            _writing(blosc2, folder, data, what),
        ]
        for race in races:
            race.run(args.rounds)
    finish(races, args.json)
    medians = {name: sorted(times)[len(times) // 2] for name, times in races[0].seconds.items()}
    two, one = medians[BASE + ", no checksums"], medians[BASE + ", no checksums, 1 thread"]
    print(f"threads: {one / two:.2f} times one's speed, {os.cpu_count()} cores")


def _open(folder: str, name: str, **options: Any) -> stores.Store:
    return stores.open(f"blosc2://{folder}/{name}", sync=False, **options)


def _how(blosc2: Any) -> dict[str, Any]:
    return {
        "codec": blosc2.Codec.LZ4,
        "clevel": 5,
        "filters": [blosc2.Filter.BITSHUFFLE],
        "filters_meta": [0],
    }


def _check(found: Any, data: Any) -> Any:
    if found.shape != data.shape or found[-1] != data[-1] or found[12345] != data[12345]:
        raise AssertionError("wrong data")
    return found


def _reading(blosc2: Any, folder: str, data: Any, what: str) -> list[Race]:
    path = f"{folder}/theirs.b2nd"
    blosc2.asarray(data, urlpath=path, mode="w", cparams=_how(blosc2))
    into, plain = SArray.zeros(data.shape), np.zeros(data.shape)
    ways: dict[str, Callable[[], Any]] = {}
    for name, options in {
        "": {},
        ", no checksums": {"checksum": False},
        ", no checksums, 1 thread": {"checksum": False, "threads": 1},
    }.items():
        store = _open(folder, "read" + name.replace(" ", "").replace(",", "-"), **options)
        store.put("a", data)
        ways[BASE + name] = lambda store=store: _check(store.get("a", into=into), data)
        if "1" not in name:
            ways["numpush get" + name] = lambda store=store: _check(store.get("a"), data)
    theirs = stores.open(f"blosc2://{folder}")
    ways["numpush get, into=, blosc2's file"] = lambda: _check(
        theirs.get("theirs", into=into), data
    )
    ways["blosc2.open(path)[:]"] = lambda: _check(blosc2.open(path, mode="r")[:], data)

    def get_slice() -> Any:
        blosc2.open(path, mode="r").get_slice_numpy(plain, ((0,), data.shape))
        return _check(plain, data)

    ways["blosc2 get_slice_numpy"] = get_slice
    races = [
        Race(f"Read {what}", BASE),
        Race(f"Read {what}: seconds of CPU", BASE, clock=time.process_time),
    ]
    for race in races:
        for name, way in ways.items():
            race.add(name, way)
    return races


def _chunks(folder: str, data: Any, what: str) -> Race:
    race = Race(f"Read {what}, no checksums, by the bytes of a chunk", "1 MiB")
    into = SArray.zeros(data.shape)
    for name, size in CHUNKS.items():
        store = _open(folder, f"chunk-{size}", chunk=size, checksum=False)
        store.put("a", data)
        race.add(name, lambda store=store: _check(store.get("a", into=into), data))
    return race


def _writing(blosc2: Any, folder: str, data: Any, what: str) -> Race:
    race = Race(f"Write {what}, no fsync", "numpush put")
    for name, options in {
        "": {},
        ", no checksums": {"checksum": False},
        ", no checksums, 1 thread": {"checksum": False, "threads": 1},
    }.items():
        store = _open(folder, "write", **options)
        race.add("numpush put" + name, lambda store=store: store.put("a", data))
    path = f"{folder}/written.b2nd"
    race.add(
        "blosc2.asarray(.., urlpath=)",
        lambda: blosc2.asarray(data, urlpath=path, mode="w", cparams=_how(blosc2)),
    )
    return race


if __name__ == "__main__":
    main()
