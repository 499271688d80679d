"""This process: its node, from its first use of numpush to its end, and across forks.

(1) A fork makes the child's node before it happens and enters it in all tables, so at every moment
    each process that has data is in the table of its segment.
(2) A process that leaves in good order takes its leases along only where that is safe: see `leave`.
(3) All of it is done under the registry's lock, which a fork takes along: the tables are whole in the
    child.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import sys

from ..ffi import seg as _seg
from . import leases, registry, table, warm
from . import node as _node
from .errors import LockError
from .segment import Segment
from .sweep import sweep

__all__ = ["leave", "node"]

_me: _node.Node | None = None
_child: _node.Node | None = None  # made before a fork, for the child
_has_after_fork = False


# -- from the first use


def node() -> _node.Node:
    """Return this process's node; the first call makes it and sweeps."""
    if _me is not None:
        return _me
    with registry.lock:
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


# -- to the end


def leave() -> None:
    """Leave all segments, and sweep: at exit. Views stay valid until the process is gone.

    Handles that were sent and not received keep their segments for the grace period. Those that a
    main process sent to children of its own do not: multiprocessing has joined them by now.
    """
    global _me
    with registry.lock:
        me = _me
        if me is None or me.pid != os.getpid():
            return
        for segment in list(registry.segments.values()):
            if segment.node:
                with contextlib.suppress(OSError, LockError):
                    _leave_for_good(segment, me.id)
        # What we sent and nobody has received: of segments that we left long ago, too.
        is_leased = leases.settle(me.id, is_main=_is_main_process())
        warm.drop_mine()
        registry.abandon()
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
    registry.lock.acquire()
    _child = None
    if _me is None:
        return
    _child = _node.make()
    for segment in registry.segments.values():
        if segment.node and table.enter(segment, _child.id, segment.identity):
            _seg.mark_unlisted(segment.ref)  # the child maps it all the same


def _after_fork_in_parent() -> None:
    global _child
    if _child is not None:
        os.close(_child.fd)  # the child has its own copy; if there is no child, this ends it
        _child = None
    registry.lock.release()
    registry.bury()


def _after_fork_in_child() -> None:
    global _me, _child
    leases.forget()
    warm.forget_mine()
    if _me is not None:
        os.close(_me.fd)
        _me, _child = _child, None
        for segment in registry.segments.values():
            if segment.node:
                # The parent could not enter us while it was building, or in a full table: then we
                # can use the data for as long as the parent has it.
                segment.node = _me.id if _me is not None and table.has(segment, _me.id) else 0
    if _me is not None:
        _me.sign()
        _at_exit()
    registry.lock.release()
    registry.bury()


os.register_at_fork(
    before=_before_fork,
    after_in_parent=_after_fork_in_parent,
    after_in_child=_after_fork_in_child,
)
