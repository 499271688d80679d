"""Functions over rows, groups, values and parts of a frame: pandas on one core, and by processes.

The functions are those of pandarallel's own examples. pandarallel 1.6.5 cannot be imported with
pandas 3, so run this with a Python that has pandas 2, too; each title says which pandas it was. Pools
are started before; what comes out is compared with what pandas gives.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

import numpush
from harness import Race, arguments, finish

BASE = "pandas, one core"


def of_row(row: Any) -> float:
    return math.sin(row.a**2) + math.sin(row.b**2)


def of_group(group: Any) -> float:
    total = 0.0
    for item in group.b:
        total += math.log10(math.sqrt(math.exp(item**2)))
    return total / len(group.b)


def of_value(value: float) -> float:
    return math.log10(math.sqrt(math.exp(value**2)))


def of_values(part: Any) -> Any:
    return part["b"].apply(of_value)


def of_part(part: Any) -> Any:
    """Iterate a logistic map, value by value of the part: compute-bound, in NumPy."""
    values = part["b"].to_numpy()
    for _ in range(100):
        values = 3.9 * values * (1 - values)
    return pd.Series(values, part.index)


def main() -> None:
    args = arguments(__doc__, rows=1_000_000, groups=1000, workers=2)
    rng = np.random.default_rng(1)
    df = pd.DataFrame({"a": rng.integers(1, args.groups, args.rows), "b": rng.random(args.rows)})
    few = df.iloc[: args.rows // 10]  # a row costs ten times as much as a value
    shared, shared_few = numpush.SDataFrame(df), numpush.SDataFrame(few)
    n = args.workers
    where = f"{n} workers, {os.cpu_count()} cores, pandas {pd.__version__}"
    races = {
        "rows": Race(f"df.apply(f, axis=1), {few.shape}: {where}", BASE),
        "groups": Race(
            f"df.groupby('a')[['b']].apply(f), {df.shape}, {args.groups} groups: {where}", BASE
        ),
        "values": Race(f"series.apply(f), {args.rows} values: {where}", BASE),
        "parts": Race(f"f(part) that computes, in NumPy, {df.shape}: {where}", BASE),
    }

    def by_group(frame: Any) -> Any:
        return frame.groupby("a")[["b"]]

    wanted = {
        "rows": few.apply(of_row, axis=1),
        "groups": by_group(df).apply(of_group),
        "values": df["b"].apply(of_value),
        "parts": of_part(df),
    }

    def add(race: str, name: str, run: Callable[[], Any]) -> None:
        def checked() -> None:
            pd.testing.assert_series_equal(run(), wanted[race], check_names=False)

        races[race].add(name, checked)

    add("rows", BASE, lambda: few.apply(of_row, axis=1))
    add("groups", BASE, lambda: by_group(df).apply(of_group))
    add("values", BASE, lambda: df["b"].apply(of_value))
    add("parts", BASE, lambda: of_part(df))
    for name, frame, fewer in (
        ("numpush, shared before", lambda: shared, lambda: shared_few),
        (
            "numpush, sharing included",
            lambda: numpush.SDataFrame(df),
            lambda: numpush.SDataFrame(few),
        ),
    ):
        add("rows", name, lambda f=fewer: f().parallel_apply(of_row, axis=1, processes=n))
        add("groups", name, lambda f=frame: by_group(f()).parallel_apply(of_group, processes=n))
        add("values", name, lambda f=frame: f().map_partitions(of_values, processes=n))
        add("parts", name, lambda f=frame: f().map_partitions(of_part, processes=n))
    _add_pandarallel(races, add, df, few, by_group, n)
    for race in races.values():
        race.run(args.rounds)
    finish(list(races.values()), args.json)


def _add_pandarallel(races: Any, add: Any, df: Any, few: Any, by_group: Any, n: int) -> None:
    name = "pandarallel"
    try:
        from pandarallel import pandarallel
    except ImportError:  # not there, or it is there and cannot be imported with this pandas
        for race in races.values():
            race.missing.append(name)
        return
    pandarallel.initialize(nb_workers=n, progress_bar=False, verbose=0)
    add("rows", name, lambda: few.parallel_apply(of_row, axis=1))
    add("groups", name, lambda: by_group(df).parallel_apply(of_group))
    add("values", name, lambda: df["b"].parallel_apply(of_value))


if __name__ == "__main__":
    main()
