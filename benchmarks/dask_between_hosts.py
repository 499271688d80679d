"""A frame from one host to another: as Dask sends it, with numpush.adapters.dask, and by numpush's own wire.

Two hosts are namespaces joined by a veth, each with a /dev/shm of its own (needs root). There are two of
them for each of both clusters, which all run at once and take turns: a scheduler, a worker on the first host,
two on the second. A transfer is timed by the worker that gets the data, from its request on, and every time
of another frame; the wire's from `send` to the acknowledgement that all is there.

Then, how much more memory than before the second host uses at its peak, in sizes of the frame, where one of
its workers reads the frame, and where both do.
"""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from distributed import Client, wait

import dask_hosts
from dask_adapter import DASK, N_COLUMNS, Elapsed, fetch, make_frame, total
from harness import Race, arguments, finish
from numpush import ingest

os.environ["PYTHONPATH"] = str(Path(__file__).parent)  # workers find dask_adapter
ADAPTER, WIRE = "numpush, Dask's connection into a segment", "numpush's wire"
KEY = "a key of this benchmark"
PORT = 8700


# -- what workers do


def watch(has_shm: bool, dask_worker: Any = None) -> None:
    """Watch what this worker uses more than at first; *has_shm*: and its host's /dev/shm, warm memory too."""
    import threading

    base = getattr(dask_worker, "benchmark", {}).get("base", used(has_shm))
    state = dask_worker.benchmark = {"peak": 0, "is_on": True, "base": base}

    def look() -> None:
        while state["is_on"]:
            state["peak"] = max(state["peak"], used(has_shm) - base)
            time.sleep(0.002)

    threading.Thread(target=look, daemon=True).start()


def stop(dask_worker: Any = None) -> int:
    dask_worker.benchmark["is_on"] = False
    return int(dask_worker.benchmark["peak"])


def used(has_shm: bool) -> int:
    import os

    sizes = {}
    with open("/proc/self/status") as file:
        for line in file:
            name, _, value = line.partition(":")
            if name in ("VmRSS", "RssShmem"):
                sizes[name] = int(value.split()[0]) << 10
    room = os.statvfs("/dev/shm")
    shm = (room.f_blocks - room.f_bfree) * room.f_frsize if has_shm else 0
    return sizes["VmRSS"] - sizes["RssShmem"] + shm


# -- what runs on the first host of a cluster, and does what it reads from its standard input


def serve(address: str, mib: int) -> None:
    with Client(address, timeout=60) as client:
        client.wait_for_workers(3, timeout=60)
        workers = {w["name"]: a for a, w in client.scheduler_info()["workers"].items()}

        def submit(name: str, function: Any, *args: Any) -> Any:
            return client.submit(function, *args, workers=workers[name], pure=False)

        def transfer(mib: int) -> float:
            frame = submit("a0", make_frame, mib << 10)
            wait(frame)
            found = client.run(fetch, frame.key, workers["a0"], workers=[workers["b0"]])
            return float(found[workers["b0"]])

        def peak(readers: list[str]) -> float:
            frame = submit("a0", make_frame, mib << 10)
            wait(frame)
            for name in ("b0", "b1"):
                client.run(watch, name == "b0", workers=[workers[name]])
            for name in readers:  # and all keep it
                submit(name, total, frame).result()
            at = [workers["b0"], workers["b1"]]
            return sum(client.run(stop, workers=at).values()) / (mib << 20)

        transfer(1)  # a connection
        peak([])  # what a worker uses before
        actions = {
            "transfer": lambda: transfer(mib),
            "peak of one": lambda: peak(["b0"]),
            "peak of two": lambda: peak(["b0", "b1"]),
        }
        print(json.dumps("ready"), flush=True)
        for line in sys.stdin:
            print(json.dumps(actions[line.strip()]()), flush=True)


def send(address: str, mib: int) -> None:
    """Send frames by numpush's wire to `receive`."""
    with ingest.connect(f"tcp://{address}:{PORT}", key=KEY, timeout=60) as link:
        link.send(make_frame(1 << 10))
        link.flush(timeout=60)
        print(json.dumps("ready"), flush=True)
        for _ in sys.stdin:
            frame = make_frame(mib << 10)
            start = time.perf_counter()
            link.send(frame)
            link.flush(timeout=60)
            print(json.dumps(time.perf_counter() - start), flush=True)


def receive(address: str) -> None:
    with ingest.listen(f"tcp://{address}:{PORT}", key=KEY) as link:
        print(json.dumps("ready"), flush=True)
        while True:
            frame = link.recv()
            assert frame.iloc[-1, -1] > 0
            del frame


# -- all of them


class Remote:
    """A process of this script on a host, and what it is asked for."""

    def __init__(self, host: dask_hosts.Host, *words: str) -> None:
        self.process = subprocess.Popen(
            host.command(sys.executable, __file__, *words),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.read()

    def read(self) -> Any:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"it ended: {self.process.args}")
        return json.loads(line)

    def ask(self, what: str) -> float:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{what}\n")
        self.process.stdin.flush()
        return float(self.read())

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()


@contextlib.contextmanager
def remotes(mib: int) -> Iterator[dict[str, Remote]]:
    with contextlib.ExitStack() as stack:
        made = {}
        for name in (DASK, ADAPTER):
            hosts = stack.enter_context(dask_hosts.two_hosts())
            address = dask_hosts.start_cluster(hosts, (1, 2), adapter=name != DASK)
            made[name] = Remote(hosts[0], "--serve", address, "--mib", str(mib))
            stack.callback(made[name].close)
        there = hosts[1].address
        receiver = Remote(hosts[1], "--receive", there)
        stack.callback(receiver.close)
        made[WIRE] = Remote(hosts[0], "--send", there, "--mib", str(mib))
        stack.callback(made[WIRE].close)
        yield made


def main() -> None:
    args = arguments(__doc__, mib=256, serve="", send="", receive="")
    if args.serve:
        serve(args.serve, args.mib)
    elif args.send:
        send(args.send, args.mib)
    elif args.receive:
        receive(args.receive)
    else:
        compare(args)


def compare(args: Any) -> None:
    why = dask_hosts.why_no_hosts()
    if why:
        print(f"no hosts: {why}")
        finish([], args.json)
        return
    clock = Elapsed()
    shape = f"{args.mib} MiB ({(args.mib << 20) // 8 // N_COLUMNS}, {N_COLUMNS}) float64"
    race = Race(f"From one host to another: a frame, {shape}", DASK, clock)
    with remotes(args.mib) as made:
        for name, remote in made.items():
            race.add(
                name,
                lambda remote=remote: clock.add(remote.ask("transfer")),
                before=lambda: None,  # once a turn
            )
        race.run(args.rounds)
        finish([race], args.json)
        for readers in ("one", "two"):
            for name in (DASK, ADAPTER):
                peak = statistics.median(made[name].ask(f"peak of {readers}") for _ in range(3))
                print(
                    f"Peak of the second host, {readers} of its workers reading: {name} {peak:.2f}"
                )


if __name__ == "__main__":
    main()
