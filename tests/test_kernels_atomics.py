"""Atomics and mutexes in compiled functions: each dtype and operation, contention, and dead holders."""

from __future__ import annotations

import itertools
import os
import signal
import time

import numba
import numpy as np
import pandas as pd
import pytest

import numpush
import processes
from numpush import SArray, atomic, kernels
from numpush.errors import LockError
from numpush.kernels import (
    KernelRefused,
    atomic_add,
    atomic_and,
    atomic_cas,
    atomic_exchange,
    atomic_fence,
    atomic_load,
    atomic_max,
    atomic_min,
    atomic_or,
    atomic_store,
    atomic_sub,
    kernel,
    mutex_address,
    mutex_lock,
    mutex_trylock,
    mutex_unlock,
)

INTS = ["i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8"]
FLOATS = ["f4", "f8"]


@numba.njit
def update_all(a, value):
    """Apply each operation to one element of *a*, and return what was there."""
    return (
        atomic_add(a, 0, value),
        atomic_sub(a, 1, value),
        atomic_min(a, 2, value),
        atomic_max(a, 3, value),
        atomic_exchange(a, 4, value),
    )


@numba.njit
def update_bits(a, value):
    return atomic_and(a, 0, value), atomic_or(a, 1, value)


def values_of(dtype):
    if dtype.kind == "f":
        return [dtype.type(v) for v in (0.1, -0.0, 1e30, np.inf, -np.inf, np.nan, 3, 1 / 3)]
    info = np.iinfo(dtype)
    return [dtype.type(v) for v in (info.min, info.max, 0, 1, 5, info.max - 1)]


@pytest.mark.parametrize("dtype", INTS + FLOATS)
def test_compiled_operations_do_what_those_of_python_do(dtype):
    dtype = np.dtype(dtype)
    operations = (atomic.add, atomic.sub, atomic.min, atomic.max, atomic.exchange)
    for x, y in itertools.product(values_of(dtype), repeat=2):
        a, b = np.full(5, x), np.full(5, x)
        olds = update_all(a, y)
        expected = [op(b, i, y) for i, op in enumerate(operations)]
        np.testing.assert_array_equal(olds, np.array(expected, dtype))
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("dtype", [*INTS, "bool"])
def test_bits(dtype):
    dtype = np.dtype(dtype)
    values = [False, True] if dtype.kind == "b" else values_of(dtype)
    for x, y in itertools.product(values, repeat=2):
        a = np.full(2, x, dtype)
        assert update_bits(a, dtype.type(y)) == (x, x)
        assert a.tolist() == [dtype.type(x) & dtype.type(y), dtype.type(x) | dtype.type(y)]


@pytest.mark.parametrize("dtype", [*INTS, *FLOATS, "bool"])
def test_load_store_and_compare_exchange(dtype):
    @numba.njit
    def steps(a, seven, nine):
        atomic_store(a, (1, 2), seven)
        atomic_fence()
        seen = atomic_load(a, (-1, -1))
        return seen, atomic_cas(a, (1, 2), nine, nine), atomic_cas(a, (1, 2), seven, nine)

    a = np.zeros((2, 3), dtype)
    seven, nine = np.array([1, 0] if dtype == "bool" else [7, 9], dtype)
    assert steps(a, seven, nine) == (seven, (False, seven), (True, seven))
    assert a[1, 2] == nine
    assert not a[:, :2].any()


def test_compare_exchange_compares_bits_of_floats():
    @numba.njit
    def swap(a, expected, desired):
        return atomic_cas(a, 0, expected, desired)

    a = np.array([0.0])
    assert swap(a, -0.0, 1.0) == (False, 0.0)
    a[0] = np.nan
    assert swap(a, a[0], 2.0)[0]
    assert a[0] == 2.0


def test_views_strides_and_every_kind_of_index():
    @numba.njit
    def bump(a, i, j):
        return atomic_add(a, (i, j), 100)

    base = np.arange(24).reshape(4, 6)
    for view in (base, base.T, base[::-1, ::2], base[1:3, 3:]):
        for i, j in np.ndindex(view.shape):
            for index in ((i, j), (i - view.shape[0], j), (np.uint8(i), np.int16(j))):
                before = int(view[i, j])
                assert bump(view, *index) == before
                assert view[i, j] == before + 100
                view[i, j] = before


def test_fields_of_records():
    @numba.njit
    def count(records, n):
        for _ in range(n):
            atomic_add(records.n, 1, 1)

    records = np.zeros(3, [("price", "f8"), ("n", "i8")]).view(np.recarray)
    count(np.asarray(records), 5)
    assert records["n"].tolist() == [0, 5, 0]


def test_an_element_that_is_not_aligned_is_an_error():
    packed = np.zeros(3, [("flag", "u1"), ("n", "i8")])["n"]

    @numba.njit
    def add(a):
        atomic_add(a, 0, 1)

    with pytest.raises(ValueError, match="its size 8 does not divide"):
        add(packed)

    @kernel("i8[:]")
    def add_in_kernel(i0, i1, x):
        atomic_add(x, 0, 1)

    with pytest.raises(ValueError, match="its size 8 does not divide"):
        add_in_kernel(0, 1, packed)
    assert not packed.any()


def test_called_from_python_they_are_those_of_numpush_atomic():
    a = np.zeros(2, "i8")
    assert atomic_add(a, 0, 5) == 0
    assert atomic_cas(a, 0, 5, 7) == (True, 5)
    assert (atomic_max(a, 0, 9), atomic_min(a, 0, 3), atomic_exchange(a, 0, 4)) == (7, 9, 3)
    assert (atomic_or(a, 1, 3), atomic_and(a, 1, 1), atomic_sub(a, 1, 1)) == (0, 3, 1)
    atomic_store(a, 1, 8)
    atomic_fence()
    assert atomic_load(a, 1) == 8


def refused(function, *args):
    with pytest.raises(numba.core.errors.TypingError) as caught:
        numba.njit(function)(*args)
    return str(caught.value)


def test_what_has_no_atomic_operation_is_refused_when_it_is_compiled():
    def add(a, i):
        atomic_add(a, i, 1)

    constant = np.zeros(3)
    constant.flags.writeable = False
    assert "complex128 has no atomic" in refused(add, np.zeros(3, complex), 0)
    assert "atomic_or and atomic_and" in refused(add, np.zeros(3, bool), 0)
    assert "readonly" in refused(add, constant, 0)
    assert "an array is wanted" in refused(add, 5, 0)
    assert "2 integers wanted" in refused(add, np.zeros((2, 2)), 0)
    assert "1 integers wanted" in refused(add, np.zeros(3), 1.5)
    assert "bitwise" in refused(lambda a: atomic_and(a, 0, 1), np.zeros(3))


def test_a_kernel_that_updates_a_read_only_array_is_refused():
    @kernel("f8[:]")
    def add(i0, i1, x):
        atomic_add(x, 0, 1.0)

    x = np.zeros(3)
    x.flags.writeable = False
    with pytest.raises(KernelRefused, match="'x', which is read-only"):
        add(0, 1, x)


def test_they_are_instructions_and_travel_with_a_kernel():
    @kernel("i8[:], f8[:]")
    def both(i0, i1, n, x):
        for _ in range(i0, i1):
            atomic_add(n, 0, 1)
            atomic_max(x, 0, 2.0)

    n, x = np.zeros(1, "i8"), np.zeros(1)
    both(0, 3, n, x)
    assert (n[0], x[0]) == (3, 2.0)
    assert both.variants[0].symbols == frozenset()


# -- contention. Kernels: the children of a fork link nothing and compile nothing.

ROUNDS = 20_000


@kernel("i8[:], i4[:], u2[:], f8[:], f4[:]")
def count_everywhere(i0, i1, a, b, c, d, e):
    for i in range(i0, i1):
        atomic_add(a, 0, 1)
        atomic_sub(b, 0, 1)
        atomic_add(c, 0, 1)
        atomic_add(d, 0, 0.5)
        atomic_sub(e, 0, -0.25)
        atomic_max(a, 1, i)
        atomic_min(d, 1, -i)
        atomic_or(b, 1, 1 << (i % 31))
        seen = atomic_load(a, 2)
        while True:
            stored, seen = atomic_cas(a, 2, seen, seen + 3)
            if stored:
                break


def test_eight_processes_lose_no_count():
    arrays = [SArray(np.zeros(4, dtype)) for dtype in ("i8", "i4", "u2", "f8", "f4")]
    variant = count_everywhere.variant(*arrays)
    variant.entry()
    pids = [processes.fork(variant, k * ROUNDS, (k + 1) * ROUNDS, *arrays) for k in range(8)]
    assert [processes.wait(pid) for pid in pids] == [0] * 8
    n = 8 * ROUNDS
    a, b, c, d, e = arrays
    assert a.tolist() == [n, n - 1, 3 * n, 0]
    assert b.tolist()[:2] == [-n, 2**31 - 1]
    assert c[0] == n % 2**16
    assert d.tolist()[:2] == [n / 2, -(n - 1)]
    assert e[0] == n / 4


def test_python_and_compiled_code_count_together():
    arrays = [SArray(np.zeros(4, dtype)) for dtype in ("i8", "i4", "u2", "f8", "f4")]
    variant = count_everywhere.variant(*arrays)
    variant.entry()
    child = processes.fork(variant, 0, 5000, *arrays)
    for _ in range(2000):
        atomic.add(arrays[0], 0, 1)
        atomic.add(arrays[3], 0, 0.5)
    assert processes.wait(child) == 0
    assert (arrays[0][0], arrays[3][0]) == (7000, 3500)


# -- mutexes


@kernel("i8[:], mutex")
def add_under_lock(i0, i1, x, lock):
    for _ in range(i0, i1):
        mutex_lock(lock)
        x[0] += 1
        x[1] += 2
        mutex_unlock(lock)


@kernel("i8[:], mutex")
def hold(i0, i1, x, lock):
    """Lock, say so, and stay, half-way through a change."""
    mutex_lock(lock)
    x[0] += 1
    atomic_store(x, 2, 1)
    while atomic_load(x, 3) == 0:
        pass
    mutex_unlock(lock)


@kernel("i8[:], mutex")
def repair(i0, i1, x, lock):
    for _ in range(i0, i1):
        if mutex_lock(lock):
            x[1] = 2 * x[0]
            x[4] += 1
        x[0] += 1
        x[1] += 2
        mutex_unlock(lock)


@kernel("i8[:], mutex")
def try_once(i0, i1, x, lock):
    locked, owner_died = mutex_trylock(lock)
    x[0] = locked
    x[1] = owner_died
    if locked:
        mutex_unlock(lock)


def test_eight_processes_under_a_mutex_are_exact():
    x = SArray(np.zeros(2, "i8"))
    variant = add_under_lock.variant(x, x)
    variant.entry()
    pids = [processes.fork(variant, 0, ROUNDS, x, x) for _ in range(8)]
    for _ in range(1000):
        with x.lock:
            x[0] += 1
            x[1] += 2
    assert [processes.wait(pid) for pid in pids] == [0] * 8
    assert x.tolist() == [8 * ROUNDS + 1000, 2 * (8 * ROUNDS + 1000)]


def test_a_mutex_is_that_of_the_object_in_every_process(ctx):
    """Attached apart, it lies at another address."""
    x = SArray(np.zeros(2, "i8"))
    with x.lock:
        child = ctx.Process(target=add_under_lock.variant(x, x), args=(0, 100, x, x))
        child.start()
        time.sleep(0.05)
        assert x[0] == 0
    assert processes.join(child) == [0]
    assert x.tolist() == [100, 200]


def test_who_comes_after_a_holder_that_was_killed_in_a_kernel_is_told_and_goes_on():
    for victim, heir in ((hold, repair), (hold, None)):
        x = SArray(np.zeros(5, "i8"))
        variant = victim.variant(x, x)
        variant.entry()
        child = processes.fork(variant, 0, 1, x, x)
        processes.eventually(lambda x=x: x[2])
        os.kill(child, signal.SIGKILL)
        assert processes.wait(child) == -signal.SIGKILL
        if heir:
            heir(0, 10, x, x)
            assert x.tolist()[:2] == [11, 22]
            assert x[4] == 1  # told once
        else:
            with x.lock as guard:
                assert guard.owner_died
        add_under_lock(0, 1, x, x)


def test_a_waiter_in_a_kernel_gets_the_lock_of_a_holder_that_is_killed():
    x = SArray(np.zeros(5, "i8"))
    for each in (hold, repair):
        each.variant(x, x).entry()
    child = processes.fork(hold.variant(x, x), 0, 1, x, x)
    processes.eventually(lambda: x[2])
    waiter = processes.fork(repair.variant(x, x), 0, 10, x, x)
    time.sleep(0.1)
    assert x[0] == 1
    os.kill(child, signal.SIGKILL)
    assert processes.wait(child) == -signal.SIGKILL
    assert processes.wait(waiter) == 0
    assert x.tolist() == [11, 22, 1, 0, 1]


def test_trylock_does_not_wait():
    x = SArray(np.zeros(5, "i8"))
    for each in (hold, try_once):
        each.variant(x, x).entry()
    out = SArray(np.full(2, -1))
    try_once(0, 1, out, x)
    assert out.tolist() == [1, 0]
    child = processes.fork(hold.variant(x, x), 0, 1, x, x)
    processes.eventually(lambda: x[2])
    try_once(0, 1, out, x)
    assert out.tolist() == [0, 0]
    os.kill(child, signal.SIGKILL)
    processes.wait(child)
    try_once(0, 1, out, x)
    assert out.tolist() == [1, 1]


def test_a_lock_twice_and_an_unlock_of_another_s_are_errors():
    x = SArray(np.zeros(1))
    address = mutex_address(x)
    assert not mutex_lock(address)
    for call in (mutex_lock, mutex_trylock):
        with pytest.raises(LockError, match="holds the mutex already"):
            call(address)
    with pytest.raises(LockError):
        x.lock.lock(0)
    mutex_unlock(address)
    with pytest.raises(LockError, match="does not hold"):
        mutex_unlock(address)

    @kernel("mutex")
    def twice(i0, i1, lock):
        mutex_lock(lock)
        mutex_lock(lock)

    with pytest.raises(LockError, match="already") as caught:
        twice(0, 1, x)
    assert caught.value.__notes__
    x.lock.unlock()


def test_what_has_a_mutex():
    x = SArray(np.zeros(4))
    assert mutex_address(x) == mutex_address(x[2:]) == mutex_address(x.lock)
    sdf = numpush.SDataFrame(pd.DataFrame({"a": [1.0]}))
    assert mutex_address(sdf) != mutex_address(x)
    for wrong in (np.zeros(3), 5, None):
        with pytest.raises(TypeError, match="a shared object or its lock"):
            mutex_address(wrong)
    with pytest.raises(TypeError, match="no signature fits"):
        add_under_lock(0, 1, np.zeros(2, "i8"), 5)


def test_every_name_is_there():
    for name in kernels.__all__:
        assert getattr(kernels, name)
    with pytest.raises(AttributeError, match="no_such_name"):
        kernels.no_such_name  # noqa: B018
