"""PyTensor functions: the variables they were made of, compiled anew at the other end.

PyTensor's own pickle of a function has its graph, shared variables and updates in it, and compiles when it is
read. A pair of inputs and outputs is as good, and half as long.
"""

from __future__ import annotations

import pickle
from typing import Any

from ..envelope import Payload
from ..errors import CodeError
from .python import check_bytecode

__all__ = ["pack", "unpack"]


def pack(obj: Any, sig: Any, portable: bool) -> tuple[dict[str, Any], dict[str, bytes]]:
    if portable:
        raise CodeError(
            "a pickle of PyTensor's is for one version of Python: it cannot be portable"
        )
    return {}, {"pickle": pickle.dumps(obj)}


def unpack(payload: Payload) -> Any:
    check_bytecode(payload)
    try:
        import pytensor
    except ImportError as error:
        raise ImportError(f"{error}: pip install pytensor") from error
    obj = pickle.loads(payload.blob("pickle"))
    return pytensor.function(*obj) if isinstance(obj, tuple) else obj
