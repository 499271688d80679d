"""Walk one frame through every kind of store, compare, and compute on what was stored.

Each store is put the same shared frame, and gives it back into shared memory; times and sizes are printed
as they come. Then a column is read alone, and numexpr, pandas and scikit-learn work on it where it lies.
A Redis of its own is started where redis-server is installed.

    python examples/stores.py [--rows N]
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numexpr
import numpy as np
import pandas as pd

from numpush import SDataFrame, stores

#: Kind of store -> the library that it needs, and its options.
KINDS = {
    "file://{folder}/files": ("numpy", {}),
    "hdf5://{folder}/one.h5": ("h5py", {}),
    "hdf5://{folder}/gzip.h5": ("h5py", {"compression": "gzip"}),
    "blosc2://{folder}/blosc2": ("blosc2", {}),
    "arrow://{folder}/arrow": ("pyarrow", {}),
    "parquet://{folder}/parquet": ("pyarrow", {}),
    "csv://{folder}/csv": ("pyarrow", {"parse_dates": ["time"]}),
}


def make_frame(n_rows: int) -> SDataFrame:
    rng = np.random.default_rng(1)
    frame = pd.DataFrame(
        {
            "time": pd.Timestamp("2026-01-01") + pd.to_timedelta(np.arange(n_rows), "s"),
            "symbol": pd.Categorical(np.array(["aa", "bb", "cc"])[rng.integers(0, 3, n_rows)]),
            "price": np.round(100 + np.cumsum(rng.normal(0, 0.01, n_rows)), 2),
            "volume": rng.integers(1, 1000, n_rows),
        }
    )
    return SDataFrame(frame)


@contextlib.contextmanager
def redis_server(folder: str) -> Iterator[str | None]:
    """Start a server that nobody else knows of; give its URL, or None where there is none."""
    program = shutil.which("redis-server")
    if program is None or importlib.util.find_spec("redis") is None:
        yield None
        return
    socket = f"{folder}/redis.sock"
    options = ["--port", "0", "--unixsocket", socket, "--save", "", "--dir", folder]
    server = subprocess.Popen([program, *options], stdout=subprocess.DEVNULL)
    try:
        while not Path(socket).exists():
            if server.poll() is not None:
                raise RuntimeError(f"redis-server ended with {server.returncode}")
            time.sleep(0.01)
        yield f"redis+unix://{socket}"
    finally:
        server.terminate()
        server.wait()


def walk(url: str, options: dict[str, object], frame: SDataFrame) -> None:
    """Put a frame, get it back, and compare."""
    with stores.open(url, **options) as store:
        start = time.perf_counter()
        store.put("trades", frame)
        put = time.perf_counter() - start
        start = time.perf_counter()
        back = store.get("trades")
        get = time.perf_counter() - start
        stored = store.stat("trades").stored
    found = back.to_pandas()
    if url.startswith("csv"):  # which has no types: text, and times to the microsecond
        found = found.astype(frame.dtypes.to_dict())
    assert found.equals(frame.to_pandas())
    kind = url.partition(":")[0] + "".join(
        f" {value}" for value in options.values() if value == "gzip"
    )
    print(f"{kind:12} put {put * 1e3:7.1f} ms  get {get * 1e3:7.1f} ms  {stored / 1e6:7.2f} MB")


def compute(url: str, n_rows: int) -> None:
    """Read two columns, and a part of the rows, and compute on them."""
    with stores.open(url) as store:
        part = store.get("trades", columns=["price", "volume"], rows=slice(n_rows // 2, None))
        frame = store.get("trades", columns=["symbol", "price", "volume"])
    price, volume = part["price"].to_numpy(), part["volume"].to_numpy()
    turnover = numexpr.evaluate("sum(price * volume)")
    assert np.isclose(turnover, (price * volume).sum())
    print(f"numexpr: the turnover of the second half is {turnover:.0f}")
    means = frame.groupby("symbol", observed=True)["price"].mean()
    print(f"pandas: mean prices are {', '.join(f'{k} {v:.2f}' for k, v in means.items())}")
    if importlib.util.find_spec("sklearn") is None:
        print("scikit-learn is not installed")
        return
    from sklearn.linear_model import LinearRegression

    model = LinearRegression().fit(part[["volume"]], price)
    print(f"scikit-learn: price = {model.intercept_:.2f} + {model.coef_[0]:.6f} volume")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    args = parser.parse_args()
    frame = make_frame(args.rows)
    print(f"{args.rows} rows, {frame.memory_usage(index=False).sum() / 1e6:.2f} MB")
    with tempfile.TemporaryDirectory() as folder:
        for url, (library, options) in KINDS.items():
            if importlib.util.find_spec(library) is None:
                print(f"{url.partition(':')[0]}: {library} is not installed")
            else:
                walk(url.format(folder=folder), options, frame)
        with redis_server(folder) as url:
            if url is None:
                print("redis: redis-server or redis-py is not installed")
            else:
                walk(url, {}, frame)
        compute(f"file://{folder}/files", args.rows)


if __name__ == "__main__":
    main()
