"""Peers that are strangers, that say what they should not, that stop, and that die."""

from __future__ import annotations

import os
import signal
import struct
import threading
import time
import zlib

import numpy as np
import pandas as pd
import pytest

import processes
from ingest_links import LIMIT, Bare, contexts, link, options_of, threads, url_of
from numpush import SArray, SegmentFull, WaitTimeout, ingest
from numpush.ingest import hello, wire
from numpush.layout import pack, unpack
from numpush.shm import process

KEY = b"0123456789abcdef"
ANY = "tcp://127.0.0.1:0"


def frame_of(obj, **options):
    """Return what is sent for an object, byte by byte."""
    outgoing = wire.encode(obj, **options)
    return outgoing.head + b"".join(bytes(part) for part in outgoing.parts())


def send_often(connection, obj, timeout=None):
    """Send until something is wrong."""
    for _ in range(1000):
        connection.send(obj, timeout)
    connection.flush(LIMIT)


def failure(listener):
    """Wait for a connection to end in an error; return it."""
    return processes.eventually(lambda: listener.statistics().failures)[-1][1]


class TestKeys:
    def test_both_ends_have_it(self):
        with ingest.listen(ANY, key=KEY) as listener:
            with ingest.connect(listener.url, key=KEY.decode()) as connection:
                connection.send(np.arange(3))
            assert listener.recv(LIMIT).tolist() == [0, 1, 2]

    @pytest.mark.parametrize(
        ("key", "message"), [(None, "wants a key"), (b"another key of 16 bytes", "key")]
    )
    def test_a_wrong_one_gets_nobody_in(self, key, message):
        with ingest.listen(ANY, key=KEY) as listener:
            with pytest.raises(ingest.AccessDenied, match=message):
                ingest.connect(listener.url, key=key)
            assert isinstance(failure(listener), ingest.AccessDenied)
            with ingest.connect(listener.url, key=KEY) as connection:
                connection.send(np.arange(3))
            assert listener.recv(LIMIT).tolist() == [0, 1, 2]

    def test_who_connects_asks_for_it_too(self):
        with (
            ingest.listen(ANY) as listener,
            pytest.raises(ingest.AccessDenied, match="the peer has no key"),
        ):
            ingest.connect(listener.url, key=KEY)

    def test_nothing_is_parsed_before_it_was_proved(self):
        with ingest.listen(ANY, key=KEY) as listener:
            with Bare(listener.url) as bare:
                bare.write(hello._HELLO.pack(hello.MAGIC, hello.VERSION, 1, bytes(32)))
                bare.write(bytes(32))  # no proof
                bare.write(frame_of(np.arange(3)))
                assert len(bare.read_all()) == 48  # its hello and no more: no proof of its own
            assert isinstance(failure(listener), ingest.AccessDenied)
            with pytest.raises(WaitTimeout):
                listener.recv(0.05)

    def test_a_reflected_or_recorded_proof_is_none(self):
        with ingest.listen(ANY, key=KEY) as listener:
            with Bare(listener.url) as bare:
                theirs = bare.read(48)
                bare.write(theirs)  # its own hello back
                bare.write(bytes(32))
                assert bare.read_all() == b""
            assert isinstance(failure(listener), ingest.AccessDenied)

    def test_listening_to_other_machines_wants_one(self):
        for url in ("tcp://0.0.0.0:0", "tcp://[::]:0", "tcp://*:0"):
            with pytest.raises(ValueError, match=r"key=.*insecure=True"):
                ingest.listen(url)
            ingest.listen(url, insecure=True).close()
            ingest.listen(url, key=KEY).close()

    def test_a_certificate_that_is_not_trusted(self):
        server, _ = contexts()
        with ingest.listen("tls+tcp://127.0.0.1:0", ssl=server) as listener:
            with pytest.raises(OSError, match="CERTIFICATE_VERIFY_FAILED"):
                ingest.connect(listener.url)
            with pytest.raises(ingest.IngestError):  # no TLS at all
                ingest.connect(listener.url.removeprefix("tls+"), timeout=5)


DAMAGES = {
    "no magic": lambda frame: b"HTTP" + frame[4:],
    "another version": lambda frame: frame[:4] + b"\x09" + frame[5:],
    "an unknown kind": lambda frame: frame[:5] + b"\x63" + frame[6:],
    "flags": lambda frame: frame[:6] + b"\x01" + frame[7:],
    "a huge header": lambda frame: frame[:8] + struct.pack("<I", 1 << 31) + frame[12:],
    "a header of another length": lambda frame: frame[:8] + struct.pack("<I", 7) + frame[12:],
    "more data than announced": lambda frame: frame[:16] + struct.pack("<Q", 1 << 20) + frame[24:],
    "no msgpack": lambda frame: frame[:32] + b"\xc1" + frame[33:],
}


class TestDamage:
    @pytest.mark.parametrize("damage", DAMAGES)
    @pytest.mark.parametrize("size", [100, 100_000, 2_000_000])
    def test_a_damaged_frame_ends_its_connection_and_no_other(self, damage, size):
        with ingest.listen(ANY) as listener, ingest.connect(listener.url) as good:
            with Bare(listener.url).greet() as bare:
                bare.write(DAMAGES[damage](frame_of(np.zeros(size))))
                said = bare.read_all()
            prologue = wire.read_prologue(said[:32])
            assert prologue.kind == wire.REFUSED
            assert len(said[32 : 32 + prologue.header_size]) > 10
            assert isinstance(failure(listener), ingest.FrameError)
            good.send(np.arange(size))
            assert listener.recv(LIMIT)[-1] == size - 1

    def test_who_sent_it_is_told(self):
        with ingest.listen(ANY, max_bytes=1000) as listener:
            with ingest.connect(listener.url) as connection:
                connection.send(np.zeros(10))
                with pytest.raises(ingest.PeerRefused, match=r"8000 bytes announced, at most 1000"):
                    send_often(connection, np.zeros(1000))
            assert listener.recv(LIMIT).shape == (10,)

    def test_more_than_shared_memory_holds(self):
        header = pack(
            {
                "schema": {
                    "v": 1,
                    "kind": "ndarray",
                    "dtype": "|u1",
                    "shape": [1 << 60],
                    "data": 0,
                },
                "buffers": [1 << 60],
            }
        )
        prologue = wire._PROLOGUE.pack(wire.MAGIC, 1, wire.OBJECT, 0, len(header), 0, 1 << 60, 0)
        with ingest.listen(ANY) as listener, Bare(listener.url).greet() as bare:
            bare.write(prologue + header + bytes(-(32 + len(header)) % 64))
            assert b"all of shared memory" in bare.read_all()
            assert isinstance(failure(listener), ingest.FrameError)

    def test_more_acknowledgements_than_objects(self):
        with ingest.listen(ANY) as listener, Bare(listener.url).greet() as bare:
            bare.write(wire.pack_signal(wire.ACKNOWLEDGED, 1))
            assert b"at most 0 are due" in bare.read_all()
            assert isinstance(failure(listener), ingest.FrameError)

    @pytest.mark.parametrize("options", [{}, {"compress": "lz4"}])
    def test_a_checksum_that_does_not_hold(self, options):
        array = np.arange(100_000.0)
        with ingest.listen(ANY) as listener, Bare(listener.url).greet() as bare:
            if options:
                frame = compressed(array, wrong=True)
            else:
                frame = bytearray(frame_of(array, checksum=True))
                frame[-5] ^= 1
            bare.write(bytes(frame))
            assert b"CRC-32" in bare.read_all()
            with pytest.raises(WaitTimeout):
                listener.recv(0.05)

    @pytest.mark.parametrize("length", [0, 31, 1 << 30, 1000])
    def test_a_damaged_chunk(self, length):
        frame = bytearray(compressed(np.arange(100_000.0)))
        at = 32 + wire.read_prologue(bytes(frame[:32])).padded_header_size
        frame[at : at + 4] = struct.pack("<I", length)
        with ingest.listen(ANY) as listener, Bare(listener.url).greet() as bare:
            bare.write(bytes(frame))
            assert b"chunk" in bare.read_all()
            assert isinstance(failure(listener), ingest.FrameError)

    def test_codes_and_text_of_strangers_are_looked_at(self):
        frame = pd.DataFrame({"k": pd.Categorical(["a", "b"] * 50_000)})
        outgoing = wire.encode(frame)
        body = bytearray(b"".join(bytes(part) for part in outgoing.parts()))
        body[:100_000] = b"\x63" * 100_000  # codes
        with ingest.listen(ANY) as listener, Bare(listener.url).greet() as bare:
            bare.write(outgoing.head + bytes(body))
            assert isinstance(failure(listener), ingest.FrameError)


def compressed(array, wrong=False):
    """Return the frame of a compressed array."""
    from numpush.ingest import compress

    outgoing = wire.encode(array, checksum=True, chunk=compress.CHUNK)
    if wrong:
        sums = wire.read_header(header_of(outgoing.head), outgoing.size).checksums
        assert sums == [zlib.crc32(array)]
        array = array + 1
    (buffer,) = wire.encode(array).buffers
    return outgoing.head + b"".join(compress.chunks(buffer, "lz4"))


def header_of(head):
    return head[32 : 32 + wire.read_prologue(head[:32]).header_size]


@pytest.fixture(params=["tcp", "tls", "unix"])
def door(request, tmp_path):
    """Return (URL, options) to listen at."""
    return url_of(request.param, tmp_path), options_of(request.param)[0]


class TestDeath:
    @pytest.mark.parametrize("cut", [10, 60, 200, 4000, 100_000, 799_000])
    def test_a_sender_that_ends_at_any_byte_leaves_nothing(self, door, cut):
        frame = frame_of(np.zeros(100_000), checksum=True)
        url, options = door
        with ingest.listen(url, **options) as listener:
            with Bare(listener.url).greet() as bare:
                bare.write(frame[:cut])
                time.sleep(0.02)
            assert isinstance(failure(listener), ingest.PeerGone)
            processes.eventually(lambda: len(threads()) == 1)
            with pytest.raises(WaitTimeout):
                listener.recv(0)

    @pytest.mark.crash
    @pytest.mark.parametrize("size", [50, 5000])
    def test_each_byte_as_the_last(self, door, size):
        """Of a small array all, of one with a segment of its own the head and the first of its data."""
        frame = frame_of(np.zeros(size), checksum=True)
        n = min(len(frame), 1000)
        url, options = door
        with ingest.listen(url, **options) as listener:
            for cut in range(n):
                with Bare(listener.url).greet() as bare:
                    bare.write(frame[:cut])
                processes.eventually(lambda: len(threads()) == 1)
            assert listener.statistics().objects == 0
            _, error = listener.statistics().failures[-1]
            assert isinstance(error, ingest.PeerGone)
            with Bare(listener.url).greet() as bare:
                bare.write(frame)
                assert listener.recv(LIMIT).shape == (size,)
        processes.collect_garbage()
        assert processes.files() == set()

    def test_a_killed_sender(self):
        with ingest.listen(ANY) as listener:
            url = listener.url
            pid = processes.fork(send_for_ever, url)
            for _ in range(5):
                assert listener.recv(LIMIT).all()
            os.kill(pid, signal.SIGKILL)
            assert processes.wait(pid) == -signal.SIGKILL
            error = failure(listener)
            assert isinstance(error, ingest.PeerGone)
            while True:  # what was whole is there
                try:
                    assert listener.recv(0).all()
                except WaitTimeout:
                    break

    def test_a_killed_receiver(self, tmp_path):
        url = f"unix://{tmp_path}/link.sock"
        pid = processes.fork(receive_for_ever, url)
        with ingest.connect(url) as connection:
            connection.send(np.ones(1 << 20))
            connection.flush(LIMIT)
            os.kill(pid, signal.SIGKILL)
            assert processes.wait(pid) == -signal.SIGKILL
            with pytest.raises(ingest.PeerGone):
                send_often(connection, np.ones(1 << 20))
            with pytest.raises(ingest.PeerGone):
                connection.recv(LIMIT)
        processes.collect_garbage()

    def test_what_was_not_acknowledged_is_told(self, tmp_path):
        url = f"unix://{tmp_path}/link.sock"
        with ingest.listen(url) as listener:
            with Bare(url).greet():
                listener.send(np.zeros(10), timeout=LIMIT)
            with pytest.raises(ingest.PeerGone, match=r"acknowledged|ended|broke") as caught:
                listener.flush(LIMIT)
            assert "1" in str(caught.value) + str(getattr(caught.value, "__notes__", ""))

    def test_a_silent_peer_is_given_up(self):
        with ingest.listen(ANY, timeout=0.2) as listener:
            for say in (b"", b"\x89npush", None):
                with Bare(listener.url) as bare:
                    if say is None:  # in the middle of an object
                        bare.greet()
                        bare.write(frame_of(np.zeros(100_000))[:5000])
                    else:
                        bare.write(say)
                    bare.read_all()
                assert "silent for 0.2 s" in str(failure(listener))
            with ingest.connect(listener.url) as idle:
                time.sleep(0.5)  # between two objects it may be silent
                idle.send(np.arange(3))
            assert listener.recv(LIMIT).tolist() == [0, 1, 2]

    def test_ctrl_c_ends_a_send_that_waits(self):
        with ingest.listen(ANY, timeout=LIMIT) as listener:
            with ingest.connect(listener.url) as connection:
                timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))
                timer.start()
                with pytest.raises(KeyboardInterrupt):  # nobody takes them, so it has to wait
                    send_often(connection, np.zeros(25 << 20, "u1"))
                timer.join()
                with pytest.raises(ingest.PeerGone, match="half sent"):
                    connection.send(np.zeros(3))
            with ingest.connect(listener.url) as other:
                other.send(np.arange(3), timeout=LIMIT)
                while listener.recv(LIMIT).tolist() != [0, 1, 2]:
                    pass

    def test_a_deadline_ends_a_send_that_waits(self):
        with ingest.listen(ANY) as listener:
            connection = ingest.connect(listener.url)
            connection.send(np.zeros(25 << 20, "u1"))  # the one that lands, however busy we are
            with pytest.raises(WaitTimeout, match="did not take"):
                send_often(connection, np.zeros(25 << 20, "u1"), timeout=0.2)
            with pytest.raises(ingest.PeerGone, match="half sent"):
                connection.send(np.zeros(3))
            connection.close()
            assert listener.recv(LIMIT).size == 25 << 20


class TestMemory:
    def test_what_nobody_asks_for_makes_the_sender_wait(self):
        from numpush.ingest import hub

        size = 100 << 20
        with ingest.listen(ANY) as listener, ingest.connect(listener.url) as connection:
            sender = threading.Thread(
                target=lambda: [connection.send(np.zeros(size, "u1")) for _ in range(6)]
            )
            sender.start()
            processes.eventually(lambda: listener.statistics().objects == hub.AHEAD // size)
            time.sleep(0.2)
            assert listener.statistics().objects == hub.AHEAD // size
            for _ in range(6):
                assert listener.recv(LIMIT).size == size
            sender.join(LIMIT)

    def test_a_full_shared_memory_makes_the_sender_wait(self, monkeypatch):
        is_full = threading.Event()
        is_full.set()
        create = process.create

        def full_or_not(*args, **kwargs):
            if is_full.is_set():
                raise SegmentFull("there is no room")
            return create(*args, **kwargs)

        monkeypatch.setattr(process, "create", full_or_not)
        for size in (10, 100_000):
            is_full.set()
            with ingest.listen(ANY) as listener, ingest.connect(listener.url) as connection:
                connection.send(np.ones(size))
                with pytest.raises(WaitTimeout):
                    listener.recv(0.3)
                is_full.clear()
                assert listener.recv(LIMIT).sum() == size

    def test_when_it_stays_full_the_error_says_so(self, monkeypatch):
        def full(*args, **kwargs):
            raise SegmentFull("1 MiB of shared memory wanted")

        with ingest.listen(ANY, timeout=0.2) as listener:
            with ingest.connect(listener.url) as connection:
                monkeypatch.setattr(process, "create", full)
                connection.send(np.zeros(100_000))
                with pytest.raises(ingest.PeerRefused, match="1 MiB of shared memory wanted"):
                    connection.flush(LIMIT)
            assert isinstance(failure(listener), SegmentFull)


def send_for_ever(url):
    connection = ingest.connect(url)
    while True:
        connection.send(np.ones(1 << 20))


def receive_for_ever(url):
    for _ in ingest.listen(url):
        pass


def test_a_link_on_real_files_of_bytes(tmp_path):
    """What one link sends another end reads by docs/wire.md alone: no field is left unsaid."""
    with link("tcp", tmp_path) as (listener, other), Bare(listener.url).greet() as bare:
        processes.eventually(lambda: len(listener.statistics().peers) == 2)
        for _ in range(2):  # each peer in turn
            listener.send(SArray(np.arange(1000.0)))
        head = bare.read(32)
        prologue = wire.read_prologue(head)
        header = unpack(bare.read(prologue.padded_header_size)[: prologue.header_size])
        assert header["buffers"] == [8000]
        assert np.frombuffer(bare.read(8000)).tolist() == list(range(1000))
        assert other.recv(LIMIT)[-1] == 999
        bare.write(wire.pack_signal(wire.ACKNOWLEDGED, 1))
        bare.write(wire.pack_signal(wire.BYE))
