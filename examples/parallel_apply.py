"""Deliveries in shared memory: by all cores, how far was each, how late is each driver, what is odd?

Three ways to work on one shared frame, none of which copies it to the workers: a function for each row
(`parallel_apply`), for each group, with a bar on a terminal (`groupby(..).parallel_apply`), and for each of
a few parts (`map_partitions`), which writes its results straight into a column of the frame.

    python examples/parallel_apply.py [--rows N] [--drivers N] [--processes N]
"""

from __future__ import annotations

import argparse
import math
import sys
from typing import Any

import numpy as np
import pandas as pd

from numpush import SDataFrame


def make_frame(n_rows: int, n_drivers: int) -> pd.DataFrame:
    """Make deliveries around a town; each driver is late in his own way."""
    rng = np.random.default_rng(1)
    driver = rng.integers(0, n_drivers, n_rows)
    return pd.DataFrame(
        {
            "driver": pd.Categorical.from_codes(driver, [f"D{i:02}" for i in range(n_drivers)]),
            "lat": 48.2 + rng.normal(0, 0.1, n_rows),
            "lon": 16.4 + rng.normal(0, 0.1, n_rows),
            "minutes": rng.gamma(4.0, 5.0, n_rows) + driver,
            "score": np.zeros(n_rows),  # for the workers to fill
        }
    )


def distance(row: Any) -> float:
    """Return the way from the depot in km, on the globe."""
    lat, lon = math.radians(row["lat"]), math.radians(row["lon"])
    north, east = lat - math.radians(48.2), (lon - math.radians(16.4)) * math.cos(lat)
    return 6371 * math.hypot(north, east)


def lateness(deliveries: pd.DataFrame, n_resamples: int = 300) -> pd.Series:
    """Return a driver's median and a 95% interval, by the bootstrap."""
    minutes = deliveries["minutes"].to_numpy()
    rng = np.random.default_rng(2)
    medians = [np.median(rng.choice(minutes, len(minutes))) for _ in range(n_resamples)]
    low, median, high = np.quantile(medians, [0.025, 0.5, 0.975])
    return pd.Series({"low": low, "median": median, "high": high})


def fill_scores(part: SDataFrame) -> int:
    """Write how odd each delivery of these rows is; return how many are."""
    minutes = part["minutes"]
    part["score"] = ((minutes - 30) / 12).abs()  # into shared memory
    return int((part["score"] > 3).sum())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=40_000)
    parser.add_argument("--drivers", type=int, default=20)
    parser.add_argument("--processes", type=int)
    args = parser.parse_args()

    sdf = SDataFrame(make_frame(args.rows, args.drivers))
    km = sdf.parallel_apply(distance, axis=1, processes=args.processes)
    print(f"{len(sdf):,} deliveries, {km.sum():,.0f} km, the farthest {km.max():.1f} km")

    late = sdf.groupby("driver", observed=True).parallel_apply(
        lateness, processes=args.processes, progress=sys.stderr.isatty()
    )
    print(late.sort_values("median").iloc[[0, 1, -2, -1]].round(1))

    odd = sdf.map_partitions(fill_scores, processes=args.processes)
    worst = sdf.loc[sdf["score"].idxmax()]
    print(
        f"{sum(odd)} odd ones, found in {len(odd)} parts: the worst took {worst['minutes']:.0f} min"
    )


if __name__ == "__main__":
    main()
