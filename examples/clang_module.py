"""C, compiled by clang to LLVM bitcode, as a Python module: functions that look at their arguments, structs,
variables and ufuncs. Needs clang.

    python examples/clang_module.py
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from numpush import SArray, code

C = """
#include <math.h>

typedef struct { double x, y, mass; } Body;

double gravity = 6.674e-11;

/* The force between two bodies. */
double force(const Body *a, const Body *b)
{
    double dx = a->x - b->x, dy = a->y - b->y;
    return gravity * a->mass * b->mass / (dx * dx + dy * dy);
}

void move(Body *bodies, long n, double dx)
{
    for (long i = 0; i < n; i++)
        bodies[i].x += dx;
}

double celsius(double fahrenheit) { return (fahrenheit - 32) * 5 / 9; }
"""


def main() -> None:
    if shutil.which("clang") is None:
        sys.exit("this example compiles C: on Debian and Ubuntu, apt install clang")
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "physics.c").write_text(C)
        command = ["clang", "-g", "-O2", "-emit-llvm", "-c", "physics.c", "-o", "physics.bc"]
        subprocess.run(command, cwd=folder, check=True)
        sys.path.insert(0, folder)
        code.install_importer()
        import physics  # finds physics.bc

    print(physics.force, physics.move, physics.celsius, sep="\n")
    bodies = SArray(np.array([(0, 0, 5.972e24), (3.844e8, 0, 7.342e22)], physics.Body))
    print(f"earth and moon: {physics.force(bodies[:1], bodies[1:]):.3g} N")
    physics.gravity *= 2
    print(f"with twice the gravity: {physics.force(bodies[:1], bodies[1:]):.3g} N")
    physics.move(bodies, len(bodies), 1e6)
    print("moved to", bodies["x"])
    print("as a ufunc:", physics.ufuncs.celsius([32.0, 98.6, 212.0]))
    for wrong in (lambda: physics.move(bodies["x"], 2, 1.0), lambda: physics.celsius("warm")):
        try:
            wrong()
        except TypeError as error:
            print("refused:", error)


if __name__ == "__main__":
    main()
