"""What every test gets: a namespace of its own in /dev/shm, and a look at what it leaves behind."""

from __future__ import annotations

import contextlib
import multiprocessing
import os

# Before numpush is imported, and in the environment, so that children see the same files. A child
# that imports this module keeps its parent's.
if multiprocessing.parent_process() is None:
    os.environ["NUMPUSH_NAMESPACE"] = f"nptest-{os.getpid()}"

import gc
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from multiprocessing import forkserver, resource_tracker
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from loky.backend import resource_tracker as loky_tracker

import commands
import pool_tasks
import processes
from numpush import Pool, SArray

SETTLE = 5.0  #: seconds that children may take to end, and their files to go


def pytest_configure(config: pytest.Config) -> None:
    # Started in the background by a shell, a process ignores Ctrl-C, and so would its children.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    for file in os.listdir("/dev/shm"):  # of test processes that were killed
        pid = file.removeprefix("nptest-").partition(".")[0].partition("-")[0]
        if file.startswith("nptest-") and pid.isdigit() and not os.path.exists(f"/proc/{pid}"):
            with contextlib.suppress(OSError):
                os.unlink(f"/dev/shm/{file}")
    # Python 3.12 and later warn of what half of these tests are about.
    config.addinivalue_line(
        "filterwarnings", "ignore:.*multi-threaded, use of fork:DeprecationWarning"
    )
    config.addinivalue_line(
        "markers", "leaves_processes: a pool that outlives the test by design (loky's reusable one)"
    )


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Any:
    report = yield
    if report.when == "call" and report.failed:
        item.has_failed = True  # type: ignore[attr-defined]  # our own mark
    return report


@pytest.fixture(scope="session", autouse=True)
def _helpers_of_multiprocessing() -> None:
    """Start what multiprocessing and loky start once and keep: no test is to be blamed for it."""
    resource_tracker.ensure_running()
    forkserver.ensure_running()
    loky_tracker.ensure_running()


@pytest.fixture(scope="module", autouse=True)
def _garbage_of_this_module() -> Iterator[None]:
    """Look for garbage among all objects once per module: `_nothing_is_left` has frozen the rest."""
    yield
    gc.unfreeze()
    gc.collect()


@pytest.fixture(autouse=True)
def _nothing_is_left(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test that leaves a file in /dev/shm, a descriptor or a child."""
    looks: dict[str, Callable[[], set[str]]] = {
        "files in /dev/shm": processes.files,
        "descriptors": processes.descriptors,
        "children": processes.children,
    }
    if request.node.get_closest_marker("leaves_processes"):
        del looks["children"], looks["descriptors"]
    np.add(1, SArray(np.zeros(1)))  # our node, before we count
    _clean()
    gc.freeze()  # the libraries' objects: looking through them takes longer than most tests
    before = {what: look() for what, look in looks.items()}
    yield
    if getattr(request.node, "has_failed", False):
        return  # its traceback keeps its objects
    request.node.funcargs.clear()
    deadline = time.monotonic() + SETTLE
    while True:
        _clean()
        left = {what: look() - before[what] for what, look in looks.items()}
        if not any(left.values()) or time.monotonic() > deadline:
            break
        time.sleep(0.02)
    found = [f"{what}: {sorted(names)}" for what, names in left.items() if names]
    if found:
        pytest.fail("left behind: " + "; ".join(found))


def _clean() -> None:
    gc.collect()
    multiprocessing.active_children()  # joins those that ended
    processes.collect_garbage()


@pytest.fixture(params=["fork", "spawn", "forkserver"])
def start_method(request: pytest.FixtureRequest) -> str:
    """Each way to start a process."""
    return str(request.param)


@pytest.fixture
def ctx(start_method: str) -> multiprocessing.context.BaseContext:
    """The multiprocessing context of each start method."""
    return multiprocessing.get_context(start_method)


@pytest.fixture
def namespace() -> Iterator[str]:
    """A namespace of its own, of which a sweep leaves nothing at the end."""
    name = processes.new_namespace()
    yield name
    commands.run("gc", namespace=name)
    assert processes.files_of(name) == set()


@pytest.fixture(scope="module")
def pool_helpers() -> None:
    """Load and open whatever the first pool of a process does."""
    with Pool(1) as pool:
        pool.apply(abs, (1,))


@pytest.fixture(scope="module")
def pool(pool_helpers: None) -> Iterator[Pool]:
    """A pool of two workers that shares small things too."""
    with Pool(2, share_from=pool_tasks.SHARE) as pool:
        processes.eventually(lambda: len(set(pool.map(pool_tasks.pid_of, range(8), 1))) == 2)
        yield pool


@pytest.fixture
def copy_on_write() -> Iterator[None]:
    """pandas 2 promises what we test of frames only with copy-on-write; 3 always has it."""
    import pandas as pd

    if int(pd.__version__.split(".")[0]) >= 3:
        yield
    else:
        with pd.option_context("mode.copy_on_write", True):
            yield


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Give what mounts a file system of some size ("12m") at a folder, until the test ends."""
    if os.geteuid() != 0:
        pytest.skip("needs root, to mount a small file system")
    mounted = []

    def mount(size: str) -> Path:
        folder = tmp_path / f"disk{len(mounted)}"
        folder.mkdir()
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={size}", "numpush-test", folder],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode:
            pytest.skip(f"cannot mount a file system here: {done.stderr.strip()}")
        mounted.append(folder)
        return folder

    yield mount
    for folder in mounted:
        subprocess.run(["umount", folder], check=True)
