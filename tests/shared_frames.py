"""Frames to share, and how to compare them."""

from __future__ import annotations

import os

import numpy as np
import pandas as pd

from numpush import SDataFrame
from numpush.shm import naming

PANDAS_3 = int(pd.__version__.split(".")[0]) >= 3
LIMIT = 60.0  #: seconds that anything here may take on a busy machine
equal = pd.testing.assert_frame_equal


def make(n: int = 33) -> pd.DataFrame:
    """Build a frame with columns of many families; odd sizes on purpose."""
    random = np.random.default_rng(7)
    frame = pd.DataFrame(
        {
            "f": random.random(n),
            "i": np.arange(n),
            "g": random.random(n),
            "b": random.random(n) > 0.5,
            "small": np.arange(n, dtype="i2"),
            "t": pd.date_range("2020-01-01", periods=n, unit="ns"),
            "z": pd.date_range("2020-01-01", periods=n, tz="Europe/Paris", unit="us"),
            "d": pd.to_timedelta(np.arange(n), unit="s"),
            "k": pd.Categorical(list("xyz" * n)[:n]),
            "m": pd.array([None, *range(1, n)], dtype="Int64") if n else pd.array([], "Int64"),
            "s": pd.array([f"text {i}" for i in range(n)], dtype="string[pyarrow]"),
            "o": np.array([f"object {i}" for i in range(n)], dtype=object),
        }
    )
    frame.attrs["unit"] = "m"
    return frame


def numeric(n: int = 33) -> pd.DataFrame:
    return pd.DataFrame(
        {"a": np.arange(float(n)), "b": np.arange(n) * 0.5, "i": np.arange(n)},
        index=pd.RangeIndex(10, 10 + n),
    )


def mixed(n: int = 1000) -> pd.DataFrame:
    """Build a frame with columns that are written in place, and some that are replaced."""
    return pd.DataFrame(
        {
            "a": np.arange(n, dtype="f8"),
            "b": np.arange(n, dtype="f8") * 2,
            "i": np.arange(n),
            "s": pd.array([f"text {i}" for i in range(n)], dtype="str"),
            "k": pd.Categorical(["x", "y"] * (n // 2)),
        }
    )


def file_size(sdf: SDataFrame) -> int:
    """Return the size of the file of the frame's segment."""
    return os.stat(naming.path(naming.segment_file(sdf.name))).st_size
