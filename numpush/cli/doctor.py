"""`numpush doctor`: is this machine fit for numpush, and what to type where it is not.

A check asks the kernel by doing the thing where that is cheap (splice, a robust mutex whose holder
dies, a message queue), and reads limits elsewhere. It changes nothing: what dead processes left is
counted, not swept, and what a check makes is gone when it returns.

    ok    as it should be                warn  works, but slower, or something is to be expected
    note  an optional part is not here   fail  numpush cannot do its work

The last it says is what to type against each `warn` and `fail`, or that there is nothing to do.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import getpass
import glob
import json
import os
import platform
import re
import resource
import secrets
import signal
import socket
import time
from collections.abc import Callable, Iterator
from importlib import metadata
from typing import NamedTuple

from ..ffi import map as _map
from ..ffi import mutex as _mutex
from ..ffi import seg as _seg
from ..shm import naming, node, space, survey
from ..shm.reserve import HUGE_PAGE
from .remedies import as_root, grow_shm, raise_memory

__all__ = ["CHECKS", "Finding", "run"]

_GIB = 1 << 30
_PAGE = os.sysconf("SC_PAGESIZE")
_AF_TIPC = 30  # socket.AF_TIPC is there only when Python was built with the header


class Finding(NamedTuple):
    """What one check found."""

    status: str  #: "ok", "note", "warn" or "fail"
    found: str
    remedy: str = ""  #: what to type: lines of shell, which may be comments


@contextlib.contextmanager
def _scratch(size: int) -> Iterator[int]:
    """Yield a descriptor of a file in /dev/shm that nobody else sees and that goes with it."""
    name = f"{naming.NAMESPACE}.doctor.{secrets.token_hex(8)}"
    fd = _map.open(name, create=True)
    try:
        os.unlink(naming.path(name))
        _map.reserve(fd, size)
        yield fd
    finally:
        os.close(fd)


def _read(path: str) -> str:
    try:
        with open(path) as file:
            return file.read().strip()
    except OSError:
        return ""


# -- memory


def check_space() -> Finding:
    """Space in /dev/shm: a tmpfs, writable, with room and with inodes."""
    mounts = [line.split(" ") for line in _read("/proc/self/mounts").splitlines()]
    types = [fields[2] for fields in mounts if len(fields) > 2 and fields[1] == naming.DIR]
    with _scratch(_PAGE):
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
    enabled = re.search(r"\[(\w+)\]", _read("/sys/kernel/mm/transparent_hugepage/shmem_enabled"))
    found = f"{policy} by the mount; shmem_enabled is {enabled[1] if enabled else 'not there'}"
    with _scratch(0) as fd:
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


def check_kernel() -> Finding:
    """The kernel's version, and whether it populates memory in one call (5.14)."""
    found = f"{platform.system()} {platform.release()} {platform.machine()}"
    with _scratch(_PAGE) as fd:
        address = _map.map(fd, 0, _PAGE, _map.RW)
        try:
            rc = _map.populate(address, _PAGE, write=True)
        finally:
            _map.unmap(address, _PAGE)
    if rc:
        return Finding(
            "note",
            f"{found}: no MADV_POPULATE_WRITE, a first touch costs more",
            "# use Linux 5.14 or later",
        )
    return Finding("ok", found)


# -- limits


def check_descriptors() -> Finding:
    """Open files: numpush needs one, however many segments there are; pools, some per worker."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < 256:
        return Finding("warn", f"{soft} (hard limit {hard})", "ulimit -n 1024")
    return Finding("ok", f"{'no limit' if soft == resource.RLIM_INFINITY else soft}")


#: What a limit of 0 or little more would stop, and what is enough.
_LIMITS = {
    "file size": (resource.RLIMIT_FSIZE, 64 * _GIB, "ulimit -f unlimited"),
    "address space": (resource.RLIMIT_AS, 64 * _GIB, "ulimit -v unlimited"),
    "processes": (resource.RLIMIT_NPROC, 256, "ulimit -u 4096"),
}


def check_limits() -> Finding:
    """Limits of a segment's size, of what can be mapped in all, and of workers."""
    found, remedies = [], []
    for name, (limit, enough, remedy) in _LIMITS.items():
        soft, _ = resource.getrlimit(limit)
        if soft != resource.RLIM_INFINITY and soft < enough:
            value = str(soft) if limit == resource.RLIMIT_NPROC else space.human(soft)
            found.append(f"{name}: {value}")
            remedies.append(remedy)
    if found:
        return Finding("warn", ", ".join(found), "\n".join(remedies))
    return Finding("ok", f"enough for {', '.join(_LIMITS)}")


def check_mappings() -> Finding:
    """Mappings per process: a header and the data for each segment attached."""
    text = _read("/proc/sys/vm/max_map_count")
    if not text.isdigit():
        return Finding("note", "vm.max_map_count is not known")
    n = int(text)
    found = f"vm.max_map_count is {n}: about {max(0, n // 2 - 1000)} segments in one process"
    if n < 65530:  # the kernel's default
        return Finding("warn", found, as_root("sysctl -w vm.max_map_count=262144"))
    return Finding("ok", found)


def check_queues() -> Finding:
    """POSIX message queues, which channels are: by making one."""
    import posix_ipc

    limits = {
        name: _read(f"/proc/sys/fs/mqueue/{name}") or "?"
        for name in ("queues_max", "msg_max", "msgsize_max")
    }
    found = ", ".join(f"{name} {value}" for name, value in limits.items())
    name = f"/{naming.NAMESPACE}.doctor.{secrets.token_hex(8)}"
    try:
        queue = posix_ipc.MessageQueue(name, posix_ipc.O_CREX, max_messages=1, max_message_size=64)
        queue.close()
        posix_ipc.unlink_message_queue(name)
    except (OSError, posix_ipc.Error) as error:
        soft, _ = resource.getrlimit(resource.RLIMIT_MSGQUEUE)
        return Finding(
            "warn",
            f"none can be made ({error}), so no Channel; {found}, ulimit -q {soft}",
            "ulimit -q 819200\n" + as_root("sysctl -w fs.mqueue.queues_max=256"),
        )
    return Finding("ok", found)


# -- behaviour


def check_liveness() -> Finding:
    """flock in /dev/shm: how a process proves that it is alive."""
    name = f"{naming.NAMESPACE}.doctor.{secrets.token_hex(8)}"
    first = _map.open(name, create=True)
    try:
        second = os.open(naming.path(name), os.O_RDWR | os.O_CLOEXEC)
        try:
            fcntl.flock(first, fcntl.LOCK_EX)
            try:
                fcntl.flock(second, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return Finding("ok", f"flock works in {naming.DIR}")
            return Finding(
                "fail", f"flock in {naming.DIR} does not exclude", "# use a Linux kernel"
            )
        finally:
            os.close(second)
    finally:
        os.close(first)
        os.unlink(naming.path(name))


def check_robust_mutex() -> Finding:
    """A robust mutex whose holder is killed: the next one must be told."""
    size = -(-_seg.SLOTS_OFFSET // _PAGE) * _PAGE + _PAGE
    with _scratch(size) as fd:
        address = _map.map(fd, 0, size, _map.RW)
        try:
            ref = _seg.at(address)
            _seg.init(ref, capacity=size, data_offset=size, n_slots=1, node=1, pid=os.getpid())
            mutex = _seg.data_mutex(ref)
            child = os.fork()
            if child == 0:
                try:
                    _mutex.try_lock(mutex)
                    os.kill(os.getpid(), signal.SIGKILL)
                finally:
                    os._exit(1)  # never two doctors
            os.waitpid(child, 0)
            rc = _mutex.lock(mutex, 1_000_000_000)
            if rc >= 0:
                _mutex.unlock(mutex)
        finally:
            _map.unmap(address, size)
    if rc == _mutex.OWNER_DIED:
        return Finding("ok", "a holder was killed, the next was told")
    why = "the next waited in vain" if rc == -errno.EBUSY else f"the next got {rc}"
    return Finding(
        "fail", f"a holder was killed, {why}", "# use a Linux kernel (gVisor has no robust futexes)"
    )


def check_splice() -> Finding:
    """splice(2) from a pipe into tmpfs: how data goes from a socket into a segment."""
    wanted = b"numpush" * 100
    reader, writer = os.pipe()
    try:
        os.write(writer, wanted)
        with _scratch(_PAGE) as fd:
            os.splice(reader, fd, len(wanted), offset_dst=0)
            got = os.pread(fd, len(wanted), 0)
    except OSError as error:
        return Finding(
            "note",
            f"no ({error.strerror}): io='auto' receives by recv alone",
            "# use a Linux kernel",
        )
    finally:
        os.close(reader)
        os.close(writer)
    if got != wanted:
        return Finding("fail", f"{len(got)} of {len(wanted)} bytes went from a pipe to tmpfs")
    return Finding("ok", "io='auto' receives by it into fresh small pages, by recv into others")


def check_tipc() -> Finding:
    """TIPC sockets, for tipc:// URLs."""
    try:
        socket.socket(_AF_TIPC, socket.SOCK_STREAM).close()
    except OSError as error:
        return Finding("note", f"no ({error.strerror}): no tipc:// URLs", as_root("modprobe tipc"))
    return Finding("ok", "sockets can be made")


def check_start_method() -> Finding:
    """How multiprocessing starts processes here; numpush works with all three."""
    import multiprocessing

    method = multiprocessing.get_start_method(allow_none=True)
    if method is None:  # nobody has chosen: the default, without choosing it
        method = multiprocessing.get_all_start_methods()[0]
    return Finding("ok", f"{method}; each works")


def check_remove_ipc() -> Finding:
    """Whether systemd-logind removes this user's shared memory when they log out."""
    if not os.path.isdir("/run/systemd/system"):
        return Finding("ok", "no systemd here")
    if os.geteuid() < 1000:
        return Finding("ok", f"uid {os.geteuid()} is a system user, whose files stay")
    value, where = _logind_setting("RemoveIPC", "yes")
    if value.lower() in ("no", "false", "off", "0", "n", "f"):
        return Finding("ok", f"no ({where})")
    user = getpass.getuser()
    if os.path.exists(f"/var/lib/systemd/linger/{user}"):
        return Finding("ok", f"{value} ({where}), but {user} lingers")
    return Finding(
        "warn",
        f"{value} ({where}): what you leave running loses its segments when you log out",
        f"loginctl enable-linger {user}",
    )


_LOGIND_FOLDERS = ("/etc/systemd", "/run/systemd", "/usr/local/lib/systemd", "/usr/lib/systemd")


def _logind_setting(key: str, default: str) -> tuple[str, str]:
    """Return the value that counts and the file it is from; man logind.conf(5)."""
    main = next((f for d in _LOGIND_FOLDERS if os.path.exists(f := f"{d}/logind.conf")), None)
    drop_ins: dict[str, str] = {}
    for folder in reversed(_LOGIND_FOLDERS):  # of two files of one name, the first folder's counts
        for file in glob.glob(f"{folder}/logind.conf.d/*.conf"):
            drop_ins[os.path.basename(file)] = file
    value, where = default, "the default"
    for file in [*([main] if main else []), *(drop_ins[name] for name in sorted(drop_ins))]:
        for line in _read(file).splitlines():
            name, equals, given = line.partition("=")
            if equals and name.strip() == key:
                value, where = given.strip() or default, file
    return value, where


def check_versions() -> Finding:
    """Python and what numpush needs, against what its metadata asks for."""
    found = [f"Python {platform.python_version()}"]
    remedies = []
    for line in metadata.requires("numpush") or []:
        match = re.match(r"([\w.-]+)\s*>=\s*([\d.]+)\s*(;.*extra.*)?$", line)
        if match is None:
            continue
        name, wanted, is_extra = match.groups()
        version = _version(name)
        if is_extra:
            continue
        found.append(f"{name} {version or 'missing'}")
        if version is None or _numbers(version) < _numbers(wanted):
            remedies.append(f"pip install '{name}>={wanted}'")
    return Finding("fail" if remedies else "ok", ", ".join(found), " && ".join(remedies))


def check_extras() -> Finding:
    """The extras of `numpush[all]`: what each needs, and which version of it is here."""
    found, missing, old = [], [], []
    for extra, packages in _extras().items():
        texts = []
        for name, wanted in packages.items():
            version = _version(name)
            texts.append(f"{name} {version or '-'}")
            if version is None and extra not in missing:
                missing.append(extra)
            elif version is not None and _numbers(version) < _numbers(wanted):
                texts[-1] += f" (older than {wanted})"
                old.append(extra)
        found.append(f"{extra}: {', '.join(texts)}")
    if not found:
        return Finding("note", "numpush was installed without its metadata", "pip install numpush")
    if old:
        return Finding("warn", "; ".join(found), f'pip install -U "numpush[{",".join(old)}]"')
    if missing:
        return Finding("note", "; ".join(found), f'pip install "numpush[{",".join(missing)}]"')
    return Finding("ok", "; ".join(found))


def _extras() -> dict[str, dict[str, str]]:
    """Return what each extra of `all` needs: package -> oldest version."""
    wanted: list[str] = []
    needs: dict[str, dict[str, str]] = {}
    for line in metadata.requires("numpush") or []:
        match = re.match(r"([\w.-]+)(?:\[([\w,-]+)\])?(?:>=([\d.]+))?.*extra == .([\w-]+)", line)
        if match and match[4] == "all":
            wanted += (match[2] or "").split(",")
        elif match:
            needs.setdefault(match[4], {})[match[1]] = match[3] or "0"
    return {extra: needs[extra] for extra in sorted(wanted) if extra in needs}


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _numbers(version: str) -> list[int]:
    return [int(n) for n in re.findall(r"\d+", version)[:3]]


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


#: What is asked, in the order of the table.
CHECKS: dict[str, Callable[[], Finding]] = {
    "/dev/shm": check_space,
    "memory limit": check_cgroup,
    "huge pages": check_huge_pages,
    "kernel": check_kernel,
    "liveness": check_liveness,
    "robust mutex": check_robust_mutex,
    "splice": check_splice,
    "open files": check_descriptors,
    "limits": check_limits,
    "mappings": check_mappings,
    "message queues": check_queues,
    "RemoveIPC": check_remove_ipc,
    "TIPC": check_tipc,
    "start method": check_start_method,
    "packages": check_versions,
    "extras": check_extras,
    "leftovers": check_leftovers,
}


def _run(check: Callable[[], Finding]) -> Finding:
    try:
        return check()
    except OSError as error:
        remedy = as_root(f"mount -o remount,rw,mode=1777 {naming.DIR}")
        return Finding("fail", f"{type(error).__name__}: {error}", remedy)


def run(*, as_json: bool) -> int:
    """Run all checks; 0 when none failed, else 1."""
    findings = {name: _run(check) for name, check in CHECKS.items()}
    code = int(any(finding.status == "fail" for finding in findings.values()))
    if as_json:
        checks = [{"check": name, **found._asdict()} for name, found in findings.items()]
        document = {"ok": not code, "time": time.time(), "checks": checks}
        print(json.dumps(document, indent=2))
    else:
        _print(findings, code)
    return code


_STYLES = {"ok": "green", "note": "cyan", "warn": "yellow", "fail": "bold red"}


def _print(findings: dict[str, Finding], code: int) -> None:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from .segments import make_console

    console = make_console()
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1, 0, 0))
    for title in ("", "check", "found"):
        table.add_column(title, overflow="fold", no_wrap=title != "found")
    for name, finding in findings.items():
        table.add_row(Text(finding.status, _STYLES[finding.status]), name, Text(finding.found))
    console.print(table)
    notes = {name: finding for name, finding in findings.items() if finding.status == "note"}
    todo = {name: found for name, found in findings.items() if found.status in ("warn", "fail")}
    because = " (numpush cannot work here until what failed is put right)" if code else ""
    for title, some in (("If you want it:", notes), (f"What to type{because}:", todo)):
        if any(finding.remedy for finding in some.values()):
            console.print(f"\n{title}")
        for name, finding in some.items():
            if finding.remedy:
                lines = [f"# {name} ({finding.status})", *finding.remedy.splitlines()]
                # As long as they are: they are to be copied.
                console.print(Text("\n".join(f"  {line}" for line in lines)), soft_wrap=True)
    if not todo:
        console.print("\nNothing to do.")
