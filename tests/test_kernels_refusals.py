"""Kernels: what is refused, where it is declared or when it is compiled, and what is not."""

from __future__ import annotations

import ctypes
from pathlib import Path

import numba
import numpy as np
import pytest

from kernel_samples import line_of, scale
from numpush.kernels import KernelRefused, kernel

HERE = Path(__file__).name
TICK = np.dtype([("price", "f8"), ("n", "i4"), ("name", "S3")], align=True)
PACKED = np.dtype([("flag", "u1"), ("price", "f8")])


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
    assert "kernel_samples.py:" in str(caught.value)


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
