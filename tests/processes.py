"""Children for tests: started in every way, waited for with a limit, and what they leave.

The namespace comes from conftest.py, through the environment. Benchmarks use it too, without pytest.
"""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpush
from numpush.shm import life, naming

LIMIT = 60.0  #: seconds that anything here may take on a busy machine
SHM = Path("/dev/shm")
HERE = Path(__file__).parent
_sweep = sys.modules["numpush.shm.sweep"]  # numpush.shm.sweep is the function


# -- what is left


def files() -> set[str]:
    """Return the files of this namespace, but for this process's own node."""
    mine = naming.node_file(life.node().id)
    return {f for f in os.listdir(SHM) if f.startswith(f"{naming.NAMESPACE}.")} - {mine}


def files_of(namespace: str) -> set[str]:
    """Return all files of another namespace."""
    return {f for f in os.listdir(SHM) if f.startswith(f"{namespace}.")}


def descriptors() -> set[str]:
    """Return this process's open descriptors, as "number: target"."""
    found = set()
    for fd in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{fd}")
        except FileNotFoundError:
            continue
        # Devices and logs are opened and kept by libraries when they please.
        if "/proc/" not in target and "/dev/" not in target.replace("/dev/shm", ""):
            found.add(f"{fd}: {target}")
    return found


def children() -> set[str]:
    """Return the pids of this process's children, zombies included."""
    found: set[str] = set()
    for task in os.listdir("/proc/self/task"):
        try:
            found |= set(Path(f"/proc/self/task/{task}/children").read_text().split())
        except FileNotFoundError:
            continue
    return found


@contextmanager
def grace(seconds: float) -> Iterator[None]:
    """Have handles of dead senders hold for so long in this process (and in what it forks)."""
    before, _sweep.GRACE = _sweep.GRACE, seconds
    try:
        yield
    finally:
        _sweep.GRACE = before


def collect_garbage(after: float = 0.0) -> None:
    """Sweep once, with the grace period passed, and drop warm memory."""
    with grace(after):
        numpush.gc()


# -- children by os.fork


def fork(function: Callable[..., Any], *args: Any) -> int:
    """Run *function* in a child that ends by os._exit: 0, or 1 after an exception. Return its pid."""
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        function(*args)
        code = 0
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(code)


def wait(pid: int, limit: float = LIMIT) -> int:
    """Wait for a child; return its exit code, -9 when it was killed. Fails when it hangs."""
    deadline = time.monotonic() + limit
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > deadline:
            where = stack(pid)
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            raise AssertionError(f"a child hung for {limit} s\n{where}")
        time.sleep(0.001)


def stack(pid: int) -> str:
    """Return where in the kernel a process waits."""
    try:
        return Path(f"/proc/{pid}/wchan").read_text() + Path(f"/proc/{pid}/syscall").read_text()
    except OSError as error:
        return str(error)


def run_forked(function: Callable[..., Any], *args: Any, limit: float = LIMIT) -> int:
    """Run *function* in a forked child and return its exit code."""
    return wait(fork(function, *args), limit)


# -- children by multiprocessing


def join(*children: Any, limit: float = LIMIT) -> list[int]:
    """Join each process and return the exit codes. Fails when one hangs."""
    deadline = time.monotonic() + limit
    hung = []
    for child in children:
        child.join(max(0.0, deadline - time.monotonic()))
        if child.is_alive():
            hung.append(f"{child.name}: {stack(child.pid)}")
            child.kill()
            child.join()
    if hung:
        raise AssertionError(f"children hung for {limit} s: {hung}")
    codes = [child.exitcode for child in children]
    for child in children:
        child.close()
    return codes


def eventually(condition: Callable[[], Any], limit: float = LIMIT) -> Any:
    """Wait until *condition* is true, and return it. Fails after the limit."""
    deadline = time.monotonic() + limit
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"not true after {limit} s: {condition}")
        time.sleep(0.002)


# -- scripts


def new_namespace() -> str:
    return f"nptest-{os.getpid()}-{secrets.token_hex(4)}"


def run_script(
    code: str, *args: str, limit: float = LIMIT, namespace: str | None = None, **env: str
) -> subprocess.CompletedProcess[str]:
    """Run Python *code* in a fresh interpreter, warnings being errors; it has its own namespace."""
    namespace = namespace or new_namespace()
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code, *args],
        env={**os.environ, "NUMPUSH_NAMESPACE": namespace, **env},
        capture_output=True,
        text=True,
        timeout=limit,
        check=False,
    )


def sweep(namespace: str) -> None:
    """Take away what the dead of another namespace left, with the grace period passed."""
    code = "import sys, numpush.shm\nsys.modules['numpush.shm.sweep'].GRACE = 0\nnumpush.gc()"
    done = run_script(code, namespace=namespace)
    assert (done.returncode, done.stderr) == (0, "")


def run_interrupted(script: str) -> tuple[str, str, int]:
    """Run a script, and interrupt it and its children once one says "at work", as a terminal does.

    Returns what it printed but for that, its errors, and its exit code.
    """
    child = subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "at work\n"
    os.killpg(child.pid, signal.SIGINT)
    out, errors = child.communicate(timeout=LIMIT)
    return out.replace("at work\n", ""), errors, child.returncode


def peak_memory() -> int:
    """Return the most memory in bytes that this process had since it was last asked."""
    with open("/proc/self/status") as lines:
        found = next(line for line in lines if line.startswith("VmHWM"))
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")
    return int(found.split()[1]) << 10
