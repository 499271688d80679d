"""An array to and from a Redis server on a Unix socket: redis://, and redis-py with copies beside segments.

redis-py parses with hiredis where that is installed. Fresh: memory that nothing has touched; warm: that
of the object before; into: an array that is there. Then the memory that each takes at its highest beyond
the segment that it fills: VmHWM in /proc/self/status, of a process that does nothing else.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import redis

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
import numpush
from harness import Race, arguments, finish, installed
from numpush import SArray, stores
from processes import peak_memory

MIB = 1 << 20


def main() -> None:
    args = arguments(__doc__, mib=256, chunk=(4 << 20) - 64, memory_of="", socket="")
    if args.memory_of:
        print(peak_of(args.memory_of, args.socket, args.mib, args.chunk))
        return
    with tempfile.TemporaryDirectory() as folder:
        socket = f"{folder}/socket"
        server = subprocess.Popen(
            ["redis-server", "--port", "0", "--unixsocket", socket, "--save", "", "--dir", folder],
            stdout=subprocess.DEVNULL,
        )
        try:
            until = time.monotonic() + 10
            while not os.path.exists(socket) and time.monotonic() < until:
                time.sleep(0.01)
            races = race(socket, args.mib, args.chunk, args.rounds)
            finish(races, args.json)
            print("**Memory beyond the segment, at its highest**\n")
            for name in contestants(socket, 1, 4, None):
                command = [sys.executable, __file__, "--memory-of", name, "--socket", socket]
                found = subprocess.run(
                    [*command, "--mib", str(args.mib)], capture_output=True, text=True, check=True
                )
                print(f"{name}: {int(found.stdout) / MIB:.1f} MiB")
        finally:
            server.kill()
            server.wait()


def contestants(socket: str, n_mib: int, chunk: int, into: Any) -> dict[str, Callable[[], Any]]:
    """Return what is run, by name; *into* is an array of *n_mib* MiB, or None for the names alone."""
    store = stores.open(f"redis+unix://{socket}", chunk=chunk)
    sparing = stores.open(f"redis+unix://{socket}", chunk=chunk, spare=60)
    client = redis.Redis(unix_socket_path=socket)
    n = (n_mib * MIB) // 8

    def check(array: Any) -> Any:
        if array[-1] != n - 1 or array[n // 2] != n // 2:
            raise AssertionError("wrong data")
        return array

    def get() -> Any:
        return np.frombuffer(client.get("plain"))

    return {
        "get, fresh": lambda: check(store.get("a")),
        "get, warm": lambda: check(store.get("a")),
        "get, into=": lambda: check(store.get("a", into=into)),
        "redis-py get and SArray(..), fresh": lambda: check(SArray(get())),
        "redis-py get and SArray(..), warm": lambda: check(SArray(get())),
        "redis-py get and np.copyto": lambda: np.copyto(into, check(get())),
        "put": lambda: store.put("a", into),
        "put, spare=60": lambda: sparing.put("b", into),
        "redis-py set": lambda: client.set("plain", memoryview(into).cast("B")),
    }


def race(socket: str, n_mib: int, chunk: int, rounds: int) -> list[Race]:
    data = SArray(np.arange((n_mib * MIB) // 8, dtype=float))
    runs = contestants(socket, n_mib, chunk, data)
    runs["put"](), runs["put, spare=60"](), runs["redis-py set"]()
    parser = "hiredis" if installed("hiredis") else "its own parser"
    what = (
        f"{n_mib} MiB float64, Unix socket, parts of {chunk / MIB:.3g} MiB, redis-py with {parser}"
    )
    found = []
    for title, names in {
        "get into fresh memory": ["get, fresh", "redis-py get and SArray(..), fresh"],
        "get into warm memory": ["get, warm", "redis-py get and SArray(..), warm"],
        "get into an array": ["get, into=", "redis-py get and np.copyto"],
        "put": ["put", "put, spare=60", "redis-py set"],
    }.items():
        each = Race(f"{title}: {what}", names[0])
        for name in names:
            each.add(name, runs[name], before=numpush.gc if "fresh" in name else None)
        each.run(rounds)
        found.append(each)
    return found


def peak_of(name: str, socket: str, n_mib: int, chunk: int) -> int:
    """Return the bytes that a contestant takes at its highest, without the segment that it fills."""
    data = SArray(np.arange((n_mib * MIB) // 8, dtype=float))
    runs = contestants(socket, n_mib, chunk, data)
    stores.open(f"redis+unix://{socket}").get(
        "a", rows=slice(0, 9)
    )  # what is imported at first use
    peak_memory()
    before = peak_memory()
    result = runs[name]()
    taken = peak_memory() - before
    return taken - (result.nbytes if isinstance(result, SArray) and result is not data else 0)


if __name__ == "__main__":
    main()
