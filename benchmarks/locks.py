"""An uncontended lock, 100,000 times: ours survives its holder, the others do not."""

from __future__ import annotations

import multiprocessing as mp
import threading
from collections.abc import Callable
from typing import Any

import numpy as np

import numpush
from harness import Race, arguments, finish
from numpush.ffi import mutex as _mutex
from numpush.ffi import seg as _seg


class _Empty:
    """What any context manager written in Python costs."""

    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...


BASE = "with multiprocessing.Lock()"


def main() -> None:
    args = arguments(__doc__, n=100_000)
    n = args.n
    array = numpush.SArray(np.zeros(3))
    race = Race(f"{n} times lock and unlock, one process", BASE)

    def loop(lock: Any) -> Callable[[], None]:
        def run() -> None:
            for _ in range(n):
                with lock:
                    pass

        return run

    def with_attribute() -> None:
        for _ in range(n):
            with array.lock:
                pass

    def two_calls() -> None:
        ref = _seg.data_mutex(array._segment().ref)
        for _ in range(n):
            _mutex.try_lock(ref)
            _mutex.unlock(ref)

    def whole_range() -> None:
        for _ in range(n // 10):
            with array.lock_range(slice(None)):
                pass

    race.add(BASE, loop(mp.Lock()))
    race.add("with multiprocessing.RLock()", loop(mp.RLock()))
    race.add("with array.lock (robust)", with_attribute)
    race.add("the same, lock = array.lock before", loop(array.lock))
    race.add("its two calls into C alone", two_calls)
    race.add("with an empty class of Python", loop(_Empty()))
    race.add("with threading.Lock() (no other process)", loop(threading.Lock()))
    race.add("a tenth as many: with array.lock_range(slice(None))", whole_range)
    race.run(args.rounds)
    finish([race], args.json)


if __name__ == "__main__":
    main()
