"""Kernels: how long until one is ready in another process, what a call costs, and what atomic
operations and locks in it cost.
"""

from __future__ import annotations

import multiprocessing as mp
import os
import pickle
import subprocess
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import cloudpickle
import numba
import numpy as np

import numpush
from harness import Race, arguments, finish
from numpush import atomic
from numpush.kernels import Variant, atomic_add, kernel, mutex_lock, mutex_unlock

SIGNATURE = "void(int64, int64, float64[::1], float64[::1], float64)"


def nbody(i0: int, i1: int, x: Any, y: Any, c: float) -> None:
    """Some forces: loops, branches, and a few functions of libm."""
    for i in range(i0, i1):
        force = 0.0
        for j in range(len(x)):
            if i != j:
                d = x[j] - x[i]
                r = np.sqrt(d * d + c)
                force += d / (r * r * r) + np.exp(-r) * np.sin(r)
        y[i] = force


def ready_here(rounds: int) -> Race:
    """In a process that has everything loaded and warm."""
    race = Race(
        "a kernel of some forces ready to be called, in a process where all is loaded and warm",
        "numpush: unpickle a Variant, link its object code",
    )
    variant = kernel("const f8[::1], f8[::1], f8")(nbody).compile()[0]
    payload = pickle.dumps(variant)
    function = cloudpickle.dumps(nbody)
    warm = numba.njit(SIGNATURE, cache=True)(nbody)  # writes the cache
    assert warm.signatures

    def link() -> Any:
        received = pickle.loads(payload)
        assert received.entry()
        return received

    def build() -> Any:
        foreign = variant.target._replace(
            features=variant.target.features | {"not-here"}, flags=frozenset({"not-here"})
        )
        received = Variant(
            variant.name,
            variant.place,
            variant.arguments,
            variant.bitcode,
            variant.object_code,
            foreign,
        )
        assert received.entry()
        return received

    def recompile() -> Any:
        compiled = numba.njit(SIGNATURE)(pickle.loads(function))
        assert compiled.signatures
        return compiled

    def load_cache() -> Any:
        compiled = numba.njit(SIGNATURE, cache=True)(nbody)
        assert sum(compiled.stats.cache_hits.values()) == 1
        return compiled

    race.add(race.base, link)
    race.add("the same, its bitcode for another CPU", build)
    race.add("numba: cache=True, the file is there", load_cache)
    race.add("numba: the function by cloudpickle, compiled anew", recompile)
    race.run(rounds)
    return race


_FRESH = """
import sys, time
start = time.perf_counter()
payload = sys.stdin.buffer.read()
{prepare}
loaded = time.perf_counter()
{ready}
print(loaded - start, time.perf_counter() - loaded)
"""


def ready_in_new_process(rounds: int) -> list[Race]:
    """In a fresh interpreter: the imports, and then the kernel. The child says how long it took."""
    variant = kernel("const f8[::1], f8[::1], f8")(nbody).compile()[0]
    numba.njit(SIGNATURE, cache=True)(nbody)
    here = f"import sys; sys.path.insert(0, {os.path.dirname(os.path.abspath(__file__))!r})\n"
    scripts = {
        "numpush: no numba, object code": (
            "import pickle, numpush.kernels.variant, numpush.llvm; numpush.llvm.prepare()",
            "pickle.loads(payload).entry()",
            pickle.dumps(variant),
        ),
        "numba: cache=True, the file is there": (
            here + "import numba, kernels",
            f"numba.njit({SIGNATURE!r}, cache=True)(kernels.nbody)",
            b"",
        ),
        "numba: the function by cloudpickle, compiled anew": (
            "import pickle, numba",
            f"numba.njit({SIGNATURE!r})(pickle.loads(payload))",
            cloudpickle.dumps(nbody),
        ),
    }
    base = next(iter(scripts))
    both = [
        Race("a new process: imports until it can receive the kernel", base),
        Race("a new process: from there until the kernel is ready", base),
    ]
    for race in both:
        race.seconds = {name: [] for name in scripts}
    for _ in range(rounds):
        for name, (prepare, ready, payload) in scripts.items():
            done = subprocess.run(
                [sys.executable, "-c", _FRESH.format(prepare=prepare, ready=ready)],
                input=payload,
                capture_output=True,
                check=True,
            )
            for race, seconds in zip(both, done.stdout.split()):
                race.seconds[name].append(float(seconds))
    return both


def calls(n: int, rounds: int) -> Race:
    """A kernel of no rows."""
    x, y = numpush.SArray(np.zeros(8)), numpush.SArray(np.zeros(8))
    k = kernel("const f8[::1], f8[::1], f8")(nbody)
    variant = k.variant(x, y, 1.0)
    compiled = numba.njit(SIGNATURE)(nbody)
    race = Race(
        f"{n} calls of a kernel of no rows from Python, 2 arrays and a number", "numba: a call"
    )

    def loop(function: Callable[..., Any]) -> Callable[[], None]:
        def run() -> None:
            for _ in range(n):
                function(0, 0, x, y, 1.0)

        return run

    race.add("numba: a call", loop(compiled))
    race.add("numpush: kernel(i0, i1, ...)", loop(k))
    race.add("numpush: variant(i0, i1, ...)", loop(variant))
    race.run(rounds)
    return race


@kernel("i8[:]")
def count(i0: int, i1: int, a: Any) -> None:
    for _ in range(i0, i1):
        atomic_add(a, 0, 1)


@kernel("f8[:]")
def count_floats(i0: int, i1: int, a: Any) -> None:
    for _ in range(i0, i1):
        atomic_add(a, 0, 1.0)


@kernel("i8[:], mutex")
def count_under_lock(i0: int, i1: int, a: Any, lock: int) -> None:
    for _ in range(i0, i1):
        mutex_lock(lock)
        a[0] += 1
        mutex_unlock(lock)


def operations(n: int, rounds: int) -> Race:
    """Count to n."""
    a, f = numpush.SArray(np.zeros(8, "i8")), numpush.SArray(np.zeros(8))
    lock = mp.Lock()
    race = Race(
        f"counting to {n} in shared memory (one second here is {1e9 / n:g} ns for each)",
        "kernel: atomic_add, i8",
    )
    pool = ThreadPoolExecutor(2)

    def alone(k: Any, array: Any, *more: Any) -> Callable[[], None]:
        variant = k.variant(array, *more)

        def run() -> None:
            array[0] = 0
            variant(0, n, array, *more)
            assert array[0] == n

        return run

    def two(k: Any, array: Any, *more: Any) -> Callable[[], None]:
        variant = k.variant(array, *more)

        def run() -> None:
            array[0] = 0
            halves = [
                pool.submit(variant, 0, n // 2, array, *more),
                pool.submit(variant, n // 2, n, array, *more),
            ]
            for half in halves:
                half.result()
            assert array[0] == n

        return run

    def in_python(step: Callable[[], Any]) -> Callable[[], None]:
        def run() -> None:
            a[0] = 0
            for _ in range(n // 100):
                step()
            assert a[0] == n // 100

        return run

    def under(lock: Any) -> Callable[[], None]:
        def step() -> None:
            with lock:
                a[0] += 1

        return step

    race.add(race.base, alone(count, a))
    race.add("kernel: atomic_add, f8", alone(count_floats, f))
    race.add("kernel: mutex_lock, += 1, mutex_unlock", alone(count_under_lock, a, a))
    race.add("two threads at once: atomic_add, i8", two(count, a))
    race.add("two threads at once: atomic_add, f8", two(count_floats, f))
    race.add("two threads at once: mutex", two(count_under_lock, a, a))
    race.add("Python, to a hundredth: numpush.atomic.add", in_python(lambda: atomic.add(a, 0, 1)))
    race.add("Python, to a hundredth: with array.lock", in_python(under(a.lock)))
    race.add("Python, to a hundredth: with multiprocessing.Lock()", in_python(under(lock)))
    race.run(rounds)
    pool.shutdown()
    return race


def main() -> None:
    args = arguments(__doc__, n=1_000_000, calls=10_000)
    with tempfile.TemporaryDirectory() as cache:
        os.environ["NUMBA_CACHE_DIR"] = cache  # of the children too
        numba.config.reload_config()
        races = [
            ready_here(args.rounds),
            *ready_in_new_process(args.rounds),
            calls(args.calls, args.rounds),
            operations(args.n, args.rounds),
        ]
    finish(races, args.json)


if __name__ == "__main__":
    main()
