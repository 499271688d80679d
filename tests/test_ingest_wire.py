"""The wire format: what is written is read, damage is a FrameError, and golden files stay readable.

The golden files are written by tests/golden/write_wire.py.
"""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fuzz_ingest
from ingest_links import LIMIT, Bare
from numpush import ingest
from numpush.ingest import wire
from numpush.layout import ALIGNMENT, Buffer, describe
from numpush.layout.buffer import Sink

GOLDEN = Path(__file__).parent / "golden"


def golden():
    import runpy

    return runpy.run_path(str(GOLDEN / "write_wire.py"))["objects"]()


class TestGolden:
    @pytest.mark.parametrize("name", sorted(path.stem for path in GOLDEN.glob("*.npw")))
    def test_what_was_written_once_is_read_today(self, name):
        obj, _ = golden()[name]
        with ingest.listen("tcp://127.0.0.1:0") as listener, Bare(listener.url).greet() as bare:
            bare.write((GOLDEN / f"{name}.npw").read_bytes())
            got = listener.recv(LIMIT)
        if isinstance(obj, np.ndarray):
            assert got.dtype == obj.dtype
            assert np.array_equal(got, obj)
        else:
            assert got.to_pandas().equals(obj)
            assert type(got.to_pandas()) is type(obj)

    def test_every_golden_file_is_there(self):
        assert {path.stem for path in GOLDEN.glob("*.npw")} == set(golden())


class TestPrologue:
    @given(st.binary(min_size=32, max_size=32))
    def test_any_bytes_are_a_prologue_or_an_error(self, data):
        for start in (data, wire.MAGIC + data[4:], wire.MAGIC + b"\x01" + data[5:]):
            try:
                prologue = wire.read_prologue(start)
            except ingest.FrameError:
                continue
            assert prologue.header_size <= wire.MAX_HEADER

    def test_signals(self):
        for kind, number, text in ((2, 7, ""), (3, 0, "because é"), (4, 0, "")):
            data = wire.pack_signal(kind, number, text)
            assert len(data) % ALIGNMENT == 0
            prologue = wire.read_prologue(data[:32])
            assert (prologue.kind, prologue.number) == (kind, number)
            assert 32 + prologue.padded_header_size == len(data)
            assert data[32 : 32 + prologue.header_size].decode() == text


class TestHeader:
    @pytest.mark.parametrize("obj", [np.zeros((3, 4)), pd.DataFrame({"a": [1], "b": ["x"]})])
    @pytest.mark.parametrize("options", [{}, {"checksum": True}, {"checksum": True, "chunk": 99}])
    def test_what_is_written_is_read(self, obj, options):
        outgoing = wire.encode(obj, **options)
        prologue = wire.read_prologue(outgoing.head[:32])
        assert len(outgoing.head) % ALIGNMENT == 0
        header = outgoing.head[32 : 32 + prologue.header_size]
        incoming = wire.read_header(header, prologue.body_size)
        schema, buffers = describe(obj, keep_blocks=True)
        assert incoming.schema == schema
        assert incoming.sizes == [buffer.nbytes for buffer in buffers]
        assert incoming.chunk == options.get("chunk", 0)
        assert (incoming.checksums is not None) == ("checksum" in options)
        assert sum(len(part) for part in outgoing.parts()) == incoming.size == outgoing.size

    @settings(max_examples=300)
    @given(st.randoms(use_true_random=False))
    def test_a_damaged_header_is_an_error_or_read(self, rng):
        fuzz_ingest.header(rng)

    def test_10_000_damaged_inputs(self):
        """CI's share of `make fuzz`; parsers and a live link."""
        counts = fuzz_ingest.run(10_000, random.Random(11))
        assert sum(counts.values()) >= 10_000
        assert counts["refused"] > 1000


class TestParts:
    @given(
        st.lists(st.integers(1, 7), min_size=1, max_size=4),
        st.integers(0, 5),
        st.integers(1, 300),
        st.booleans(),
    )
    def test_parts_are_the_bytes_of_the_buffer(self, shape, seed, at_most, fortran):
        rng = np.random.default_rng(seed)
        array = rng.integers(0, 1 << 30, shape)
        array = array[tuple(slice(None, None, int(rng.choice([1, 2, -1]))) for _ in shape)]
        if fortran:
            array = np.asfortranarray(array)
        sink = Sink()
        sink.put_array(array)
        (buffer,) = sink.buffers
        parts = list(buffer.parts(at_most))
        assert b"".join(part.tobytes() for part in parts) == np.ascontiguousarray(array).tobytes()
        copies = [part for part in parts if not np.shares_memory(part, array)]
        assert all(len(part) <= max(at_most, 8) for part in copies)

    def test_blocks_that_are_gathered(self):
        frame = pd.DataFrame({"a": np.arange(9.0), "b": np.arange(9), "c": np.arange(9.0) * 2})
        frame["d"] = 1.5
        for obj in (frame, frame.iloc[::2]):
            for buffer in describe(obj)[1]:
                whole = np.zeros(buffer.nbytes, np.uint8)
                for target, source in buffer.copies(whole):
                    np.copyto(target, source)
                assert b"".join(bytes(part) for part in buffer.parts(16)) == whole.tobytes()

    def test_pieces_with_a_gap_are_copied(self):
        pieces = [(slice(0, 2), np.array([1, 2], "u1")), (slice(4, 5), np.array([5], "u1"))]
        buffer = Buffer((6,), np.dtype("u1"), pieces, 6)
        assert b"".join(bytes(part) for part in buffer.parts(100))[:2] == b"\x01\x02"
