"""The kernels that benchmarks/scaling.py runs: a module that workers can import."""

from __future__ import annotations

import functools
from typing import Any

import numba
import numpy as np

import numpush

STEPS = 1000


@numba.njit
def depth_of(point: float) -> int:
    """Count the steps of an iteration, always all of them, so that every point costs the same."""
    real, imaginary, inside = 0.0, 0.0, 0
    for _ in range(STEPS):
        real, imaginary = (
            real * real - imaginary * imaginary + point,
            2 * real * imaginary + 0.25,
        )
        if real * real + imaginary * imaginary > 4:
            real, imaginary = 0.0, 0.0
        else:
            inside += 1
    return inside


@numpush.kernel("const f8[::1], i4[::1]")
def compute(i0, i1, points, depths):
    for i in range(i0, i1):
        depths[i] = depth_of(points[i])


@numpush.kernel("const f8[::1], f8[::1], f8")
def move(i0, i1, x, y, c):
    for i in range(i0, i1):
        y[i] += c * x[i]


@numba.njit(parallel=True)
def compute_parallel(points: Any, depths: Any) -> None:
    for i in numba.prange(len(points)):
        depths[i] = depth_of(points[i])


@numba.njit(parallel=True)
def move_parallel(x: Any, y: Any, c: float) -> None:
    for i in numba.prange(len(x)):
        y[i] += c * x[i]


def call(task: tuple[str, tuple[int, int], Any]) -> None:
    """Run a kernel over some rows; arrays come as shared ones, or as their handles."""
    name, (start, stop), args = task
    kernel = {"compute": compute, "move": move}[name]
    kernel(start, stop, *map(_attached, args))


def _attached(arg: Any) -> Any:
    return _attach(arg) if isinstance(arg, numpush.Handle) else arg


@functools.cache
def _attach(handle: numpush.Handle) -> np.ndarray[Any, Any]:
    array: np.ndarray[Any, Any] = numpush.attach(handle)
    return array
