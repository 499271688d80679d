"""What `numpush doctor` asks, a module per topic.

A check asks the kernel by doing the thing where that is cheap (splice, a robust mutex whose holder
dies, a message queue), and reads limits elsewhere. It changes nothing: what dead processes left is
counted, not swept, and what a check makes is gone when it returns.
"""

from collections.abc import Callable

from . import kernel, limits, memory, packages
from .finding import Finding

__all__ = ["CHECKS", "Finding"]

#: What is asked, in the order of the table.
CHECKS: dict[str, Callable[[], Finding]] = {
    "/dev/shm": memory.check_space,
    "memory limit": memory.check_cgroup,
    "huge pages": memory.check_huge_pages,
    "kernel": kernel.check_kernel,
    "liveness": kernel.check_liveness,
    "robust mutex": kernel.check_robust_mutex,
    "splice": kernel.check_splice,
    "open files": limits.check_descriptors,
    "limits": limits.check_limits,
    "mappings": limits.check_mappings,
    "message queues": limits.check_queues,
    "RemoveIPC": limits.check_remove_ipc,
    "TIPC": kernel.check_tipc,
    "start method": packages.check_start_method,
    "packages": packages.check_versions,
    "extras": packages.check_extras,
    "leftovers": memory.check_leftovers,
}
