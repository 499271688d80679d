"""Kernels: what signatures take, what is refused and why, and code that runs where numba is not."""

from __future__ import annotations

import ast
import ctypes
import datetime
import inspect
import math
import os
import pickle
import re
import subprocess
import sys
import threading
from pathlib import Path

import cloudpickle
import numba
import numpy as np
import pandas as pd
import pytest

import numpush
import processes
from numpush import SArray, llvm
from numpush.kernels import Kernel, KernelRefused, Variant, _numba, kernel
from numpush.kernels.arguments import Argument, Block, parse_signature

HERE = Path(__file__).name
TICK = np.dtype([("price", "f8"), ("n", "i4"), ("name", "S3")], align=True)
PACKED = np.dtype([("flag", "u1"), ("price", "f8")])


def line_of(function, text):
    """Return "file:line" of the first line of *function* that contains *text*."""
    lines, first = inspect.getsourcelines(function)
    return f"{HERE}:{first + next(i for i, line in enumerate(lines) if text in line)}"


# -- kernels that most tests use. They are compiled once per process.


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


# -- what is refused where it is declared, without numba


def test_a_kernel_needs_a_signature():
    with pytest.raises(TypeError, match="needs a signature"):

        @kernel
        def bare(i0, i1):
            pass

    with pytest.raises(TypeError, match="needs a signature"):

        @kernel()
        def empty(i0, i1):
            pass


def test_the_first_two_parameters_are_the_rows():
    with pytest.raises(KernelRefused, match="has 1 parameters") as caught:

        @kernel("f8[:]")
        def rows(i0):
            pass

    assert HERE in str(caught.value)


@pytest.mark.parametrize("source", ["i0, i1, *x", "i0, i1, x=1", "i0, i1, *, x", "i0, i1, **x"])
def test_parameters_are_plain(source):
    with pytest.raises(KernelRefused, match="x"):
        kernel("f8")(eval(f"lambda {source}: None"))


@pytest.mark.parametrize("signature", ["f8[:]", "f8[:], f8, f8", "", ("f8",)])
def test_a_signature_has_as_many_arguments_as_the_kernel(signature):
    with pytest.raises(TypeError, match=r"the kernel 2 after its first two: x, c"):
        kernel(signature)(scale.__wrapped__)


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ("f9", "no dtype"), ("f8[]", "no dimensions"), ("f8[3]", "no dtype|no type"), ("O[:]", "object"),
        (">f8[:]", "no type"), ("f8[::1, ::1]", "dimension"),
        ("const f8", "never written"), ("f8 f8", "no type"),
        ("S5", "no number"), ("longdouble", "longdouble|float128"), (np.dtype(">i4"), "byte order"),
        (numba.types.unicode_type, "neither"), (numba.types.UniTuple(numba.f8, 2), "neither"),
    ],
)  # fmt: skip
def test_what_is_no_type_is_named(part, message):
    with pytest.raises(TypeError, match=message) as caught:
        kernel((part, "f8"))(scale.__wrapped__)
    assert "kernel 'scale'" in str(caught.value)
    assert "'x'" in str(caught.value)


@pytest.mark.parametrize(
    "spelling",
    ["f8[:], f8", "(f8[:], f8)", "void(f8[:], f8)", "float64[:],float64,", " f8[ : ] , double "],
)
def test_numba_s_spellings_are_taken(spelling):
    assert kernel(spelling)(scale.__wrapped__).signatures == ("float64[:], float64",)


@pytest.mark.parametrize(
    "options", [{"parallel": True}, {"forceobj": True}, {"nopython": False}, {"cache": True}]
)
def test_options_that_contradict_what_a_kernel_is_are_refused(options):
    with pytest.raises(KernelRefused, match=next(iter(options))) as caught:
        kernel("f8[:], f8", **options)(scale.__wrapped__)
    assert HERE in str(caught.value)


# -- what is refused when it is compiled


BIG = np.zeros(200_000)
SMALL = np.arange(3.0)
COS = ctypes.CDLL("libm.so.6").cos
COS.argtypes, COS.restype = [ctypes.c_double], ctypes.c_double
GETPID = numba.types.ExternalFunction("getpid", numba.types.int32())


@numba.njit(parallel=True)
def in_threads(x):
    for i in numba.prange(len(x)):
        x[i] = 1


def prints(i0, i1, x):
    x[0] = 1
    print("hello", x[0])


def object_mode(i0, i1, x):
    x[0] = 1
    with numba.objmode():
        x.sort()


def refers_to_a_big_array(i0, i1, x):
    x[0] = BIG[i0]


def refers_to_a_c_function(i0, i1, x):
    x[0] = COS(x[1])


def calls_what_is_on_no_list(i0, i1, x):
    x[0] = GETPID()


def starts_threads(i0, i1, x):
    in_threads(x)


def returns(i0, i1, x):
    x[0] = 1
    return x[0]


def does_not_type(i0, i1, x):
    x[0] = 1
    x.no_such_method()


def imports(i0, i1, x):
    import math as m

    x[0] = m.pi


@pytest.mark.filterwarnings("ignore:.*object mode")
@pytest.mark.parametrize(
    ("function", "reason", "at"),
    [
        (prints, "prints", "print("),
        (object_mode, "object mode", "objmode"),
        (refers_to_a_big_array, "'BIG', a global array", "def "),
        (refers_to_a_c_function, "'COS', a C function", "def "),
        (calls_what_is_on_no_list, "getpid", "def "),
        (starts_threads, "starts threads", "def "),
        (returns, "returns float64", "return x"),
        (does_not_type, "no_such_method", "no_such_method"),
        (imports, "IMPORT_NAME", "import math"),
    ],
)
def test_what_cannot_travel_is_refused_with_reason_and_line(function, reason, at):
    with pytest.raises(KernelRefused) as caught:
        kernel("f8[:]")(function).compile()
    assert reason in str(caught.value)
    assert line_of(function, at) in str(caught.value)
    assert function.__name__ in str(caught.value)


def test_small_global_arrays_helpers_and_closures_are_part_of_the_code():
    factor = 3.0

    @numba.njit
    def helper(v):
        return v * factor

    @kernel("f8[:]")
    def use(i0, i1, x):
        for i in range(i0, i1):
            x[i] = helper(x[i]) + SMALL[i]

    x = np.ones(3)
    use(0, 3, x)
    assert x.tolist() == [3, 4, 5]


@numba.njit
def fibonacci(n):
    if n < 2:
        return n
    return fibonacci(n - 1) + fibonacci(n - 2)


def test_functions_that_call_themselves():
    @kernel("i8[:]")
    def use(i0, i1, x):
        for i in range(i0, i1):
            x[i] = fibonacci(x[i])

    x = np.arange(12)
    use(0, 12, x)
    assert x[-1] == 89
    assert use.variants[0].symbols == frozenset()


def test_what_numba_has_more_of_works_as_in_numba():
    """Generators, exceptions that are caught, typed containers, random numbers, strings."""

    @numba.njit
    def evens(n):
        for i in range(n):
            yield 2 * i

    @numba.njit
    def checked(v):
        if v < 0:
            raise KeyError("negative")
        return v

    @kernel("f8[:]")
    def work(i0, i1, x):
        seen = numba.typed.Dict.empty(numba.int64, numba.float64)
        for i in evens(i1):
            seen[i] = x[i % len(x)]
        x[0] = len(seen) + len("row " + str(i0)) + len({1, 2})
        np.random.seed(5)
        x[1] = np.random.random()
        try:
            x[2] = checked(-1.0)
        except Exception:
            x[2] = -7

    x = np.arange(6.0)
    work(0, 6, x)
    np.random.seed(5)
    assert x.tolist() == [6 + 5 + 2, np.random.random(), -7, 3, 4, 5]


def test_a_function_of_numba_s_may_be_made_a_kernel_with_its_options():
    @kernel("f8[:], f8")
    @numba.njit(error_model="numpy")
    def divide(i0, i1, x, c):
        x[0] /= c

    x = np.ones(1)
    divide(0, 1, x, 0.0)
    assert x[0] == np.inf


# -- what travels


def in_a_new_process(code, obj, *, with_numba=False):
    """Run *code* with *obj* as it arrives, where numba cannot be imported; return what it prints."""
    script = "import sys, pickle\nimport numpy as np\n"
    if not with_numba:
        script += "sys.modules['numba'] = None\n"
    script += "received = pickle.loads(bytes.fromhex(sys.stdin.read()))\n" + code
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script],
        input=obj.hex(),
        capture_output=True, text=True, timeout=60, check=False,
        env={**os.environ, "NUMPUSH_NAMESPACE": processes.new_namespace()},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_a_variant_runs_where_there_is_no_numba():
    x = np.arange(4.0)
    code = (
        "v = received\nx = np.arange(4.0)\nv(0, 4, x, 2.0)\n"
        "print(*x, v.key, v.needs_numba, 'pandas' in sys.modules)"
    )
    variant = scale.variant(x, 2.0)
    assert not variant.needs_numba
    printed = in_a_new_process(code, pickle.dumps(variant))
    assert printed == ["0.0", "2.0", "4.0", "6.0", variant.key, "False", "False"]


def test_an_exception_is_decoded_where_there_is_no_numba():
    @kernel("f8[:]")
    def refuse(i0, i1, x):
        if x[0] < 0:
            raise ValueError("negative", 7)

    code = (
        "v = received\n"
        "try: v(0, 2, np.array([-1.0, 1.0]))\n"
        "except ValueError as e: print(*e.args, 'refuse' in e.__notes__[0])"
    )
    printed = in_a_new_process(code, pickle.dumps(refuse.variant(np.zeros(2))))
    assert printed == ["negative", "7", "True"]


def test_an_exception_class_that_is_not_to_be_had_is_an_error_that_says_so():
    class Local(Exception):
        """Of no module, so that numba pickles it by value, in its own way."""

    @kernel("f8[:]")
    def refuse(i0, i1, x):
        raise Local("here")

    with pytest.raises(Local, match="here"):
        refuse(0, 1, np.zeros(1))
    code = (
        "from numpush.kernels import KernelError\n"
        "try: received(0, 1, np.zeros(1))\nexcept KernelError as e: print('numba' in str(e))"
    )
    assert in_a_new_process(code, pickle.dumps(refuse.variant(np.zeros(1)))) == ["True"]


def test_a_kernel_that_allocates_needs_numba_and_says_so():
    x = np.array([3.0, 1.0, 2.0, 0.0])
    variant = sort_rows.variant(x)
    assert variant.needs_numba
    assert not copy.variant(x, x).needs_numba
    sort_rows(0, 3, x)
    assert x.tolist() == [2, 3, 4, 0]
    code = (
        "v = received\nprint(v.needs_numba)\n"
        "try: v.entry()\nexcept ImportError as e: print(\"pip install 'numpush[kernels]'\" in str(e))"
    )
    assert in_a_new_process(code, pickle.dumps(variant)) == ["True", "True"]


def test_a_kernel_that_allocates_runs_where_numba_is_and_loads_it_then():
    variant = sort_rows.variant(np.zeros(3))
    code = (
        "x = np.array([3.0, 1.0, 2.0])\nbefore = 'numba' in sys.modules\nreceived(0, 3, x)\n"
        "print(*x, before, 'numba' in sys.modules)"
    )
    printed = in_a_new_process(code, pickle.dumps(variant), with_numba=True)
    assert printed == ["2.0", "3.0", "4.0", "False", "True"]


def test_an_exception_with_arguments_of_the_moment_arrives_from_a_new_process():
    code = "try: received(0, 1, np.array([101.5]))\nexcept OverflowError as e: print(*e.args)"
    printed = in_a_new_process(code, pickle.dumps(fail.variant(np.zeros(3))), with_numba=True)
    assert printed == ["too", "large", "0", "101.5"]


def test_a_kernel_pickles_to_what_it_was_compiled_to():
    code = (
        "k = received\nx = np.arange(4.0)\nk(0, 4, x, 2.0)\nprint(*x)\n"
        "try: k(0, 4, np.arange(8.0)[::2], 2.0)\nexcept TypeError as e: print('came compiled' in str(e))"
    )
    fresh = kernel("f8[:], f8")(scale.__wrapped__)
    for dumps in (pickle.dumps, cloudpickle.dumps):
        printed = in_a_new_process(code, dumps(fresh))
        assert printed == ["0.0", "2.0", "4.0", "6.0", "True"]
    again = pickle.loads(pickle.dumps(fresh))
    assert again.signatures == fresh.signatures
    assert [v.key for v in again.variants] == [v.key for v in fresh.variants]


def test_the_key_is_of_what_travels():
    def build(c):
        @kernel("f8[:]")
        def k(i0, i1, x):
            x[0] = c

        return k.compile()[0]

    one, two = build(1.0), build(2.0)
    assert one.key == pickle.loads(pickle.dumps(one)).key
    assert one.key != two.key
    assert len(one.key) == 64


def test_where_the_object_code_does_not_fit_the_bitcode_is_compiled():
    variant = scale.variant(np.zeros(3), 1.0)
    made_for = variant.target._replace(
        features=variant.target.features | {"from-the-future"},
        flags=variant.target.flags | {"from_the_future"},
    )
    moved = Variant(
        variant.name, variant.place, variant.arguments, variant.bitcode, b"not to be read", made_for
    )
    x = np.arange(3.0)
    moved.__dict__["symbols"] = frozenset()
    moved(0, 3, x, 2.0)
    assert x.tolist() == [0, 2, 4]


def test_a_foreign_variant_is_refused_by_name():
    variant = scale.variant(np.zeros(3), 1.0)
    foreign = Variant(
        variant.name, variant.place, variant.arguments, variant.bitcode[:-1000], variant.object_code,
        variant.target._replace(triple="riscv64-unknown-linux-gnu"),
    )  # fmt: skip
    with pytest.raises(llvm.BadCode):
        foreign.entry()


def test_every_start_method_runs_a_variant_that_was_sent(ctx):
    a = SArray(np.arange(4.0))
    variant = scale.variant(a, 2.0)
    child = ctx.Process(target=variant, args=(0, 4, a, 2.0))
    child.start()
    assert processes.join(child) == [0]
    assert a.tolist() == [0, 2, 4, 6]


def test_the_entry_takes_a_block_for_all_chunks():
    """As the Team's C code calls it."""
    x = np.arange(10.0)
    variant = scale.variant(x, 2.0)
    block = variant.pack((x, 2.0))
    entry = ctypes.CFUNCTYPE(
        ctypes.c_int32, ctypes.c_char_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p
    )(variant.entry())
    excinfo = ctypes.c_void_p()
    for i in range(0, 10, 3):
        assert entry(block, i, min(i + 3, 10), ctypes.addressof(excinfo)) == 0
    np.testing.assert_array_equal(x, 2 * np.arange(10.0))
    assert variant.entry() == variant.entry()


def test_what_an_entry_may_return_besides_exceptions():
    variant = scale.variant(np.zeros(1), 1.0)
    assert isinstance(variant.error(-3, 0), StopIteration)
    assert isinstance(variant.error(-1, 0), SystemError)


# -- life


def test_nothing_is_compiled_and_numba_not_loaded_before_it_is_used():
    code = (
        "import sys, numpush\n"
        "@numpush.kernel('const f8[:], f8[:, ::1], mutex')\ndef k(i0, i1, x, y, m): pass\n"
        "print(k.signatures[0], k.variants, *({'numba', 'llvmlite', 'pandas'} & set(sys.modules)))"
    )
    done = processes.run_script(code)
    assert done.stderr == ""
    assert done.stdout.strip() in ("const float64[:], float64[:, ::1], mutex ()",)


def test_the_gil_is_let_go():
    """One thread's kernel waits for what another thread's sets."""
    from numpush.kernels import atomic_load, atomic_store

    @kernel("i8[:]")
    def wait(i0, i1, x):
        atomic_store(x, 1, 1)
        while atomic_load(x, 0) == 0:
            pass

    x = np.zeros(2, "i8")
    wait.variant(x).entry()
    thread = threading.Thread(target=wait, args=(0, 1, x))
    thread.start()
    processes.eventually(lambda: x[1])
    x[0] = 1
    thread.join()


def test_threads_that_use_it_first_at_once_compile_it_once():
    fresh = kernel("f8[:], f8")(scale.__wrapped__)
    arrays = [np.ones(3) for _ in range(4)]
    threads = [threading.Thread(target=fresh, args=(0, 3, x, 5.0)) for x in arrays]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(x.tolist() == [5, 5, 5] for x in arrays)
    assert len(fresh.variants) == 1


def test_a_child_uses_what_was_compiled_before_the_fork_and_compiles_more():
    a = SArray(np.ones(6))
    scale(0, 1, a, 2.0)

    def child():
        scale(1, 2, a, 3.0)
        kernel("f8[:], f8")(scale.__wrapped__)(0, 3, a[::2], 2.0)

    assert processes.run_forked(child) == 0
    assert a.tolist() == [4, 3, 2, 1, 2, 1]


def test_it_looks_like_the_function():
    """Return."""
    assert isinstance(scale, Kernel)
    assert scale.name == scale.__name__ == "scale"
    assert repr(scale) == "<Kernel scale: (float64[:], float64)>"
    assert "scale(float64[::1], float64)" in repr(scale.variant(np.zeros(2), 1.0))


# -- private names of numba


def test_this_numba_has_every_name_that_is_used():
    assert _numba.missing() == []


def test_a_name_that_is_missing_is_named():
    names = ("numba.core.cgutils:no_such_name", "numba.no_such_module:x", "numba:njit")
    assert _numba.missing(names) == list(names[:2])


def test_every_private_name_is_listed_and_used_in_one_module_only():
    used = set()
    for path in Path(numpush.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = (
                [a.name for a in node.names] if isinstance(node, ast.Import)
                else [f"{node.module}:{a.name}" for a in node.names] if isinstance(node, ast.ImportFrom)
                else []
            )  # fmt: skip
            for name in names:
                if (name or "").startswith(("numba.core", "numba.np", "numba.cpython")):
                    assert path.name == "_numba.py", path
                    used.add(name)
    for name in used:
        module, _, first = name.partition(":")
        dotted = f"{module}:{first}" if first else name
        assert any(
            one.startswith((dotted, f"{module}.{first}:")) for one in _numba.PRIVATE_NAMES
        ), f"{name} is used and not looked for"


def test_where_numba_is_switched_off_the_error_says_so():
    code = (
        "import numpy as np, numpush\n"
        "@numpush.kernel('f8[:]')\ndef k(i0, i1, x): pass\n"
        "try: k(0, 1, np.zeros(2))\nexcept numpush.kernels.KernelRefused as e: print(e)"
    )
    assert "NUMBA_DISABLE_JIT" in processes.run_script(code, NUMBA_DISABLE_JIT="1").stdout


def test_without_numba_the_error_says_what_to_install():
    code = (
        "import sys\nsys.modules['numba'] = None\nimport numpy as np, numpush\n"
        "@numpush.kernel('f8[:]')\ndef k(i0, i1, x): pass\n"
        "try: k(0, 1, np.zeros(2))\nexcept ImportError as e: print(e)"
    )
    assert "pip install 'numpush[kernels]'" in processes.run_script(code).stdout


def test_arguments_are_plain_data():
    argument = parse_signature("const f8[:]", ["x"], {})[0]
    assert argument == Argument("x", "array", np.dtype("f8"), 1, "A", True)
    assert pickle.loads(pickle.dumps(argument)) == argument


# -- docs/kernels.md


def test_the_examples_of_the_documentation_run():
    text = (
        (Path(__file__).parent.parent / "docs" / "kernels.md").read_text().partition("\n## Team")[0]
    )
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(blocks) == 3
    namespace = {}
    for block in blocks:
        exec(block, namespace)
    np.testing.assert_array_equal(namespace["y"], 2 * namespace["x"])
    assert namespace["total"][0] == 10
    assert namespace["counts"].sum() == len(namespace["x"])
    refused = re.search(r"```\n(kernel 'scale': .*?)\n```", text)[1]
    with pytest.raises(TypeError, match=re.escape(refused)):
        namespace["scale"](0, 1, np.zeros(1, "f4"), np.zeros(1), 2.0)
