"""Atomic operations: each dtype, each operation, exact under contention, and what is refused."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import numpush
import processes
from numpush import SArray, atomic

INTS = ["i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8"]
FLOATS = ["f4", "f8"]

EXPECTED = {
    "add": lambda x, y: x + y,
    "sub": lambda x, y: x - y,
    "min": np.minimum,
    "max": np.maximum,
    "and_": lambda x, y: x & y,
    "or_": lambda x, y: x | y,
    "exchange": lambda x, y: y,
}


def edges(dtype):
    info = np.iinfo(dtype)
    return [dtype.type(v) for v in (info.min, info.max, 0, 1, 5, info.max - 1)]


@pytest.mark.parametrize("op", EXPECTED)
@pytest.mark.parametrize("dtype", INTS)
def test_integers_do_what_numpy_does_and_wrap_around(dtype, op):
    dtype = np.dtype(dtype)
    a = SArray(np.zeros(3, dtype))
    for x, y in itertools.product(edges(dtype), repeat=2):
        a[1] = x
        with np.errstate(over="ignore"):
            expected = EXPECTED[op](x, y)
        assert getattr(atomic, op)(a, 1, y) == x
        assert a[1] == expected
        assert a[0] == a[2] == 0


@pytest.mark.parametrize("op", [op for op in EXPECTED if not op.endswith("_")])
@pytest.mark.parametrize("dtype", FLOATS)
def test_floats_do_what_numpy_does(dtype, op):
    dtype = np.dtype(dtype)
    a = SArray(np.zeros(3, dtype))
    values = [dtype.type(v) for v in (0.1, -0.0, 1e30, np.inf, -np.inf, np.nan, 3, 1 / 3)]
    for x, y in itertools.product(values, repeat=2):
        a[1] = x
        with np.errstate(all="ignore"):
            expected = EXPECTED[op](x, y)
        np.testing.assert_equal(getattr(atomic, op)(a, 1, y), float(x))
        np.testing.assert_equal(a[1], dtype.type(expected))


@pytest.mark.parametrize("dtype", INTS + FLOATS)
def test_load_store_and_compare_exchange(dtype):
    a = SArray(np.zeros((2, 3), dtype))
    atomic.store(a, (1, 2), 7)
    assert atomic.load(a, (1, 2)) == atomic.load(a, (-1, -1)) == a[1, 2] == 7
    assert atomic.compare_exchange(a, (1, 2), 6, 9) == (False, 7)
    assert atomic.compare_exchange(a, (1, 2), 7, 9) == (True, 7)
    assert a[1, 2] == 9
    assert type(atomic.load(a, (0, 0))) is (float if dtype in FLOATS else int)


def test_views_and_strides_lead_to_the_right_element():
    a = SArray(np.arange(24).reshape(4, 6))
    for view in (a.T, a[::-1, ::2], a[1:3, 3:], np.asarray(a)):
        for index in np.ndindex(view.shape):
            before = int(view[index])
            assert atomic.add(view, index, 100) == before
            assert view[index] == before + 100
            view[index] = before


def test_bools_stay_true_or_false():
    a = SArray(np.array([True, False]))
    assert atomic.exchange(a, 0, False) is True
    assert atomic.or_(a, 1, True) is False
    assert atomic.and_(a, 1, False) is True
    assert atomic.compare_exchange(a, 0, False, True) == (True, False)
    for op in (atomic.add, atomic.sub):
        with pytest.raises(TypeError):
            op(a, 0, True)
    assert a.view("u1").max() <= 1


def count(a, n):
    for _ in range(n):
        atomic.add(a, 0, 1)


def count_by_compare_exchange(a, n):
    for _ in range(n):
        seen = atomic.load(a, 0)
        while True:
            stored, seen = atomic.compare_exchange(a, 0, seen, seen + 1)
            if stored:
                break


def count_in_f4_by_halves(a, n):
    for _ in range(n):
        atomic.sub(a, 0, -0.5)


@pytest.mark.parametrize(
    ("dtype", "work", "expected"),
    [
        ("i8", count, 16000),
        ("u2", count, 16000),
        ("i1", count, np.array(16000).astype("i1")),
        ("f8", count, 16000),
        ("f4", count_in_f4_by_halves, 8000),
        ("i4", count_by_compare_exchange, 16000),
        ("f8", count_by_compare_exchange, 16000),
    ],
)
def test_eight_processes_lose_no_count(dtype, work, expected):
    a = SArray(np.zeros(5, dtype))
    pids = [processes.fork(work, a, 2000) for _ in range(8)]
    assert [processes.wait(pid) for pid in pids] == [0] * 8
    assert a[0] == expected
    assert not a[1:].any()


def hold_the_extremes(a, seed):
    for v in np.random.default_rng(seed).integers(-(2**40), 2**40, 2000):
        atomic.max(a, 0, v)
        atomic.min(a, 1, v)
        atomic.or_(a, 2, 1 << (int(v) % 60))


def test_extremes_under_contention_are_exact():
    a = SArray(np.zeros(3, "i8"))
    pids = [processes.fork(hold_the_extremes, a, seed) for seed in range(4)]
    assert [processes.wait(pid) for pid in pids] == [0] * 4
    every = np.concatenate(
        [np.random.default_rng(s).integers(-(2**40), 2**40, 2000) for s in range(4)]
    )
    assert (a[0], a[1]) == (every.max(), every.min())
    assert a[2] == (1 << 60) - 1


class TestRefused:
    @pytest.mark.parametrize(
        "dtype",
        ["f2", "c8", ">i4" if np.little_endian else "<i4", "M8[s]", "S3", "U1", "V4", "i4,i4"],
    )
    def test_dtypes_without_atomic_operations(self, dtype):
        a = SArray(np.zeros(3, dtype))
        with pytest.raises(TypeError, match="no atomic operations"):
            atomic.load(a, 0)

    def test_bitwise_operations_on_floats(self):
        a = SArray(np.zeros(3))
        for op in (atomic.and_, atomic.or_):
            with pytest.raises(TypeError, match="no bitwise"):
                op(a, 0, 1)

    def test_read_only_arrays_but_for_load(self):
        a = SArray(np.arange(3))
        ro = numpush.attach(a.handle, "ro")
        assert atomic.load(ro, 2) == 2
        for call in (lambda: atomic.add(ro, 0, 1), lambda: atomic.store(ro, 0, 1)):
            with pytest.raises(ValueError, match="read-only"):
                call()

    @pytest.mark.parametrize("index", [3, -4, (0, 0), (), 10**30])
    def test_indexes_out_of_bounds(self, index):
        with pytest.raises(IndexError):
            atomic.add(SArray(np.zeros(3, int)), index, 1)

    def test_what_is_no_index_or_no_array(self):
        a = SArray(np.zeros(3, int))
        for index in (1.0, "a", slice(1), None, [1]):
            with pytest.raises((TypeError, AttributeError)):
                atomic.add(a, index, 1)
        with pytest.raises(TypeError, match="an array is wanted"):
            atomic.add([1, 2], 0, 1)

    def test_values_that_are_none_of_the_dtype(self):
        a = SArray(np.zeros(3, "i1"))
        for value in (1.5, 300, "x", None, -129):
            with pytest.raises((TypeError, ValueError, OverflowError)):
                atomic.add(a, 0, value)
        assert not a.any()

    def test_misaligned_elements(self):
        raw = SArray(np.zeros(17, "u1"))
        with pytest.raises(ValueError, match="does not divide"):
            atomic.add(raw[1:9].view("i8"), 0, 1)
