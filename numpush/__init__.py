"""NumPy arrays and pandas DataFrames in shared memory: one copy, every process, no remains.

>>> import numpy as np
>>> import numpush
>>> a = numpush.SArray(np.arange(4))
>>> int(a.sum())
6

Everything public is named here and loads when it is first used: importing numpush alone imports
neither pandas nor anything that starts a thread or touches /dev/shm.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

if not sys.platform.startswith("linux"):
    raise ImportError(
        f"numpush needs Linux (robust mutexes, futexes, tmpfs); this is {sys.platform!r}"
    )

__version__ = "0.1.0"

__all__ = [
    "Channel",
    "Handle",
    "HandleClosed",
    "LayoutMismatch",
    "LockError",
    "LockTimeout",
    "NumpushError",
    "Pool",
    "RemoteError",
    "SArray",
    "SDataFrame",
    "SSeries",
    "SegmentDamaged",
    "SegmentError",
    "SegmentExists",
    "SegmentFull",
    "SegmentNotFound",
    "SharedStructureError",
    "Team",
    "WaitTimeout",
    "WorkerDied",
    "atomic",
    "attach",
    "code",
    "errors",
    "gc",
    "ingest",
    "install",
    "kernel",
    "kernels",
    "publish",
    "recv",
    "remove",
    "segments",
    "send",
    "share",
    "shmem",
    "stores",
    "uninstall",
    "withdraw",
]

#: Public name -> the module that has it; modules themselves, and what is not here, is in errors.
_HOME = {
    "SArray": "sarray",
    "SDataFrame": "sdataframe",
    "SSeries": "sseries",
    "Channel": "channel",
    "Handle": "handle",
    "attach": "attaching",
    "publish": "attaching",
    "withdraw": "attaching",
    "segments": "overview",
    "gc": "overview",
    "remove": "overview",
    "recv": "ingest",
    "send": "ingest",
    "share": "sharing",
    "Pool": "pool",
    "RemoteError": "pool",
    "WorkerDied": "pool",
    "Team": "team.team",
    "install": "installing",
    "kernel": "kernels",
    "uninstall": "installing",
}
_MODULES = ("atomic", "code", "errors", "ingest", "kernels", "shmem", "stores")

if TYPE_CHECKING:
    from . import atomic, code, errors, ingest, kernels, shmem, stores
    from .attaching import attach, publish, withdraw
    from .channel import Channel
    from .errors import (
        HandleClosed,
        LayoutMismatch,
        LockError,
        LockTimeout,
        NumpushError,
        SegmentDamaged,
        SegmentError,
        SegmentExists,
        SegmentFull,
        SegmentNotFound,
        SharedStructureError,
        WaitTimeout,
    )
    from .handle import Handle
    from .ingest import recv, send
    from .installing import install, uninstall
    from .kernels import kernel
    from .overview import gc, remove, segments
    from .pool import Pool, RemoteError, WorkerDied
    from .sarray import SArray
    from .sdataframe import SDataFrame
    from .sharing import share
    from .sseries import SSeries
    from .team import Team


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'numpush' has no attribute {name!r}")
    if name in _MODULES:
        value: Any = import_module(f".{name}", __name__)
    else:
        value = getattr(import_module(f".{_HOME.get(name, 'errors')}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
