"""What this process has: its node, the segments it is attached to, and when their last view dies.

A *token* is the buffer that all views of one mapping share (NumPy keeps it as the end of each
view's base chain). When the last view is gone the token dies, and then, not earlier, the mapping may
go. So no sequence of closing and deleting leaves an array without memory.

A segment without views here is left (its slot is freed) but stays mapped for a while, *idle*: the
next handle to it, or to another segment in the same file, finds page tables that are filled. The
last user of all frees the pages, so idle mappings hold address space and no memory. A *keeper* may
have objects over the mapping meanwhile, for the next handle to the same object; they hold no token.

(1) `_lock` guards every dict here. A finalizer (inside a garbage collection) or a signal handler may
    run in the middle of it and use arrays: so it is re-entrant, and each change of the tables is one
    step. The death of a token only notes it in `_dead` and cleans up if the lock is free; otherwise
    the next token to die, or the next `create` or `attach`, does.
(2) A fork makes the child's node before it happens and enters it in all tables, so at every moment
    each process that has data is in the table of its segment.
(3) A process that leaves in good order takes its leases along only where that is safe: see `leave`.
"""

from __future__ import annotations

import atexit
import bisect
import contextlib
import errno
import functools
import os
import sys
import threading
import time
import weakref
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Any, TypeVar

from ..ffi import map as _map
from ..ffi import seg as _seg
from . import descriptor, extents, naming, space, table, warm
from . import node as _node
from .errors import HandleClosed, LockError, SegmentExists, SegmentFull, SegmentNotFound
from .mapping import Mapping
from .segment import Segment
from .sweep import has_leases, survey, sweep

__all__ = ["attach", "close", "create", "lease", "leave", "locate", "node", "token"]

T = TypeVar("T")

_LOOK_EVERY = 1.0  #: seconds between two looks for dead users of one segment, by who leaves it
_N_IDLE = 64  #: idle segments stay mapped, the latest this many

_segments: dict[str, Segment] = {}  # by name; in the table when segment.node, else idle
_idle: OrderedDict[int, Segment] = OrderedDict()  # by inode, oldest first
_addresses: list[int] = []  # of the mappings with views, sorted
_mappings: dict[int, Mapping] = {}  # by address; in here before and after it is in the list
_dead: deque[tuple[Mapping, object]] = deque()  # tokens that died and are not yet dealt with
_me: _node.Node | None = None
_child: _node.Node | None = None  # made before a fork, for the child
_has_after_fork = False
#: Names of segments that we sent handles to, and whether one went elsewhere than to a child of ours.
#: Kept here, not in Segment: a lease stays out when its sender has left the segment.
_sent: dict[str, bool] = {}
_prune_sent_at = 1024
#: range locks that this process holds
held: set[Any] = set()


#: A C lock used by plain ``with``: a signal handler that raises cannot come between taking it and
#: the promise to let go of it, as it can in any lock written in Python.
_lock = threading.RLock()


def _bury() -> None:
    """Deal with dead tokens, unless somebody holds the lock: then the next one to come does."""
    is_owned: Callable[[], bool] = _lock._is_owned  # type: ignore[attr-defined]  # private
    while _dead and not is_owned() and _lock.acquire(blocking=False):
        try:
            while _dead:
                _retire(*_dead.popleft())
        finally:
            _lock.release()


def registry_lock() -> threading.RLock:
    """The lock that all of this module works under, for whoever takes memory away beside it."""
    return _lock


# -- our node


def node() -> _node.Node:
    """Return this process's node; the first call makes it and sweeps."""
    if _me is not None:
        return _me
    with _lock:
        return _start()


def _start() -> _node.Node:
    global _me
    if _me is None:
        sweep()
        _me = _node.make()
        _me.sign()
        _at_exit()
    return _me


def _at_exit() -> None:
    """Have `leave` run when this process ends in good order.

    Children of multiprocessing end by os._exit, after its finalizers and without atexit; in any
    process that uses it, ours must come after it has joined the children: priority -100.
    """
    global _has_after_fork
    util = sys.modules.get("multiprocessing.util")
    if util is None:
        atexit.register(leave)
    else:
        util.Finalize(None, leave, exitpriority=-100)
        if not _has_after_fork:
            # A forked child of multiprocessing forgets its finalizers, then runs these.
            util.register_after_fork(leave, lambda _: util.Finalize(None, leave, exitpriority=-100))
            _has_after_fork = True


# -- create and attach


def create(
    desc: bytes, data_size: int, *, name: str | None = None, reserve: bool = True
) -> tuple[Segment, Any]:
    """Make a segment for *data_size* bytes and return it with its token, BUILDING.

    Fill it, then `segment.commit()`. Warm memory is used where some fits (it holds old data); fresh
    memory is reserved, not touched.

    Raises
    ------
    SegmentExists : the name is taken.
    SegmentFull : there is no room, also after a sweep and without warm memory.
    """
    if _dead:
        _bury()
    me = node()
    file_name = naming.random_name() if name is None else name
    segment = None
    if reserve and data_size >= warm.SMALLEST:
        with _lock:
            segment = warm.take(file_name, len(desc), data_size, me.id, _idle)
    if segment is None:
        segment = _create_fresh(file_name, len(desc), data_size, me.id, reserve)
    with _lock:
        segment.describe(desc, data_size)
        _segments[file_name] = segment
        return segment, _token(segment.mappings["rw"])


def _create_fresh(name: str, desc_size: int, data_size: int, me: int, reserve: bool) -> Segment:
    while True:
        try:
            return _make_room(
                lambda: Segment.create(name, desc_size, data_size, me, reserve=reserve),
                data_size if reserve else 0,
                name,
            )
        except SegmentExists:
            # Whoever made it may be dead, and nobody has looked yet.
            if not sweep(thorough=True).n_segments:
                raise


def extend(segment: Segment, size: int) -> int:
    """Reserve *size* bytes more in *segment*; return where in its data they start.

    The caller holds its structure mutex, and a token.

    Raises
    ------
    SegmentFull : there is no room, also after a sweep and without warm memory.
    """
    return _make_room(lambda: extents.extend(segment, size), size, segment.name)


def _make_room(reserve: Callable[[], T], wanted: int, name: str) -> T:
    """Call *reserve*, and again after each way to free memory, until it has it."""
    free_some: list[Callable[[], object]] = [sweep, _drop_warm]
    while True:
        found = space.room(wanted)
        try:
            if found.free < wanted:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return reserve()
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.ENOMEM):
                raise
            if not free_some:
                raise SegmentFull(_full(wanted, found), name) from None
            free_some.pop(0)()


def _drop_warm() -> None:
    with _lock:
        warm.drop_all()
        _trim_idle(0)


def _full(wanted: int, found: space.Room) -> str:
    lines = [
        f"{space.human(wanted)} of shared memory wanted, {space.human(found.free)} of "
        f"{space.human(found.total)} free in {found.limit}"
    ]
    largest = sorted(survey(), key=lambda s: -s.capacity)
    for info in largest[:5]:
        pids = ", ".join(str(h.pid) if h.pid else "kept" for h in info.holders) or "nobody"
        lines.append(f"  {space.human(info.capacity):>10}  {info.name}  held by {pids}")
    if len(largest) > 5:
        rest = sum(info.capacity for info in largest[5:])
        lines.append(f"  {space.human(rest):>10}  in {len(largest) - 5} more")
    lines.append(space.remedy(found.limit))
    return "\n".join(lines)


def attach(
    name: str, mode: str = "rw", *, identity: int | None = None, sender: int = 0
) -> tuple[Segment, Any]:
    """Attach to a segment and return it with the token of its mapping in *mode*.

    A dictionary look-up and a call into C when this process has it; else an open and two mmaps.
    With *identity* it must be that very object; with *sender* one of that node's leases is released.

    Raises
    ------
    SegmentNotFound, SegmentDamaged, LayoutMismatch
    """
    if _dead:
        _bury()
    with _lock:
        segment = _segments.get(name)
        if segment is not None:
            try:
                return segment, _attach_known(segment, mode, identity, sender)
            except SegmentNotFound:
                if segment.node:
                    raise
                _forget(segment)  # what we knew is gone; the name may be in use again
        return _attach_new(name, mode, identity, sender)


def _attach_known(segment: Segment, mode: str, identity: int | None, sender: int) -> Any:
    if not segment.mappings:
        raise SegmentNotFound("its mappings serve another segment by now", segment.name)
    wanted = segment.identity if identity is None else identity
    if sender or not segment.node or wanted != segment.identity:
        was_idle = not segment.node
        table.join(segment, _start().id, wanted, sender)
        if was_idle:
            _idle.pop(segment.inode, None)
    segment.closed = False
    try:
        return _token(segment.map(mode))
    except BaseException:
        _leave_if_unused(segment)
        raise


def _attach_new(name: str, mode: str, identity: int | None, sender: int) -> tuple[Segment, Any]:
    segment, fd = Segment.attach(name, _start().id, identity, sender, _idle)
    try:
        mapping = segment.map(mode, fd)
    except BaseException:
        table.leave(segment, keep_warm=False)
        segment.unmap()
        raise
    finally:
        descriptor.close(fd)
    _segments[name] = segment
    return segment, _token(mapping)


def lease(segment: Segment, *, to_child: bool) -> int:
    """Keep *segment* for whoever a handle is sent to; return our node, to be sent along."""
    if segment.closed:
        raise HandleClosed(f"segment {segment.name!r} was closed by this process", segment.name)
    table.lease(segment)
    _sent[segment.name] = _sent.get(segment.name, False) or not to_child
    if len(_sent) > _prune_sent_at:
        _prune_sent()
    return segment.node


def _prune_sent() -> None:
    """Forget those that are gone."""
    global _prune_sent_at
    there = set(naming.listing(naming.SEGMENT))
    for name in [name for name in tuple(_sent) if name not in there]:
        _sent.pop(name, None)
    _prune_sent_at = max(1024, 2 * len(_sent))


# -- views


def token(mapping: Mapping) -> Any:
    """Return the buffer that views of *mapping* share, and keep its segment by."""
    with _lock:
        return _token(mapping)


def token_of_extent(segment: Segment, mode: str, start: int, size: int) -> Any:
    """Map an extent of a segment that the caller holds another token of; return its token.

    Raises SegmentDamaged, SegmentNotFound.
    """
    with _lock:
        return _token(extents.map_extent(segment, mode, start, size))


def _token(mapping: Mapping) -> Any:
    ref = mapping.token
    found = ref() if isinstance(ref, weakref.ref) else None
    if found is None:
        found = _map.buffer(mapping.address, mapping.size)
        mapping.token = weakref.ref(found, functools.partial(_on_death, mapping))
        if ref is None:  # else the death of its last one is still to be dealt with
            _mappings[mapping.address] = mapping
            bisect.insort(_addresses, mapping.address)
    return found


def _on_death(mapping: Mapping, dead: object) -> None:
    _dead.append((mapping, dead))
    _bury()


def locate(address: int) -> Mapping | None:
    """Return the mapping, with views, that *address* lies in. A binary search."""
    with _lock:  # nothing in here can let a token die
        i = bisect.bisect(_addresses, address) - 1
        if i < 0:
            return None
        mapping = _mappings[_addresses[i]]
    return mapping if address < mapping.address + mapping.size else None


def _retire(mapping: Mapping, dead: object) -> None:
    if mapping.token is not dead:
        return  # there are views again
    keeper = mapping.keeper
    if keeper is not None and keeper.is_used():
        mapping.keeper = None
        keeper.hold(_token(mapping))
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
    _leave_if_unused(mapping.segment)


def _leave_if_unused(segment: Segment) -> None:
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
        if _segments.get(segment.name) is segment:
            del _segments[segment.name]
        if not (kept and warm.put(segment)):
            if not kept:
                segment.remove(segment.name)
            segment.unmap()
            return
    _idle[segment.inode] = segment
    if is_time or len(_idle) > _N_IDLE:
        _trim_idle(_N_IDLE)


def _trim_idle(n: int) -> None:
    """Unmap idle segments but for the latest *n* that still are what they were."""
    for segment in list(_idle.values()):
        if len(_idle) > n or segment.state == _seg.DEAD:
            _forget(segment)


def _forget(segment: Segment) -> None:
    if _idle.get(segment.inode) is segment:
        del _idle[segment.inode]
    if _segments.get(segment.name) is segment:
        del _segments[segment.name]
    segment.unmap()


def close(segment: Segment) -> None:
    """Say that this process is done with *segment*: it goes with the last view of it.

    Raises
    ------
    LockError : this process holds a lock of it.
    """
    if segment.holds_lock() or any(guard.segment is segment for guard in tuple(held)):
        raise LockError(
            f"segment {segment.name!r}: this process holds a lock of it; unlock before closing"
        )
    segment.closed = True


# -- the end


def leave() -> None:
    """Leave all segments, and sweep: at exit. Views stay valid until the process is gone.

    Handles that were sent and not received keep their segments for the grace period. Those that a
    main process sent to children of its own do not: multiprocessing has joined them by now.
    """
    global _me
    with _lock:
        me = _me
        if me is None or me.pid != os.getpid():
            return
        for segment in list(_segments.values()):
            if segment.node:
                with contextlib.suppress(OSError, LockError):
                    _leave_for_good(segment, me.id)
        # What we sent and nobody has received: of segments that we left long ago, too.
        is_main = _is_main_process()
        is_leased = False
        for name, is_foreign in _sent.items():
            is_leased |= has_leases(name, me.id, drop=is_main and not is_foreign)
        _sent.clear()
        warm.drop_mine()
        _segments.clear()
        _idle.clear()
        for mapping in _mappings.values():  # nothing is left to do when these die
            ref = mapping.token
            alive = ref() if isinstance(ref, weakref.ref) else None
            mapping.token = None if alive is None else weakref.ref(alive)
        with contextlib.suppress(OSError):
            sweep()
        _me = None
        me.close(unlink=not is_leased)


def _leave_for_good(segment: Segment, me: int) -> None:
    segment.node = 0
    if _seg.evict(segment.ref, segment.n_slots, me, keep_leases=True):
        segment.remove(segment.name, free=False)  # views may still be read on the way out


def _is_main_process() -> bool:
    process = sys.modules.get("multiprocessing.process")
    return process is None or process.parent_process() is None


# -- fork


def _before_fork() -> None:
    global _child
    _lock.acquire()
    _child = None
    if _me is None:
        return
    _child = _node.make()
    for segment in _segments.values():
        if segment.node and table.enter(segment, _child.id, segment.identity):
            _seg.mark_unlisted(segment.ref)  # the child maps it all the same


def _after_fork_in_parent() -> None:
    global _child
    if _child is not None:
        os.close(_child.fd)  # the child has its own copy; if there is no child, this ends it
        _child = None
    _lock.release()
    _bury()


def _after_fork_in_child() -> None:
    global _me, _child
    held.clear()
    _sent.clear()
    warm.forget_mine()
    if _me is not None:
        os.close(_me.fd)
        _me, _child = _child, None
        for segment in _segments.values():
            if segment.node:
                # The parent could not enter us while it was building, or in a full table: then we
                # can use the data for as long as the parent has it.
                segment.node = _me.id if _me is not None and table.has(segment, _me.id) else 0
    if _me is not None:
        _me.sign()
        _at_exit()
    _lock.release()
    _bury()


os.register_at_fork(
    before=_before_fork,
    after_in_parent=_after_fork_in_parent,
    after_in_child=_after_fork_in_child,
)
