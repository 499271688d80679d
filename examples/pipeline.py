"""A pipeline: another process pushes trades over TCP and over ZeroMQ; a Pool prices each frame as it lands.

The receiver hands out parts of the frame that lies in shared memory; meanwhile the next one arrives.

    python examples/pipeline.py [--frames N] [--rows N] [--processes N]
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import time
from typing import Any

import numpy as np
import pandas as pd

import numpush

URLS = ("tcp://127.0.0.1:0", "zmq+tcp://127.0.0.1:0")
SYMBOLS = ["AAA", "BBB", "CCC", "DDD"]


def make_trades(n_rows: int, seed: int) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "symbol": pd.Categorical.from_codes(rng.integers(0, 4, n_rows), SYMBOLS),
            "price": 100 + rng.normal(0, 1, n_rows).cumsum() / 1000,
            "size": rng.integers(1, 500, n_rows),
            "value": np.zeros(n_rows),
        }
    )


def push(url: str, n_frames: int, n_rows: int) -> None:
    """Send frames: what runs on the other machine."""
    frames = [make_trades(n_rows, seed) for seed in range(2)]
    # A ZeroMQ socket says in its URL what it is; whoever listens pulls.
    with numpush.ingest.connect(f"{url}?type=push" if url.startswith("zmq") else url) as out:
        for i in range(n_frames):
            out.send(frames[i % 2])


def price(part: Any) -> pd.Series:
    """Fill a column of a part in place, and return what was traded of each symbol."""
    part["value"] = part["price"].to_numpy() * part["size"].to_numpy()
    traded: pd.Series = part.groupby("symbol", observed=False)["value"].sum()
    return traded


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, default=20)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    args = parser.parse_args()

    context = multiprocessing.get_context("spawn")
    with context.Pool(args.processes) as pool:
        for url in URLS:
            with numpush.ingest.listen(url) as source:
                sender = context.Process(
                    target=push, args=(source.url.partition("?")[0], args.frames, args.rows)
                )
                sender.start()
                traded = pd.Series(0.0, index=pd.CategoricalIndex(SYMBOLS, name="symbol"))
                since = 0.0
                for i in range(args.frames):
                    frame = source.recv(timeout=120)
                    since = since or time.perf_counter()
                    for part in pool.map(price, frame.partitions(args.processes)):
                        traded += part
                    assert frame["value"].iloc[-1] > 0  # what the workers wrote is here
                    del frame
                    if i == 0:
                        print(f"{source.url}: the first of {args.frames} frames", flush=True)
                seconds = time.perf_counter() - since
                told = source.statistics()
                sender.join()
            print(
                f"  {told.objects} frames, {told.bytes / 1e6:.0f} MB, received and priced at "
                f"{told.bytes / 1e9 / seconds:.2f} GB/s, {args.frames * args.rows / seconds / 1e6:.1f} "
                "million trades a second"
            )
            print("  " + ", ".join(f"{name} {value:,.0f}" for name, value in traded.items()))
        pool.close()
        pool.join()


if __name__ == "__main__":
    main()
