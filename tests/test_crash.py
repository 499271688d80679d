"""Kill a process at every point of every operation, then look at what is left.

Two ways to find the points: the steps marked in the C code (NPUSH_STEP stands between any two stores
to shared memory), and the lines of shm/*.py, of which each is tried. Afterwards, each time:

- nothing hangs: all waits have a limit;
- what the mutex and the range locks guard is whole, or `owner_died` says that it may not be;
- the segment works: lock, range lock, update, send, receive, attach;
- after one sweep nothing is left but what living processes use.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
import time
from collections.abc import Callable
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest

import numpush
import processes
from numpush import SArray
from numpush.ffi import step
from numpush.shm import life, naming

pytestmark = pytest.mark.crash

N = 3333
BIG = 3 << 17  #: elements; enough to be kept warm
SHM_SOURCE = str(Path(life.__file__).parent)
#: [0] and [1] agree under the mutex, [2] and [3] under their range lock, [4:] under update.
FIELDS = 64

Act = Callable[[], Any]


def corpse() -> None:
    """Die with everything that a process can have."""
    a = [SArray(np.zeros(n)) for n in (9, BIG)]
    warm = SArray(np.zeros(BIG))
    del warm
    a[0].lock.lock()
    ForkingPickler.dumps(a[1])
    numpush.publish(f"corpse-{os.getpid()}", a[0])
    os.kill(os.getpid(), signal.SIGKILL)


def increment(a: SArray, i: int) -> None:
    a[i] += 1
    a[i + 1] += 1


# What a child does. Each gets a name of a segment or a message, prepares, and returns the act.


def create(data: bytes) -> Act:
    return lambda: SArray(np.arange(N))


def create_named(data: bytes) -> Act:
    return lambda: SArray(np.arange(N), name="crash-named")


def create_big(data: bytes) -> Act:
    return lambda: SArray(np.arange(BIG))


def create_and_drop_big(data: bytes) -> Act:
    def act() -> None:
        a = SArray(np.arange(BIG))
        del a

    return act


def claim_warm(data: bytes) -> Act:
    a = SArray(np.zeros(BIG))
    del a
    return lambda: SArray(np.ones(BIG))


def claim_warm_by_name(data: bytes) -> Act:
    a = SArray(np.zeros(BIG))
    del a
    return lambda: SArray(np.ones(BIG), name="crash-named")


def attach(data: bytes) -> Act:
    return lambda: numpush.attach(data.decode())


def attach_and_detach(data: bytes) -> Act:
    def act() -> None:
        a = numpush.attach(data.decode(), "cow")
        del a

    return act


def lease(data: bytes) -> Act:
    a = numpush.attach(data.decode())
    return lambda: ForkingPickler.dumps(a)


def receive(data: bytes) -> Act:
    return lambda: ForkingPickler.loads(data)


def lock(data: bytes) -> Act:
    a = numpush.attach(data.decode())

    def act() -> None:
        with a.lock as guard:
            if guard.owner_died:
                a[1] = a[0]
            increment(a, 0)

    return act


def lock_range(data: bytes) -> Act:
    a = numpush.attach(data.decode())

    def act() -> None:
        with a.lock_range(slice(2, 4)) as guard:
            if guard.owner_died:
                a[3] = a[2]
            increment(a, 2)

    return act


def update(data: bytes) -> Act:
    a = numpush.attach(data.decode())

    def act() -> None:
        with a.update():
            a[4:] += 1

    return act


def leave(data: bytes) -> Act:
    keep = [numpush.attach(data.decode()), SArray(np.zeros(9)), SArray(np.zeros(BIG))]
    ForkingPickler.dumps(keep[0])
    ForkingPickler.dumps(keep[1])
    return lambda: (life.leave(), keep)


def sweep(data: bytes) -> Act:
    return lambda: processes.collect_garbage()


def fork(data: bytes) -> Act:
    keep = [numpush.attach(data.decode()), SArray(np.zeros(9))]

    def act() -> None:
        processes.wait(processes.fork(lambda: keep), 20)

    return act


def publish(data: bytes) -> Act:
    a = numpush.attach(data.decode())

    def act() -> None:
        numpush.publish("crash-published", a)
        numpush.attach("crash-published")
        numpush.withdraw("crash-published")

    return act


SCENARIOS = [
    create,
    create_named,
    create_big,
    create_and_drop_big,
    claim_warm,
    claim_warm_by_name,
    attach,
    attach_and_detach,
    lease,
    receive,
    lock,
    lock_range,
    update,
    leave,
    sweep,
    fork,
    publish,
]


# How it is killed.


def arm_steps(n: int) -> None:
    step.arm(n)


def arm_lines(n: int) -> None:
    left = n

    def trace(frame: FrameType, event: str, arg: Any) -> Any:
        nonlocal left
        if not frame.f_code.co_filename.startswith(SHM_SOURCE):
            return None
        if event == "line":
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
        return trace

    sys.settrace(trace)


def child(
    scenario: Callable[[bytes], Act], reader: int, arm: Callable[[int], None], n: int
) -> None:
    act = scenario(os.read(reader, 65536))
    arm(n)
    try:
        keep = act()
    finally:
        sys.settrace(None)
        step.arm(0)
    del keep


class World:
    """A segment that a child is told of after its birth, and what is true of it afterwards."""

    def __init__(self) -> None:
        self.a = SArray(np.zeros(FIELDS, "i8"))
        self.file = naming.SEGMENT + self.a.name

    def kill_at(self, scenario: Callable[[bytes], Act], arm: Callable[[int], None], n: int) -> bool:
        """Kill a child at the *n*-th point; False: it has fewer."""
        reader, writer = os.pipe()
        hidden = SArray(self.a)  # made after the fork, so that the child must attach
        pid = processes.fork(child, scenario, reader, arm, n)
        self.a = SArray(hidden)
        self.file = naming.SEGMENT + self.a.name
        del hidden
        gc.collect()
        if scenario is sweep:
            processes.run_forked(corpse)
        message = ForkingPickler.dumps(self.a) if scenario is receive else self.a.name.encode()
        os.write(writer, message)
        code = processes.wait(pid)
        os.close(writer)
        assert os.read(reader, 1) == b""  # grandchildren, who hold the other end, are going too
        os.close(reader)
        if scenario is fork:
            time.sleep(0.02)  # they close the pipe a moment before their node
        assert code in (0, -signal.SIGKILL), f"{scenario.__name__}: exit {code} at point {n}"
        if scenario is receive:
            ForkingPickler.loads(message)  # it may have been killed before it gave our lease back
        self.check()
        return code != 0

    def check(self) -> None:
        a = self.a
        with a.lock(timeout=15) as guard:
            assert a[0] == a[1] or guard.owner_died
            a[1] = a[0]
        with a.lock_range(slice(2, 4), timeout=15) as part:
            assert a[2] == a[3] or part.owner_died
            a[3] = a[2]
        was_torn = a.version % 2
        assert was_torn or (a[4:] == a[4]).all()
        with a.update(timeout=15):
            a[4:] = 0
        assert a.version % 2 == 0
        assert np.shares_memory(ForkingPickler.loads(ForkingPickler.dumps(a[3:])), a)
        numpush.attach(a.name, "ro")
        processes.collect_garbage()
        assert processes.files() == {self.file}
        holders = [h for o in numpush.segments() for h in o.holders]
        assert [(h.pid, h.leases) for h in holders] == [(os.getpid(), 0)]
        SArray(np.zeros(9), name="crash-named")  # the name is free again
        with pytest.raises(numpush.SegmentNotFound):
            numpush.attach("crash-published")


def names(scenarios: list[Any]) -> list[str]:
    return [scenario.__name__ for scenario in scenarios]


@pytest.mark.parametrize("scenario", SCENARIOS, ids=names(SCENARIOS))
def test_killed_at_every_step_of_the_c_code(scenario):
    world = World()
    n = 1
    while world.kill_at(scenario, arm_steps, n):
        n += 1
    assert n > 1 or scenario in (publish,), "no step was reached"


@pytest.mark.parametrize("scenario", SCENARIOS, ids=names(SCENARIOS))
def test_killed_at_every_line_of_the_runtime(scenario):
    world = World()
    n = 1
    stride = 5 if scenario is sweep else 1  # it alone has hundreds of lines, of the same few loops
    while world.kill_at(scenario, arm_lines, n):
        n += stride
    assert n > 3, "no line was reached"


def test_two_processes_killed_in_the_same_operation():
    """The second one repairs, or takes over, what the first one left, and is killed in it."""
    world = World()
    rng = np.random.default_rng(11)
    for scenario in [s for s in SCENARIOS if s is not receive]:
        for _ in range(6):
            pids, ends = [], []
            for _ in range(3):
                reader, writer = os.pipe()
                ends += [reader, writer]
                os.write(writer, world.a.name.encode())
                pids.append(
                    processes.fork(child, scenario, reader, arm_steps, int(rng.integers(1, 25)))
                )
            for pid in pids:
                processes.wait(pid)
            for fd in ends:
                os.close(fd)
            world.check()
