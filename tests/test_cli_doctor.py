"""`numpush doctor`: what it finds on machines of many kinds, and what it says to type."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import processes
from commands import environment, holder, run
from numpush.cli import doctor, remedies
from numpush.cli.checks import limits, packages


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
    versions["isal"] = "99.0"
    monkeypatch.setattr(packages, "_version", versions.get)
    monkeypatch.setattr(packages.platform, "machine", lambda: "x86_64")
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
    assert "isal 99.0" in found.found
    monkeypatch.setattr(packages.platform, "machine", lambda: "riscv64")  # it has no isal
    assert "isal" not in packages.check_extras().found


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
