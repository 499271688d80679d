"""LLVM code from one program to another, signed: a NumPy ufunc at the other end, which has never seen it.

    python examples/ship_bitcode.py key mykey                     once; give the file to both ends
    python examples/ship_bitcode.py send mykey > myfunc.npc
    python examples/ship_bitcode.py receive mykey < myfunc.npc

Without arguments it makes a key, joins the two by a pipe, and then shows what is refused.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from numpush import SArray, code

MYFUNC = """
define i32 @myfunc(i32, i32, i32) {
        %3 = add i32 %0, %1
        %4 = mul i32 %3, %2
        ret i32 %4
}
"""


def send(ring: code.Keyring) -> None:
    """Write the code of a ufunc to standard output: bitcode, object code, types and a signature."""
    data = code.dumps(code.ufunc(MYFUNC), keyring=ring)
    sys.stdout.buffer.write(data)
    print(f"sent {len(data):,} bytes", file=sys.stderr)


def receive(ring: code.Keyring) -> None:
    """Read a payload from standard input, and use what is in it on shared arrays."""
    data = sys.stdin.buffer.read()
    start = time.perf_counter()
    try:
        ufunc = code.loads(data, keyring=ring)
    except code.CodeError as error:
        sys.exit(f"refused: {type(error).__name__}: {error}")
    print(f"received {ufunc} in {(time.perf_counter() - start) * 1000:.1f} ms: {ufunc.types}")
    rows, columns = SArray(np.arange(3, dtype="i4")), SArray(np.arange(4, dtype="i4"))
    print(ufunc(rows[:, None], columns, np.int32(10)))  # (row + column) * 10
    print("numba was imported" if "numba" in sys.modules else "numba was not needed")


def demo() -> None:
    """Be both ends, and somebody in between."""
    with tempfile.TemporaryDirectory() as folder:
        key, other = Path(folder, "key"), Path(folder, "other key")
        code.Keyring.generate().save(key)
        code.Keyring.generate().save(other)

        def run(what: str, key: Path, data: bytes = b"") -> bytes:
            command = [sys.executable, __file__, what, key]
            done = subprocess.run(command, input=data, capture_output=True, check=False)
            print(
                (done.stderr.decode() if what == "send" else (done.stdout + done.stderr).decode()),
                end="",
            )
            return done.stdout

        data = run("send", key)
        run("receive", key, data)
        middle = len(data) // 2
        run("receive", key, data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :])
        run("receive", other, data)


def main() -> None:
    match sys.argv[1:]:
        case []:
            demo()
        case ["key", path]:
            code.Keyring.generate().save(path)
        case ["send", path]:
            send(code.Keyring.from_file(path))
        case ["receive", path]:
            receive(code.Keyring.from_file(path))
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main()
