"""Python functions, by cloudpickle: with their closures and globals, not with the modules they import.

Bytecode of one minor version of Python crashes another (3.11's in 3.12: a segmentation fault), so its magic
number is compared before the pickle is touched.
"""

from __future__ import annotations

import importlib.util
import pickle
from typing import Any

from ..envelope import Payload
from ..errors import CodeError, CodeMismatch

__all__ = ["check_bytecode", "pack", "unpack"]


def pack(obj: Any, sig: Any, portable: bool) -> tuple[dict[str, Any], dict[str, bytes]]:
    import cloudpickle

    if portable:
        raise CodeError("Python's bytecode is for one version of Python: it cannot be portable")
    try:
        return {}, {"pickle": cloudpickle.dumps(obj)}
    except (pickle.PicklingError, TypeError) as error:
        raise CodeError(f"{obj!r} cannot be pickled: {error}") from error


def unpack(payload: Payload) -> Any:
    check_bytecode(payload)
    return pickle.loads(payload.blob("pickle"))


def check_bytecode(payload: Payload) -> None:
    """Refuse what another Python made.

    Raises
    ------
    CodeMismatch : its bytecode has another magic number.
    """
    here, found = importlib.util.MAGIC_NUMBER, payload.maker.get("bytecode")
    if found != here:
        raise CodeMismatch(
            f"bytecode of Python {'.'.join(map(str, payload.maker.get('python', ['?'])))} ({found!r}), "
            f"this one has {here!r}"
        )
