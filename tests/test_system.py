"""The limits of a machine, for real: a small /dev/shm, few descriptors, many processes, little memory.

Needs root and namespaces; .ci/run runs it. What the kernel does with a process that writes where no
memory is (SIGBUS, the OOM killer) can be seen only here.
"""

from __future__ import annotations

import contextlib
import gc
import os
import re
import secrets
import subprocess
import sys
from multiprocessing.reduction import ForkingPickler
from pathlib import Path

import numpy as np
import pytest

import numpush
import processes
from numpush import SArray
from numpush.shm import life, naming

pytestmark = pytest.mark.system

N = 3333


def _why_no_mounts() -> str:
    if os.geteuid() != 0:
        return "not root: cannot mount a small /dev/shm"
    probe = ["unshare", "-m", "mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", "/dev/shm"]
    try:
        done = subprocess.run(probe, capture_output=True, text=True, timeout=30, check=False)
    except OSError as error:
        return str(error)
    return done.stderr.strip() if done.returncode else ""


WHY_NO_MOUNTS = _why_no_mounts()


def run_small(size: str, code: str) -> str:
    """Run Python *code* where /dev/shm is a tmpfs of *size*; return what it prints."""
    preamble = "import os, numpy as np, numpush\nfrom numpush import SArray, errors\n"
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", f"mount -t tmpfs -o size={size} tmpfs /dev/shm && exec \"$@\"",
         "sh", sys.executable, "-W", "error", "-c", preamble + code],
        capture_output=True, text=True, timeout=processes.LIMIT, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, ""), done
    return done.stdout


@pytest.mark.skipif(bool(WHY_NO_MOUNTS), reason=WHY_NO_MOUNTS or "it can")
class TestSmallSharedMemory:
    def test_too_much_is_segment_full_and_life_goes_on(self):
        words = run_small(
            "64m",
            """
for n in (65 << 20, 1 << 40, 64 << 20):
    try:
        SArray.empty(n, "u1")
    except errors.SegmentFull as error:
        print(error)
    else:
        print("MADE", n)
keep = [SArray(np.ones(10 << 20, "u1")) for _ in range(6)]
try:
    SArray(np.ones(10 << 20, "u1"))
except errors.SegmentFull as error:
    print(error)
assert all((a == 1).all() for a in keep)
del keep
assert SArray(np.ones(60 << 20, "u1")).all()
assert not [f for f in os.listdir("/dev/shm") if ".seg." in f]
""",
        )
        assert "MADE" not in words
        assert words.count("shared memory wanted") == 4
        assert f"10.0 MiB of shared memory wanted, {4:.0f}" in words or "of 64.0 MiB free" in words
        assert "held by" in words
        assert "--shm-size" in words

    def test_warm_memory_is_trimmed_first(self):
        run_small(
            "64m",
            """
for n in (5, 6, 7):
    a = SArray(np.zeros(n << 20, "u1")); del a
assert [f for f in os.listdir("/dev/shm") if ".warm." in f]
a = SArray(np.ones(63 << 20, "u1"))
assert a.all()
assert not [f for f in os.listdir("/dev/shm") if ".warm." in f]
""",
        )

    def test_what_is_reserved_can_be_written_whatever_fills_the_rest(self):
        run_small(
            "64m",
            """
a = SArray.empty(20 << 20, "u1"); b = SArray.empty(3333)
try:
    with open("/dev/shm/filler", "wb", buffering=0) as file:
        while True: file.write(bytes(1 << 16))
except OSError as error:
    assert error.errno == 28, error
a[...] = 7; b[...] = 7
assert a.all() and b.all()
with a.lock: pass
with a.lock_range(slice(0, 9)): pass
try:
    SArray(np.zeros(3333))
except errors.SegmentFull as error:
    assert "free in /dev/shm" in str(error)
else:
    raise SystemExit("there was room")
pid = os.fork()
if not pid:
    a[0] = 8
    os._exit(0)
assert os.waitpid(pid, 0)[1] == 0 and a[0] == 8
os.unlink("/dev/shm/filler")
assert SArray(np.ones(3333)).all()
""",
        )

    def test_a_first_node_without_room_is_an_error_not_a_crash(self):
        run_small(
            "64m",
            """
with open("/dev/shm/filler", "wb", buffering=0) as file:
    try:
        while True: file.write(bytes(1 << 12))
    except OSError: pass
try:
    SArray(np.zeros(9))
except errors.SegmentFull: pass
os.unlink("/dev/shm/filler")
assert SArray(np.ones(9)).all()
""",
        )

    def test_what_killed_processes_left_makes_room(self):
        run_small(
            "64m",
            """
import signal
for _ in range(5):
    pid = os.fork()
    if not pid:
        a = SArray(np.ones(40 << 20, "u1"))
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(pid, 0)
assert SArray(np.ones(60 << 20, "u1")).all()
""",
        )


class TestManySegments:
    def test_ten_thousand_with_sixty_four_descriptors(self):
        done = processes.run_script(
            """
import os, resource, numpy as np, numpush
from numpush import SArray
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
a = [SArray(np.full(9, i)) for i in range(10_000)]
n = len(os.listdir("/proc/self/fd"))
assert n < 20, n
for i, each in enumerate(a): each[1] = -i
pid = os.fork()
if not pid:
    assert all(int(each[0]) == i and int(each[1]) == -i for i, each in enumerate(a))
    assert len(os.listdir("/proc/self/fd")) <= n
    for each in a[::100]: each[2] = 7
    b = [numpush.attach(each.handle, "ro") for each in a[::10]]
    os._exit(0)
assert os.waitpid(pid, 0)[1] == 0
assert all(each[2] == 7 for each in a[::100])
assert len(numpush.segments()) == 10_000
del a, each
assert not [f for f in os.listdir("/dev/shm") if f.startswith(os.environ["NUMPUSH_NAMESPACE"] + ".seg")]
assert len(os.listdir("/proc/self/fd")) == n
""",
            limit=300,
        )
        assert (done.returncode, done.stderr) == (0, "")


class TestManyProcesses:
    def test_sixty_four_share_two_hundred_segments(self):
        keep = [SArray(np.full(9, i)) for i in range(200)]
        pids = [processes.fork(attach_all, [a.handle for a in keep]) for _ in range(64)]
        assert [processes.wait(pid, 240) for pid in pids] == [0] * 64
        assert keep[0][1] == 64
        processes.collect_garbage()
        assert len(processes.files()) == 200
        del keep
        gc.collect()
        assert processes.files() == set()

    def test_a_hundred_at_once(self):
        a = SArray(np.zeros(N, "i8"))
        messages = [bytes(ForkingPickler.dumps(a[i:])) for i in range(100)]
        pids = [processes.fork(receive_and_add, message) for message in messages]
        assert [processes.wait(pid, 240) for pid in pids] == [0] * 100
        assert a[-1] == 100
        assert [o.leases for o in numpush.segments()] == [0]

    def test_n_processes_pay_for_the_memory_once(self):
        size = 64 << 20
        a = SArray.full(size, 1, "u1")
        reader, writer = os.pipe()
        end_reader, end = os.pipe()
        pids = [processes.fork(touch_and_stay, a, writer, end_reader) for _ in range(8)]
        for _ in pids:
            assert os.read(reader, 1) == b"x"
        pss = 0
        for pid in [*pids, os.getpid()]:
            rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
            pss += int(re.search(r"Pss_Shmem:\s+(\d+) kB", rollup)[1]) * 1024
        os.write(end, b"e" * 8)
        assert [processes.wait(pid) for pid in pids] == [0] * 8
        for fd in (reader, writer, end_reader, end):
            os.close(fd)
        assert 0.9 * size < pss < 1.25 * size


def attach_all(handles):
    arrays = [numpush.attach(handle) for handle in handles]
    assert [int(a[0]) for a in arrays] == list(range(len(arrays)))
    with arrays[0].lock(timeout=60):
        arrays[0][1] += 1
    del arrays
    life.leave()


def receive_and_add(message):
    a = ForkingPickler.loads(message)
    with a.lock(timeout=60):
        a[-1] += 1
    del a
    life.leave()


def touch_and_stay(a, writer, end):
    assert a.all()
    os.write(writer, b"x")
    os.read(end, 1)


@contextlib.contextmanager
def memory_group(limit: int):
    """A control group for memory, version 1 or 2; yields the file to write a pid to."""
    name = f"numpush-test-{secrets.token_hex(4)}"
    if os.geteuid() != 0:
        pytest.skip("not root: cannot make a control group")
    for root, file in (("memory/", "memory.limit_in_bytes"), ("", "memory.max")):
        group = Path(f"/sys/fs/cgroup/{root}{name}")
        try:
            group.mkdir()
        except OSError as error:
            why = str(error)
            continue
        try:
            if not (group / file).exists():
                why = f"{group / file}: no memory controller"
                continue
            (group / file).write_text(str(limit))
            yield group / "cgroup.procs"
            return
        finally:
            processes.eventually(lambda group=group: not (group / "cgroup.procs").read_text())
            group.rmdir()
    pytest.skip(why)


def test_a_control_group_answers_segment_full_instead_of_killing():
    namespace = processes.new_namespace()
    with memory_group(256 << 20) as procs:
        done = processes.run_script(
            f"""
import os
with open({str(procs)!r}, "w") as file:
    file.write(str(os.getpid()))
import numpy as np
from numpush import SArray, errors
try:
    SArray.empty(400 << 20, "u1")
except errors.SegmentFull as error:
    print(error)
a = SArray(np.ones(30 << 20, "u1"))
assert a.all()
""",
            namespace=namespace,
        )
    assert (done.returncode, done.stderr) == (0, "")
    assert "400.0 MiB of shared memory wanted" in done.stdout
    assert "control group" in done.stdout
    assert naming.DIR not in done.stdout.splitlines()[0]
