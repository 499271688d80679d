"""Team: processes that run kernels and functions over shared arrays. Names load when they are used.

A member that runs kernels imports what is in member.py, and no pool.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__all__ = ["Barrier", "Team"]

if TYPE_CHECKING:
    from .barrier import Barrier
    from .team import Team


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{name.lower()}", __name__), name)
    globals()[name] = value
    return value
