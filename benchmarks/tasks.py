"""The tasks that workers run in the benchmarks: small, at module level, and they check the data."""

from __future__ import annotations

from multiprocessing import shared_memory
from typing import Any

import numpy as np

STEP = 32_003  #: elements between two that a task looks at: a page each, over the whole array


def expected(n: int) -> float:
    """Return what `look` gives for ``np.arange(n, dtype=float)``."""
    return float(np.arange(0, n, STEP, dtype=float).sum())


def nothing(_: Any = None) -> float:
    return 0.0


def look(array: Any) -> float:
    """Read elements all over the array."""
    return float(np.asarray(array)[::STEP].sum())


def look_frame(frame: Any) -> float:
    """Read elements all over the first column: a view of the frame, without a copy."""
    return float(frame.to_numpy()[::STEP, 0].sum())


def look_mixed(frame: Any) -> tuple[float, str, str, str]:
    """Read elements all over the first column, and from each of the others."""
    last = frame.iloc[-1]
    sample = float(frame["a"].to_numpy()[::STEP].sum()) + last["b"] + last["c"]
    return sample, last["label"], last["kind"], str(last["time"])


#: What the workers of a pool that forks have from the start: nothing is handed over to read it.
own: dict[str, Any] = {}


def look_own(_: Any) -> float:
    return look(own["array"])


def look_own_frame(_: Any) -> float:
    return look_frame(own["frame"])


def look_own_mixed(_: Any) -> tuple[float, str, str, str]:
    return look_mixed(own["mixed"])


def look_by_name(args: tuple[str, int]) -> float:
    """Attach to a block of the standard library, look, detach."""
    name, n = args
    block = shared_memory.SharedMemory(name)
    try:
        return look(np.ndarray((n,), float, block.buf))
    finally:
        block.close()


def look_tensor(tensor: Any) -> float:
    return float(tensor[::STEP].sum())


def look_shared(array: Any, _: int) -> float:
    """For mpire, which passes its shared object first."""
    return look(array)


def read_all(array: Any) -> float:
    return float(np.asarray(array).sum())


def make_shared(n: int) -> Any:
    """Compute into shared memory."""
    import numpush

    array = numpush.SArray.empty(n)
    np.multiply(_numbers(n), 1.0, out=array)
    return array


def make_shared_copy(n: int) -> Any:
    """Compute a plain array, then share it: one copy more."""
    import numpush

    return numpush.SArray(return_numbers(n))


def return_numbers(n: int) -> Any:
    return _numbers(n) * 1.0


def make_tensor(n: int) -> Any:
    import torch

    return torch.from_numpy(return_numbers(n))


_cache: dict[int, Any] = {}


def _numbers(n: int) -> Any:
    """Return what results are computed from, made once in each worker."""
    if n not in _cache:
        _cache[n] = np.arange(n, dtype=float)
    return _cache[n]
