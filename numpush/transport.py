"""How shared objects cross processes: by handle through multiprocessing, by value through pickle.

multiprocessing's queues, pipes, pools and process arguments, and ProcessPoolExecutor, pickle with
ForkingPickler, whose table of reducers is public. loky keeps a table of its own, and joblib a
vendored loky; they are told as soon as both are imported. Plain pickle, which writes files, never
sees these reducers.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from multiprocessing.reduction import ForkingPickler
from typing import Any

__all__ = ["follow", "is_sending", "reducer", "register", "tell_loky", "types"]

Reducer = Callable[[Any], tuple[Any, ...]]

_LOKY = ("loky.backend.reduction", "joblib.externals.loky.backend.reduction")
#: Modules whose picklers send to other processes and cannot be told; `is_sending` knows them.
_UNTOLD = "joblib.pool"
_reducers: dict[type, Reducer] = {}
_told: set[str] = set()
_followers: list[Callable[[type], None]] = []


def register(cls: type, reducer: Reducer) -> None:
    """Have objects of *cls* cross processes as *reducer* says."""
    _reducers[cls] = reducer
    ForkingPickler.register(cls, reducer)
    for name in _told:
        sys.modules[name].register(cls, reducer)
    for tell in _followers:
        tell(cls)


def follow(tell: Callable[[type], None]) -> None:
    """Call *tell* with each class that is registered, and with those to come as they are imported."""
    if tell not in _followers:
        _followers.append(tell)
    for cls in _reducers:
        tell(cls)


def types() -> tuple[type, ...]:
    """Return the classes that were registered."""
    return tuple(_reducers)


def reducer(cls: type) -> Reducer:
    """Return what objects of *cls*, one of `types`, are reduced by."""
    return _reducers[cls]


def tell_loky() -> bool:
    """Register with each loky that has been imported since; True: there was one."""
    news = False
    for name in _LOKY:
        module = sys.modules.get(name)
        if module is not None and name not in _told and hasattr(module, "register"):
            _told.add(name)
            news = True
            for cls, reducer in _reducers.items():
                module.register(cls, reducer)
    return news


def is_sending() -> bool:
    """Whether the pickler at work, which found no reducer of ours, sends to another process.

    It does when loky was imported after our class (then it is told now, and asked only once), or
    when it is joblib's multiprocessing backend, whose table cannot be reached.
    """
    if not tell_loky() and _UNTOLD not in sys.modules:
        return False
    frame = sys._getframe(1)
    for _ in range(8):
        if frame is None:
            break
        if frame.f_globals.get("__name__") in (*_LOKY, _UNTOLD):
            return True
        frame = frame.f_back  # type: ignore[assignment]  # None ends the loop
    return False
