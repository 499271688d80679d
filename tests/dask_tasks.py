"""What the tests of numpush.adapters.dask run in Dask's workers, and how they look at it."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pandas as pd

import numpush
from numpush.shm.private import locate

ROWS = 33_333  # of 8 columns: 2 MB


def make_frame(seed: int = 0, rows: int = ROWS) -> pd.DataFrame:
    values = np.random.default_rng(seed).random((rows, 8))
    return pd.DataFrame(values, columns=list("abcdefgh"))


def make_mixed(seed: int = 0, rows: int = ROWS) -> pd.DataFrame:
    frame = make_frame(seed, rows)
    frame["i"] = np.arange(rows)
    frame["s"] = pd.array([f"word {i % 97}" for i in range(rows)], dtype="string[pyarrow]")
    frame["t"] = pd.date_range("2026-01-01", periods=rows, freq="s")
    return frame


def make_array(seed: int = 0) -> Any:
    return np.random.default_rng(seed).random((ROWS, 8))


def make_shared(seed: int = 0) -> numpush.SDataFrame:
    return numpush.SDataFrame(make_frame(seed))


def segment_of(x: Any) -> str | None:
    """Return the segment that the first column (or all) of *x* is a private view of."""
    array = x if isinstance(x, np.ndarray) else x.iloc[:, 0].to_numpy()
    found = locate(array.__array_interface__["data"][0], 4096)
    return None if found is None else found[0].name


def is_writable(x: Any) -> bool:
    return bool(x.flags.writeable)


def write(x: Any, value: float) -> float:
    """Do what a task should not: write to an argument."""
    x[0] = value
    return float(x[0].sum())


def double(x: Any) -> Any:
    """Return an argument, changed."""
    x *= 2
    return x


def total(x: Any) -> float:
    return float(np.asarray(x).sum())


def pid_of(*_: Any) -> int:
    return os.getpid()


def name_of(x: Any) -> str:
    return str(x.handle.name)


def add_under_lock(x: Any, value: float) -> int:
    with x.lock:
        x.loc[0, "a"] += value
    return os.getpid()
