"""Receive 256 MB objects from another process, into shared memory: ours, Arrow Flight, Dask, and C.
And many small arrays.

Each contestant receives several objects from a sender of its own, which keeps sending while it is
wanted to; the data of each is touched, and the whole time counts. Fresh: memory that nobody has used
before; warm: each object is let go of before the next. What arrives elsewhere (Flight) is copied into
shared memory, fresh or touched before.
"""

from __future__ import annotations

import multiprocessing as mp
import multiprocessing.connection
import os
import socket
import time
from collections.abc import Callable
from multiprocessing import shared_memory
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import pandas as pd

import numpush
from harness import Race, arguments, finish, installed
from numpush import SArray, SDataFrame, ingest
from numpush.ffi import stream

STEP = 512  #: every page is touched
N_COLUMNS = 8
SMALL = "numpush, into segments that they share"


def make_frame(mib: int) -> pd.DataFrame:
    n = (mib << 20) // 8 // N_COLUMNS
    return pd.DataFrame(
        np.arange(n * N_COLUMNS, dtype=float).reshape(N_COLUMNS, n).T, columns=list("abcdefgh")
    )


def touch(frame: pd.DataFrame) -> float:
    """Read a number from each page of a frame of one block."""
    return float(frame.to_numpy().T[:, ::STEP].sum())


# -- senders: each a process that sends as many as it is told, until it is told None


def run_numpush(orders: Connection, mib: int, url: str, options: dict[str, Any]) -> None:
    frame = make_frame(mib)
    obj = frame if options.pop("plain", False) else SDataFrame(frame)
    with ingest.connect(url, **options) as link:
        orders.send(True)
        while (n := orders.recv()) is not None:
            for _ in range(n):
                link.send(obj)


def run_flight(orders: Connection, mib: int) -> None:
    import pyarrow as pa
    from pyarrow import flight

    table = pa.Table.from_pandas(make_frame(mib), preserve_index=False)

    class Server(flight.FlightServerBase):  # type: ignore[misc]  # has no types
        def do_get(self, context: Any, ticket: Any) -> Any:
            return flight.RecordBatchStream(table)

    server = Server("grpc://127.0.0.1:0")
    orders.send(server.port)
    orders.recv()
    server.shutdown()


def run_raw(orders: Connection, mib: int, port: int) -> None:
    data = np.arange((mib << 20) // 8, dtype=float)
    with socket.create_connection(("127.0.0.1", port)) as sock:
        sock.setblocking(False)
        orders.send(True)
        while (n := orders.recv()) is not None:
            for _ in range(n):
                stream.send(sock.fileno(), data, 0, False, 10**12)


def run_small(orders: Connection, url: str) -> None:
    array = np.arange(128.0)
    with ingest.connect(url) as link:
        orders.send(True)
        while (n := orders.recv()) is not None:
            for _ in range(n):
                link.send(array)


def run_pickles(orders: Connection, address: Any) -> None:
    array = np.arange(128.0)
    with mp.connection.Client(address) as link:
        orders.send(True)
        while (n := orders.recv()) is not None:
            for _ in range(n):
                link.send(array)


class Senders:
    """The processes that send, ended together."""

    def __init__(self) -> None:
        self.context = mp.get_context("spawn")
        self.started: list[tuple[Any, Connection]] = []

    def start(self, function: Callable[..., None], *args: Any) -> tuple[Connection, Any]:
        """Start one; return the pipe of its orders, and what it said when it was ready."""
        ours, theirs = self.context.Pipe()
        process = self.context.Process(target=function, args=(theirs, *args), daemon=True)
        process.start()
        self.started.append((process, ours))
        return ours, ours.recv()

    def stop(self) -> None:
        for process, orders in self.started:
            orders.send(None)
            process.join(20)


# -- receivers


def numpush_receiver(
    senders: Senders, args: Any, url: str, answer: float, keep: bool, **options: Any
) -> Callable[[], None]:
    for_sender = {"plain": options.pop("plain", False)}
    link = ingest.listen(url, **options)
    orders, _ = senders.start(run_numpush, args.mib, link.url, for_sender)

    def receive() -> None:
        kept = []
        orders.send(args.objects)
        for _ in range(args.objects):
            frame = link.recv(60)
            if touch(frame) != answer:
                raise AssertionError("other data")
            if keep:
                kept.append(frame)
            del frame

    return receive


def flight_receiver(
    senders: Senders, args: Any, answer: float, is_fresh: bool
) -> Callable[[], None]:
    from pyarrow import flight

    _, port = senders.start(run_flight, args.mib)
    client = flight.connect(f"grpc://127.0.0.1:{port}")
    shape = N_COLUMNS, (args.mib << 20) // 8 // N_COLUMNS
    touched = SArray.zeros(shape)

    def receive() -> None:
        kept = []
        for _ in range(args.objects):
            target = touched
            if is_fresh:
                block = shared_memory.SharedMemory(create=True, size=args.mib << 20)
                block.unlink()
                target = np.ndarray(shape, float, block.buf)
                kept.append((block, target))
            table = client.do_get(flight.Ticket(b"")).read_all()
            for i, column in enumerate(table.columns):
                at = 0
                for chunk in column.chunks:
                    target[i, at : at + len(chunk)] = chunk.to_numpy()
                    at += len(chunk)
            if float(target[:, ::STEP].sum()) != answer:
                raise AssertionError("other data")
            del target
        while kept:
            block, _ = kept.pop()
            del _
            block.close()

    return receive


def raw_receiver(senders: Senders, args: Any) -> Callable[[], None]:
    server = socket.create_server(("127.0.0.1", 0))
    orders, _ = senders.start(run_raw, args.mib, server.getsockname()[1])
    sock, _ = server.accept()
    sock.setblocking(False)
    memory = SArray.zeros(args.mib << 20, "u1")
    memory[:] = 1
    address = memory.__array_interface__["data"][0]

    def receive() -> None:
        orders.send(args.objects)
        for _ in range(args.objects):
            done, code = stream.recv(sock.fileno(), address, len(memory), 10**12)
            if code or done != len(memory):
                raise AssertionError(f"{done} bytes, error {code}")
            memory[:: STEP * 8].sum()

    return receive


def small_receiver(senders: Senders, n: int, url: str) -> Callable[[], None]:
    link = ingest.listen(url)
    orders, _ = senders.start(run_small, link.url)
    return lambda: check_small(orders, n, lambda: link.recv(60))


def pickles_receiver(senders: Senders, n: int) -> Callable[[], None]:
    """What multiprocessing has for it: each array is pickled, and unpickled into private memory."""
    listener = mp.connection.Listener(("127.0.0.1", 0))
    orders, _ = senders.start(run_pickles, listener.address)
    connection = listener.accept()
    return lambda: check_small(orders, n, connection.recv)


def check_small(orders: Connection, n: int, receive: Callable[[], Any]) -> None:
    orders.send(n)
    total = 0.0
    for _ in range(n):
        total += receive()[127]
    if total != n * 127:
        raise AssertionError("other data")


def dask_receiver(args: Any, answer: float) -> tuple[Callable[[], None], Callable[[], None]]:
    from distributed import Client, LocalCluster

    cluster = LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address=None, memory_limit=0
    )
    client = Client(cluster)
    sender, receiver = sorted(client.scheduler_info()["workers"])
    made = client.submit(make_frame, args.mib, workers=[sender])
    made_size = client.submit(len, made, workers=[sender]).result()

    def receive() -> None:
        told = client.run(fetch, args.objects, made.key, sender, workers=[receiver])[receiver]
        if made_size and told != answer:
            raise AssertionError("other data")

    def stop() -> None:
        client.close()
        cluster.close()

    return receive, stop


async def fetch(n: int, key: str, sender: str, dask_worker: Any) -> float:
    """On a worker: get a frame from another one as often, as tasks get what they depend on."""
    from distributed.worker import get_data_from_worker

    for _ in range(n):
        response = await get_data_from_worker(dask_worker.rpc, [key], sender)
        told = touch(response["data"][key])
        del response
    return told


def main() -> None:
    args = arguments(__doc__, mib=256, objects=4, small=100_000)
    answer = touch(make_frame(args.mib))
    what = f"{args.objects} frames of {args.mib} MiB (8 float64 columns)"
    base = "numpush, TCP, fresh memory"
    frames = Race(f"Receive {what} from another process", base)
    cpu = Race("CPU of the receiving process for that", base, time.process_time)
    senders = Senders()
    stops: list[Callable[[], None]] = [senders.stop]
    tcp, unix = "tcp://127.0.0.1:0", f"unix://@numpush-bench-{os.getpid()}"

    def ours(name: str, url: str, keep: bool, **options: Any) -> None:
        receive = numpush_receiver(senders, args, url, answer, keep, **options)
        for race in (frames, cpu):
            race.add(name, receive, before=numpush.gc if keep else lambda: None)

    ours(base, tcp, keep=True)
    ours("the same, io='splice'", tcp, keep=True, io="splice")
    ours("the same, from a plain DataFrame", tcp, keep=True, plain=True)
    ours("numpush, TCP, warm memory", tcp, keep=False)
    ours("warm, io='splice'", tcp, keep=False, io="splice")
    ours("numpush, unix socket, fresh memory", unix + "f", keep=True)
    ours("numpush, unix socket, warm memory", unix + "w", keep=False)
    raw = raw_receiver(senders, args)
    for race in (frames, cpu):
        race.add("a bare loop of recv in C, into touched memory", raw)
    if installed("pyarrow"):
        for name, is_fresh in (("Flight, fresh", True), ("Flight, touched", False)):
            receive = flight_receiver(senders, args, answer, is_fresh)
            for race in (frames, cpu):
                race.add(f"Arrow {name} shared memory, by a copy", receive)
    else:
        frames.missing.append("Arrow Flight")
    if installed("distributed"):
        dask, stop = dask_receiver(args, answer)
        stops.append(stop)
        frames.add("Dask, worker to worker (into private memory)", dask)
    else:
        frames.missing.append("Dask, worker to worker")
    small = Race(f"Receive {args.small} arrays of 1 KB from another process", f"{SMALL}, TCP")
    small.add(f"{SMALL}, TCP", small_receiver(senders, args.small, tcp))
    small.add(f"{SMALL}, unix socket", small_receiver(senders, args.small, unix + "s"))
    small.add("multiprocessing.connection, TCP", pickles_receiver(senders, args.small))
    for race in (frames, cpu, small):
        race.run(args.rounds)
    for stop in stops:
        stop()
    finish([frames, cpu, small], args.json)


if __name__ == "__main__":
    main()
