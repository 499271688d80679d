"""install(): the standard library's pools, queues and pipes carry big plain objects as Pool does.

They pickle with ForkingPickler, which has a table of reducers; loky has one of its own, and joblib
that of a loky inside it. The tables' names are private: multiprocessing and loky have a function
that enters a reducer, and none that takes it back.

Each pickling makes a segment and takes one lease; unpickling gives it back. Who pickled is then done
with it. What is never unpickled stays until the sender ends (`numpush ls` shows its lease).
"""

from __future__ import annotations

import functools
import sys
import threading
from collections.abc import Callable
from multiprocessing.reduction import ForkingPickler
from typing import Any

from . import plain
from .handle import lease

__all__ = ["install", "uninstall"]

_LOKY = ("loky.backend.reduction", "joblib.externals.loky.backend.reduction")
#: Of the picklers that are told: ForkingPickler's own default before Python 3.14. One that takes more
#: takes this too.
_PROTOCOL = 4

Reducer = Callable[[Any], Any]

_lock = threading.RLock()
_share_from: int | None = None  #: None: not installed
_is_refused = False  #: this process called uninstall(), so what it receives does not install
#: (name of the table, type) -> what was there before us
_before: dict[tuple[str, type], Reducer | None] = {}


def install(share_from: int = plain.SHARE_FROM) -> None:
    """Have plain DataFrames, Series and ndarrays cross processes by shared memory from now on.

    Through multiprocessing's Pool, Queue, Pipe and Process arguments, ProcessPoolExecutor, and those of
    loky and joblib that are imported already (call it again after importing one). They arrive plain,
    private and writable, as pickling gives them; what is small or has no layout is pickled. Calling
    it again changes *share_from*. Loads pandas.

    A process that receives an object this way sends its own so, too: workers started by spawn or
    forkserver need not call it unless their arguments are all small
    (``Pool(initializer=numpush.install)``).

    Parameters
    ----------
    share_from : int
        Bytes from which an object goes through shared memory.
    """
    global _share_from, _is_refused
    import pandas  # noqa: F401  # its types are known only where it is loaded

    with _lock:
        _is_refused = False
        _share_from = int(share_from)
        for name, table in _tables().items():
            for cls in plain.plain_types():
                if (name, cls) not in _before:
                    _before[name, cls] = table.get(cls)
                    table[cls] = functools.partial(_reduce, _before[name, cls])


def uninstall() -> None:
    """Take `install` back, in this process: reducers that were there before are there again.

    What was sent already arrives all the same.
    """
    global _share_from, _is_refused
    with _lock:
        _is_refused = True
        _share_from = None
        tables = _tables()
        for (name, cls), before in _before.items():
            table = tables.get(name)
            ours = None if table is None else table.get(cls)
            # What somebody entered after us stays.
            if table is None or not isinstance(ours, functools.partial) or ours.func is not _reduce:
                continue
            if before is None:
                del table[cls]
            else:
                table[cls] = before
        _before.clear()


def _tables() -> dict[str, dict[type, Reducer]]:
    """Return the tables of reducers that there are, by a name of ours."""
    found = {"multiprocessing": ForkingPickler._extra_reducers}  # type: ignore[attr-defined]  # private
    for name in _LOKY:
        table = getattr(sys.modules.get(name), "_dispatch_table", None)
        if table is not None:
            found[name] = table
    return found


def _reduce(before: Reducer | None, obj: Any) -> Any:
    """Reduce to a parcel with a lease, or as it would have been."""
    share_from = _share_from
    parcel = None if share_from is None else plain.pack(obj, share_from)
    if parcel is None:
        return before(obj) if before is not None else plain.reduce_as_usual(obj, _PROTOCOL)
    segment = parcel.segment
    return receive, (segment.name, segment.identity, lease(segment), share_from)


def receive(name: str, identity: int, sender: int, share_from: int) -> Any:
    """Build what was sent, and send as its sender does. Its errors are those of `plain.unpack`."""
    if _share_from is None and not _is_refused:
        install(share_from)
    return plain.unpack(name, identity, sender)
