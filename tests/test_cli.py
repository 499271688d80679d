"""The command line, run as people run it: a process of its own, over segments that others hold."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import numpush
import processes
from numpush.cli import doctor, remedies
from numpush.cli.checks import limits, packages

HOLD = """
import os, sys
import numpy as np
import numpush
from numpush import SArray

prices = SArray(np.arange(300.0).reshape(100, 3), name="prices")
big = SArray(np.zeros(3333, "i4"))
{more}
print(big.name, flush=True)
for line in sys.stdin:
    print(eval(line), flush=True)
"""

ESCAPE = "\x1b"


@pytest.fixture
def namespace() -> Iterator[str]:
    """A namespace of its own, empty again at the end."""
    name = processes.new_namespace()
    yield name
    run("gc", namespace=name)
    assert processes.files_of(name) == set()


def run(*args: str, namespace: str, code: int = 0, **env: str) -> subprocess.CompletedProcess[str]:
    """Run the command and check its exit code."""
    done = subprocess.run(
        [sys.executable, "-m", "numpush", *args],
        env={**environment(namespace), **env},
        capture_output=True,
        text=True,
        timeout=processes.LIMIT,
        check=False,
    )
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done


def environment(namespace: str) -> dict[str, str]:
    env = {**os.environ, "NUMPUSH_NAMESPACE": namespace, "PYTHONWARNINGS": "error"}
    for name in ("COLUMNS", "FORCE_COLOR", "NO_COLOR", "TTY_COMPATIBLE"):
        env.pop(name, None)
    return env


def ls(namespace: str) -> dict[str, Any]:
    """Return the segments by name."""
    found = json.loads(run("ls", "--json", namespace=namespace).stdout)
    return {segment["name"]: segment for segment in found["segments"]}


class Holder:
    """A process with segments: "prices", and `big`, whose name nobody chose."""

    def __init__(self, namespace: str, more: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", HOLD.format(more=more)],
            env=environment(namespace),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        self.pid = self.process.pid
        self.big = self.process.stdout.readline().strip()
        assert len(self.big) == 32

    def evaluate(self, expression: str) -> str:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(expression, file=self.process.stdin, flush=True)
        return self.process.stdout.readline().strip()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(processes.LIMIT)

    def end(self) -> None:
        self.process.communicate(timeout=processes.LIMIT)


@contextlib.contextmanager
def holder(namespace: str, more: str = "") -> Iterator[Holder]:
    held = Holder(namespace, more)
    try:
        yield held
    finally:
        held.end()


# -- ls


def test_ls_of_nothing(namespace: str) -> None:
    assert run("ls", namespace=namespace).stdout.startswith("0 segments, 0 B; /dev/shm: ")
    assert ls(namespace) == {}


def test_ls_tells_what_a_segment_holds_and_who_uses_it(namespace: str) -> None:
    with holder(namespace) as held:
        found = ls(namespace)
        assert set(found) == {"prices", held.big}
        prices = found["prices"]
        assert prices["kind"] == "array"
        assert prices["dtype"] == "float64"
        assert prices["shape"] == [100, 3]
        assert prices["size"] == 2400
        assert prices["state"] == "live"
        assert 0 <= prices["age"] < processes.LIMIT
        assert abs(prices["created"] - time.time()) < processes.LIMIT
        assert prices["creator_pid"] == held.pid
        (user,) = prices["holders"]
        assert user["pid"] == held.pid
        assert user["alive"]
        assert user["attached"]
        assert prices["leases"] == user["leases"] == 0
        assert prices["lock"] is None
        assert prices["range_locks"] == []
        assert found[held.big]["dtype"] == "int32"

        text = run("ls", namespace=namespace).stdout
        assert re.search(rf"^prices +array float64 100 x 3 .* {held.pid} +{held.pid}", text, re.M)
        assert re.search(rf"^{held.big[:12]} +array int32 3333 ", text, re.M)
        assert held.big not in text
        assert held.big in run("ls", "--full", namespace=namespace).stdout
        assert "2 segments, " in text


def test_ls_tells_who_holds_locks(namespace: str) -> None:
    more = """
lock = prices.lock.lock()
write = prices.lock_range(slice(0, 10))
read = prices.lock_range(slice(50, 60), shared=True)
"""
    with holder(namespace, more) as held:
        prices = ls(namespace)["prices"]
        assert prices["lock"] == {"pid": held.pid, "tid": held.pid, "process": "python -c"}
        locks = sorted(prices["range_locks"], key=lambda entry: entry["start"])
        assert [(e["start"], e["stop"], e["shared"], e["state"], e["pid"]) for e in locks] == [
            (0, 240, False, "held", held.pid),
            (1200, 1440, True, "held", held.pid),
        ]
        text = run("ls", namespace=namespace).stdout
        assert "locked by" in text
        assert f"{held.pid}/{held.pid} w 0:240" in text
        assert f"{held.pid}/{held.pid} r 1200:1440" in text


def test_ls_marks_the_dead_and_counts_leases(namespace: str) -> None:
    more = """
from multiprocessing import SimpleQueue
queue = SimpleQueue()
queue.put(prices)
queue.put(prices)
"""
    with holder(namespace, more) as held:
        assert ls(namespace)["prices"]["leases"] == 2
        held.kill()
        prices = ls(namespace)["prices"]
        assert [(user["pid"], user["alive"]) for user in prices["holders"]] == [(held.pid, False)]
        assert f"{held.pid} (dead)" in run("ls", namespace=namespace).stdout
    run("rm", "prices", namespace=namespace)  # its leases would hold for the grace period


def test_ls_shows_names_and_what_is_kept_without_a_process(namespace: str) -> None:
    with holder(namespace, "numpush.publish('here', big, persist=True)") as held:
        found = ls(namespace)
        assert found["here"]["kind"] == "name"
        assert "of segment " + held.big in run("ls", "--full", namespace=namespace).stdout
    found = ls(namespace)
    assert set(found) == {"here", held.big}  # its process has left in good order
    assert found[held.big]["holders"][0]["pid"] == 0
    assert found[held.big]["holders"][0]["alive"]
    text = run("ls", namespace=namespace).stdout
    assert "kept" in text
    assert "dead" not in text
    run("rm", "here", held.big, namespace=namespace)


def test_a_table_fits_into_80_columns_and_a_pipe_gets_no_escape_codes(namespace: str) -> None:
    with holder(namespace, "lock = prices.lock.lock(); numpush.publish('here', big)"):
        for command in (["ls"], ["doctor"], ["top", "--count", "1"]):
            text = run(*command, namespace=namespace, COLUMNS="80").stdout
            lines = re.split("If you want it:|What to type", text)[0].splitlines()
            assert max(map(len, lines)) <= 80
            assert ESCAPE not in text
        lines = run("ls", namespace=namespace).stdout.splitlines()
        assert len(lines) == 6  # head, rule, three segments, total: nothing is folded


def test_ls_into_a_pipe_that_is_closed_is_quiet(namespace: str) -> None:
    command = f"'{sys.executable}' -m numpush ls | true"
    done = subprocess.run(
        ["bash", "-c", command], env=environment(namespace), capture_output=True, check=False
    )
    assert done.stderr == b""


# -- gc and rm


def test_gc_frees_what_killed_processes_left(namespace: str) -> None:
    with holder(namespace) as held:
        held.kill()
    assert set(ls(namespace)) == {"prices", held.big}
    swept = json.loads(run("gc", "--json", namespace=namespace).stdout)
    assert swept["segments"] == 2
    assert swept["processes"] == 1
    assert swept["bytes"] >= 2400 + 4 * 3333
    assert ls(namespace) == {}
    assert run("gc", namespace=namespace).stdout.startswith("freed 0 B: 0 segments")


def test_gc_takes_nothing_that_is_in_use(namespace: str) -> None:
    with holder(namespace) as held:
        assert json.loads(run("gc", "--json", namespace=namespace).stdout)["segments"] == 0
        assert held.evaluate("prices.sum()") == "44850.0"
        assert len(ls(namespace)) == 2


def test_rm_says_who_still_uses_it(namespace: str) -> None:
    with holder(namespace) as held:
        text = run("rm", "prices", namespace=namespace).stdout
        assert text.startswith("removed prices, ")
        assert f"still used by {held.pid}:" in text
        assert set(ls(namespace)) == {held.big}
        assert held.evaluate("prices.sum()") == "44850.0"  # its memory stays


def test_rm_takes_the_first_digits_of_a_random_name(namespace: str) -> None:
    with holder(namespace) as held:
        run("rm", held.big[:7], namespace=namespace, code=1)
        text = run("rm", held.big[:12], namespace=namespace).stdout
        assert f"removed {held.big}" in text
        run("rm", "price", namespace=namespace, code=1)  # a name that somebody chose is given whole


def test_rm_of_what_is_not_there_fails_and_the_others_go(namespace: str) -> None:
    with holder(namespace):
        done = run("rm", "nothing", "prices", namespace=namespace, code=1)
        assert "removed prices" in done.stdout
        assert done.stderr.startswith("numpush rm: segment 'nothing': there is none")
        assert "prices" not in ls(namespace)


# -- top


def test_top_shows_as_many_tables_as_wanted(namespace: str) -> None:
    with holder(namespace) as held:
        text = run("top", "--count", "2", "--interval", "0.1", namespace=namespace).stdout
        assert text.count("numpush top, ") == 2
        rows = re.findall(rf"^({held.big[:12]}|prices) ", text, re.M)
        assert rows == [held.big[:12], "prices"] * 2  # the largest first
        assert ESCAPE not in text


def test_top_sorts_and_a_pipe_gets_one_table(namespace: str) -> None:
    with holder(namespace) as held:
        big = held.big[:12]
        for args, first in (([], big), (["--sort", "name", "--once"], min(big, "prices"))):
            text = run("top", *args, namespace=namespace).stdout
            rows = re.findall(rf"^({big}|prices) ", text, re.M)
            assert len(rows) == 2
            assert rows[0] == first
            assert "2 segments: " in text
            assert " warm; /dev/shm: " in text


@contextlib.contextmanager
def top_in_a_terminal(namespace: str, *args: str) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """Run `numpush top` in a terminal that is to be as it was at the end; yield it and its screen."""
    controller, terminal = pty.openpty()
    before = termios.tcgetattr(terminal)
    with subprocess.Popen(
        [sys.executable, "-m", "numpush", "top", "--interval", "0.05", *args],
        env={**environment(namespace), "TERM": "xterm"},
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
    ) as top:
        try:
            yield top, controller
            assert top.wait(processes.LIMIT) == 0
            assert termios.tcgetattr(terminal) == before
        finally:
            top.kill()
            os.close(terminal)
            os.close(controller)


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM, "q"])
def test_top_ends_by_a_signal_or_q_and_gives_the_terminal_back(
    namespace: str, end: signal.Signals | str
) -> None:
    with holder(namespace), top_in_a_terminal(namespace) as (top, controller):
        screen = read_until(controller, lambda text: "prices" in text)
        if isinstance(end, str):
            os.write(controller, end.encode())
        else:
            top.send_signal(end)
        screen += read_until(controller, lambda text: f"{ESCAPE}[?1049l" in text)
        assert "Traceback" not in screen
        assert screen.count(f"{ESCAPE}[?1049h") == screen.count(f"{ESCAPE}[?1049l") == 1
        assert screen.count(f"{ESCAPE}[?25l") == screen.count(f"{ESCAPE}[?25h") == 1  # the cursor


def test_top_gives_the_terminal_back_while_it_is_stopped(namespace: str) -> None:
    with holder(namespace), top_in_a_terminal(namespace) as (top, controller):
        attributes = termios.tcgetattr(controller)
        read_until(controller, lambda text: "prices" in text)
        assert termios.tcgetattr(controller) != attributes
        top.send_signal(signal.SIGTSTP)
        read_until(controller, lambda text: f"{ESCAPE}[?1049l" in text)
        processes.eventually(lambda: state_of(top.pid) == "T")
        assert termios.tcgetattr(controller) == attributes
        top.send_signal(signal.SIGCONT)
        read_until(controller, lambda text: "prices" in text)
        os.write(controller, b"q")


def state_of(pid: int) -> str:
    """Return the letter that the kernel has for the state of a process."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def test_top_tells_who_holds_a_lock_and_for_how_long(namespace: str) -> None:
    more = "lock = prices.lock.lock()"
    with holder(namespace, more) as held, top_in_a_terminal(namespace) as (_, controller):
        read_until(controller, lambda text: re.search(rf"{held.pid}/{held.pid} +[12]s", text))
        os.write(controller, b"q")


def read_until(fd: int, is_enough: Callable[[str], object]) -> str:
    """Read a terminal until *is_enough* or its end."""
    text = ""
    deadline = time.monotonic() + processes.LIMIT
    while not is_enough(text):
        assert select.select([fd], [], [], max(0, deadline - time.monotonic()))[0], text
        try:
            text += os.read(fd, 65536).decode(errors="replace")
        except OSError:  # Linux: nobody has the other end any more
            break
    return text


# -- doctor


def checks(namespace: str, code: int = 0, **env: str) -> dict[str, dict[str, str]]:
    found = json.loads(run("doctor", "--json", namespace=namespace, code=code, **env).stdout)
    assert found["ok"] == (code == 0)
    return {check["check"]: check for check in found["checks"]}


def test_doctor_finds_a_machine_that_runs_these_tests_fit(namespace: str) -> None:
    found = checks(namespace)
    assert set(found) == set(doctor.CHECKS)
    assert {check["status"] for check in found.values()} <= {"ok", "note", "warn"}
    for name in ("liveness", "robust mutex", "packages", "leftovers"):
        assert found[name]["status"] == "ok"
    for check in found.values():
        assert check["found"]
        assert check["remedy"] or check["status"] in ("ok", "note")
    text = run("doctor", namespace=namespace).stdout
    assert all(name in text for name in doctor.CHECKS)
    if any(check["status"] == "warn" for check in found.values()):
        assert "What to type:" in text
        assert text.rstrip().endswith([c["remedy"] for c in found.values() if c["remedy"]][-1])
    else:
        assert text.endswith("\nNothing to do.\n")
    assert processes.files_of(namespace) == set()


def test_doctor_sees_what_a_killed_process_left_and_leaves_it(namespace: str) -> None:
    with holder(namespace) as held:
        held.kill()
    for _ in range(2):
        found = checks(namespace)["leftovers"]
        assert found["status"] == "warn"
        assert found["found"].startswith("2 segments (")
        assert found["remedy"] == "numpush gc"
    run("gc", namespace=namespace)
    assert checks(namespace)["leftovers"]["status"] == "ok"


def test_doctor_exits_1_when_something_failed(namespace: str) -> None:
    code = """
import sys
from numpush.cli import doctor, main

def check_broken():
    raise PermissionError(13, "Permission denied", "/dev/shm")

doctor.CHECKS["broken"] = check_broken
doctor.CHECKS["bad"] = lambda: doctor.Finding("fail", "it is bad", "make it good")
sys.exit(main(["doctor"]))
"""
    done = processes.run_script(code, namespace=namespace)
    assert done.returncode == 1
    assert done.stderr == ""
    assert re.search(r"^fail +broken +PermissionError: ", done.stdout, re.M)
    assert "\nWhat to type (numpush cannot work here until" in done.stdout
    assert done.stdout.endswith("\n  # bad (fail)\n  make it good\n")


@pytest.mark.system
@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
@pytest.mark.parametrize(
    ("options", "code", "status", "remedy"),
    [
        ("size=64m", 0, "warn", "size="),
        ("size=2g,nr_inodes=100", 0, "warn", "nr_inodes"),
        ("ro", 1, "fail", "/dev/shm"),
        ("size=2g,huge=advise", 0, "ok", ""),
    ],
)
def test_doctor_on_a_machine_with_another_dev_shm(
    namespace: str, options: str, code: int, status: str, remedy: str
) -> None:
    script = f'mount -t tmpfs -o {options} tmpfs /dev/shm && exec "$0" -m numpush doctor --json'
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", script, sys.executable],
        env=environment(namespace),
        capture_output=True,
        text=True,
        timeout=processes.LIMIT,
        check=False,
    )
    assert done.returncode == code, done.stderr
    found = {check["check"]: check for check in json.loads(done.stdout)["checks"]}
    assert found["/dev/shm"]["status"] == status
    assert remedy in found["/dev/shm"]["remedy"]
    if "huge" in options:
        assert found["huge pages"]["found"].startswith("advise")


@pytest.mark.parametrize(
    ("file", "text", "where", "shm", "memory"),
    [
        (".dockerenv", "", "docker", "docker run --shm-size=", "docker run --memory=32g"),
        ("run/.containerenv", "", "podman", "podman run --shm-size=", "podman run --memory=32g"),
        (
            "var/run/secrets/kubernetes.io/token",
            "",
            "kubernetes",
            "emptyDir: {medium: Memory, sizeLimit: ",
            "--limits=memory=32Gi",
        ),
        ("proc/self/cgroup", "0::/kubepods.slice/x", "kubernetes", "/dev/shm", "=32Gi"),
        ("proc/self/cgroup", "0::/user.slice/user-1000.slice", "", "remount,size=", "=32G"),
        ("proc/self/cgroup", "0::/slurm/job_1", "slurm", "remount,size=", "sbatch --mem=32G"),
    ],
)
def test_doctor_knows_who_set_the_limits(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    file: str,
    text: str,
    where: str,
    shm: str,
    memory: str,
) -> None:
    (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / file).write_text(text)
    monkeypatch.setattr(remedies, "_ROOT", f"{tmp_path}/")
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    assert remedies.container() == where
    assert shm in remedies.grow_shm()
    assert memory in remedies.raise_memory("/sys/fs/cgroup/user.slice", 16 << 30)
    as_user = "" if os.geteuid() == 0 else "sudo "
    assert where or remedies.grow_shm().startswith(f"{as_user}mount -o remount,size=")


def test_doctor_sees_a_low_ulimit(namespace: str) -> None:
    script = 'ulimit -f 1000000 -v 60000000 && exec "$0" -m numpush doctor --json'
    done = subprocess.run(
        ["bash", "-c", script, sys.executable],
        env=environment(namespace),
        capture_output=True,
        text=True,
        timeout=processes.LIMIT,
        check=True,
    )
    found = {check["check"]: check for check in json.loads(done.stdout)["checks"]}["limits"]
    assert found["status"] == "warn"
    assert found["found"].startswith("file size: 976.6 MiB, address space: 57.2 GiB")
    assert found["remedy"] == "ulimit -f unlimited\nulimit -v unlimited"


def test_doctor_asks_for_the_extras_that_are_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    versions = {"pyarrow": "99.0", "blosc2": "99.0", "h5py": "3.9.1", "numba": "99.0"}
    monkeypatch.setattr(packages, "_version", versions.get)
    found = packages.check_extras()
    assert "arrow: pyarrow 99.0; blosc2: blosc2 99.0; " in found.found
    assert "hdf5: h5py 3.9.1 (older than 3.10)" in found.found
    assert "hiredis -, redis -" in found.found
    assert (found.status, found.remedy) == ("warn", 'pip install -U "numpush[hdf5]"')
    versions["h5py"] = "99.0"
    found = packages.check_extras()
    assert found.status == "note"
    assert re.fullmatch(r'pip install "numpush\[[a-z,]*redis[a-z,]*\]"', found.remedy)
    assert "arrow" not in found.remedy


def test_logind_settings_are_read_as_systemd_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    etc, run_, lib = (tmp_path / name for name in ("etc", "run", "lib"))
    monkeypatch.setattr(limits, "_LOGIND_FOLDERS", tuple(map(str, (etc, run_, lib))))
    setting = lambda: limits._logind_setting("RemoveIPC", "yes")[0]  # noqa: E731
    for folder in (etc, run_, lib):
        (folder / "logind.conf.d").mkdir(parents=True)
    assert limits._logind_setting("RemoveIPC", "yes") == ("yes", "the default")
    (lib / "logind.conf").write_text("[Login]\nRemoveIPC=no\n")
    assert setting() == "no"
    (etc / "logind.conf").write_text("[Login]\n#RemoveIPC=no\n")
    assert setting() == "yes"  # the first folder's main file counts alone
    (lib / "logind.conf.d" / "50-x.conf").write_text("[Login]\nRemoveIPC=no\n")
    assert setting() == "no"
    (etc / "logind.conf.d" / "50-x.conf").write_text("")
    assert setting() == "yes"  # masks the one of the same name
    (run_ / "logind.conf.d" / "60-y.conf").write_text("[Login]\nRemoveIPC = no\n")
    assert setting() == "no"


# -- the command line itself


@pytest.mark.parametrize(
    "args",
    [
        [],
        ["what"],
        ["ls", "--what"],
        ["rm"],
        ["top", "--interval", "0"],
        ["top", "--interval", "x"],
        ["top", "--count", "0"],
        ["top", "--sort", "what"],
    ],
)
def test_a_wrong_command_line_exits_with_2(namespace: str, args: list[str]) -> None:
    done = run(*args, namespace=namespace, code=2)
    assert done.stdout == ""
    assert done.stderr.startswith("usage: numpush")


def test_version_and_help(namespace: str) -> None:
    assert run("--version", namespace=namespace).stdout == f"numpush {numpush.__version__}\n"
    text = run("--help", namespace=namespace).stdout
    assert all(name in text for name in ("ls", "top", "gc", "rm", "doctor"))


def test_a_wrong_namespace_is_an_error_in_one_line() -> None:
    done = run("ls", namespace="no/slash", code=1)
    assert done.stderr.startswith("numpush ls: NUMPUSH_NAMESPACE='no/slash'")


def test_the_script_that_pip_installs_is_the_same_command(namespace: str) -> None:
    script = Path(sys.executable).parent / "numpush"
    done = subprocess.run(
        [script, "--version"],
        env=environment(namespace),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == f"numpush {numpush.__version__}\n"
