"""Checks of memory: room in /dev/shm and under limits, huge pages, and what the dead left there."""

from __future__ import annotations

import os
import re

from ...ffi import map as _map
from ...shm import naming, node, space, survey
from ...shm.reserve import HUGE_PAGE
from ..remedies import as_root, grow_shm, raise_memory
from .finding import Finding, read, scratch

__all__ = ["check_cgroup", "check_huge_pages", "check_leftovers", "check_space"]

_GIB = 1 << 30
_PAGE = os.sysconf("SC_PAGESIZE")


def check_space() -> Finding:
    """Space in /dev/shm: a tmpfs, writable, with room and with inodes."""
    mounts = [line.split(" ") for line in read("/proc/self/mounts").splitlines()]
    types = [fields[2] for fields in mounts if len(fields) > 2 and fields[1] == naming.DIR]
    with scratch(_PAGE):
        pass
    st = os.statvfs(naming.DIR)
    room = space.room(0)
    found = f"{space.human(room.free)} of {space.human(room.total)} free"
    tightest = space.room()
    if tightest.free < room.free:  # a tmpfs may be larger than the memory there is
        found += f", but {tightest.limit} leaves {space.human(tightest.free)}"
    if types and types[-1] != "tmpfs":
        return Finding(
            "warn",
            f"{found}, but it is {types[-1]}, not tmpfs: data goes to a disk",
            as_root(f"mount -t tmpfs tmpfs {naming.DIR}"),
        )
    if room.total < _GIB:
        return Finding("warn", found, grow_shm())
    if room.free < room.total // 10:
        return Finding(
            "warn",
            f"{found}: nearly full",
            "numpush gc   # frees what nobody uses\n"
            "numpush ls   # shows who holds what\n"
            f"ls -lS {naming.DIR} | head   # what is others'\n{grow_shm()}",
        )
    if st.f_files and st.f_favail < 10_000:
        return Finding(
            "warn",
            f"{found}, but only {st.f_favail} more files",
            as_root(f"mount -o remount,nr_inodes=1M {naming.DIR}"),
        )
    return Finding("ok", found)


def check_cgroup() -> Finding:
    """The control group's memory limit: shared memory counts against it, too."""
    rooms = list(space.cgroup_rooms())
    if not rooms:
        return Finding("ok", "no limit")
    tightest = min(rooms, key=lambda room: room.free)
    found = f"{space.human(tightest.free)} of {space.human(tightest.total)} left"
    if tightest.free < _GIB:
        return Finding(
            "warn", f"{found} in {tightest.limit}", raise_memory(tightest.limit, tightest.total)
        )
    return Finding("ok", found)


def check_huge_pages() -> Finding:
    """Transparent huge pages for files in /dev/shm: made on demand (Linux 6.1), or by the mount."""
    policy = space.huge_pages()
    enabled = re.search(r"\[(\w+)\]", read("/sys/kernel/mm/transparent_hugepage/shmem_enabled"))
    found = f"{policy} by the mount; shmem_enabled is {enabled[1] if enabled else 'not there'}"
    with scratch(0) as fd:
        os.ftruncate(fd, 2 * HUGE_PAGE)
        if _map.collapse(fd, 0, HUGE_PAGE) == HUGE_PAGE:
            return Finding("ok", f"{found}; big segments get them on demand")
    if not enabled:
        return Finding("note", f"{found}: this kernel has none")
    if policy == "never":
        remedy = as_root(f"mount -o remount,huge=advise {naming.DIR}   # or use Linux 6.1 or later")
        if enabled[1] == "deny":
            remedy = as_root(
                "sh -c 'echo never > /sys/kernel/mm/transparent_hugepage/shmem_enabled'"
            )
        return Finding("note", f"{found}: big segments are filled page by page", remedy)
    return Finding("ok", found)


def check_leftovers() -> Finding:
    """What killed processes left: the next numpush process that starts takes it away, or `gc`."""
    n_bytes = n_segments = 0
    for info in survey():
        if not any(holder.alive for holder in info.holders):
            n_segments += 1
            n_bytes += info.capacity
    n_nodes = sum(
        not node.is_alive(int(text, 16))
        for text in naming.listing(naming.NODE)
        if re.fullmatch("[0-9a-f]{16}", text)
    )
    if not n_segments and not n_nodes:
        return Finding("ok", "nothing")
    return Finding(
        "warn",
        f"{n_segments} segments ({space.human(n_bytes)}), {n_nodes} processes; handles that they "
        "sent hold for 60 s",
        "numpush gc",
    )
