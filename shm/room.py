"""Making room: what is done when shared memory is short, and what the SegmentFull says."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from typing import TypeVar

from . import registry, space, warm
from .errors import SegmentFull
from .sweep import survey, sweep

__all__ = ["make_room"]

T = TypeVar("T")


def make_room(reserve: Callable[[], T], wanted: int, name: str) -> T:
    """Call *reserve*, and again after each way to free memory, until it has it.

    Raises
    ------
    SegmentFull : there is no room, also after a sweep and without warm memory.
    """
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
    with registry.lock:
        warm.drop_all()
        registry.trim_idle(0)


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
