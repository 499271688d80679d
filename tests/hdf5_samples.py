"""A frame that the tests of hdf5:// write, and ways to compress it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from layout_samples import N

GOLDEN = Path(__file__).parent / "golden"
FRAME = pd.DataFrame(
    {
        "price": np.arange(N) / 7,
        "volume": np.arange(N, dtype=np.int32),
        "time": pd.date_range("2026-01-01", periods=N, unit="ns"),
        "kind": pd.Categorical([f"k{i % 3}" for i in range(N)]),
        "text": [f"s{i % 97}é" for i in range(N)],
        "gaps": pd.array([i if i % 5 else None for i in range(N)], dtype="Int64"),
    },
    index=pd.Index(np.arange(N) * 10, name="id"),
)
WAYS = [{}, {"compression": "gzip"}, {"compression": "gzip", "shuffle": False, "level": 9}]
