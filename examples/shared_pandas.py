"""The oldest example: every worker writes into the same DataFrame.

A frame of zeros is shared; each worker is handed the whole of it, finds the column with its number
and writes its process id there, the way pandas always does that. Nothing is returned, nothing is
copied back, and the parent sees what they wrote.

    python examples/shared_pandas.py [--workers N] [--start-method fork|spawn|forkserver]
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys

import numpy as np
import pandas as pd

from numpush import SDataFrame


def write_pid(frame: SDataFrame, column: str, row: int) -> None:
    """Write this process's id into a column, and once more into a single cell."""
    frame[column] = os.getpid()
    frame.loc[row, "last"] = os.getpid()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--start-method", default=None)
    args = parser.parse_args()

    columns = [f"worker {i}" for i in range(args.workers)]
    frame = SDataFrame(
        pd.DataFrame(np.zeros((4, args.workers + 1), "i8"), columns=[*columns, "last"])
    )
    print(f"before, in process {os.getpid()}:\n{frame}\n")

    context = multiprocessing.get_context(args.start_method)
    workers = [
        context.Process(target=write_pid, args=(frame, column, i % len(frame)))
        for i, column in enumerate(columns)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    print(f"after:\n{frame}\n")

    is_seen = all(
        (frame[column] == worker.pid).all() for column, worker in zip(columns, workers, strict=True)
    )
    print("every worker's process id is here" if is_seen else "WRONG: something was lost")
    return 0 if is_seen else 1


if __name__ == "__main__":
    sys.exit(main())
