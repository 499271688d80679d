"""Does what is installed work? Arrays, a pool, a lock, and the command, away from the checkout."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd

import numpush
import numpush.shm
from numpush import Pool, SArray, SDataFrame


def double(part: SArray) -> float:
    with part.lock:
        part *= 2
    return float(part.sum())


def main() -> None:
    where = Path(numpush.__file__).parent
    assert where.is_relative_to(sys.prefix), where
    array = SArray(np.arange(10.0))
    with Pool(2) as pool:
        assert pool.map(double, np.array_split(array, 2)) == [20.0, 70.0]
    assert array.sum() == 90
    frame = SDataFrame(pd.DataFrame({"x": [1, 2], "s": ["a", "b"]}))
    frame["y"] = frame["x"] * 2
    assert frame["y"].tolist() == [2, 4]
    assert numpush.atomic.add(array, 0, 5) == 0
    assert {seen.kind for seen in numpush.segments() if not seen.is_warm} == {"array", "frame"}
    command = Path(sys.executable).parent / "numpush"
    for args in (["--version"], ["ls"], ["doctor"]):
        done = subprocess.run([command, *args], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        assert args != ["--version"] or done.stdout == f"numpush {numpush.__version__}\n"
        assert args != ["ls"] or "frame 2 rows x 3 columns" in done.stdout
    print(f"numpush {numpush.__version__} works with Python {sys.version.split()[0]}")


if __name__ == "__main__":
    main()
