"""Checks of limits: of a process, a user, the kernel; and whether segments outlive a user's session."""

from __future__ import annotations

import getpass
import glob
import os
import resource
import secrets

from ...shm import naming, space
from ..remedies import as_root
from .finding import Finding, read

__all__ = [
    "check_descriptors",
    "check_limits",
    "check_mappings",
    "check_queues",
    "check_remove_ipc",
]

_GIB = 1 << 30


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
    text = read("/proc/sys/vm/max_map_count")
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
        name: read(f"/proc/sys/fs/mqueue/{name}") or "?"
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
        for line in read(file).splitlines():
            name, equals, given = line.partition("=")
            if equals and name.strip() == key:
                value, where = given.strip() or default, file
    return value, where
