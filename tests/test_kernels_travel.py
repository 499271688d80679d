"""Kernels: code that runs where numba is not, what a kernel is over its life, numba's private names."""

from __future__ import annotations

import ast
import ctypes
import os
import pickle
import subprocess
import sys
import threading
from pathlib import Path

import cloudpickle
import numpy as np
import pytest

import numpush
import processes
from kernel_samples import copy, fail, scale, sort_rows
from numpush import SArray, llvm
from numpush.kernels import Kernel, Variant, _numba, kernel
from numpush.kernels.arguments import Argument, parse_signature

HERE = Path(__file__).name
TICK = np.dtype([("price", "f8"), ("n", "i4"), ("name", "S3")], align=True)
PACKED = np.dtype([("flag", "u1"), ("price", "f8")])


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
