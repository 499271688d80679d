"""numexpr's compiled expressions: their program, constants and signature.

(1) The program's numbers are those of one numexpr: a hash of its tables goes with it, and is compared
    first.
(2) One NumExpr called from two threads at once crashes (numexpr 2.14): calls wait for each other, by
    the lock that `numexpr.evaluate` uses.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

from ..envelope import Payload
from ..errors import CodeError, CodeMismatch

__all__ = ["Program", "pack", "unpack"]


class Program:
    """A compiled expression; called with its inputs in the order of `input_names`."""

    def __init__(self, expression: Any) -> None:
        from numexpr.necompiler import evaluate_lock

        self.expression = expression
        self._lock = evaluate_lock

    @property
    def input_names(self) -> tuple[str, ...]:
        return tuple(self.expression.input_names)

    def __call__(self, *args: Any, out: Any = None, order: str = "K", casting: str = "safe") -> Any:
        """Evaluate it, as `numexpr.evaluate` does; with `out` without memory of its own."""
        with self._lock:
            return self.expression(*args, out=out, order=order, casting=casting, ex_uses_vml=False)

    def __repr__(self) -> str:
        return f"<numexpr program of {', '.join(self.input_names)}>"


def pack(obj: Any, sig: Any, portable: bool) -> tuple[dict[str, Any], dict[str, bytes]]:
    found = obj.expression if isinstance(obj, Program) else obj
    meta = {
        "tables": _tables(),
        "signature": found.signature,
        "tempsig": found.tempsig,
        "program": found.program,
        "constants": [_pack_constant(value) for value in found.constants],
        "input_names": list(found.input_names),
    }
    return meta, {}


def unpack(payload: Payload) -> Program:
    if payload.get("tables", bytes) != (here := _tables()):
        raise CodeMismatch(
            f"a program of a numexpr with other operations ({payload.meta['tables'].hex()[:8]}, "
            f"here {here.hex()[:8]}): the same version wanted at both ends"
        )
    from numexpr.interpreter import NumExpr

    try:
        return Program(
            NumExpr(
                payload.get("signature", bytes),
                payload.get("tempsig", bytes),
                payload.get("program", bytes),
                tuple(_unpack_constant(*pair) for pair in payload.get("constants", list)),
                tuple(payload.get("input_names", list)),
            )
        )
    except (RuntimeError, TypeError, ValueError) as error:
        raise CodeError(f"numexpr refuses this program: {error}") from error


def _tables() -> bytes:
    """Return a hash of what the numbers in a program mean."""
    try:
        from numexpr import interpreter
    except ImportError as error:
        raise ImportError(f"{error}: pip install 'numpush[code]'") from error
    tables = sorted(interpreter.opcodes.items()), sorted(interpreter.funccodes.items())
    return hashlib.sha256(repr(tables).encode()).digest()


def _pack_constant(value: Any) -> list[Any]:
    if isinstance(value, bytes | str):
        return ["bytes", value if isinstance(value, bytes) else value.encode("latin-1")]
    number = np.asarray(value)
    return [number.dtype.str, number.tobytes()]


def _unpack_constant(dtype: str, data: bytes) -> Any:
    return data if dtype == "bytes" else np.frombuffer(data, dtype)[0]
