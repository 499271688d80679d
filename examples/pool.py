"""A plain DataFrame through numpush.Pool: which stations' temperatures rose, and how sure is that?

Each task fits a trend to one station's days and repeats that on resampled days (a bootstrap), which gives
an interval. The frame goes with every task, as one writes it without thinking; it is put into shared
memory once, arrives as a plain private frame, and each task may change its own.

    python examples/pool.py [--stations N] [--years N] [--processes N]
"""

from __future__ import annotations

import argparse
import functools

import numpy as np
import pandas as pd

import numpush


def make_frame(n_stations: int, n_years: int) -> pd.DataFrame:
    """Make days of temperatures; every third station warms by 0.04 degrees a year."""
    rng = np.random.default_rng(1)
    days = pd.date_range("1990-01-01", periods=365 * n_years, freq="D")
    frames = []
    for i in range(n_stations):
        years = np.arange(len(days)) / 365
        season = 10 * np.sin(2 * np.pi * (years - 0.3))
        trend = 0.04 * years * (i % 3 == 0)
        values = 9 + season + trend + rng.normal(0, 3, len(days))
        frames.append(pd.DataFrame({"station": f"S{i:02}", "day": days, "celsius": values}))
    frame = pd.concat(frames, ignore_index=True)
    return frame.astype({"station": "category"})


def fit(frame: pd.DataFrame, station: str, n_resamples: int = 200) -> dict[str, object]:
    """Return a station's trend in degrees a year, with a 95% interval."""
    mine = frame[frame["station"] == station]
    years = ((mine["day"] - mine["day"].iloc[0]).dt.days / 365).to_numpy()
    season = 2 * np.pi * years
    model = np.column_stack([np.ones_like(years), years, np.sin(season), np.cos(season)])
    celsius = mine["celsius"].to_numpy()
    rng = np.random.default_rng(2)
    slopes = []
    for _ in range(n_resamples):
        rows = rng.integers(0, len(years), len(years))
        part = model[rows]
        slopes.append(np.linalg.solve(part.T @ part, part.T @ celsius[rows])[1])
    low, trend, high = np.quantile(slopes, [0.025, 0.5, 0.975])
    return {"station": station, "trend": trend, "low": low, "high": high}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--stations", type=int, default=24)
    parser.add_argument("--years", type=int, default=30)
    parser.add_argument("--processes", type=int)
    args = parser.parse_args()

    frame = make_frame(args.stations, args.years)
    print(
        f"{len(frame):,} days of {args.stations} stations, {frame.memory_usage().sum() / 1e6:.0f} MB"
    )
    with numpush.Pool(args.processes) as pool:
        rows = pool.map(
            functools.partial(fit, frame), frame["station"].cat.categories, progress=True
        )
    trends = pd.DataFrame(rows).set_index("station")
    rising = trends[trends["low"] > 0]
    print(rising.round(3))
    print(f"{len(rising)} of {len(trends)} stations rise; {-(-args.stations // 3)} were made to")


if __name__ == "__main__":
    main()
