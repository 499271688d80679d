"""A big array or frame handed to a task of Ray on its own node: Ray as it is, against numpush.adapters.ray.

Each task reads from a thousand pages of what it is given, or changes one element of it; what Ray gives
is read-only, so there that takes a copy. "Put before": an object of Ray's refers to the data already.
"Put included": the data is plain, and is put into Ray's store, or into shared memory, each time. The
smaller arrays show from which size on sharing costs less than it saves.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

import numpush.adapters.ray
import tasks
from handoff import start_ray
from harness import Race, arguments, finish
from numpush import SArray, SDataFrame

SMALL = (16, 1024, 16384, 65536)  #: KiB


def write_one(array: Any) -> float:
    array[0] += 1
    return tasks.look(array[1:])


def write_one_of_a_copy(array: Any) -> float:
    return write_one(array.copy())


def make_shared(n: int) -> Any:
    numpush.adapters.ray.install()  # a worker that has received nothing of ours
    return tasks.make_shared(n)


def main() -> None:
    args = arguments(__doc__, mib=256)
    n = (args.mib << 20) // 8
    ray = start_ray(2)
    numpush.adapters.ray.install()
    remote = {
        function: ray.remote(function)
        for function in (
            *(tasks.look, tasks.look_frame, tasks.return_numbers),
            *(write_one, write_one_of_a_copy, make_shared),
        )
    }

    def check(function: Any, argument: Any, wanted: float) -> None:
        found = ray.get(remote[function].remote(argument))
        if found != wanted:
            raise AssertionError(f"wrong data: {found}, wanted {wanted}")

    def make(function: Any) -> None:
        if tasks.look(ray.get(remote[function].remote(n))) != tasks.expected(n):
            raise AssertionError("wrong data")

    data = np.arange(n, dtype=float)
    races = [_hand_over(args.mib, ray, data, check, args.rounds)]
    races.append(_write(args.mib, ray, data, check, args.rounds))
    races.append(_frames(args.mib, ray, data, check, args.rounds))
    result = Race(f"A result of {args.mib} MiB of a task of Ray, 1000 pages looked at", "numpush")
    result.add("numpush", lambda: make(make_shared))
    result.add("Ray", lambda: make(tasks.return_numbers))
    result.run(args.rounds)
    races.append(result)
    races += [_small(kib, ray, check, args.rounds) for kib in SMALL]
    finish(races, args.json)
    ray.shutdown()


def _hand_over(mib: int, ray: Any, data: Any, check: Any, rounds: int) -> Race:
    wanted = tasks.look(data)
    shared = SArray(data)
    ref, shared_ref = ray.put(data), ray.put(shared)
    race = Race(
        f"An array of {mib} MiB to a task of Ray, 1000 pages looked at", "numpush, put before"
    )
    race.add("numpush, put before", lambda: check(tasks.look, shared_ref, wanted))
    race.add("numpush, an SArray as argument", lambda: check(tasks.look, shared, wanted))
    race.add("Ray, put before", lambda: check(tasks.look, ref, wanted))
    race.add("numpush, put included", lambda: check(tasks.look, SArray(data), wanted))
    race.add("Ray, put included", lambda: check(tasks.look, ray.put(data), wanted))
    race.run(rounds)
    return race


def _write(mib: int, ray: Any, data: Any, check: Any, rounds: int) -> Race:
    wanted = tasks.look(data[1:])
    ref, shared_ref = ray.put(data), ray.put(SArray(data))
    race = Race(f"An element of an array of {mib} MiB changed by a task of Ray", "numpush")
    race.add("numpush", lambda: check(write_one, shared_ref, wanted))
    race.add("Ray, of a copy", lambda: check(write_one_of_a_copy, ref, wanted))
    race.run(rounds)
    return race


def _frames(mib: int, ray: Any, data: Any, check: Any, rounds: int) -> Race:
    frame = pd.DataFrame(data.reshape(8, -1).T, columns=list("abcdefgh"))
    wanted = tasks.look_frame(frame)
    ref, shared_ref = ray.put(frame), ray.put(SDataFrame(frame))
    race = Race(
        f"A frame of {mib} MiB (8 columns) to a task of Ray, looked at", "numpush, put before"
    )
    race.add("numpush, put before", lambda: check(tasks.look_frame, shared_ref, wanted))
    race.add("Ray, put before", lambda: check(tasks.look_frame, ref, wanted))
    race.add("numpush, put included", lambda: check(tasks.look_frame, SDataFrame(frame), wanted))
    race.add("Ray, put included", lambda: check(tasks.look_frame, ray.put(frame), wanted))
    race.run(rounds)
    return race


def _small(kib: int, ray: Any, check: Any, rounds: int) -> Race:
    data = np.arange((kib << 10) // 8, dtype=float)
    wanted = tasks.look(data)
    race = Race(f"An array of {kib} KiB to a task of Ray, sharing included", "Ray")
    race.add("numpush", lambda: check(tasks.look, SArray(data), wanted))
    race.add("Ray", lambda: check(tasks.look, data, wanted))
    race.run(rounds)
    return race


if __name__ == "__main__":
    main()
