"""A heat map from many sensors: an SSeries that workers add to, and containers shared with `share()`.

`share` puts the arrays and frames that lie in a dict (or list, tuple, dataclass) into shared memory, so the
settings of the job go to each task as handles. The counts are one SSeries: each worker adds what its
sensors saw under the lock, and this process looks on by the same memory.

    python examples/shared_series.py [--sensors N] [--readings N] [--processes N]
"""

from __future__ import annotations

import argparse
import functools
import pickle
from multiprocessing.reduction import ForkingPickler
from typing import Any

import numpy as np
import pandas as pd

import numpush
from numpush import SSeries


def make_job(n_sensors: int, n_readings: int) -> dict[str, Any]:
    """Make what each task needs: readings, where each sensor stands, and its offset."""
    rng = np.random.default_rng(1)
    towns = pd.Index(["Graz", "Linz", "Salzburg", "Wien"])
    return {
        "readings": rng.normal(20, 6, (n_sensors, n_readings)).round(1),
        "sensors": pd.DataFrame(
            {
                "town": pd.Categorical.from_codes(np.arange(n_sensors) % len(towns), towns),
                "offset": rng.normal(0, 0.5, n_sensors),
            }
        ),
        "limits": {"hot": 30.0, "cold": 0.0},
    }


def count_hot(job: dict[str, Any], hot: SSeries, sensor: int) -> int:
    """Count a sensor's hot readings, and add them to its town's."""
    about = job["sensors"].iloc[sensor]
    n = int((job["readings"][sensor] - about["offset"] > job["limits"]["hot"]).sum())
    with hot.lock:  # reading and writing are two steps
        hot[about["town"]] += n
    return n


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sensors", type=int, default=200)
    parser.add_argument("--readings", type=int, default=20_000)
    parser.add_argument("--processes", type=int)
    args = parser.parse_args()

    plain = make_job(args.sensors, args.readings)
    job = numpush.share(plain)
    print(
        f"the job: {len(pickle.dumps(plain)):,} bytes pickled, "
        f"{len(ForkingPickler.dumps(job)):,} shared, as {type(job['readings']).__name__} "
        f"and {type(job['sensors']).__name__}"
    )
    towns = plain["sensors"]["town"].cat.categories
    hot = SSeries(pd.Series(0, index=towns, name="hot readings"))
    with numpush.Pool(args.processes) as pool:
        counts = pool.map(functools.partial(count_hot, job, hot), range(args.sensors))
    print(hot.sort_values(ascending=False))
    print(f"{hot.sum():,} in all; the workers say {sum(counts):,}")


if __name__ == "__main__":
    main()
