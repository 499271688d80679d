"""What is sent arrives in a process that has never seen it; what is not for that one is refused by name."""

from __future__ import annotations

import dataclasses
import importlib.util
import shlex
import shutil
import subprocess
import sysconfig
import threading

import numexpr
import numpy as np
import pytest

from code_samples import MYFUNC, SHAPES, run
from numpush import code, llvm
from numpush.code import CodeError, CodeMismatch, Keyring
from numpush.code.envelope import seal, unseal

RING = Keyring.generate()
LOAD = (
    "import sys\nfrom pathlib import Path\nimport numpy as np\nfrom numpush import code\n"
    "ring = code.Keyring.from_env('THE_KEYS')\n"
    "obj = code.loads(Path(sys.argv[1]).read_bytes(), keyring=ring, allow=code.KINDS)\n"
)


def over_there(tmp_path, data, code_):
    """Load *data* in another process, and run *code_* with it as obj; return what that prints."""
    (tmp_path / "payload").write_bytes(data)
    return run(LOAD + code_, tmp_path / "payload", THE_KEYS=RING.export())


def changed(data, blobs=None, maker=None, **meta):
    """The payload with other fields, signed right."""
    payload = unseal(data, RING, code.KINDS)
    return seal(
        dataclasses.replace(
            payload,
            meta=payload.meta | meta,
            blobs=payload.blobs | (blobs or {}),
            maker=payload.maker | (maker or {}),
        ),
        RING,
    )


def target(**fields):
    here = llvm.host()
    return {
        "triple": here.triple,
        "features": sorted(here.features),
        "flags": sorted(here.flags),
        "llvm": here.llvm,
        **fields,
    }


BETTER = target(features=["warp"], flags=["warp"])  #: has what this machine lacks
NEWER = {**BETTER, "llvm": "99.1.0"}


# -- ufuncs


@pytest.mark.parametrize("portable", [False, True])
def test_the_oldest_example_travels_as_a_ufunc(tmp_path, portable):
    data = code.dumps(MYFUNC, kind="ufunc", portable=portable, keyring=RING)
    found = over_there(
        tmp_path,
        data,
        "from numpush import SArray\n"
        "a = SArray(np.arange(6, dtype='i4'))\n"
        "print(type(obj).__name__, obj.types, obj(a[:, None], a, np.int32(3)).sum())\n"
        "print('numba' in sys.modules)",
    )
    assert found.split("\n") == ["ufunc ['iii->i'] 540", "False", ""]


def test_a_ufunc_travels_and_travels_on(tmp_path):
    poly = code.ufunc(lambda x, y: x * x + 3 * y - 1, "poly", ["f8(f8, f8)", "f4(f4, f4)"])
    once = code.loads(code.dumps(poly, keyring=RING), keyring=RING)
    twice = code.dumps(once, keyring=RING)
    found = over_there(
        tmp_path,
        twice,
        "x = np.arange(5.)\nprint(obj.__name__, obj.types, obj(x, 1).tolist(), obj.reduce(x))\n"
        "print('numba' in sys.modules)",
    )
    assert found.split("\n") == [
        f"poly ['dd->d', 'ff->f'] {poly(np.arange(5.0), 1).tolist()} {poly.reduce(np.arange(5.0))}",
        "False",
        "",
    ]


def _strict(x):
    if x < 0:
        raise ValueError("negative", 7)
    return x


def test_a_python_function_travels_as_a_ufunc_and_raises_there(tmp_path):
    found = over_there(
        tmp_path,
        code.dumps(_strict, sig="f8(f8)", keyring=RING),
        "try: obj(np.arange(1000.) - 999)\nexcept ValueError as error: print(error.args)\n"
        "print('numba' in sys.modules)",
    )
    assert found.split("\n") == ["('negative', 7)", "False", ""]


def test_without_object_code_a_payload_is_smaller():
    sizes = [len(code.dumps(SHAPES, keyring=RING, portable=p)) for p in (False, True)]
    assert sizes[1] < sizes[0]
    assert "object" not in unseal(code.dumps(SHAPES, keyring=RING, portable=True), RING).blobs


# -- modules


def test_a_module_travels_with_its_variables_and_ufuncs(tmp_path):
    found = over_there(
        tmp_path,
        code.dumps(SHAPES, keyring=RING),
        "print(obj.add(1, 2), obj.weights, obj.limit, obj.norm(np.ones(1, obj.Point)))\n"
        "print(obj.ufuncs.fib(np.arange(6)))\n"
        "try: obj.limit = 3\nexcept AttributeError as error: print(error)\n"
        "try: obj.huge\nexcept AttributeError as error: print(error)\n",
    )
    assert found.splitlines() == [
        "3 [1. 2. 3. 4.] 99 1.4142135623730951",
        "[0 1 1 2 3 5]",
        "limit is const",
        "huge of bitcode has no declaration: cffi has no __int128. Give one by cdef=",
    ]


def test_a_module_travels_with_its_declarations():
    module = code.module(SHAPES, "unsigned add(unsigned, unsigned);", name="mine")
    for data in (
        code.dumps(module, keyring=RING),
        code.dumps(SHAPES, sig="unsigned add(unsigned, unsigned);", keyring=RING),
    ):
        loaded = code.loads(data, keyring=RING)
        assert loaded.__all__ == ["add"]
        assert loaded.add(2**32 - 1, 2) == 1
    assert code.loads(code.dumps(module, keyring=RING), keyring=RING).__name__ == "mine"


def test_ir_text_travels_as_a_module():
    assert code.loads(code.dumps(MYFUNC, keyring=RING), keyring=RING).myfunc(1, 2, 3) == 9


# -- machines


@pytest.fixture(params=["ufunc", "llvm"])
def machine_code(request):
    return code.dumps(MYFUNC, kind=request.param, keyring=RING)


def test_object_code_is_used_where_it_fits(machine_code):
    """The bitcode would not do: it is none."""
    data = changed(machine_code, {"bitcode": b"damaged"})
    code.loads(data, keyring=RING)


def test_object_code_for_a_better_processor_is_made_anew(machine_code):
    """The object would not do: it is none."""
    data = changed(machine_code, {"object": b"damaged"}, target=BETTER)
    code.loads(data, keyring=RING)


def test_object_code_of_a_newer_llvm_is_used(machine_code):
    data = changed(machine_code, {"bitcode": b"damaged"}, target=target(llvm="99.1.0"))
    code.loads(data, keyring=RING)


def test_bitcode_of_a_newer_llvm_is_refused_before_it_is_parsed(machine_code):
    data = changed(machine_code, {"bitcode": b"BC\xc0\xdedamaged"}, target=NEWER)
    here = llvm.host().llvm
    with pytest.raises(CodeMismatch, match=rf"bitcode of LLVM 99\.1\.0, this is LLVM {here}"):
        code.loads(data, keyring=RING)


def test_another_architecture_is_refused_before_anything_is_parsed(machine_code):
    data = changed(
        machine_code,
        {"bitcode": b"BC\xc0\xdedamaged", "object": b"damaged"},
        target=target(triple="riscv64-unknown-linux-gnu"),
    )
    with pytest.raises(CodeMismatch, match=f"code for riscv64, this is {llvm.host().architecture}"):
        code.loads(data, keyring=RING)


def test_instructions_that_are_written_out_and_not_here_are_named():
    text = (
        "declare void @llvm.x86.nowhere.op()\n"
        "define i32 @f(i32 %x) {\n  call void @llvm.x86.nowhere.op()\n  ret i32 %x\n}"
    )
    data = code.dumps(MYFUNC, kind="ufunc", keyring=RING)
    stranger = changed(data, {"bitcode": llvm.parse(text).as_bitcode()}, target=BETTER)
    with pytest.raises(CodeMismatch, match=r"llvm\.x86\.nowhere"):
        code.loads(stranger, keyring=RING)


def test_code_that_lacks_what_its_header_names_is_refused():
    data = code.dumps(MYFUNC, kind="ufunc", keyring=RING)
    other = code.dumps(SHAPES, keyring=RING)
    with pytest.raises(CodeError, match="np_loop0"):
        code.loads(changed(data, {"object": unseal(other, RING).blobs["object"]}), keyring=RING)


@pytest.mark.parametrize(
    "fields",
    [
        {"loops": []},
        {"loops": [["<i4"]]},
        {"loops": [["<i4", "<i4"], ["<i4"]]},
        {"loops": [["<c16", "<i4"]]},
        {"loops": [["nonsense", "<i4"]]},
        {"loops": "ii"},
        {"name": b"myfunc"},
        {"target": {}},
        {"target": {**BETTER, "llvm": "new"}},
        {"target": target(triple=3)},
    ],
)
def test_fields_that_mean_nothing_are_errors_of_code(fields):
    data = changed(code.dumps(MYFUNC, kind="ufunc", keyring=RING), **fields)
    with pytest.raises(CodeError, match=r"payload|no loop"):
        code.loads(changed(data, {"object": b""}) if "target" in fields else data, keyring=RING)


# -- numexpr


def test_an_expression_travels(tmp_path):
    expression = numexpr.NumExpr("2*a + where(b > 1.5, sin(c), 3)", [(n, np.double) for n in "abc"])
    found = over_there(
        tmp_path,
        code.dumps(expression, keyring=RING),
        "from numpush import SArray\n"
        "a, b, c = np.random.default_rng(1).random((3, 1000)) * 3\n"
        "out = SArray.zeros(1000)\n"
        "obj(a, b, c, out=out)\n"
        "print(obj, np.allclose(out, 2*a + np.where(b > 1.5, np.sin(c), 3)), obj(1., 1., 1.))",
    )
    assert found.split("\n") == ["<numexpr program of a, b, c> True 5.0", ""]


def test_an_expression_travels_on():
    expression = numexpr.NumExpr("a + 1", [("a", np.int64)])
    once = code.loads(code.dumps(expression, keyring=RING), keyring=RING)
    twice = code.loads(code.dumps(once, keyring=RING), keyring=RING)
    assert twice(np.arange(3)).tolist() == [1, 2, 3]
    assert twice.input_names == ("a",)


def test_a_program_of_another_numexpr_is_refused():
    data = code.dumps(numexpr.NumExpr("a + 1", [("a", np.int64)]), keyring=RING)
    with pytest.raises(CodeMismatch, match="numexpr with other operations"):
        code.loads(changed(data, tables=bytes(32), program=b"nonsense"), keyring=RING)


def test_a_program_that_numexpr_refuses_is_an_error_of_code():
    data = code.dumps(numexpr.NumExpr("a + 1", [("a", np.int64)]), keyring=RING)
    with pytest.raises(CodeError, match="numexpr refuses"):
        code.loads(changed(data, program=b"\xff\xff\xff\xff"), keyring=RING)
    with pytest.raises(CodeError, match="numexpr refuses"):
        code.loads(changed(data, constants=[["nonsense", b"1"]]), keyring=RING)


# -- Python


def test_a_python_function_travels_where_it_is_let_in(tmp_path):
    factor = 3
    data = code.dumps(lambda x: x * factor, keyring=RING)
    assert over_there(tmp_path, data, "print(obj(14))") == "42\n"
    with pytest.raises(CodeError, match="kind 'python' is not let in"):
        code.loads(data, keyring=RING)


def test_bytecode_of_another_python_is_refused_before_it_is_unpickled():
    data = code.dumps(len, kind="python", keyring=RING)
    other = changed(data, {"pickle": b"damaged"}, {"bytecode": b"\0\0\r\n", "python": [3, 99, 0]})
    with pytest.raises(CodeMismatch, match=r"bytecode of Python 3\.99\.0"):
        code.loads(other, keyring=RING, allow="python")
    assert unseal(data, RING, "python").maker["bytecode"] == importlib.util.MAGIC_NUMBER


def test_what_has_no_code_or_cannot_be_portable_is_refused():
    with pytest.raises(CodeError, match="int: no code that can be sent"):
        code.dumps(3, keyring=RING)
    with pytest.raises(CodeError, match="cannot be portable"):
        code.dumps(len, portable=True, keyring=RING)
    with pytest.raises(CodeError, match="no extension module"):
        code.dumps(dataclasses, keyring=RING)
    with pytest.raises(CodeError, match="cannot be pickled"):
        code.dumps(threading.Lock(), kind="python", keyring=RING)
    with pytest.raises(ValueError, match="kind: one of"):
        code.dumps(len, kind="pyhton", keyring=RING)


# -- extension modules

COMPILER = shlex.split(sysconfig.get_config_var("CC") or "cc")
ANSWER = """
#include <Python.h>
static PyObject *answer(PyObject *self, PyObject *none) { return PyLong_FromLong(%d); }
static PyMethodDef methods[] = {{"answer", answer, METH_NOARGS, NULL}, {NULL}};
static PyModuleDef definition = {PyModuleDef_HEAD_INIT, "answers", NULL, 0, methods};
PyMODINIT_FUNC PyInit_answers(void) { return PyModuleDef_Init(&definition); }
"""


def extension(folder, number):
    """Make an extension module answers, whose answer() is *number*."""
    folder.mkdir()
    (folder / "answers.c").write_text(ANSWER % number)
    library = folder / f"answers{sysconfig.get_config_var('EXT_SUFFIX')}"
    include = f"-I{sysconfig.get_path('include')}"
    command = [*COMPILER, "-shared", "-fPIC", include, folder / "answers.c", "-o", library]
    subprocess.run(command, check=True)
    return library


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    if shutil.which(COMPILER[0]) is None:
        pytest.skip("no C compiler")
    return extension(tmp_path_factory.mktemp("c") / "one", 42)


def test_extension_modules_travel_and_do_not_take_each_others_place(tmp_path, answers):
    other = extension(tmp_path / "two", 43)
    for name, path in (("one", answers), ("two", other)):
        (tmp_path / name).with_suffix(".payload").write_bytes(
            code.dumps(path, kind="extension", keyring=RING)
        )
    found = run(
        "import sys\nfrom pathlib import Path\nfrom numpush import code\n"
        "ring = code.Keyring.from_env('THE_KEYS')\n"
        "load = lambda path: code.loads(Path(path).read_bytes(), keyring=ring, allow='extension')\n"
        "one, two, again = map(load, (*sys.argv[1:], sys.argv[1]))\n"
        "print(one.answer(), two.answer(), one is again, one.__name__, 'answers' in sys.modules)\n"
        # a module that was loaded from a file is sent by itself, also one that came so
        "print(code.loads(code.dumps(two, keyring=ring), keyring=ring, allow='extension') is two)\n",
        tmp_path / "one.payload",
        tmp_path / "two.payload",
        THE_KEYS=RING.export(),
    )
    assert found.splitlines() == ["42 43 True answers False", "True"]


@pytest.mark.parametrize(
    ("fields", "maker"),
    [
        ({"suffix": ".cpython-399-x86_64-linux-gnu.so"}, {}),
        ({"suffix": ".so"}, {"python": [3, 99, 0]}),
        ({"machine": "riscv64"}, {}),
    ],
)
def test_an_extension_for_another_python_or_platform_is_refused(answers, fields, maker):
    data = code.dumps(answers, kind="extension", keyring=RING)
    with pytest.raises(CodeMismatch, match="an extension module"):
        code.loads(
            changed(data, {"library": b"damaged"}, maker, **fields), keyring=RING, allow="extension"
        )


def test_a_library_that_is_none_is_an_error_of_code(answers):
    data = code.dumps(answers, kind="extension", keyring=RING)
    with pytest.raises(CodeError, match="answers"):
        code.loads(changed(data, {"library": b"damaged"}), keyring=RING, allow="extension")


# -- PyTensor


def test_a_pytensor_function_travels():
    pytensor = pytest.importorskip("pytensor", reason="no pytensor")
    x, y = pytensor.tensor.dvector("x"), pytensor.tensor.dscalar("y")
    expected = (np.arange(3.0) + 1) ** 2
    for obj in (pytensor.function([x, y], (x + y) ** 2), ([x, y], (x + y) ** 2)):
        data = code.dumps(obj, kind="pytensor", keyring=RING)
        loaded = code.loads(data, keyring=RING, allow="pytensor")
        assert np.allclose(loaded(np.arange(3.0), 1.0), expected)


# -- what is not installed


def test_what_needs_no_llvmlite_works_without_it_and_what_does_names_the_remedy(tmp_path):
    (tmp_path / "python").write_bytes(code.dumps(len, keyring=RING))
    (tmp_path / "ufunc").write_bytes(code.dumps(MYFUNC, kind="ufunc", keyring=RING))
    found = run(
        "import sys\nsys.modules['llvmlite'] = None\n"
        "from pathlib import Path\nfrom numpush import code\n"
        "ring = code.Keyring.from_env('THE_KEYS')\n"
        "print(code.loads(Path(sys.argv[1]).read_bytes(), keyring=ring, allow='python')('four'))\n"
        "try: code.loads(Path(sys.argv[2]).read_bytes(), keyring=ring)\n"
        "except ImportError as error: print('pip install' in str(error))\n"
        "try: code.module('')\n"
        "except ImportError as error: print('pip install' in str(error))\n",
        tmp_path / "python",
        tmp_path / "ufunc",
        THE_KEYS=RING.export(),
    )
    assert found.split() == ["4", "True", "True"]
