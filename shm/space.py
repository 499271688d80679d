"""How much shared memory there is, and what to say when it is not enough.

Three limits count: the size of the tmpfs (Docker gives it 64 MB), and the memory of the machine and of
the control group, where the kernel would rather kill a process than refuse a page (a tmpfs may be
larger than what is free: reserving all of it ended other processes). So those two are asked before
memory is reserved, and the first answers by ENOSPC.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator
from typing import NamedTuple

from . import naming

__all__ = [
    "Room",
    "asks_for_huge_pages",
    "cgroup_rooms",
    "huge_pages",
    "human",
    "memory",
    "remedy",
    "room",
]

_MEMINFO = "/proc/meminfo"
_CGROUP_FROM = 1 << 20  #: below this a look at the control group costs more than it can tell


class Room(NamedTuple):
    """Bytes that can still be reserved, and what sets the limit."""

    free: int
    total: int
    limit: str  #: "/dev/shm", "/proc/meminfo" or the control group's directory


def human(n: int) -> str:
    """Return *n* bytes as people write them."""
    if n < 1024:
        return f"{n} B"
    size = float(n)
    for unit in ("KiB", "MiB", "GiB", "TiB"):
        size /= 1024
        if size < 1024 or unit == "TiB":
            break
    return f"{size:.1f} {unit}"


def room(wanted: int = _CGROUP_FROM) -> Room:
    """Return the tighter of the limits; for less than 1 MiB *wanted* only the tmpfs is asked."""
    st = os.statvfs(naming.DIR)
    found = Room(st.f_bavail * st.f_frsize, st.f_blocks * st.f_frsize, naming.DIR)
    if wanted >= _CGROUP_FROM:
        for other in (*_machine_rooms(), *cgroup_rooms()):
            if other.free < found.free:
                found = other
    return found


def _machine_rooms() -> Iterator[Room]:
    """Yield what the machine has left: memory that could be had without swapping, and swap."""
    try:
        with open(_MEMINFO) as file:
            kib = {line.split(":")[0]: int(line.split()[1]) for line in file}
        free = kib["MemAvailable"] + kib["SwapFree"]
        total = kib["MemTotal"] + kib["SwapTotal"]
    except (OSError, ValueError, LookupError):
        return
    yield Room(free << 10, total << 10, _MEMINFO)


def cgroup_rooms() -> Iterator[Room]:
    """Yield what is left in this process's memory control group and each one above it."""
    try:
        with open("/proc/self/cgroup") as file:
            lines = [line.rstrip("\n").split(":", 2) for line in file]
    except OSError:
        return
    for _, controllers, path in lines:
        if controllers == "memory":
            root, limit, used = (
                "/sys/fs/cgroup/memory",
                "memory.limit_in_bytes",
                "memory.usage_in_bytes",
            )
        elif controllers == "":
            root, limit, used = "/sys/fs/cgroup", "memory.max", "memory.current"
        else:
            continue
        while True:
            folder = root + path.rstrip("/")
            total, current = _read_number(f"{folder}/{limit}"), _read_number(f"{folder}/{used}")
            if total is not None and current is not None:
                yield Room(max(0, total - current + _reclaimable(folder)), total, folder)
            if path in ("/", ""):
                break
            path = os.path.dirname(path)


def _read_number(path: str) -> int | None:
    try:
        with open(path) as file:
            text = file.read().strip()
    except OSError:
        return None
    # "max", and version 1's way of saying it: a number no machine has
    return int(text) if text.isdigit() and int(text) < 1 << 60 else None


def _reclaimable(folder: str) -> int:
    """Return the bytes of page cache that the kernel would drop first: files, but not tmpfs."""
    try:
        with open(f"{folder}/memory.stat") as file:
            stat = dict(line.split() for line in file)
    except (OSError, ValueError):
        return 0
    cache = int(stat.get("file", stat.get("total_cache", 0)))
    shmem = int(stat.get("shmem", stat.get("total_shmem", 0)))
    return max(0, cache - shmem)


def memory() -> int:
    """Return the bytes of memory that this process could have at most, swap not counted."""
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return min([pages, *(room.total for room in cgroup_rooms())])


def remedy(limit: str) -> str:
    """Return what raises *limit*, in the words of whoever set it."""
    if limit == _MEMINFO:
        return (
            "the machine has no more memory: free some (`numpush ls` shows who holds what, `numpush gc` "
            "frees what nobody uses), end other processes, or add swap"
        )
    if limit != naming.DIR:
        return (
            f"raise the memory limit of the control group {limit} (docker run --memory=..., "
            "Kubernetes resources.limits.memory, systemd MemoryMax=)"
        )
    return (
        "free some (`numpush ls` shows who holds what, `numpush gc` frees what nobody uses) or "
        "raise the limit: docker run --shm-size=8g; Kubernetes: an emptyDir with medium: Memory "
        "mounted on /dev/shm; otherwise, as root: mount -o remount,size=8G /dev/shm"
    )


def huge_pages() -> str:
    """Return what /dev/shm does about huge pages: "never", "advise", "within_size" or "always".

    The mount says it (`huge=`); of `shmem_enabled`, which is for memory without a mount (memfd), only
    "deny" and "force" count here.
    """
    policy = "never"
    try:
        with open("/sys/kernel/mm/transparent_hugepage/shmem_enabled") as file:
            enabled = file.read()
        if "[deny]" in enabled:
            return "never"
        if "[force]" in enabled:
            return "always"
        with open("/proc/self/mounts") as file:
            for line in file:  # the last mount on a place is the one that is seen
                _, place, _, options, *_ = line.split(" ")
                if place == naming.DIR:
                    given = [o[5:] for o in options.split(",") if o.startswith("huge=")]
                    policy = given[0] if given else "never"
    except (OSError, ValueError):
        pass
    return policy


@functools.cache
def asks_for_huge_pages() -> bool:
    """Whether /dev/shm gives huge pages to those who ask, and only to them. Looked up once."""
    return huge_pages() == "advise"
