"""Ufuncs that came as code against numba.vectorize's and NumPy; loading; calls of functions of C."""

from __future__ import annotations

import ctypes
import pickle
import subprocess
import tempfile
from pathlib import Path

import numba
import numpy as np

import numpush
from harness import Race, arguments, finish
from numpush import code

IR = """
define double @poly(double %x, double %y) {
    %a = fmul double %x, %x
    %b = fmul double %y, 3.0
    %c = fadd double %a, %b
    %d = fsub double %c, 1.0
    ret double %d
}
define i32 @myfunc(i32 %a, i32 %b, i32 %c) {
    %d = add i32 %a, %b
    %e = mul i32 %d, %c
    ret i32 %e
}
"""
C = """
int add(int a, int b) { return a + b; }
double total(const double *x, long n) { double s = 0; for (long i = 0; i < n; i++) s += x[i]; return s; }
"""
SHAPES = Path(__file__).parent.parent / "tests" / "data" / "shapes.bc"


def poly(x, y):  # type: ignore[no-untyped-def]  # numba knows
    return x * x + 3 * y - 1


def wave(x, y):  # type: ignore[no-untyped-def]  # numba knows
    return np.exp(-x) * np.sin(y)


@numpush.kernel("const f8[:], f8[:], f8")
def scale(i0, i1, x, y, c):  # type: ignore[no-untyped-def]  # numba knows
    for i in range(i0, i1):
        y[i] = x[i] * c


def ufuncs(n: int) -> list[Race]:
    ring = code.Keyring.generate()
    x, y = np.random.default_rng(1).random((2, n))
    out = np.empty_like(x)
    a, b, c = np.random.default_rng(2).integers(0, 1000, (3, n)).astype(np.int32)
    sums = np.empty_like(a)
    double = "f8(f8, f8)"
    of_numba = {f: numba.vectorize([double])(f) for f in (poly, wave)}
    of_python = {f: code.ufunc(f, sigs=double) for f in (poly, wave)}
    of_ir = code.ufunc(IR, "poly")
    came = code.loads(code.dumps(of_ir, keyring=ring, portable=True), keyring=ring)
    races = []

    race = Race(f"x*x + 3*y - 1 of {n} doubles, into out=", "numba.vectorize")
    race.add("numba.vectorize", lambda: of_numba[poly](x, y, out=out))
    race.add("code.ufunc of the Python function", lambda: of_python[poly](x, y, out=out))
    race.add("code.ufunc of IR", lambda: of_ir(x, y, out=out))
    race.add("the same, loaded from bitcode", lambda: came(x, y, out=out))
    race.add("NumPy's operators", lambda: x * x + 3 * y - 1)
    races.append(race)

    race = Race(f"the same of {n // 2} doubles, every second", "numba.vectorize")
    steps = x[::2], y[::2], out[::2]
    race.add("numba.vectorize", lambda: of_numba[poly](*steps))
    race.add("code.ufunc of IR", lambda: of_ir(*steps))
    races.append(race)

    race = Race(f"exp(-x) * sin(y) of {n} doubles", "numba.vectorize")
    race.add("numba.vectorize", lambda: of_numba[wave](x, y, out=out))
    race.add("code.ufunc of the Python function", lambda: of_python[wave](x, y, out=out))
    race.add("NumPy's functions", lambda: np.exp(-x) * np.sin(y))
    races.append(race)

    integers = numba.vectorize(["i4(i4, i4, i4)"])(lambda a, b, c: (a + b) * c)
    myfunc = code.ufunc(IR, "myfunc")
    race = Race(f"(a + b) * c of {n} int32", "numba.vectorize")
    race.add("numba.vectorize", lambda: integers(a, b, c, sums))
    race.add("code.ufunc of IR", lambda: myfunc(a, b, c, sums))
    race.add("NumPy's operators", lambda: (a + b) * c)
    races.append(race)

    few = x[:8], y[:8]
    race = Race("a call of 8 doubles", "np.add")
    race.add("np.add", lambda: np.add(*few))
    race.add("numba.vectorize", lambda: of_numba[poly](*few))
    race.add("code.ufunc", lambda: of_ir(*few))
    races.append(race)
    return races


def loading() -> Race:
    ring = code.Keyring.generate()
    made = code.ufunc(poly, sigs="f8(f8, f8)")
    race = Race(
        "from bytes to something that can be called, nothing cached", "a ufunc, object code"
    )
    for name, obj, portable in (
        ("a ufunc, object code", made, False),
        ("a ufunc, bitcode", made, True),
        ("a kernel, object code", scale, False),
        ("a module of 20 functions, object code", SHAPES.read_bytes(), False),
        ("a module of 20 functions, bitcode", SHAPES.read_bytes(), True),
    ):
        data = code.dumps(obj, portable=portable, keyring=ring)
        if "kernel" in name:  # it links when it is first used
            race.add(name, lambda data=data: code.loads(data, keyring=ring).variants[0].entry())
        else:
            race.add(name, lambda data=data: code.loads(data, keyring=ring))
    dispatcher = pickle.dumps(numba.vectorize(["f8(f8, f8)"])(lambda x, y: x * x + 3 * y - 1))
    race.add("numba.vectorize, made anew", lambda: numba.vectorize(["f8(f8, f8)"])(poly))
    race.add("numba.vectorize, pickled", lambda: pickle.loads(dispatcher))
    return race


def calls() -> list[Race]:
    with tempfile.TemporaryDirectory() as folder:
        source, library = Path(folder, "c.c"), Path(folder, "c.so")
        source.write_text(C)
        subprocess.run(["gcc", "-O2", "-shared", "-fPIC", source, "-o", library], check=True)
        other = ctypes.CDLL(str(library))
    module = code.module(SHAPES.read_bytes())
    other.total.restype = ctypes.c_double
    pointer = np.ctypeslib.ndpointer(np.float64, flags="C")
    other.total.argtypes, other.add.argtypes = (
        [pointer, ctypes.c_int64],
        [ctypes.c_int32, ctypes.c_int32],
    )
    x = np.ones(8)
    scalar = Race("add(2, 3), 1000 times", "ctypes")
    scalar.add("ctypes", lambda: [other.add(2, 3) for _ in range(1000)])
    scalar.add("code.module", lambda: [module.add(2, 3) for _ in range(1000)])
    array = Race("total(x, 8), 1000 times", "ctypes with ndpointer")
    array.add("ctypes with ndpointer", lambda: [other.total(x, 8) for _ in range(1000)])
    array.add("code.module", lambda: [module.total(x, 8) for _ in range(1000)])
    return [scalar, array]


def main() -> None:
    args = arguments(__doc__, n=1_000_000)
    races = [*ufuncs(args.n), loading(), *calls()]
    for race in races:
        race.run(args.rounds)
    finish(races, args.json)


if __name__ == "__main__":
    main()
