"""Modules of clang's bitcode: functions look at what they get, structs are dtypes, variables are there."""

from __future__ import annotations

import gc
import shutil
import subprocess
import sys

import numpy as np
import pytest

from code_samples import MYFUNC, SHAPES
from numpush import SArray, code
from numpush.code import CodeError


@pytest.fixture(scope="module")
def shapes():
    return code.module(SHAPES, name="shapes")


# -- functions


def test_functions_take_and_give_numbers(shapes):
    assert shapes.add(2, 3) == 5
    assert shapes.add(np.int64(2), True) == 3
    assert shapes.wrap(250, 10) == 4
    assert shapes.fib(20) == 6765
    assert shapes.half(3) == 1.5
    assert shapes.is_close(1, 1 + 1e-12) is True
    assert shapes.next_colour(0) == 5


def test_a_function_says_what_it_is(shapes):
    assert repr(shapes.add) == "<int32_t add(int32_t, int32_t)>"
    assert shapes.total.__doc__ == "double total(double const *, int64_t)"
    assert shapes.add.__name__ == "add"
    assert "int32_t add(int32_t, int32_t);" in shapes.__cdef__


@pytest.mark.parametrize(
    ("name", "args", "error"),
    [
        ("add", (1,), TypeError),
        ("add", (1, 2, 3), TypeError),
        ("add", (1.5, 2), TypeError),
        ("add", ("1", 2), TypeError),
        ("add", (2**31, 0), OverflowError),
        ("wrap", (-1, 0), OverflowError),
        ("half", ("x",), TypeError),
        ("total", (np.zeros(3),), TypeError),
        ("total", (3, 3), TypeError),
        ("total", (np.zeros(3, "f4"), 3), TypeError),
        ("total", (np.zeros(3, ">f8"), 3), TypeError),
        ("total", (np.zeros(6)[::2], 3), TypeError),
        ("norm", (np.zeros(1), 3), TypeError),
        ("norm", (np.zeros(1, "f8, f8"),), TypeError),
        ("middle", (1.0, 2.0), TypeError),
        ("dot", (np.zeros((2, 3)), np.zeros(2)), TypeError),
        ("first_letter", ("text",), TypeError),
        ("apply", (3, 1.0), TypeError),
    ],
)
def test_what_does_not_fit_is_refused(shapes, name, args, error):
    with pytest.raises(error):
        getattr(shapes, name)(*args)


def test_a_refusal_names_the_function(shapes):
    with pytest.raises(OverflowError) as caught:
        shapes.wrap(300, 0)
    assert caught.value.__notes__ == ["calling uint8_t wrap(uint8_t, uint8_t)"]


def test_pointers_take_arrays(shapes):
    x = np.arange(5.0)
    assert shapes.total(x, 5) == 10
    assert shapes.scale(x, 4, 2) is None
    assert x.tolist() == [0, 2, 4, 6, 4]
    assert shapes.total(np.arange(6.0).reshape(2, 3), 6) == 15
    assert shapes.dot(np.arange(4.0).reshape(2, 2), np.ones(2)) == 5


def test_pointers_take_shared_arrays(shapes):
    x = SArray(np.arange(5.0))
    shapes.scale(x, 5, 3.0)
    assert x.tolist() == [0, 3, 6, 9, 12]


def test_only_a_pointer_to_const_takes_what_is_read_only(shapes):
    x = np.arange(5.0)
    x.flags.writeable = False
    assert shapes.total(x, 5) == 10
    with pytest.raises(TypeError, match=r"scale\(\), argument 1: the array is read-only"):
        shapes.scale(x, 5, 2.0)


def test_none_is_null_and_bytes_are_text(shapes):
    assert shapes.is_null(None) is True
    assert shapes.is_null(np.zeros(1)) is False
    assert shapes.first_letter(b"A") == 65
    assert shapes.first_letter(np.array([b"B", b"C"])) == 66


def test_a_function_is_an_argument(shapes):
    assert shapes.apply(shapes.half, 5.0) == 2.5


def test_what_has_no_declaration_says_why(shapes):
    with pytest.raises(AttributeError, match="cffi has no __int128"):
        shapes.huge  # noqa: B018
    with pytest.raises(AttributeError, match="no attribute 'nowhere'"):
        shapes.nowhere  # noqa: B018


# -- structs


def test_structs_are_dtypes(shapes):
    assert shapes.Point == np.dtype([("x", "f8"), ("y", "f8")])
    assert shapes.Particle.itemsize == 40
    assert shapes.Particle.fields["tags"] == (np.dtype(("u2", (3,))), 22)
    assert shapes.Particle["at"] == shapes.Point


def test_structs_go_by_pointer(shapes):
    points = np.zeros(3, shapes.Point)
    points["x"], points["y"] = 3, 4
    assert shapes.norm(points) == 5
    assert shapes.norm(points[1]) == 5  # a scalar is its bytes, too
    particles = np.zeros(2, shapes.Particle)
    shapes.push(particles[1:], points)
    assert particles["at"]["x"].tolist() == [0, 3]
    assert particles["tags"].tolist() == [[0, 0, 0], [0, 1, 0]]


def test_structs_go_by_value_and_come_back(shapes):
    points = np.array([(0, 2), (4, 4)], shapes.Point)
    middle = shapes.middle(points[0], points[1])
    assert middle.dtype == shapes.Point
    assert middle.tolist() == (2, 3)
    assert shapes.norm(middle) == np.hypot(2, 3)


def test_members_without_names_and_inner_structs_are_there(shapes):
    shape = np.zeros(1, shapes.Shape)
    shape["corners"], shape["radius"], shape["names"]["second"] = 1, 0.5, 2
    assert shapes.describe(shape) == 3.5
    assert shapes.Shape.fields["side"][1] == shapes.Shape.fields["radius"][1] == 8


def test_a_struct_that_cffi_would_lay_out_otherwise_goes_by_pointer_only(shapes):
    """A packed one: nothing in a cdef says so."""
    assert shapes.number_of(shapes.get_packed()) == 2.5
    with pytest.raises(TypeError, match="no dtype for struct Packed"):
        shapes.number_of(np.zeros(1, "S1, f8"))
    for name in ("packed", "copy_packed"):
        with pytest.raises(AttributeError, match="cffi would lay out struct Packed otherwise"):
            getattr(shapes, name)
    assert not hasattr(shapes, "Packed")


# -- variables


def test_numbers_are_read_and_written():
    shapes = code.module(SHAPES)
    assert (shapes.counter, shapes.count(), shapes.counter) == (7, 8, 8)
    shapes.counter = 40
    assert shapes.count() == 41
    with pytest.raises(OverflowError):
        shapes.counter = 2**40


def test_arrays_and_structs_are_views():
    shapes = code.module(SHAPES)
    weights = shapes.weights
    assert weights.tolist() == [1, 2, 3, 4]
    shapes.scale(weights, 4, 10.0)
    assert shapes.weights.tolist() == [10, 20, 30, 40]
    shapes.weights = 5
    assert weights.tolist() == [5] * 4
    assert shapes.table.tolist() == [[1, 2, 3], [4, 5, 6]]
    shapes.origin["x"] = 3
    assert shapes.norm(shapes.origin) == np.hypot(3, -0.5)


def test_constants_are_not_written(shapes):
    assert shapes.limit == 99
    with pytest.raises(AttributeError, match="limit is const"):
        shapes.limit = 1
    assert shapes.limit == 99


def test_modules_of_the_same_code_have_variables_of_their_own():
    one, two = code.module(SHAPES), code.module(SHAPES)
    one.counter = 100
    assert two.counter == 7


def test_what_was_taken_from_a_module_outlives_it():
    shapes = code.module(SHAPES)
    weights, add, half = shapes.weights, shapes.add, shapes.ufuncs.half
    del shapes
    gc.collect()
    others = [code.module(MYFUNC) for _ in range(5)]  # would take the memory
    assert weights.tolist() == [1, 2, 3, 4]
    assert add(1, 2) == 3
    assert half(np.arange(3)).tolist() == [0, 0.5, 1]
    assert others[0].myfunc(1, 2, 3) == 9


# -- ufuncs


def test_functions_of_numbers_have_ufuncs(shapes):
    assert dir(shapes.ufuncs) == ["add", "fib", "half", "is_close", "next_colour", "wrap"]
    assert shapes.ufuncs.fib(np.arange(8)).tolist() == [0, 1, 1, 2, 3, 5, 8, 13]
    assert shapes.ufuncs.wrap.types == ["BB->B"]
    assert shapes.ufuncs.is_close([1, 2], [1, 3]).tolist() == [True, False]
    assert shapes.ufuncs.wrap is shapes.ufuncs.wrap
    with pytest.raises(AttributeError, match="numbers in and one out"):
        shapes.ufuncs.total  # noqa: B018
    with pytest.raises(AttributeError, match="no function 'nowhere'"):
        shapes.ufuncs.nowhere  # noqa: B018


# -- where the types come from


def test_a_cdef_says_what_is_in_the_module():
    module = code.module(
        SHAPES,
        """
        typedef double real;
        typedef struct { real x, y; } Vector;
        real total(
            const real *values, int64_t n);
        double norm(const Vector *); unsigned int add(unsigned int a, unsigned int b);
        """,
    )
    assert module.__all__ == ["total", "norm", "add"]
    assert module.total(np.arange(4.0), 4) == 6
    assert module.norm(np.ones(1, module.Vector)) == np.sqrt(2)
    assert module.add(2**31, 1) == 2**31 + 1
    assert module.ufuncs.add.types == ["II->I"]
    with pytest.raises(AttributeError, match="not in the cdef"):
        module.half  # noqa: B018


def test_char_is_a_number_of_one_byte_in_a_ufunc():
    module = code.module(SHAPES, "char wrap(char, unsigned char);")
    assert module.wrap(b"A", 1) == b"B"
    assert module.ufuncs.wrap.types == ["bB->b"]


@pytest.mark.parametrize(
    ("cdef", "message"),
    [
        ("int add(int);", r"add is declared as int\(\*\)\(int\), its code is i32 \(i32, i32\)"),
        ("int add(int, double);", r"its code is i32 \(i32, i32\)"),
        ("int64_t add(int, int);", r"its code is i32 \(i32, i32\)"),
        ("void add(int, int);", r"its code is i32 \(i32, i32\)"),
        ("int add(int, int *);", r"its code is i32 \(i32, i32\)"),
        ("int add(int, int, ...);", r"its code is i32 \(i32, i32\)"),
        ("int nowhere(int);", "declared, but not in this code: nowhere"),
        ("int add(nonsense);", "cffi cannot read"),
        ("}", "cffi cannot read"),
    ],
)
def test_a_cdef_that_is_not_the_codes_is_refused(cdef, message):
    with pytest.raises(CodeError, match=message):
        code.module(SHAPES, cdef)


def test_without_debug_information_llvm_is_believed():
    module = code.module(
        """
        %pair = type { i32, i32 }
        define zeroext i8 @next(i8 zeroext %x) {
            %r = add i8 %x, 1
            ret i8 %r
        }
        define i32 @first(i32* readonly %p) {
            %r = load i32, i32* %p
            ret i32 %r
        }
        define void @clear(i32* %p) {
            store i32 0, i32* %p
            ret void
        }
        define %pair @both(i32 %x) {
            ret %pair zeroinitializer
        }
        define internal i32 @hidden(i32 %x) {
            ret i32 %x
        }
        define linkonce_odr i32 @inlined(i32 %x) {
            ret i32 %x
        }
        """
    )
    assert module.__all__ == ["next", "first", "clear"]
    assert module.next(255) == 0
    x = np.array([5, 6], np.int32)
    x.flags.writeable = False
    assert module.first(x) == 5
    with pytest.raises(TypeError, match="read-only"):
        module.clear(x)
    with pytest.raises(AttributeError, match=r"both .* it is %pair \(i32\)"):
        module.both  # noqa: B018


def test_no_module_is_made_of_what_llvm_cannot_read():
    for source in (b"", b"BC\xc0\xde", "nonsense"):
        with pytest.raises(CodeError):
            code.module(source)


@pytest.mark.skipif(shutil.which("clang") is None, reason="no clang")
@pytest.mark.parametrize("flags", ["-O0", "-O2", "-g -O0", "-g -O3", "-g -O2 -flto=thin"])
def test_what_clang_writes_is_read(tmp_path, flags):
    source = tmp_path / "example.c"
    source.write_text(
        "struct pair { int a; double b; };\n"
        "static int helper(int x) { return x + 1; }\n"
        "int next(int x) { return helper(x); }\n"
        "double sum(const double *x, long n)\n"
        "{ double s = 0; for (long i = 0; i < n; i++) s += x[i]; return s; }\n"
        "double second(struct pair *p) { return p->b; }\n"
    )
    subprocess.run(
        ["clang", *flags.split(), "-emit-llvm", "-c", source, "-o", source.with_suffix(".bc")],
        check=True,
    )
    module = code.module(source.with_suffix(".bc").read_bytes())
    assert module.next(4) == 5
    assert module.sum(np.arange(10.0), 10) == 45
    assert module.ufuncs.next(np.arange(3, dtype=np.int32)).tolist() == [1, 2, 3]
    if "-g" in flags:
        assert module.second(np.array([(1, 2.5)], module.pair)) == 2.5


# -- the importer


@pytest.fixture
def importer(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)
    code.install_importer()
    yield tmp_path
    code.uninstall_importer()
    for name in set(sys.modules) - before:
        if name.startswith("npcode_"):
            del sys.modules[name]


def test_import_finds_bitcode_when_it_is_switched_on(importer):
    (importer / "npcode_shapes.bc").write_bytes(SHAPES)
    import npcode_shapes

    assert npcode_shapes.add(1, 2) == 3
    assert npcode_shapes.__name__ == npcode_shapes.__spec__.name == "npcode_shapes"
    assert npcode_shapes.__file__ == str(importer / "npcode_shapes.bc")
    from npcode_shapes import half, weights

    assert half(3) == 1.5
    assert weights.tolist() == [1, 2, 3, 4]


def test_import_finds_it_in_packages_and_reads_a_cdef(importer):
    (importer / "npcode_package").mkdir()
    (importer / "npcode_package" / "__init__.py").touch()
    (importer / "npcode_package" / "shapes.bc").write_bytes(SHAPES)
    (importer / "npcode_package" / "shapes.cdef").write_text("unsigned add(unsigned, unsigned);")
    from npcode_package import shapes

    assert shapes.add(2**32 - 1, 1) == 0
    assert shapes.__all__ == ["add"]


def test_python_comes_first(importer):
    (importer / "npcode_both.bc").write_bytes(SHAPES)
    (importer / "npcode_both.py").write_text("is_python = True")
    import npcode_both

    assert npcode_both.is_python


def test_bitcode_that_cannot_be_read_is_no_module(importer):
    (importer / "npcode_broken.bc").write_bytes(b"not bitcode")
    with pytest.raises(CodeError):
        import npcode_broken  # noqa: F401
    assert "npcode_broken" not in sys.modules


def test_it_is_off_unless_it_is_switched_on(importer):
    code.install_importer()  # twice is once
    code.uninstall_importer()
    (importer / "npcode_off.bc").write_bytes(SHAPES)
    with pytest.raises(ModuleNotFoundError):
        import npcode_off  # noqa: F401
