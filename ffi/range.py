"""Python calls for npush_range.c: one function per C function."""

from __future__ import annotations

import errno
from typing import NamedTuple

from . import Ref, check
from ._numpush import ffi, lib

ENTRIES: int = lib.NPUSH_RANGE_ENTRIES
WAITING: int = lib.NPUSH_RANGE_WAITING
HELD: int = lib.NPUSH_RANGE_HELD
ORPHAN: int = lib.NPUSH_RANGE_ORPHAN


class Answer(NamedTuple):
    """What `lock` found: *rc* is 0, 1 (held, a writer died in it), or a negated errno."""

    rc: int
    entry: int  #: -1: none was given
    blocker: int
    news: int


class Entry(NamedTuple):
    """One line of `entries`."""

    start: int
    stop: int
    node: int
    pid: int
    tid: int
    state: int
    shared: int


def lock(
    ref: Ref, start: int, stop: int, *, shared: bool, node: int, pid: int, entry: int = -1
) -> Answer:
    """Stand in line for [start, stop) or, with an *entry*, look again."""
    out = ffi.new("int *", entry)
    blocker = ffi.new("uint64_t *")
    news = ffi.new("uint32_t *")
    rc = lib.npush_range_lock(ref, start, stop, shared, node, pid, out, blocker, news)
    if rc not in (-errno.EBUSY, -errno.ENOSPC, -errno.EDEADLK):
        check(rc)
    return Answer(rc, int(out[0]), int(blocker[0]), int(news[0]))


def unlock(ref: Ref, entry: int, node: int) -> None:
    check(lib.npush_range_unlock(ref, entry, node))


def evict(ref: Ref, node: int) -> int:
    return check(lib.npush_range_evict(ref, node))


def wait(ref: Ref, news: int, timeout_ns: int) -> None:
    """Sleep until an entry is given up, the time has passed or a signal came."""
    rc = lib.npush_range_wait(ref, news, timeout_ns)
    if rc not in (-errno.ETIMEDOUT, -errno.EINTR):
        check(rc)


def entries(ref: Ref) -> list[Entry]:
    """Return the entries in use."""
    out = ffi.new("uint64_t[]", 7 * ENTRIES)
    n = check(lib.npush_range_list(ref, out))
    return [Entry(*(int(out[7 * i + k]) for k in range(7))) for i in range(n)]
