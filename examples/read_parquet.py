"""Read a Parquet file into shared memory, and have every worker look at its own rows.

The file's row groups are decoded straight into the shared frame: at no time is there a private copy of
it. Each worker is handed a partition, as a handle of a few hundred bytes.

    python examples/read_parquet.py [--rows N] [--start-method fork|spawn|forkserver]
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

from numpush import SDataFrame, filling

CITIES = ["Aarhus", "Bergen", "Cork", "Delft"]


def write_file(path: Path, n_rows: int) -> None:
    rng = np.random.default_rng(1)
    frame = pd.DataFrame(
        {
            "city": np.array(CITIES)[rng.integers(0, len(CITIES), n_rows)],
            "time": pd.Timestamp("2024-01-01") + pd.to_timedelta(np.arange(n_rows), "s"),
            "degrees": rng.normal(10, 5, n_rows).round(1),
        }
    )
    frame.to_parquet(path, row_group_size=max(1, n_rows // 8))


def hottest(part: SDataFrame) -> tuple[float, str]:
    row = part.loc[part["degrees"].idxmax()]
    return float(row["degrees"]), f"{row['city']} at {row['time']}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=500_000)
    parser.add_argument("--start-method", default=None)
    args = parser.parse_args()

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "weather.parquet"
        write_file(path, args.rows)
        frame = filling.read_parquet(path)
    print(f"{len(frame):,} rows of {', '.join(frame.columns)} in shared memory")

    with multiprocessing.get_context(args.start_method).Pool(2) as pool:
        degrees, where = max(pool.map(hottest, frame.partitions(8)))
    print(f"hottest: {degrees} degrees, in {where}")
    return 0 if degrees == frame["degrees"].max() else 1


if __name__ == "__main__":
    sys.exit(main())
