"""Ufuncs of LLVM code and of Python functions do all that NumPy's do."""

from __future__ import annotations

import gc

import numba
import numpy as np
import pytest

from code_samples import MYFUNC, SHAPES, run
from numpush import SArray, code, llvm
from numpush.code import CodeError

SATURATE = """
define i8 @saturate(i8 zeroext %a, i8 zeroext %b) {
    %sum = add i8 %a, %b
    %over = icmp ult i8 %sum, %a
    %result = select i1 %over, i8 -1, i8 %sum
    ret i8 %result
}
"""
LESS = """
define i1 @less(double %a, double %b) {
    %r = fcmp olt double %a, %b
    ret i1 %r
}
"""
XOR = """
define zeroext i1 @differ(i1 zeroext %a, i1 zeroext %b) {
    %r = xor i1 %a, %b
    ret i1 %r
}
"""
TWO = """
define i32 @plus_int(i32 %a, i32 %b) {
    %r = add i32 %a, %b
    ret i32 %r
}
define double @plus_double(double %a, double %b) {
    %r = fadd double %a, %b
    ret double %r
}
"""


def poly(x, y):
    """A docstring."""
    return x * x + 3 * y - 1


def strict(x):
    if x < 0:
        raise ValueError("negative", 7)
    return x + 1


@pytest.fixture(scope="module")
def plus():
    return code.ufunc(TWO, "plus", {"plus_int": None, "plus_double": None})


@pytest.fixture(scope="module")
def compiled():
    return code.ufunc(poly, sigs=["f8(f8, f8)", "f4(f4, f4)", "(i4, i4)"])


# -- the source


def test_the_oldest_example_works_word_for_word():
    myfunc = code.ufunc(MYFUNC)
    a = np.arange(6, dtype=np.int32)
    assert isinstance(myfunc, np.ufunc)
    assert (myfunc.__name__, myfunc.types) == ("myfunc", ["iii->i"])
    found = myfunc(a[:, None], a, np.int32(3))
    assert found.dtype == np.int32
    assert (found == (a[:, None] + a) * 3).all()


def test_it_works_on_shared_arrays():
    a = SArray(np.arange(1000, dtype=np.int32))
    out = SArray.zeros(1000, dtype=np.int32)
    assert code.ufunc(MYFUNC)(a, 1, a, out=out) is out
    assert (out == (np.arange(1000) + 1) * np.arange(1000)).all()


def test_only_a_missing_label_is_forgiven():
    with pytest.raises(
        CodeError, match="numbered '%4'"
    ):  # not the one that a label would make right
        code.ufunc(MYFUNC.replace("%3 = add", "%2 = add").replace("%3, %2", "%2, %2"))
    with pytest.raises(CodeError, match="numbered '%3'"):  # a label is there, the number is wrong
        code.ufunc(MYFUNC.replace("{", "{\nbegin:").replace("%3", "%2"))


def test_labels_are_given_to_those_functions_alone_that_miss_one():
    good = "define i32 @good(i32) {\n  %2 = add i32 %0, 1\n  ret i32 %2\n}\n"
    other = MYFUNC.replace("@myfunc", "@entry")
    module = code.module(good + MYFUNC + other + good.replace("@good", "@entry_"))
    assert [module.good(4), module.myfunc(1, 2, 3), module.entry(1, 2, 4)] == [5, 9, 12]


def test_bitcode_is_a_source():
    assert code.ufunc(llvm.parse(TWO).as_bitcode(), "plus_int").types == ["ii->i"]


def test_code_of_clang_without_optimisation_is_optimised():
    """It says optnone, and noinline, which would keep its loops from being vectorised."""
    kept = (
        "define i32 @noinline(i32 %a) #0 {\n  ret i32 %a\n}\nattributes #0 = { noinline optnone }\n"
    )
    assert "call" not in str(llvm.parse(kept))
    assert code.ufunc(kept)(np.int32(5)) == 5
    caller = kept + "define i32 @f(i32 %a) {\n  %r = call i32 @noinline(i32 %a)\n  ret i32 %r\n}\n"
    before, after = (llvm.build(caller, inline=inline) for inline in (False, True))
    assert len(after) < len(before)


def test_one_of_several_functions_is_to_be_named():
    with pytest.raises(CodeError, match="one of plus_int, plus_double wanted"):
        code.ufunc(TWO)
    with pytest.raises(CodeError, match=r"no function 'minus' in this code; there is: plus_int"):
        code.ufunc(TWO, "minus")


@pytest.mark.parametrize(
    "source",
    [
        "",
        "no code",
        "define i32 @f(i32 %x) {\n  ret i64 1\n}",
        b"",
        b"BC\xc0\xdenothing",
        b"\x7fELF",
    ],
)
def test_what_llvm_cannot_read_is_an_error_of_code(source):
    with pytest.raises(CodeError):
        code.ufunc(source)


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("i8*", "i8* %x"),
        ("i128", "i128 %x"),
        ("<4 x float>", "<4 x float> %x"),
        ("{ i32, i32 }", "{ i32, i32 } %x"),
    ],
)
def test_functions_of_other_things_than_numbers_are_refused(kind, body):
    text = f"define {kind} @f({body}) {{\n  ret {body}\n}}"
    with pytest.raises(CodeError, match=r"f is .*numbers in and one out"):
        code.ufunc(text)


def test_a_function_without_arguments_and_one_of_nothing_are_refused():
    for text in ("define i32 @f() {\n ret i32 1\n}", "define void @f(i32 %x) {\n ret void\n}"):
        with pytest.raises(CodeError, match="no ufunc"):
            code.ufunc(text)


def test_a_call_of_a_stranger_is_named():
    text = (
        "declare i32 @stranger(i32)\n"
        "define i32 @f(i32 %x) {\n  %r = call i32 @stranger(i32 %x)\n  ret i32 %r\n}"
    )
    with pytest.raises(CodeError, match="stranger"):
        code.ufunc(text)


# -- its types


def test_signs_come_from_signatures_or_from_debug_information():
    a = np.array([250, 3], np.uint8)
    for saturate in (code.ufunc(SATURATE, sigs="u1(u1, u1)"), code.ufunc(SATURATE, sigs="BB->B")):
        assert saturate.types == ["BB->B"]
        assert saturate(a, np.uint8(10)).tolist() == [255, 13]
    assert code.ufunc(SATURATE).types == ["bb->b"]
    assert code.ufunc(SHAPES, "wrap").types == ["BB->B"]
    assert code.ufunc(SHAPES, "is_close").types == ["dd->?"]


def test_a_signature_that_is_not_the_functions_is_refused():
    with pytest.raises(CodeError, match=r"saturate is i8 \(i8, i8\)"):
        code.ufunc(SATURATE, sigs="u2(u1, u1)")
    with pytest.raises(CodeError, match=r"'f8 f8' found"):
        code.ufunc(SATURATE, sigs="f8 f8")
    with pytest.raises(CodeError, match="'g9' is no dtype"):
        code.ufunc(SATURATE, sigs="g9(u1, u1)")
    with pytest.raises(CodeError, match="no loop for complex128"):
        code.ufunc(poly, sigs="c16(c16, c16)")


def test_booleans_come_and_go():
    less, differ = code.ufunc(LESS), code.ufunc(XOR)
    x, flags = np.arange(5.0), np.array([True, False, True])
    assert less(x, 2).tolist() == [True, True, False, False, False]
    assert less(x, 2).dtype == np.bool_
    assert differ(flags, True).tolist() == [False, True, False]
    out = np.full(10, 7, np.uint8).view(np.bool_)[::2]
    assert less(x, 3, out=out).tolist() == [True] * 3 + [False] * 2
    python = code.ufunc(lambda x, y: x and not y, "but_not", "?(?, ?)")
    assert python(flags, [False, False, True]).tolist() == [True, False, False]


@pytest.mark.parametrize("dtype", ["i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8"])
def test_every_number_has_a_loop(dtype):
    rng = np.random.default_rng(1)
    a, b = (rng.integers(0, 100, 77).astype(dtype) for _ in range(2))
    maximum = code.ufunc(lambda x, y: x if x > y else y, "larger", f"{dtype}({dtype}, {dtype})")
    assert maximum(a, b).dtype == dtype
    assert (maximum(a, b) == np.maximum(a, b)).all()


def test_one_ufunc_may_have_several_loops(plus, compiled):
    assert plus.types == ["ii->i", "dd->d"]
    assert plus(np.int32(1), np.int32(2)).dtype == np.int32
    assert plus(1, 2.5) == 3.5
    assert compiled.types == ["dd->d", "ff->f", "ii->l"]
    assert compiled(np.float32(2), np.float32(1)).dtype == np.float32
    with pytest.raises(CodeError, match="what a ufunc of several functions is called"):
        code.ufunc(TWO, sigs={"plus_int": None, "plus_double": None})
    with pytest.raises(CodeError, match="as many arguments"):
        code.ufunc(TWO + MYFUNC, "x", {"plus_int": None, "myfunc": None})


# -- what NumPy does with it


def test_it_is_called_as_others_are(compiled):
    x, y = np.random.default_rng(2).random((2, 31, 17))
    expected = x * x + 3 * y - 1
    assert np.allclose(compiled(x, y), expected)
    assert np.allclose(compiled(x.T, y.T).T, expected)  # any steps
    assert np.allclose(compiled(x[::-3, ::2], y[::-3, ::2]), expected[::-3, ::2])
    assert np.allclose(compiled(x, 2.0), x * x + 5)
    assert np.allclose(compiled(x[0], y), x[0] * x[0] + 3 * y - 1)
    assert compiled(2, 1.0) == 6
    assert compiled(np.zeros((0, 3)), 1.0).shape == (0, 3)
    out = np.full_like(x, -1)
    compiled(x, y, out=out, where=x > 0.5)
    assert np.allclose(out, np.where(x > 0.5, expected, -1))
    unaligned = np.frombuffer(b"\0" + x.tobytes(), np.uint8)[1:].view(np.float64).reshape(x.shape)
    assert np.allclose(compiled(unaligned, y), expected)
    assert np.allclose(compiled(x.astype(">f8"), y), expected)


def test_it_reduces_accumulates_and_has_outer_and_at(plus):
    x = np.arange(12.0).reshape(3, 4)
    assert plus.reduce(x, axis=1).tolist() == np.add.reduce(x, axis=1).tolist()
    assert plus.reduce(x.ravel()) == 66
    assert plus.accumulate(x, axis=0).tolist() == np.add.accumulate(x, axis=0).tolist()
    assert plus.reduceat(x[0], [0, 2]).tolist() == np.add.reduceat(x[0], [0, 2]).tolist()
    assert plus.outer([1.0, 2.0], [10.0, 20.0]).tolist() == [[11, 21], [12, 22]]
    assert plus.reduce(np.arange(5, dtype=np.int32)).dtype == np.int32
    counts = np.zeros(3)
    plus.at(counts, [0, 2, 2], 1.0)
    assert counts.tolist() == [1, 0, 2]


def test_results_may_go_over_the_arguments(plus):
    x = np.arange(100.0)
    plus(x[:-1], x[1:], out=x[1:])
    assert x.tolist() == [0.0, *(np.arange(99.0) + np.arange(1.0, 100.0))]


def test_it_says_what_it_is(compiled):
    assert compiled.__name__ == "poly"
    assert "A docstring." in compiled.__doc__
    assert "poly(float32, float32) -> float32" in compiled.__doc__


def test_it_gives_what_numba_gives(compiled):
    x, y = np.random.default_rng(3).random((2, 1001))
    assert (compiled(x, y) == numba.vectorize(["f8(f8, f8)"])(poly)(x, y)).all()


# -- Python functions


@pytest.mark.parametrize("n", [1, 4, 100_001])
@pytest.mark.parametrize("dtype", ["f8", "f4"])
def test_an_exception_is_raised_as_it_is(n, dtype):
    ufunc = code.ufunc(strict, sigs=["f8(f8)", "f4(f4)"])
    x = np.ones(n, dtype)
    x[-1] = -1
    with pytest.raises(ValueError, match="negative") as caught:
        ufunc(x)
    assert caught.value.args == ("negative", 7)
    assert (ufunc(np.ones(n)) == 2).all()  # nothing of it is left


def test_a_function_of_numba_and_one_that_it_calls_will_do():
    square = numba.njit(lambda x: x * x)

    @numba.njit
    def norm(x, y):
        return np.sqrt(square(x) + square(y))

    assert code.ufunc(norm, sigs="f8(f8, f8)")(3, [4.0, 0.0]).tolist() == [5, 3]


def _dynamic(x):
    if x < 0:
        raise ValueError("negative", x)
    return x


TABLE = np.arange(1_000_000.0)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (_dynamic, "arguments are known only"),
        (lambda x: print(x) or x, "objects of this process"),
        (lambda x: TABLE[int(x)], "a large array"),
        (lambda x: str(x), "numba cannot compile it|no number"),
        (lambda x: (x, x), "no number"),
        (lambda x: nowhere(x), "nowhere"),  # noqa: F821
    ],
)
def test_a_function_that_cannot_travel_is_refused(function, message):
    with pytest.raises(CodeError, match=message):
        code.ufunc(function, sigs="(f8)")


def test_a_function_needs_a_signature():
    with pytest.raises(CodeError, match=r"as 'f8\(f8, f8\)'"):
        code.ufunc(poly)


# -- its life


def test_what_a_ufunc_points_to_lives_as_long_as_it_does():
    made = [code.ufunc(MYFUNC) for _ in range(20)]
    kept = made[::7]
    del made
    gc.collect()
    a = np.arange(1000, dtype=np.int32)
    for ufunc in kept:
        assert (ufunc(a, a, a) == 2 * a * a).all()
        assert "myfunc" in repr(ufunc)


def test_ir_needs_no_numba():
    code_ = (
        "import sys\nimport numpy as np\nfrom numpush import code\n"
        f"f = code.ufunc({MYFUNC!r})\n"
        "print(f(np.int32(1), np.int32(2), np.int32(3)), 'numba' in sys.modules)"
    )
    assert run(code_).split() == ["9", "False"]


def test_numpys_own_are_not_ours():
    with pytest.raises(CodeError, match="was not made by"):
        code.dumps(np.add, keyring=code.Keyring.generate())


def test_numba_that_is_switched_off_is_named():
    found = run(
        "from numpush import code\n"
        "try: code.ufunc(lambda x: x + 1, sigs='f8(f8)')\n"
        "except code.CodeError as error: print(error)",
        NUMBA_DISABLE_JIT="1",
    )
    assert found == "<lambda> is not compiled: NUMBA_DISABLE_JIT is set\n"
