"""Code that the tests of numpush.code send, load and break."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import processes

#: The oldest example there is. LLVM counts the entry block, which has no label, and misses %3.
MYFUNC = """\
define i32 @myfunc(i32, i32, i32) {
        %3 = add i32 %0, %1
        %4 = mul i32 %3, %2
        ret i32 %4
}
"""
#: Made of shapes.c, which says how.
SHAPES = (Path(__file__).parent / "data" / "shapes.bc").read_bytes()


def run(code: str, *args: Any, **env: str) -> str:
    """Run Python code in a process of its own, which has seen nothing yet; return what it printed."""
    done = processes.run_script(code, *map(str, args), **env)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
