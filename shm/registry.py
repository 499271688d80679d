"""The segments and views that this process has, and what happens when the last view of one dies.

A *token* is the buffer that all views of one mapping share (NumPy keeps it as the end of each
view's base chain). When the last view is gone the token dies, and then, not earlier, the mapping may
go. So no sequence of closing and deleting leaves an array without memory.

A segment without views here is left (its slot is freed) but stays mapped for a while, *idle*: the
next handle to it, or to another segment in the same file, finds page tables that are filled. The
last user of all frees the pages, so idle mappings hold address space and no memory. A *keeper* may
have objects over the mapping meanwhile, for the next handle to the same object; they hold no token.

`lock` guards every dict here, and what process.py and life.py do with them. A finalizer (inside a
garbage collection) or a signal handler may run in the middle of it and use arrays: so it is
re-entrant, and each change of the tables is one step. The death of a token only notes it in `dead`
and cleans up if the lock is free; otherwise the next token to die, or the next `create` or `attach`,
does.
"""

from __future__ import annotations

import bisect
import functools
import threading
import time
import weakref
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Any

from ..ffi import map as _map
from ..ffi import seg as _seg
from . import table, warm
from .mapping import Mapping
from .segment import Segment

__all__ = [
    "abandon",
    "bury",
    "dead",
    "forget",
    "idle",
    "leave_if_unused",
    "locate",
    "lock",
    "segments",
    "token",
    "token_locked",
    "trim_idle",
]

_LOOK_EVERY = 1.0  #: seconds between two looks for dead users of one segment, by who leaves it
_N_IDLE = 64  #: idle segments stay mapped, the latest this many

segments: dict[str, Segment] = {}  #: by name; in the table when segment.node, else idle
idle: OrderedDict[int, Segment] = OrderedDict()  #: by inode, oldest first
dead: deque[tuple[Mapping, object]] = deque()  #: tokens that died and are not yet dealt with
_addresses: list[int] = []  # of the mappings with views, sorted
_mappings: dict[int, Mapping] = {}  # by address; in here before and after it is in the list

#: A C lock used by plain ``with``: a signal handler that raises cannot come between taking it and
#: the promise to let go of it, as it can in any lock written in Python.
lock = threading.RLock()


def token(mapping: Mapping) -> Any:
    """Return the buffer that views of *mapping* share, and keep its segment by."""
    with lock:
        return token_locked(mapping)


def token_locked(mapping: Mapping) -> Any:
    """Return the same; the caller holds the lock."""
    ref = mapping.token
    found = ref() if isinstance(ref, weakref.ref) else None
    if found is None:
        found = _map.buffer(mapping.address, mapping.size)
        mapping.token = weakref.ref(found, functools.partial(_on_death, mapping))
        if ref is None:  # else the death of its last one is still to be dealt with
            _mappings[mapping.address] = mapping
            bisect.insort(_addresses, mapping.address)
    return found


def locate(address: int) -> Mapping | None:
    """Return the mapping, with views, that *address* lies in. A binary search."""
    with lock:  # nothing in here can let a token die
        i = bisect.bisect(_addresses, address) - 1
        if i < 0:
            return None
        mapping = _mappings[_addresses[i]]
    return mapping if address < mapping.address + mapping.size else None


def _on_death(mapping: Mapping, gone: object) -> None:
    dead.append((mapping, gone))
    bury()


def bury() -> None:
    """Deal with dead tokens, unless somebody holds the lock: then the next one to come does."""
    is_owned: Callable[[], bool] = lock._is_owned  # type: ignore[attr-defined]  # private
    while dead and not is_owned() and lock.acquire(blocking=False):
        try:
            while dead:
                _retire(*dead.popleft())
        finally:
            lock.release()


def _retire(mapping: Mapping, gone: object) -> None:
    if mapping.token is not gone:
        return  # there are views again
    keeper = mapping.keeper
    if keeper is not None and keeper.is_used():
        mapping.keeper = None
        keeper.hold(token_locked(mapping))
        return
    mapping.token = None
    i = bisect.bisect_left(_addresses, mapping.address)
    while _addresses[i] != mapping.address:  # a signal handler came between
        i = bisect.bisect_left(_addresses, mapping.address)
    del _addresses[i]
    del _mappings[mapping.address]
    if mapping.mode == "cow":  # the changes were its own
        del mapping.segment.mappings[mapping.key]
        mapping.unmap()
    leave_if_unused(mapping.segment)


def leave_if_unused(segment: Segment) -> None:
    """Leave the table of *segment*, if it has no views here."""
    if not segment.node:
        return
    for mapping in segment.mappings.values():
        if mapping.token is not None:
            return
    _leave(segment)


def _leave(segment: Segment) -> None:
    """Leave the table of *segment*: take it away if we were the last, else keep it idle."""
    segment.has_arrays = False
    keep_warm = warm.is_worth_keeping(segment)
    last = table.leave(segment, keep_warm=keep_warm)
    # A worker leaves with each task that is done: one look a second is enough.
    is_time = time.monotonic() - segment.looked_at > _LOOK_EVERY
    if not last and is_time and table.evict_dead(segment):
        last, keep_warm = True, False
    if last:
        for mapping in segment.mappings.values():
            mapping.keeper = None
        kept = keep_warm and segment.state == _seg.WARM
        if segments.get(segment.name) is segment:
            del segments[segment.name]
        if not (kept and warm.put(segment)):
            if not kept:
                segment.remove(segment.name)
            segment.unmap()
            return
    idle[segment.inode] = segment
    if is_time or len(idle) > _N_IDLE:
        trim_idle(_N_IDLE)


def trim_idle(n: int) -> None:
    """Unmap idle segments but for the latest *n* that still are what they were."""
    for segment in list(idle.values()):
        if len(idle) > n or segment.state == _seg.DEAD:
            forget(segment)


def forget(segment: Segment) -> None:
    """Unmap a segment without views."""
    if idle.get(segment.inode) is segment:
        del idle[segment.inode]
    if segments.get(segment.name) is segment:
        del segments[segment.name]
    segment.unmap()


def abandon() -> None:
    """Forget all of it, at the end of this process: nothing is left to do when a view dies."""
    segments.clear()
    idle.clear()
    for mapping in _mappings.values():
        ref = mapping.token
        alive = ref() if isinstance(ref, weakref.ref) else None
        mapping.token = None if alive is None else weakref.ref(alive)
