"""The exception that a kernel raised, from numba's record of it; numba is not needed.

A record is a constant in the code of the kernel (class, arguments, place, as a pickle) or, where arguments
are known only when it is raised, a piece of memory with a function that makes objects of them.
"""

from __future__ import annotations

import ctypes
import pickle
from typing import Any

from llvmlite import ir

from .errors import KernelError

__all__ = ["decode"]

_STOP_ITERATION = -3
_UNKNOWN = ir.Value  #: what stands among the arguments for a value that is known at run time


class _Record(ctypes.Structure):
    _fields_ = (
        ("pickle", ctypes.c_void_p),
        ("pickle_size", ctypes.c_int32),
        ("values", ctypes.c_void_p),  # of the arguments, where there is `unwrap`
        ("unwrap", ctypes.c_void_p),
        ("n_values", ctypes.c_int32),
    )


def decode(kernel: str, rc: int, excinfo: int, free: Any) -> BaseException:
    """Return the exception for what the entry of *kernel*, a name, returned and left in *excinfo*.

    A record that was allocated is given to *free*: decode it once.
    """
    if rc == _STOP_ITERATION:
        return StopIteration()
    if rc <= 0 or not excinfo:
        return SystemError(f"{kernel} ended with {rc} and no exception")
    record = _Record.from_address(excinfo)
    try:
        cls, args, place = pickle.loads(ctypes.string_at(record.pickle, record.pickle_size))
    except Exception as error:
        return KernelError(f"{kernel} raised an exception that cannot be read here: {error!r}")
    lost = ""
    if record.n_values:
        unwrap = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_void_p)(record.unwrap)
        try:
            values = iter(unwrap(record.values))
            args = tuple(next(values) if isinstance(arg, _UNKNOWN) else arg for arg in args)
        except Exception as error:
            args = tuple(arg for arg in args if not isinstance(arg, _UNKNOWN))
            lost = f"; {record.n_values} of its arguments were lost: {error}"
        free(excinfo)
    exception: BaseException = (cls or RuntimeError)(*args)
    if place:
        function, file, line = place
        exception.add_note(f"in {kernel}: {file}:{line}, in {function}{lost}")
    else:
        exception.add_note(f"in {kernel}{lost}")
    return exception
