"""What this process sent, and whether it has been received.

A handle under way keeps its segment by a *lease*, a count in our slot of the segment's table. It
stays when we leave the segment, and holds for a grace period when we are gone; what a process that
ends in good order may take along, `settle` says.
"""

from __future__ import annotations

from . import naming, table
from .errors import HandleClosed
from .segment import Segment
from .sweep import has_leases

__all__ = ["forget", "lease", "settle"]

#: Names of segments that we sent handles to, and whether one went elsewhere than to a child of ours.
#: Kept here, not in Segment: a lease stays out when its sender has left the segment.
_sent: dict[str, bool] = {}
_prune_at = 1024


def lease(segment: Segment, *, to_child: bool) -> int:
    """Keep *segment* for whoever a handle is sent to; return our node, to be sent along."""
    if segment.closed:
        raise HandleClosed(f"segment {segment.name!r} was closed by this process", segment.name)
    table.lease(segment)
    _sent[segment.name] = _sent.get(segment.name, False) or not to_child
    if len(_sent) > _prune_at:
        _prune()
    return segment.node


def _prune() -> None:
    """Forget the segments that are gone."""
    global _prune_at
    there = set(naming.listing(naming.SEGMENT))
    for name in [name for name in tuple(_sent) if name not in there]:
        _sent.pop(name, None)
    _prune_at = max(1024, 2 * len(_sent))


def settle(node: int, *, is_main: bool) -> bool:
    """At the end of our process *node*: take back what may be; True: some stay out.

    Of a main process, those to children of its own: multiprocessing has joined them by now.
    """
    is_leased = False
    for name, is_foreign in _sent.items():
        is_leased |= has_leases(name, node, drop=is_main and not is_foreign)
    _sent.clear()
    return is_leased


def forget() -> None:
    """In a forked child: they are the parent's."""
    _sent.clear()
