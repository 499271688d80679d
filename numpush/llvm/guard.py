"""One thread at a time in LLVM, and none while the process forks.

llvmlite locks each of its calls. A child that is forked while another thread is inside of one would
find that lock taken for ever, so a fork waits for it; and for ours, which keeps a module that is being
made in one hand.
"""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from llvmlite.binding import ffi as _ffi

__all__ = ["guarded"]

P = ParamSpec("P")
R = TypeVar("R")

_lock = threading.RLock()
#: llvmlite's own, by a private name: (the only one that numpush.llvm uses; tests/test_llvm.py looks).
_llvmlite_lock = _ffi.lib._lock._lock


def guarded(function: Callable[P, R]) -> Callable[P, R]:
    """Have calls of *function* wait for each other."""

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        with _lock:
            return function(*args, **kwargs)

    return call


def _before_fork() -> None:
    _lock.acquire()
    _llvmlite_lock.acquire()


def _after_fork() -> None:
    _llvmlite_lock.release()
    _lock.release()


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork)
