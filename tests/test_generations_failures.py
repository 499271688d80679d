"""Replacing the structure of a shared frame when things go wrong: it is as it was, or as it is to be."""

from __future__ import annotations

import os
import signal

import numpy as np
import pytest

import numpush
import processes
from numpush import SDataFrame, SegmentFull
from numpush.ffi import step
from numpush.layout import pack
from numpush.shm import naming, space
from numpush.shm.errors import SegmentDamaged
from numpush.shm.extents import read_description, read_place
from shared_frames import equal, file_size, mixed

pytestmark = pytest.mark.filterwarnings("ignore:The inplace keyword")
N = 1000


def test_no_room_changes_nothing(monkeypatch):
    sdf = SDataFrame(mixed())
    sdf["new"] = 1
    wanted, size = sdf.to_pandas(), file_size(sdf)
    monkeypatch.setattr(space, "room", lambda wanted=0: space.Room(0, 64 << 20, naming.DIR))
    with pytest.raises(SegmentFull, match="wanted"):
        sdf["more"] = np.zeros(N)
    with pytest.raises(SegmentFull):
        sdf.sort_values("a", ascending=False, inplace=True)
    equal(sdf.to_pandas(), wanted)
    assert file_size(sdf) == size
    monkeypatch.undo()
    sdf["more"] = np.zeros(N)
    equal(sdf.to_pandas(), wanted.assign(more=0.0))


def test_an_exception_or_an_interrupt_changes_nothing():
    sdf = SDataFrame(mixed())

    def interrupt(key: object) -> object:
        raise KeyboardInterrupt

    for error, operate in (
        (KeyError, lambda: sdf.drop(columns="none", inplace=True)),
        (KeyError, lambda: sdf.pop("none")),
        (ValueError, lambda: sdf.insert(0, "a", 1)),
        (KeyboardInterrupt, lambda: sdf.sort_values("a", key=interrupt, inplace=True)),
        (TypeError, lambda: sdf.__setitem__("o", [object() for _ in range(N)] + [lambda: 0])),
    ):
        with pytest.raises((error, ValueError)):
            operate()
    assert sdf._window.store.generation == 0
    sdf["new"] = 1
    equal(sdf.to_pandas(), mixed().assign(new=1))


@pytest.mark.crash
@pytest.mark.parametrize(
    "operate",
    [
        lambda d: d.__setitem__("new", 1.5),
        lambda d: d.__delitem__("b"),
        lambda d: d.loc.__setitem__((0, "s"), "other"),
        lambda d: d.compact(),
    ],
    ids=["new", "del", "string", "compact"],
)
def test_killed_at_every_step(operate):
    """The frame is as before, or as after; it can be changed on, and the lock is free."""
    plain = mixed()
    sdf = SDataFrame(plain)
    sdf["n"] = 1
    plain["n"] = 1
    after = plain.copy()
    if operate.__code__.co_names != ("compact",):
        operate(after)
    handle, n, n_before = sdf.handle, 0, 0
    while True:
        n += 1

        def in_child(handle: object = handle, n: int = n) -> None:
            mine = numpush.attach(handle)
            step.arm(n)
            operate(mine)
            step.arm(0)

        pid = os.fork()
        if not pid:
            try:
                in_child()
            finally:
                os._exit(0)
        code = processes.wait(pid)
        found = numpush.attach(sdf.name, "ro").to_pandas()
        is_before = found.shape == plain.shape and found.equals(plain)
        assert is_before or found.equals(after), n
        n_before += is_before
        if not is_before and code == 0:
            break
        if not is_before:
            sdf = SDataFrame(plain)
            handle = sdf.handle
        elif code == 0:
            break
        sdf["other"] = 1
        del sdf["other"]
        assert code == -signal.SIGKILL
        numpush.gc()
    assert n_before > 3


def test_killed_while_it_holds_the_structure():
    """Who comes next takes over."""
    sdf = SDataFrame(mixed())

    def in_child() -> None:
        def die(_: object) -> object:
            os.kill(os.getpid(), signal.SIGKILL)
            raise AssertionError

        sdf.sort_values("a", key=die, inplace=True)

    pid = os.fork()
    if not pid:
        in_child()
        os._exit(1)
    assert processes.wait(pid) == -signal.SIGKILL
    sdf["new"] = 1
    equal(sdf.to_pandas(), mixed().assign(new=1))
    numpush.gc()


def test_a_damaged_description_is_refused():
    sdf = SDataFrame(mixed())
    sdf["new"] = 1
    segment = sdf._window.store.segment
    schema = sdf._window.store
    size = file_size(sdf) - segment.data_offset
    good = pack({"schema": {}, "blocks": []})
    for offset, n in ((0, 10), (size, 10), (size - 5, 10), (1 << 62, 1 << 62), (1 << 63, 8)):
        with pytest.raises((SegmentDamaged, OverflowError)):
            read_description(segment, offset, n)
    for extents, block in (
        ([[0, 4096]], [0, 8]),
        ([[size, 4096]], [size, 8]),
        ([[1 << 40, 4096]], [1 << 40, 8]),
        ([[4097, 4096]], [4097, 8]),
        ([["x", 1]], [0, 8]),
        ([[4096, -1]], [0, 8]),
        ([[4096]], [0, 8]),
        ([], [-8, 8]),
        ([], [0, 1 << 62]),
    ):
        broken = pack({"schema": {}, "blocks": [block], "extents": extents})
        with_one = SDataFrame(mixed())
        with_one["new"] = 1
        place = write_description(with_one, broken)
        handle = with_one.partitions(2)[0].handle
        forged = type(handle)(handle.name, handle.identity, "rw", 0, 5, 99, place)
        with pytest.raises(SegmentDamaged):
            numpush.attach(forged)
    assert good
    assert schema.generation == 1


def write_description(sdf: SDataFrame, data: bytes) -> tuple[int, int]:
    """Write *data* where the description of its generation lies."""
    _, (offset, n) = read_place(sdf._window.store.segment)
    assert len(data) <= n
    segment = sdf._window.store.segment
    with segment.opened() as fd:
        os.pwrite(fd, data, segment.data_offset + offset)
    return offset, len(data)
