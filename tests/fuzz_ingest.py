"""Damaged bytes for every parser of numpush.ingest: `make fuzz` runs a million, the tests ten thousand.

Whatever comes, a parser gives a result or one of our errors; a live link ends that connection and
goes on with others; nothing is left in memory, no descriptor, no thread.
"""

from __future__ import annotations

import argparse
import collections
import logging
import os
import random
import sys
import time

if __name__ == "__main__":
    os.environ["NUMPUSH_NAMESPACE"] = f"npfuzz-{os.getpid()}"

import numpy as np
import pandas as pd

from ingest_links import LIMIT, Bare, threads
from numpush import WaitTimeout, ingest
from numpush.ingest import compress, landing, wire, zmq_messages, zmtp
from numpush.ingest.url import parse
from numpush.shm import naming

_PIECES = (b"\x00", b"\xff", b"\x80", b"\xc0", b"\xdf\xff\xff\xff\xff", b"\xcf" + b"\xff" * 8)
_URLS = (
    *("tcp://127.0.0.1:9000", "tls+tcp://[::1]:1", "unix:///run/x.sock", "unix://@name"),
    *("zmq+tcp://127.0.0.1:1?type=sub&subscribe=a%20b", "tipc://0x1000:7", "tipc+rdm://64:0"),
)


def samples():
    """Give whole frames, by which the damaged ones are made."""
    n = 333
    frame = pd.DataFrame(
        {
            "x": np.arange(n) / 3,
            "t": [f"r{i}" for i in range(n)],
            "k": pd.Categorical(["a", "b", "c"] * (n // 3)),
            "d": pd.date_range("2026", periods=n, tz="UTC"),
            "m": pd.array([1, None, 3] * (n // 3), dtype="Int64"),
        }
    )
    yield from (wire.encode(np.arange(99.0)), wire.encode(frame), wire.encode(frame["t"]))
    yield wire.encode(frame, checksum=True)


SAMPLES = list(samples())
BODIES = [b"".join(bytes(part) for part in each.parts()) for each in SAMPLES]


def damage(data: bytes, rng: random.Random) -> bytes:
    """Flip bits, cut, repeat and put in numbers that are large."""
    damaged = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 5))):
        at = rng.randrange(len(damaged) + 1)
        kind = rng.randrange(6)
        if kind < 3 and at < len(damaged):
            damaged[at] ^= 1 << rng.randrange(8)
        elif kind == 3:
            del damaged[at : at + rng.randrange(1, 9)]
        elif kind == 4:
            damaged[at:at] = rng.choice(_PIECES)
        else:
            damaged[at : at + 4] = rng.randbytes(4)
        if not damaged:
            break
    return bytes(damaged)


def header(rng: random.Random) -> str:
    """Damage a header, and read it and what it describes."""
    outgoing, body = rng.choice(list(zip(SAMPLES, BODIES)))
    size = wire.read_prologue(outgoing.head[:32]).header_size
    data = damage(outgoing.head[32 : 32 + size], rng)
    try:
        incoming = wire.read_header(data, outgoing.size)
        raw, at = [], 0
        for n in incoming.sizes:
            at = -(-at // 64) * 64
            raw.append(np.frombuffer(bytearray(body[at : at + n]), np.uint8))
            at += n
        landing.validate(incoming, raw)
    except ingest.FrameError:
        return "refused"
    return "read"


def body(rng: random.Random) -> str:
    """Damage the data, and read it."""
    outgoing, data = rng.choice(list(zip(SAMPLES[:3], BODIES)))
    size = wire.read_prologue(outgoing.head[:32]).header_size
    incoming = wire.read_header(outgoing.head[32 : 32 + size], outgoing.size)
    damaged = bytearray(data)
    for _ in range(rng.randrange(1, 9)):
        damaged[rng.randrange(len(damaged))] = rng.randrange(256)
    raw, at = [], 0
    for n in incoming.sizes:
        at = -(-at // 64) * 64
        raw.append(np.frombuffer(damaged, np.uint8)[at : at + n])
        at += n
    try:
        obj = landing.validate(incoming, raw)
        repr(obj)  # what was let through can be used
    except ingest.FrameError:
        return "refused"
    return "read"


def prologue(rng: random.Random) -> str:
    data = damage(rng.choice(SAMPLES).head[:32] + bytes(9), rng)[:32].ljust(32, b"\0")
    try:
        wire.read_prologue(data)
    except ingest.FrameError:
        return "refused"
    return "read"


def url(rng: random.Random) -> str:
    text = damage(rng.choice(_URLS).encode(), rng).decode("latin-1")
    try:
        parse(text)
    except ValueError:
        return "refused"
    return "read"


class _Bytes:
    """A stream that has so many bytes."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def read(self, size: int) -> memoryview:
        if size > len(self.data) - self.at:
            raise ingest.PeerGone("the end")
        self.at += size
        return memoryview(self.data)[self.at - size : self.at]


class _Landing:
    def __init__(self, incoming, raw) -> None:
        self.incoming, self.raw = incoming, raw

    def buffer(self, _: int):
        return self.raw


_ARRAY = np.arange(300_000) // 7
_COMPRESSED = wire.encode(_ARRAY, checksum=True, chunk=compress.CHUNK)
_CHUNKS = b"".join(compress.chunks(_COMPRESSED.buffers[0], "lz4"))


def chunks(rng: random.Random) -> str:
    """Damage the lengths and headers of compressed chunks; blosc2 reads what passes."""
    size = wire.read_prologue(_COMPRESSED.head[:32]).header_size
    incoming = wire.read_header(_COMPRESSED.head[32 : 32 + size], _COMPRESSED.size)
    data = bytearray(_CHUNKS)
    for _ in range(rng.randrange(1, 4)):
        data[rng.randrange(20)] = rng.randrange(256)
    raw = np.zeros(_ARRAY.nbytes + 64, np.uint8)
    try:
        stream = _Bytes(bytes(data))
        compress.receive(stream, _Landing(incoming, raw[: _ARRAY.nbytes]), 0, lambda n: None)
    except (ingest.FrameError, ingest.PeerGone):
        return "refused"
    finally:
        assert not raw[_ARRAY.nbytes :].any(), "blosc2 wrote past its place"
    return "read"


_ZMTP = [
    (zmtp.read_version, zmtp.pack_greeting()[: zmtp.VERSION_END]),
    (zmtp.read_greeting, zmtp.pack_greeting()),
    (zmtp.read_header, zmtp.pack_header(70_000, has_more=True)),
    (zmtp.read_command, zmtp.pack_ready("PUSH", b"me")[2:]),
    (zmtp.read_metadata, zmtp.read_command(zmtp.pack_ready("PUSH", b"me")[2:])[1]),
    (zmtp.read_error, zmtp.read_command(zmtp.pack_error("why")[2:])[1]),
    (zmtp.read_ping, zmtp.read_command(zmtp.pack_ping(1, b"c")[2:])[1]),
    (zmq_messages.read_description, b'{"dtype": "<f8", "shape": [3, 4], "other": null}'),
]


def zmtp_bytes(rng: random.Random) -> str:
    """Damage what ZeroMQ's peers say, and pyzmq's description of an array."""
    read, data = rng.choice(_ZMTP)
    try:
        read(damage(data, rng))
    except ingest.FrameError:
        return "refused"
    return "read"


def live_zmtp(rng: random.Random, listener: ingest.Link) -> str:
    """Be a PUSH socket over a real connection, but for some bytes."""
    body = BODIES[0]
    parts = [SAMPLES[0].head, body]
    said = zmtp.pack_greeting() + zmtp.pack_ready("PUSH")
    said += b"".join(
        zmtp.pack_header(len(part), has_more=i == 0) + part for i, part in enumerate(parts)
    )
    with Bare(listener.url) as bare:
        try:
            bare.write(damage(said, rng) if rng.randrange(8) else said[: rng.randrange(len(said))])
            bare.sock.shutdown(1)
            bare.read_all()
        except OSError:
            pass
    return "sent"


def live(rng: random.Random, listener: ingest.Listener) -> str:
    """Send damaged bytes over a real connection."""
    i = rng.randrange(len(SAMPLES))
    data = SAMPLES[i].head + BODIES[i]
    with Bare(listener.url) as bare:
        if rng.randrange(4):
            bare.greet()
        try:
            bare.write(damage(data, rng) if rng.randrange(8) else data[: rng.randrange(len(data))])
            bare.sock.shutdown(1)
            bare.read_all()
        except OSError:
            pass
    return "sent"


def empty(link: ingest.Link) -> None:
    """Let go of what came through whole."""
    while True:
        try:
            link.recv(0)
        except WaitTimeout:
            return


def run(n: int, rng: random.Random, show: bool = False) -> collections.Counter[str]:
    """Try *n* damaged inputs; return how they went."""
    counts: collections.Counter[str] = collections.Counter()
    parsers = [header] * 8 + [body] * 4 + [prologue] * 3 + [zmtp_bytes] * 4 + [url] * 2 + [chunks]
    with (
        ingest.listen("tcp://127.0.0.1:0", timeout=LIMIT, max_bytes=1 << 20) as listener,
        ingest.listen("zmq+tcp://127.0.0.1:0", timeout=LIMIT, max_bytes=1 << 20) as puller,
    ):
        since = time.monotonic()
        for i in range(n):
            if i % 50 == 0:
                counts[live(rng, listener)] += 1
                empty(listener)
            elif i % 50 == 25:
                counts[live_zmtp(rng, puller)] += 1
                empty(puller)
            else:
                counts[rng.choice(parsers)(rng)] += 1
            if show and i % 10_000 == 9999:
                print(f"{i + 1:,} {dict(counts)} {time.monotonic() - since:.0f} s", flush=True)
        with ingest.connect(listener.url) as good:  # it still works
            good.send(np.arange(3))
        while listener.recv(LIMIT).tolist() != [0, 1, 2]:
            pass
    assert not threads()
    return counts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-n", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=time.time_ns() % 10**6)
    args = parser.parse_args()
    print(f"seed {args.seed}")
    logging.getLogger("numpush.ingest").setLevel(logging.CRITICAL)
    before = set(os.listdir("/proc/self/fd"))
    print(dict(run(args.n, random.Random(args.seed), show=True)))
    left = [f for f in os.listdir("/dev/shm") if f.startswith(f"{naming.NAMESPACE}.seg")]
    fds = set(os.listdir("/proc/self/fd")) - before
    if left or len(fds) > 1:  # our node's file
        sys.exit(f"left behind: {left} {fds}")


if __name__ == "__main__":
    main()
