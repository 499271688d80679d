"""What lies in shared memory, who uses it, and how to get rid of it: behind `numpush ls`."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

from .ffi import range as _range
from .layout import SchemaError, unpack
from .layout.naming import column_dtypes, dtype_name
from .shm import Holder as User
from .shm import SegmentInfo, Swept, survey, sweep
from .shm.node import process_name
from .shm.registry import lock
from .shm.sweep import remove as remove_segment
from .shm.warm import drop_all

__all__ = [
    "Holder",
    "LockHolder",
    "Overview",
    "RangeLock",
    "Segments",
    "gc",
    "holder_of",
    "lock_holder",
    "remove",
    "segments",
]

NameOf = Callable[[int], str]


@dataclass(frozen=True, slots=True)
class Holder:
    """A process that uses a segment, or sent a handle to it."""

    pid: int  #: in its own pid namespace; 0 for what is kept without a process
    process: str  #: its name, as "python train.py"; "" when it is not known
    alive: bool
    attached: bool
    leases: int  #: handles that it sent and nobody has received
    node: int


@dataclass(frozen=True, slots=True)
class LockHolder:
    """A thread that holds a lock."""

    pid: int  #: 0: it is in another pid namespace, or dead
    tid: int
    process: str


@dataclass(frozen=True, slots=True)
class RangeLock:
    """A lock of a part of a segment, or who waits for one."""

    start: int  #: bytes of the data; rows of a frame from 2**62 on
    stop: int
    shared: bool
    state: str  #: "held", "waiting", or "orphan": who held it for writing is dead
    pid: int
    tid: int


@dataclass(frozen=True, slots=True)
class Overview:
    """One segment: what it holds, and who uses it."""

    name: str
    kind: str  #: "array", "frame", "name", "channel", "warm" or, with a damaged description, "?"
    summary: str  #: that in a few words
    shape: tuple[int, ...] | None
    dtypes: dict[str, int]  #: dtype -> number of columns that have it; one item for an array
    target: str  #: the segment that a name stands for, else ""
    published: tuple[str, ...]  #: the names that stand for it
    size: int  #: bytes of data
    capacity: int  #: bytes of the file
    state: str  #: "building", "live", "warm" or "dead"
    created: float  #: seconds since the epoch
    creator_pid: int
    creator: str  #: its process' name; "" when it does not use the segment any more
    holders: tuple[Holder, ...]
    lock: LockHolder | None  #: who has the segment's mutex
    range_locks: tuple[RangeLock, ...]

    @property
    def leases(self) -> int:
        """Handles that were sent and not received."""
        return sum(holder.leases for holder in self.holders)

    @property
    def is_warm(self) -> bool:
        """Whether it is freed memory that its process keeps for reuse."""
        return self.kind == "warm"

    @property
    def age(self) -> float:
        """Seconds since it was made."""
        return max(0.0, time.time() - self.created)


class Segments(list[Overview]):
    """What `numpush.segments` found: a list that shows itself as a table, in notebooks too."""

    def __repr__(self) -> str:
        from . import segment_table

        return segment_table.as_text(self)

    def _repr_html_(self) -> str:
        from . import segment_table

        return segment_table.as_html(self)


def segments() -> Segments:
    """Return what this user has in shared memory, warm memory included; nothing is changed.

    Opens and maps the header of every segment, about 20 us each, and asks /proc for the name of
    each process, about 30 us. It takes no lock but, for a moment, that of each segment's range
    locks. Pids are told by the processes themselves: one of another container is named as if it
    were of ours.

    Returns
    -------
    Segments
        A list of `numpush.overview.Overview`, by name; its repr is a table, as is what a notebook shows.
    """
    return _overviews(survey())


def gc() -> Swept:
    """Take away what dead processes left, and all memory that is kept warm.

    A handle that a dead process sent holds its segment for the grace period of 60 s.
    Returns how many segments, bytes and nodes went.
    """
    swept = sweep(thorough=True)
    with lock:
        warm = drop_all()
    return swept._replace(n_bytes=swept.n_bytes + warm)


def remove(name: str) -> int:
    """Unlink a segment whoever uses it; return its bytes.

    Processes that have it attached keep the memory until they are done; nobody else finds it.

    Raises
    ------
    SegmentNotFound : there is none of that name.
    SegmentDamaged : the file is another user's.
    """
    return remove_segment(name)


_RANGE_STATES = {_range.WAITING: "waiting", _range.HELD: "held", _range.ORPHAN: "orphan"}


class _Content(NamedTuple):
    """What a description says of a segment."""

    kind: str
    summary: str
    shape: tuple[int, ...] | None = None
    dtypes: dict[str, int] = {}  # noqa: RUF012  # a default that nobody changes
    target: str = ""


def _overviews(infos: Iterable[SegmentInfo]) -> Segments:
    name_of = functools.cache(process_name)  # one process holds many segments
    found = [(info, _content(info)) for info in infos]
    published: dict[str, list[str]] = {}
    for info, content in found:
        if content.kind == "name":
            published.setdefault(content.target, []).append(info.name)
    return Segments(
        _overview(info, content, tuple(published.get(info.name, ())), name_of)
        for info, content in found
    )


def _overview(
    info: SegmentInfo, content: _Content, published: tuple[str, ...], name_of: NameOf
) -> Overview:
    holders = tuple(holder_of(each, name_of) for each in info.holders)
    is_here = any(each.alive and each.pid == info.creator_pid for each in holders)
    return Overview(
        name=info.name,
        kind=content.kind,
        summary=content.summary,
        shape=content.shape,
        dtypes=content.dtypes,
        target=content.target,
        published=published,
        size=info.size,
        capacity=info.capacity,
        state=info.state,
        created=info.created_ns / 1e9,
        creator_pid=info.creator_pid,
        creator=name_of(info.creator_pid) if is_here else "",
        holders=holders,
        lock=lock_holder(info.lock_pid, info.lock_tid, name_of),
        range_locks=tuple(
            RangeLock(
                start=entry.start,
                stop=entry.stop,
                shared=bool(entry.shared),
                state=_RANGE_STATES.get(entry.state, "?"),
                pid=entry.pid,
                tid=entry.tid,
            )
            for entry in info.range_locks
        ),
    )


def holder_of(user: User, name_of: NameOf = process_name) -> Holder:
    """Return a line of a segment's table with its process' name; a dead one's pid may be another's."""
    process = name_of(user.pid) if user.alive and user.pid else ""
    return Holder(user.pid, process, user.alive, user.attached, user.leases, user.node)


def lock_holder(pid: int, tid: int, name_of: NameOf = process_name) -> LockHolder | None:
    """Return who holds a lock; None: nobody (*tid* is 0)."""
    return LockHolder(pid, tid, name_of(pid) if pid else "") if tid else None


def _content(info: SegmentInfo) -> _Content:
    if info.state == "warm":
        return _Content("warm", "kept for reuse")
    try:
        return _read_content(unpack(info.description))
    except (SchemaError, KeyError, TypeError, ValueError, IndexError):
        return _Content("?", "damaged description")


def _read_content(desc: dict[str, Any]) -> _Content:
    if "name" in desc:
        return _Content("name", f"of segment {desc['target']}", target=str(desc["target"]))
    if "channel" in desc:
        return _Content("channel", f"up to {desc['channel']} handles")
    schema = desc["schema"]
    if schema["kind"] == "ndarray":
        shape = tuple(int(n) for n in schema["shape"])
        dtype = dtype_name(schema["dtype"])
        summary = f"{dtype} {' x '.join(map(str, shape)) or 'scalar'}"
        return _Content("array", summary, shape, {dtype: 1})
    if schema["kind"] == "frame":
        shape = int(schema["rows"]), int(schema["cols"])
        summary = f"{shape[0]} rows x {shape[1]} columns"
        return _Content("frame", summary, shape, column_dtypes(schema))
    return _Content(str(schema["kind"]), "")
