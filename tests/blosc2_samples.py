"""Arrays and frames that the tests of blosc2:// write, and how they open a store."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from layout_samples import N
from numpush import stores

GOLDEN = Path(__file__).parent / "golden"
BIG = np.round(100 + np.sin(np.arange(777_777) / 50), 2)  # several chunks, the last one odd
FRAME = pd.DataFrame(
    {"x": np.arange(N) / 3, "n": np.arange(N), "text": [f"s{i}" for i in range(N)]}
)
RNG = np.random.default_rng(0)
#: name -> array, and how many bytes a chunk is to have
ARRAYS = {
    "1-D": (BIG, 1 << 16),
    "2-D": (BIG[:33_333].reshape(-1, 3), 1 << 14),
    "rows longer than a chunk": (np.arange(3 * 50_001.0).reshape(3, -1), 1 << 14),
    "4-D": (np.arange(2 * 3 * 40 * 501, dtype="f4").reshape(2, 3, 40, 501), 1 << 14),
    "Fortran": (np.asfortranarray(np.arange(12_000.0).reshape(30, 400)), 1 << 14),
    "strided": (np.arange(40_000.0).reshape(100, 400)[::2, 1::3], 1 << 14),
    "0-d": (np.array(3.5), 1 << 14),
    "no rows": (np.empty((0, 3)), 1 << 14),
    "no columns": (np.empty((3, 0)), 1 << 14),
    "structured": (np.array([(1, 2.5)] * 999, [("a", "i2"), ("b", "f8")]), 1 << 12),
    "aligned": (np.ones(7, np.dtype([("a", "i2"), ("b", "f8")], align=True)), 1 << 12),
    "big-endian": (np.arange(5000, dtype=">i4"), 1 << 12),
    "datetimes": (np.arange(5).astype("M8[ns]"), 1 << 12),
    "complex": (np.arange(5) * 1j, 1 << 12),
    "items longer than 255 bytes": (np.array(["x" * 90, "y"] * 999), 1 << 12),
    "zeros": (np.zeros(100_000), 1 << 14),
    "zeros in part": (np.r_[np.zeros(5000), np.arange(3000.0), np.zeros(5000)], 1 << 12),
    "one value": (np.full(100_000, 7.5), 1 << 14),
    "bool": (RNG.random(100_000) < 0.5, 1 << 12),
    "noise": (np.frombuffer(RNG.bytes(100_000), np.uint8), 1 << 12),
}


def open_store(path, **options):
    return stores.open(f"blosc2://{path}", **options)
