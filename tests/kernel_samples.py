"""Kernels that the tests of kernels use, compiled once per process; and where in a file something is."""

from __future__ import annotations

import inspect
import math
from pathlib import Path

import numpy as np

from numpush.kernels import kernel


def line_of(function, text):
    """Return "file:line" of the first line of *function* that contains *text*."""
    lines, first = inspect.getsourcelines(function)
    file = Path(inspect.getsourcefile(function)).name
    return f"{file}:{first + next(i for i, line in enumerate(lines) if text in line)}"


@kernel("f8[:], f8")
def scale(i0, i1, x, c):
    for i in range(i0, i1):
        x[i] *= c


@kernel("const f8[:], f8[:]")
def copy(i0, i1, x, y):
    for i in range(i0, i1):
        y[i] = x[i]


@kernel("f8[:]")
def fail(i0, i1, x):
    for i in range(i0, i1):
        if x[i] < 0:
            raise ValueError("negative", 7)
        if x[i] > 100:
            raise OverflowError("too large", i, x[i])
        x[i] = math.sqrt(x[i])


@kernel("f8[:]")
def sort_rows(i0, i1, x):
    x[i0:i1] = np.sort(x[i0:i1] + 1.0)
