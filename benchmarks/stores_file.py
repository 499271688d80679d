"""file://: an array of a file into shared memory, against what else there is; the page cache is warm.

Fresh: into a new segment, whose memory is freed after each turn and not kept warm. Into: over an array
that is there. With --folder on a MooseFS (tests/moosefs/cell.sh) the same there, against cp to /dev/shm.
With --puts 0 nothing is written in turns: MooseFS frees what is deleted late, and a small cell is full.
"""

from __future__ import annotations

import mmap
import os
import shutil
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

import numpush
from harness import Race, arguments, finish
from numpush import stores
from numpush.shm import warm

PIPE = 1 << 20


def main() -> None:
    args = arguments(__doc__, mib=256, folder="", puts=1)
    array = np.random.default_rng(0).random(args.mib << 17)
    folder = tempfile.mkdtemp(dir=args.folder or None)
    plain = os.path.join(folder, "plain")
    array.tofile(plain)
    store = stores.open(folder)
    store.put("a", array)
    own = stores.open(folder, io="mmap")
    split = stores.open(folder, io="splice")
    what = f"{args.mib} MiB float64"
    fresh = Race(f"A file into a new segment: {what}", "numpush, get")
    into = Race(f"A file into memory that is there: {what}", "numpush, get(into=)")
    put = Race(f"Shared memory to a file, without fsync: {what}", "numpush, put(sync=False)")
    target = numpush.SArray(array)

    def new() -> Any:
        return numpush.SArray.empty(array.shape)

    def check(found: Any) -> Any:
        if found[0] != array[0] or found[-1] != array[-1] or len(found) != len(array):
            raise AssertionError("wrong data")
        return found

    ways = {
        "mmap + memcpy": copy_mapped,
        "readinto, one thread": read_into,
        "preadv, 2 threads": read_by_threads,
        "splice": splice,
    }
    drop = warm.drop_all
    fresh.add("numpush, get", lambda: check(store.get("a")), before=drop)
    fresh.add("numpush, get, io='mmap'", lambda: check(own.get("a")), before=drop)
    fresh.add("numpush, get, io='splice'", lambda: check(split.get("a")), before=drop)
    into.add("numpush, get(into=)", lambda: check(store.get("a", into=target)))
    for name, way in ways.items():
        fresh.add(name, lambda way=way: check(way(plain, new())), before=drop)
        into.add(name, lambda way=way: check(way(plain, target)))
    fresh.add(
        "SArray(np.fromfile(..))", lambda: check(numpush.SArray(np.fromfile(plain))), before=drop
    )
    fresh.add("cp to /dev/shm", lambda: copy_file(plain, len(array) * 8), before=drop)
    mapped = Race(
        f"A file's own pages, mapped, and each page touched: {what}", "numpush, mode='mmap'"
    )
    mapped.add("numpush, mode='mmap'", lambda: touch(store.get("a", mode="mmap")))
    mapped.add("np.memmap", lambda: touch(np.memmap(plain, float, "r")))

    quick = stores.open(folder, sync=False)
    put.add("numpush, put(sync=False)", lambda: quick.put("b", target))
    put.add("ndarray.tofile to a new file, rename", lambda: replace(target, plain + "2"))
    put.add("ndarray.tofile over the old file", lambda: target.view(np.ndarray).tofile(plain + "3"))
    races = [fresh, into, mapped, *([put] if args.puts else [])]
    try:
        for race in races:
            race.run(args.rounds)
        finish(races, args.json)
    finally:
        shutil.rmtree(folder)


def touch(array: Any) -> float:
    return float(array[::512].sum())


def copy_mapped(path: str, target: Any) -> Any:
    with open(path, "rb") as file:
        pages = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
    target[:] = np.frombuffer(pages)
    return target


def read_into(path: str, target: Any) -> Any:
    with open(path, "rb", buffering=0) as file:
        view, at = memoryview(target.view(np.ndarray)).cast("B"), 0
        while at < len(view):
            at += file.readinto(view[at:])
    return target


def read_by_threads(path: str, target: Any, n: int = 2) -> Any:
    view = memoryview(target.view(np.ndarray)).cast("B")
    size = -(-len(view) // n)
    with open(path, "rb", buffering=0) as file, ThreadPoolExecutor(n) as threads:

        def read(start: int) -> None:
            at, stop = start, min(start + size, len(view))
            while at < stop:
                at += os.preadv(file.fileno(), [view[at:stop]], at)

        list(threads.map(read, range(0, len(view), size)))
    return target


def splice(path: str, target: Any) -> Any:
    segment = target._segment()
    source, sink = os.pipe()
    at, size = 0, target.nbytes
    with open(path, "rb") as file, segment.opened() as out:
        while at < size:
            n = os.splice(file.fileno(), sink, min(PIPE, size - at), offset_src=at)
            while n:
                moved = os.splice(source, out, n, offset_dst=segment.data_offset + at)
                at, n = at + moved, n - moved
    os.close(source)
    os.close(sink)
    return target


def replace(array: Any, path: str) -> None:
    array.view(np.ndarray).tofile(path + ".new")
    os.rename(path + ".new", path)


def copy_file(path: str, size: int) -> None:
    copy = f"/dev/shm/numpush-benchmark-{os.getpid()}"
    try:
        subprocess.run(["cp", path, copy], check=True)
        if os.stat(copy).st_size != size:
            raise AssertionError("wrong size")
    finally:
        os.unlink(copy)


if __name__ == "__main__":
    main()
