"""How a worker process starts, and how it ends with its parent: what Pool's and Team's have in common.

(1) A worker starts with Ctrl-C blocked, where it inherits that (all but forkserver's do), and takes no
    notice of it later: Ctrl-C goes to all processes of a terminal, and the parent decides what becomes
    of its workers.
(2) A worker whose parent is gone ends, whatever it is doing, and leaves its segments in good order.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import select
import signal
import threading
import time
from collections.abc import Iterator
from multiprocessing import process as _mp_process
from multiprocessing import resource_tracker

from .shm import life

__all__ = ["THREAD_VARIABLES", "allowed_in_daemons", "begin", "ctrl_c_blocked"]

THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMBA_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
)


# -- in the parent


@contextlib.contextmanager
def ctrl_c_blocked() -> Iterator[None]:
    """Start processes in here: they inherit that Ctrl-C is blocked, until `begin`."""
    resource_tracker.ensure_running()  # or it starts with them, and unblocks Ctrl-C then
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def allowed_in_daemons() -> Iterator[None]:
    """Start processes in here, also in a daemon of multiprocessing, as Dask's workers and Pool's are.

    It may have no children because they would outlive it; ours end with their parent (2).
    """
    config: dict[str, object] = getattr(_mp_process.current_process(), "_config", {})  # private
    is_daemon = config.get("daemon")
    if is_daemon:
        config["daemon"] = False
    try:
        yield
    finally:
        if is_daemon:
            config["daemon"] = True


# -- in the worker


def begin(parent: int, threads: int | None) -> None:
    """Get ready: to be called first, in the main thread of the worker.

    *threads* is how many BLAS and OpenMP may start here, as far as they are loaded already and
    threadpoolctl is installed; None: as they like.
    """
    # Not SIG_IGN, which programs that a task starts would inherit.
    signal.signal(signal.SIGINT, _ignore)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    threading.Thread(target=_end_with_parent, args=(parent,), daemon=True).start()
    if threads is not None and importlib.util.find_spec("threadpoolctl") is not None:
        from threadpoolctl import threadpool_limits

        threadpool_limits(threads)


def _ignore(signum: int, frame: object) -> None:
    pass


def _end_with_parent(parent: int) -> None:
    """Wait for the parent to die and end: nobody else would tell us to."""
    _wait_for_end(parent)
    with contextlib.suppress(BaseException):
        life.leave()
    os._exit(1)


def _wait_for_end(parent: int) -> None:
    try:
        fd = os.pidfd_open(parent)
    except ProcessLookupError:
        return
    except OSError:  # an old kernel, or a sandbox that has no such call
        while _is_there(parent):
            time.sleep(1)
        return
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    # A descriptor of a process stays one of that process: look once whether it was the right one.
    while _is_there(parent) and not poll.poll():
        pass


def _is_there(parent: int) -> bool:
    """Whether *parent*, which started us, perhaps through a fork server, is alive."""
    if os.getppid() == parent:
        return True
    starter = _mp_process.parent_process()
    return starter is not None and starter.pid == parent and starter.is_alive()
