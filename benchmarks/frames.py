"""What a shared frame costs where pandas is used as always: reads, cells and columns written.

Each race is one spelling, done many times on a frame of float64, with plain pandas as the base. What
was read is checked, and after all races both frames hold the same values.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

import numpush
from harness import Race, arguments, finish

Use = Callable[[Any], Any]


def _add_one(df: Any) -> None:
    df["c5"] += 1


def _spellings(n_rows: int) -> dict[str, tuple[int, Use]]:
    """Return {title: (how often, what)}."""
    mask = np.arange(n_rows) % 10 == 3
    column = np.arange(n_rows) * 0.5
    return {
        "len(df)": (2000, len),
        "df['c5']": (1000, lambda df: df["c5"]),
        "df.iloc[5]": (200, lambda df: df.iloc[5]),
        "df.loc[3, 'c5']": (500, lambda df: df.loc[3, "c5"]),
        "df.at[3, 'c5']": (1000, lambda df: df.at[3, "c5"]),
        "df.iloc[10:1000]": (500, lambda df: df.iloc[10:1000]),
        "df[mask], a tenth of the rows": (1, lambda df: df[mask]),
        "df.sum()": (1, lambda df: df.sum()),
        "df[['c5', 'c7']]": (200, lambda df: df[["c5", "c7"]]),
        "df.at[3, 'c5'] = x": (500, lambda df: df.at.__setitem__((3, "c5"), 1.5)),
        "df.iat[3, 5] = x": (500, lambda df: df.iat.__setitem__((3, 5), 2.5)),
        "df.loc[3, 'c5'] = x": (200, lambda df: df.loc.__setitem__((3, "c5"), 3.5)),
        "df['c5'] = array": (50, lambda df: df.__setitem__("c5", column)),
        "df['c5'] = scalar": (50, lambda df: df.__setitem__("c5", 4.5)),
        "df['c5'] += 1": (50, _add_one),
    }


def main() -> None:
    args = arguments(__doc__, rows=100_000, columns=100)
    shape = args.rows, args.columns
    values = np.arange(args.rows * args.columns, dtype=float).reshape(shape[::-1]).T
    labels = [f"c{i}" for i in range(args.columns)]
    plain = pd.DataFrame(values.copy(order="K"), columns=labels)
    shared = numpush.SDataFrame(plain)
    races = []
    for title, (times, use) in _spellings(args.rows).items():
        _check(use(plain), use(shared))
        race = Race(f"{title}: {times} times, {shape} float64", "pandas")
        race.add("pandas", lambda use=use, times=times: _repeat(use, plain, times))
        race.add("SDataFrame", lambda use=use, times=times: _repeat(use, shared, times))
        race.run(args.rounds)
        races.append(race)
    _check(plain, shared.to_pandas())
    finish(races, args.json)


def _repeat(use: Use, df: Any, times: int) -> None:
    for _ in range(times):
        use(df)


def _check(wanted: Any, found: Any) -> None:
    if isinstance(wanted, pd.DataFrame):
        pd.testing.assert_frame_equal(wanted, found)
    elif isinstance(wanted, pd.Series):
        pd.testing.assert_series_equal(wanted, found)
    elif wanted != found:
        raise AssertionError(f"{wanted!r} wanted, {found!r} found")


if __name__ == "__main__":
    main()
