"""The kernels and functions that the teams under test run."""

from __future__ import annotations

import os
import signal
import sys
import time

import numpy as np

from numpush.kernels import atomic_add, kernel, mutex_lock, mutex_unlock
from pool_tasks import Unloadable


@kernel("")
def empty(i0, i1):
    pass


@kernel("f8[:], f8")
def add(i0, i1, x, c):
    for i in range(i0, i1):
        x[i] += c


@kernel(["const f8[:], f8[:]", "const i4[:], i4[:]"])
def double(i0, i1, x, y):
    for i in range(i0, i1):
        y[i] = 2 * x[i]


@kernel("const f8[:], f8[:]")
def total(i0, i1, x, out):
    for i in range(i0, i1):
        out[0] += x[i]


@kernel("const i8[:], i8[:, :]")
def histogram(i0, i1, x, out):
    for i in range(i0, i1):
        out[0, x[i]] += 1
        out[1, x[i]] += x[i]


@kernel("const f8[:], f8[:]")
def extremes(i0, i1, x, out):
    for i in range(i0, i1):
        out[0] = min(out[0], x[i])


@kernel("i8[:]")
def count_chunks(i0, i1, counts):
    atomic_add(counts, 0, 1)
    atomic_add(counts, 1, i1 - i0)


@kernel("i8[:], mutex")
def count_locked(i0, i1, counts, lock):
    for _ in range(i0, i1):
        mutex_lock(lock)
        counts[0] += 1
        mutex_unlock(lock)


@kernel("f8[:], i8")
def refuse(i0, i1, x, row):
    for i in range(i0, i1):
        if i == row:
            raise ValueError("no such row", 7)
        x[i] += 1


@kernel("i8[:], i8[:]")
def wait_for(i0, i1, flag, counts):
    """Say that a chunk has begun, and go on when somebody says so."""
    atomic_add(counts, 0, 1)
    while atomic_add(flag, 0, 0) == 0:
        pass
    for i in range(i0, i1):
        counts[1 + i] += 1


@kernel("f8[:], i8[:]")
def crash_once(i0, i1, x, deaths):
    """Write to address 0 for each row of *deaths* that is left, from the last on."""
    for i in range(i0, i1):
        if i == deaths[1] and atomic_add(deaths, 0, -1) > 0:
            deaths[1 << 60] = 1
        x[i] += 1


def square(i):
    return i * i


def pid_of(_):
    return os.getpid()


def sum_of(part, factor):
    return float(np.asarray(part).sum()) * factor


def fail_at(i, row):
    if i == row:
        raise KeyError("no such row", i)
    time.sleep(0.001)
    return i


class Strange(Exception):
    """It does not come back, even where tblib, which Dask loads, pickles exceptions in its way."""

    def __init__(self, i):
        super().__init__(i)
        self.detail = Unloadable()


def fail_strangely(i):
    raise Strange(i)


def die_at(i, row, left):
    """Be killed at *row* for as often as *left* says."""
    if i == row and left[0] > 0:
        left[0] -= 1
        os.kill(os.getpid(), signal.SIGKILL)
    return i


def modules(_):
    return sorted({"numba", "loky", "llvmlite", "pandas"} & set(sys.modules))
