"""Receive 256 MB arrays that a process pushes by ZeroMQ over loopback, into shared memory; and small ones.

The pusher is pyzmq in a process of its own, which sends from where the array lies (copy=False), and
keeps sending while it is wanted to. The data of each object is touched, and the whole time counts.
Fresh: memory that nobody has used before; warm: each object is let go of before the next. pyzmq copies
into shared memory, a new one for each object, or one that is touched already.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from multiprocessing import shared_memory
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import zmq

import numpush
from harness import Race, arguments, finish
from ingest import STEP, Senders
from numpush import ingest

COPY = "pyzmq recv(), np.copyto into fresh shared memory"
SMALL = "pyzmq recv()"


def run_pusher(orders: Connection, endpoint: str, size: int) -> None:
    """Push as many arrays of *size* bytes as we are told, until we are told None."""
    data = np.arange(size // 8, dtype=float)
    sock = zmq.Context().socket(zmq.PUSH)
    sock.connect(endpoint)
    orders.send(True)
    while (n := orders.recv()) is not None:
        for _ in range(n):
            sock.send(data, copy=size < 1 << 16)
    sock.close(0)


class Pyzmq:
    """A socket of pyzmq that pulls, and shared memory to copy to."""

    def __init__(self, senders: Senders, size: int, n: int, answer: float) -> None:
        self.sock = zmq.Context.instance().socket(zmq.PULL)
        port = self.sock.bind_to_random_port("tcp://127.0.0.1")
        self.orders, _ = senders.start(run_pusher, f"tcp://127.0.0.1:{port}", size)
        self.size, self.n, self.answer = size, n, answer
        self.block = shared_memory.SharedMemory(create=True, size=size)
        np.ndarray(size // 8, float, self.block.buf)[:] = 0

    def run(self, receive: Callable[[Any, Any], None], is_fresh: bool) -> None:
        self.orders.send(self.n)
        for _ in range(self.n):
            block = self.block
            if is_fresh:
                block = shared_memory.SharedMemory(create=True, size=self.size)
            target = np.ndarray(self.size // 8, float, block.buf)
            receive(self.sock, target)
            if target[::STEP].sum() != self.answer:
                raise AssertionError("other data")
            del target
            if is_fresh:
                block.close()
                block.unlink()

    def close(self) -> None:
        self.sock.close(0)
        self.block.close()
        self.block.unlink()


def copy(sock: Any, target: Any) -> None:
    np.copyto(target, np.frombuffer(sock.recv(), float))


def copy_frame(sock: Any, target: Any) -> None:
    np.copyto(target, np.frombuffer(sock.recv(copy=False).buffer, float))


def recv_into(sock: Any, target: Any) -> None:
    sock.recv_into(target)


def numpush_receiver(
    senders: Senders, size: int, n: int, answer: float, keep: bool, **options: Any
) -> Callable[[], None]:
    link = ingest.listen("zmq+tcp://127.0.0.1:0", dtype=float, **options)
    orders, _ = senders.start(run_pusher, link.url.removeprefix("zmq+"), size)

    def receive() -> None:
        kept = []
        orders.send(n)
        for _ in range(n):
            array = link.recv(60)
            if array[::STEP].sum() != answer:
                raise AssertionError("other data")
            if keep:
                kept.append(array)
            del array

    return receive


def small_race(senders: Senders, n: int) -> Race:
    race = Race(f"Receive {n} messages of 1 KB", SMALL)
    sock = zmq.Context.instance().socket(zmq.PULL)
    port = sock.bind_to_random_port("tcp://127.0.0.1")
    theirs, _ = senders.start(run_pusher, f"tcp://127.0.0.1:{port}", 1000)
    link = ingest.listen("zmq+tcp://127.0.0.1:0", dtype=float)
    ours, _ = senders.start(run_pusher, link.url.removeprefix("zmq+"), 1000)

    def pyzmq() -> None:
        theirs.send(n)
        for _ in range(n):
            sock.recv()

    def numpush_small() -> None:
        ours.send(n)
        for _ in range(n):
            link.recv(60)

    race.add(SMALL, pyzmq)
    race.add("numpush, each an SArray", numpush_small)
    return race


def main() -> None:
    args = arguments(__doc__, mib=256, objects=4, small=100_000)
    size, n = args.mib << 20, args.objects
    answer = float(np.arange(size // 8, dtype=float)[::STEP].sum())
    what = f"{n} arrays of {args.mib} MiB float64 from a pyzmq PUSH"
    seconds = Race(f"Receive {what}", COPY)
    cpu = Race(f"CPU of the receiving process: {what}", COPY, time.process_time)
    senders = Senders()
    theirs: list[Pyzmq] = []

    def add(name: str, run: Callable[[], None], before: Callable[[], Any]) -> None:
        for race in (seconds, cpu):
            race.add(name, run, before=before)

    def pyzmq(name: str, receive: Callable[[Any, Any], None], is_fresh: bool) -> None:
        one = Pyzmq(senders, size, n, answer)
        theirs.append(one)
        add(name, lambda: one.run(receive, is_fresh), lambda: None)

    def ours(name: str, keep: bool, **options: Any) -> None:
        receive = numpush_receiver(senders, size, n, answer, keep, **options)
        add(name, receive, numpush.gc if keep else lambda: None)

    pyzmq(COPY, copy, True)
    pyzmq("pyzmq recv(), np.copyto into touched shared memory", copy, False)
    pyzmq("pyzmq recv(copy=False), np.copyto into fresh shared memory", copy_frame, True)
    pyzmq("pyzmq recv(copy=False), np.copyto into touched shared memory", copy_frame, False)
    if hasattr(zmq.Socket, "recv_into"):
        pyzmq("pyzmq recv_into() fresh shared memory", recv_into, True)
        pyzmq("pyzmq recv_into() touched shared memory", recv_into, False)
    for io in ("auto", "splice", "recv"):
        ours(f"numpush, fresh memory, io={io!r}", True, io=io)
        ours(f"numpush, warm memory, io={io!r}", False, io=io)
    small = small_race(senders, args.small)
    try:
        seconds.run(args.rounds)
        cpu.run(args.rounds)
        small.run(args.rounds)
        finish([seconds, cpu, small], args.json)
    finally:
        senders.stop()
        for one in theirs:
            one.close()


if __name__ == "__main__":
    main()
