"""Kernels on all cores: three jobs over one shared frame of option quotes, checked against NumPy.

    Black-Scholes       prices of all quotes, each row by itself: a column is filled in place
    a moving average    row i looks at the 50 rows before it, which another worker may be at: it reads
                        what nobody writes
    a histogram         all workers count into one small array, by atomic additions

Each kernel is compiled once, here; the workers get machine code, and import no numba.

    python examples/kernels.py [--rows N] [--workers N]
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Callable

import numpy as np
import pandas as pd

import numpush
from numpush import SArray, SDataFrame, Team, kernels

WINDOW = 50
BINS = 64
RATE, VOLATILITY = 0.03, 0.25


@numpush.kernel("const f8[:], const f8[:], const f8[:], f8[:], f8, f8")
def black_scholes(i0, i1, spot, strike, years, price, rate, volatility):
    """Fill in the price of a European call."""
    for i in range(i0, i1):
        spread = volatility * math.sqrt(years[i])
        d1 = (math.log(spot[i] / strike[i]) + rate * years[i]) / spread + spread / 2
        discounted = strike[i] * math.exp(-rate * years[i])
        of_d1 = math.erfc(-d1 / math.sqrt(2.0)) / 2
        of_d2 = math.erfc(-(d1 - spread) / math.sqrt(2.0)) / 2
        price[i] = spot[i] * of_d1 - discounted * of_d2


@numpush.kernel("const f8[:], f8[:], i8")
def moving_average(i0, i1, values, average, window):
    """Average the last *window* values, of the first rows as many as there are."""
    start = max(0, i0 - window)
    total = 0.0
    for j in range(start, i0):
        total += values[j]
    for i in range(i0, i1):
        total += values[i]
        if i >= window:
            total -= values[i - window]
        average[i] = total / min(i + 1, window)


@numpush.kernel("const f8[:], i8[:], f8, f8")
def histogram(i0, i1, values, counts, low, width):
    """Count *values* into bins; the last one takes what is beyond."""
    last = len(counts) - 1
    for i in range(i0, i1):
        which = min(max(int((values[i] - low) / width), 0), last)
        kernels.atomic_add(counts, which, 1)


def make_quotes(n: int) -> pd.DataFrame:
    random = np.random.default_rng(7)
    return pd.DataFrame(
        {
            "spot": random.uniform(20, 200, n),
            "strike": random.uniform(20, 200, n),
            "years": random.uniform(0.1, 3, n),
            "price": np.zeros(n),
            "average": np.zeros(n),
        }
    )


def timed(what: str, job: Callable[[], None]) -> None:
    job()  # the workers get the kernel
    start = time.perf_counter()
    job()
    print(f"{what:16} {1e3 * (time.perf_counter() - start):8.2f} ms")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--workers", type=int, default=None)
    args = parser.parse_args()

    n = args.rows
    quotes = SDataFrame(make_quotes(n))
    spot, strike, years, price, average = map(quotes.column, quotes.columns)
    counts = SArray.zeros(BINS, "i8")
    width = 180 / BINS

    with Team(args.workers) as team:
        print(f"{n:,} quotes, {team.workers} workers")
        timed(
            "Black-Scholes",
            lambda: team.run(black_scholes, n, spot, strike, years, price, RATE, VOLATILITY),
        )
        timed("moving average", lambda: team.run(moving_average, n, price, average, WINDOW))

        def count() -> None:
            counts[:] = 0
            team.run(histogram, n, price, counts, 0.0, width)

        timed("histogram", count)

    wanted = quotes["price"].rolling(WINDOW, min_periods=1).mean()
    is_right = (
        np.allclose(quotes["average"], wanted)
        and counts.sum() == n
        and counts[0] == np.count_nonzero(np.floor(price / width) == 0)
    )
    print(
        f"the cheapest {price.min():.4f}, the dearest {price.max():.2f}; as NumPy has it: {is_right}"
    )
    return 0 if is_right else 1


if __name__ == "__main__":
    sys.exit(main())
