"""Kernels: what they do to rows, what their signatures take, exceptions."""

from __future__ import annotations

import datetime
import math
import re
from pathlib import Path

import numba
import numpy as np
import pandas as pd
import pytest

import numpush
from kernel_samples import copy, fail, line_of, scale
from numpush import SArray, llvm
from numpush.kernels import KernelRefused, kernel
from numpush.kernels.arguments import Block, parse_signature

HERE = Path(__file__).name
TICK = np.dtype([("price", "f8"), ("n", "i4"), ("name", "S3")], align=True)
PACKED = np.dtype([("flag", "u1"), ("price", "f8")])


# -- calling


def test_it_does_its_rows_and_no_others():
    x = SArray(np.arange(10.0))
    scale(2, np.int32(5), x, 10.0)
    assert x.tolist() == [0, 1, 20, 30, 40, 5, 6, 7, 8, 9]
    with pytest.raises(TypeError):
        scale(2.0, 5, x, 10.0)


def test_strided_reversed_and_transposed_arrays_are_taken_as_they_lie():
    @kernel("f8[:, :], f8[:, :]")
    def double(i0, i1, x, y):
        for i in range(i0, i1):
            for j in range(x.shape[1]):
                y[i, j] = 2 * x[i, j]

    base = np.arange(48.0).reshape(6, 8)
    for x in (base, base.T, base[::-1, ::2], base[1:4, 2:], np.asfortranarray(base)):
        y = np.zeros(x.shape)
        double(0, len(x), x, y)
        np.testing.assert_array_equal(y, 2 * x)
    assert {v.arguments[0].layout for v in double.variants} == {"C", "F", "A"}


@pytest.mark.parametrize(("i0", "i1"), [(-1, 3), (0, -1), (0, 1 << 47), (1 << 70, 0)])
def test_rows_that_cannot_be_are_refused(i0, i1):
    x = np.zeros(5)
    with pytest.raises(ValueError, match=f"'scale': rows {i0} to {i1}"):
        scale(i0, i1, x, 2.0)


def test_an_empty_range_of_rows_does_nothing():
    x = np.arange(5.0)
    scale(3, 2, x, 2.0)
    assert x.tolist() == [0, 1, 2, 3, 4]


def test_indices_may_count_from_the_end():
    @kernel("f8[:], f8[:]")
    def shift(i0, i1, x, y):
        for i in range(i0, i1):
            y[i] = x[i - 1]

    x, y = np.arange(6.0), np.zeros(6)
    shift(0, 6, x, y)
    assert y.tolist() == [5, 0, 1, 2, 3, 4]


def test_a_loop_over_rows_is_vectorised():
    x = np.zeros(8)
    scale(0, 8, x, 2.0)
    (variant,) = (v for v in scale.variants if v.arguments[0].layout == "C")
    assert re.search(r"<\d+ x double>", str(llvm.parse(variant.bitcode)))


def test_any_number_of_dimensions():
    @kernel("i8[:, :, :, :, :], i8")
    def add(i0, i1, x, c):
        for i in range(i0, i1):
            for j in range(16):
                x[i, j // 8, j // 4 % 2, j // 2 % 2, j % 2] += c

    x = np.arange(3 * 2 * 2 * 2 * 2).reshape(3, 2, 2, 2, 2)
    expected = x + 5
    add(0, 3, x, 5)
    np.testing.assert_array_equal(x, expected)


@pytest.mark.parametrize(
    "dtype",
    [
        *("i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f4", "f8", "c8", "c16", "bool"),
        "M8[ns]",
        "m8[s]",
        "S5",
        "U4",
    ],
)
def test_every_dtype_of_numba_travels(dtype):
    @kernel(f"const {dtype}[:], {dtype}[:]")
    def reverse(i0, i1, x, y):
        for i in range(i0, i1):
            y[i] = x[len(x) - 1 - i]

    x = np.arange(7).astype("u8" if dtype in "SU" else "i8").astype(dtype)
    y = np.zeros_like(x)
    reverse(0, 7, x, y)
    np.testing.assert_array_equal(y, x[::-1])


@pytest.mark.parametrize(
    ("dtype", "value"),
    [
        ("i1", -128), ("u1", 255), ("i2", -300), ("i4", -(2**31)), ("u4", 2**32 - 1), ("i8", -(2**63)),
        ("u8", 2**64 - 1), ("f4", 1.5), ("f8", math.pi), ("c8", 1 + 2j), ("c16", -1.25 + 1e300j),
        ("bool", True), ("M8[s]", np.datetime64("2024-05-06T07:08:09")), ("m8[ms]", np.timedelta64(5, "ms")),
    ],
)  # fmt: skip
def test_every_number_arrives(dtype, value):
    @kernel(f"{dtype}, {dtype}[:], f8")
    def put(i0, i1, value, out, after):
        out[0] = value
        if after != 0.5:
            raise AssertionError("the next argument lies where it should not")

    out = np.zeros(2, dtype)
    put(0, 1, value, out, 0.5)
    assert out[0] == np.array(value, dtype)


@pytest.mark.parametrize("dtype", [TICK, PACKED])
def test_records(dtype):
    """A packed one is not aligned, and is read such."""

    @kernel("tick[:], f8", types={"tick": dtype})
    def raise_prices(i0, i1, ticks, by):
        for i in range(i0, i1):
            ticks[i]["price"] += by

    ticks = SArray(np.zeros(4, dtype))
    raise_prices(1, 3, ticks, 2.5)
    assert ticks["price"].tolist() == [0, 2.5, 2.5, 0]
    column = np.zeros(9, PACKED)["price"]
    scale(0, 9, column, 2.0)
    assert not next(v for v in scale.variants if not v.arguments[0].aligned).arguments[0].aligned


def test_types_of_numba_and_numpy_may_stand_for_strings():
    record = numba.from_dtype(TICK)

    @kernel((record[:], numba.types.Array(numba.f8, 1, "C", readonly=True), np.int32))
    def put(i0, i1, ticks, x, n):
        for i in range(i0, i1):
            ticks[i].price = x[i]
            ticks[i].n = n

    assert put.signatures == (f"{TICK}[:], const float64[::1], int32",)
    ticks = np.zeros(3, TICK)
    put(0, 3, ticks, np.arange(3.0), 9)
    assert ticks["price"].tolist() == [0, 1, 2]
    assert ticks["n"].tolist() == [9] * 3


def test_columns_of_a_frame():
    sdf = numpush.SDataFrame(pd.DataFrame({"x": np.arange(5.0), "y": 0.0, "n": range(5)}))
    copy(0, 5, sdf.column("x"), sdf.column("y"))
    assert sdf["y"].tolist() == [0, 1, 2, 3, 4]


def test_no_rows_and_no_arguments():
    @kernel("")
    def nothing(i0, i1):
        pass

    nothing(0, 0)
    scale(0, 0, np.zeros(0), 1.0)


# -- which signature


@kernel(["f8[:], i8[:]", "f4[:], i8[:]"], "f8[:, :], i8[:]")
def which(i0, i1, x, out):
    out[0] = x.ndim * 100 + x.itemsize


@pytest.mark.parametrize(
    ("x", "expected"), [(np.zeros(3), 108), (np.zeros(3, "f4"), 104), (np.zeros((2, 2)), 208)]
)
def test_the_arguments_choose_the_signature(x, expected):
    out = np.zeros(1, "i8")
    which(0, 1, x, out)
    assert out[0] == expected


def test_of_signatures_for_numbers_the_closest_is_taken():
    @kernel(["c16, i8[:]", "f8, i8[:]", "i4, i8[:]", "i8, i8[:]", "bool, i8[:]"])
    def number(i0, i1, value, out):
        pass

    out = np.zeros(1, "i8")
    for value, expected in (
        (1, "int64"), (1.0, "float64"), (1j, "complex128"), (True, "bool"), (np.int32(1), "int32"),
        (np.float32(1), "float64"), (np.int16(1), "int32"), (np.uint32(1), "int64"), (np.bool_(1), "bool"),
    ):  # fmt: skip
        assert str(number.variant(value, out).arguments[0]) == expected, value


def test_what_fits_no_signature_is_named_with_what_there_is():
    with pytest.raises(TypeError) as caught:
        which(0, 1, np.zeros((2, 3), "i2", order="F"), [1])
    assert str(caught.value) == (
        "kernel 'which': no signature fits (x: int16[::1, :], out: a list); there is "
        "(float64[:], int64[:]); (float32[:], int64[:]); (float64[:, :], int64[:])"
    )
    with pytest.raises(TypeError, match="2 arguments after i0 and i1, 3 given"):
        which(0, 1, np.zeros(3), np.zeros(3, "i8"), 4)


@pytest.mark.parametrize(
    "x",
    [
        np.zeros(3, "f4"), np.zeros((3, 1)), np.zeros(3, ">f8"), [1.0], 1.0, None, "x",
        np.zeros(3, "M8[s]"), np.array([None]),
    ],
)  # fmt: skip
def test_no_wrong_array_gets_through(x):
    with pytest.raises(TypeError, match="no signature fits"):
        scale(0, 1, x, 1.0)


@pytest.mark.parametrize("c", ["1", None, 1j, np.zeros(1), datetime.date(2024, 1, 1), [1.0]])
def test_no_wrong_number_gets_through(c):
    with pytest.raises(TypeError, match="no signature fits"):
        scale(0, 1, np.zeros(3), c)


def test_a_contiguous_signature_takes_no_other():
    @kernel("f8[::1], f8[::1, :]")
    def dense(i0, i1, x, y):
        pass

    square = np.zeros((3, 3), order="F")
    dense(0, 1, np.zeros(3), square)
    with pytest.raises(TypeError, match="no signature fits"):
        dense(0, 1, np.zeros(6)[::2], square)
    with pytest.raises(TypeError, match="no signature fits"):
        dense(0, 1, np.zeros(3), square.T)


def test_numbers_out_of_range_are_named():
    @kernel("i1, u8, f4")
    def small(i0, i1, a, b, c):
        pass

    for args, name in (
        ((128, 0, 0), "a"),
        ((0, -1, 0), "b"),
        ((0, 2**64, 0), "b"),
        ((0, 0, 1e39), "c"),
    ):
        with pytest.raises(OverflowError, match=f"argument '{name}'.*out of range"):
            small(0, 1, *args)


def test_a_block_believes_nobody():
    """What a worker packs comes from another process."""
    arguments = parse_signature("f8[:, ::1], i4", ["x", "n"], {})
    block = Block("k", arguments)
    assert len(block.pack([np.zeros((2, 3)), 5])) == 8 * (1 + 4 + 1)
    for x, message in (
        (np.zeros(3), "1 dimensions"), (np.zeros((2, 3), "f4"), "float32"), (5, "a int"),
        (np.zeros((2, 6))[:, ::2], "not C-contiguous"), (np.zeros((2, 3)).T, "not C-contiguous"),
    ):  # fmt: skip
        with pytest.raises(TypeError, match=f"argument 'x'.*{message}"):
            block.pack([x, 5])
    with pytest.raises(TypeError, match="argument 'n'"):
        block.pack([np.zeros((2, 3)), 1.5])
    with pytest.raises(TypeError, match="takes 2 arguments"):
        block.pack([1])


# -- read-only arrays


def read_only(array):
    array.flags.writeable = False
    return array


def test_what_is_not_written_may_be_read_only():
    y = np.zeros(4)
    copy(0, 4, read_only(np.arange(4.0)), y)
    assert y.tolist() == [0, 1, 2, 3]

    @kernel("f8[:], f8[:]")
    def copy_undeclared(i0, i1, x, y):
        for i in range(i0, i1):
            y[i] = x[i]

    copy_undeclared(0, 4, read_only(np.arange(4.0)), y)
    copy_undeclared(0, 4, np.arange(4.0), y)
    assert len(copy_undeclared.variants) == 1  # it is known now that x is not written


def test_writing_to_a_read_only_array_is_refused_with_its_name_and_line():
    with pytest.raises(KernelRefused, match="'x', which is read-only") as caught:
        scale(0, 3, read_only(np.zeros(3)), 1.0)
    assert line_of(scale.__wrapped__, "*=") in str(caught.value)

    @kernel("const f8[:], f8")
    def lies(i0, i1, x, c):
        x[0] = c

    with pytest.raises(KernelRefused, match="'x', a const"):
        lies(0, 1, np.zeros(3), 1.0)


def test_an_array_that_was_attached_read_only_is_safe():
    a = SArray(np.ones(3))
    with pytest.raises(KernelRefused, match="read-only"):
        scale(0, 3, numpush.attach(a.name, mode="ro"), 2.0)
    assert a.tolist() == [1, 1, 1]


# -- exceptions


def test_an_exception_arrives_as_its_class_with_arguments_and_place():
    with pytest.raises(ValueError, match="negative") as caught:
        fail(0, 3, np.array([4.0, -1.0, 9.0]))
    assert caught.value.args == ("negative", 7)
    (note,) = caught.value.__notes__
    assert "in kernel 'fail'" in note
    assert line_of(fail.__wrapped__, "raise ValueError") in note


def test_arguments_that_are_known_only_then_arrive_too():
    for _ in range(3):
        with pytest.raises(OverflowError) as caught:
            fail(0, 2, np.array([4.0, 101.5]))
        assert caught.value.args == ("too large", 1, 101.5)
        assert line_of(fail.__wrapped__, "raise OverflowError") in caught.value.__notes__[0]


def test_what_numba_raises_arrives_and_options_of_njit_count():
    @kernel("f8[:], f8", error_model="python")
    def divide(i0, i1, x, c):
        x[0] /= c

    @kernel("f8[:], f8", error_model="numpy")
    def divide_as_numpy(i0, i1, x, c):
        x[0] /= c

    x = np.ones(1)
    with pytest.raises(ZeroDivisionError) as caught:
        divide(0, 1, x, 0.0)
    assert "in kernel 'divide'" in caught.value.__notes__[0]
    divide_as_numpy(0, 1, x, 0.0)
    assert x[0] == np.inf

    @kernel("f8[:]", boundscheck=True)
    def beyond(i0, i1, x):
        x[i1] = 1

    with pytest.raises(IndexError):
        beyond(0, 3, np.zeros(3))


def test_a_message_that_numba_makes_is_not_lost():
    @kernel("f8[:], f8[:]")
    def mismatch(i0, i1, x, y):
        x[:] = y

    with pytest.raises(ValueError, match=r"cannot assign slice of shape \(\d,\)"):
        mismatch(0, 3, np.zeros(3), np.zeros(4))


def test_numba_s_fastmath_is_passed_on():
    def total(i0, i1, x, out):
        s = 0.0
        for i in range(i0, i1):
            s += x[i]
        out[0] = s

    plain, fast = (kernel("f8[::1], f8[::1]", **o)(total) for o in ({}, {"fastmath": True}))
    assert plain.compile()[0].bitcode != fast.compile()[0].bitcode
    with pytest.raises(KeyError, match="no_such_option"):
        kernel("f8[::1], f8[::1]", no_such_option=True)(total).compile()
