"""Payloads: what is not signed, not whole or not let in is refused by name, before any of it is read."""

from __future__ import annotations

import pickle
import random
import struct

import msgpack
import numpy as np
import pytest

from code_samples import MYFUNC
from fuzz_code import damage, header, payload
from numpush import SArray, code
from numpush.code import CodeError, CodeMismatch, Keyring, UnsignedCode
from numpush.code.envelope import Payload, seal, unseal

RING = Keyring.generate()
SAMPLE = Payload("ufunc", {"n": 1}, {"one": b"11", "none": b"", "two": b"222"}, {"numpush": "x"})
DATA = seal(SAMPLE, RING)


def resealed(header: object, body: bytes = b"11222") -> bytes:
    """A payload of any header, with a right signature."""
    packed = header if isinstance(header, bytes) else msgpack.packb(header)
    head = DATA[:8] + struct.pack("<IQ8s", len(packed), len(body), RING.signer)
    return head + packed + body + RING.sign(head, packed, body)


def test_a_payload_comes_back():
    assert unseal(DATA, RING) == SAMPLE


def test_the_fields_lie_where_the_documentation_says():
    head_size, body_size = struct.unpack_from("<IQ", DATA, 8)
    assert DATA[:8] == b"\x89npc\r\n\x1a\x01"
    assert DATA[20:28] == RING.signer
    assert msgpack.unpackb(DATA[28 : 28 + head_size]) == {
        "kind": "ufunc",
        "meta": {"n": 1},
        "blobs": [["one", 2], ["none", 0], ["two", 3]],
        "maker": {"numpush": "x"},
    }
    assert DATA[28 + head_size :][:body_size] == b"11222"
    assert DATA[-32:] == RING.sign(DATA[:-32])
    assert len(DATA) == 28 + head_size + body_size + 32


def test_without_a_key_nothing_is_sent_and_nothing_let_in():
    for none in (None, Keyring()):
        with pytest.raises(UnsignedCode):
            seal(SAMPLE, none)
        with pytest.raises(UnsignedCode, match="refuses all code"):
            unseal(DATA, none)


def test_another_key_is_named():
    other = Keyring.generate()
    with pytest.raises(UnsignedCode, match=f"{next(iter(RING))}.*only {next(iter(other))}"):
        unseal(DATA, other)


def test_every_single_bit_that_is_turned_is_refused():
    for at in range(len(DATA)):
        for bit in range(8):
            changed = bytearray(DATA)
            changed[at] ^= 1 << bit
            with pytest.raises(CodeError):
                unseal(changed, RING)


def test_every_beginning_and_everything_longer_is_refused():
    for n in range(len(DATA)):
        with pytest.raises(CodeError):
            unseal(DATA[:n], RING)
    with pytest.raises(CodeError, match=f"{len(DATA)} bytes wanted, {len(DATA) + 1} found"):
        unseal(DATA + b"\0", RING)


def test_a_signature_is_for_these_lengths_only():
    """The same bytes, cut elsewhere, are another payload."""
    (size,) = struct.unpack_from("<I", DATA, 8)
    (body,) = struct.unpack_from("<Q", DATA, 12)
    moved = DATA[:8] + struct.pack("<IQ", size + 1, body - 1) + DATA[20:]
    with pytest.raises(UnsignedCode):
        unseal(moved, RING)


def test_another_version_is_named():
    with pytest.raises(CodeMismatch, match="version 1 wanted, 2 found"):
        unseal(DATA[:7] + b"\x02" + DATA[8:], RING)


def test_a_pickle_is_no_payload():
    with pytest.raises(CodeError, match="wanted at its beginning"):
        unseal(pickle.dumps([b"x"] * 100), RING)


def test_nothing_is_parsed_before_the_signature_was_right(monkeypatch):
    def parse(data, **options):
        raise AssertionError("the header was read")

    monkeypatch.setattr(msgpack, "unpackb", parse)
    with pytest.raises(UnsignedCode):
        unseal(DATA, Keyring.generate())
    with pytest.raises(UnsignedCode):
        unseal(DATA[:-1] + bytes([DATA[-1] ^ 1]), RING)
    with pytest.raises(AssertionError):  # with the right one it is
        unseal(DATA, RING)


@pytest.mark.parametrize("kind", ["python", "pytensor", "extension", "nonsense"])
def test_a_kind_that_is_not_let_in_is_named(kind):
    data = seal(Payload(kind, {}, {}, {}), RING)
    with pytest.raises(CodeError, match=f"kind '{kind}' is not let in here"):
        unseal(data, RING)


def test_allow_names_all_that_is_let_in():
    data = seal(Payload("python", {}, {}, {}), RING)
    assert unseal(data, RING, "python").kind == "python"
    assert unseal(data, RING, code.DEFAULT | {"python"}).kind == "python"
    with pytest.raises(CodeError, match="'ufunc' is not let in"):
        unseal(DATA, RING, ["python"])
    with pytest.raises(ValueError, match="'pyhton'"):
        unseal(data, RING, ["pyhton"])


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"\xc1",
        b"\xff" * 9,
        [],
        {},
        {"kind": 1, "meta": {}, "blobs": [], "maker": {}},
        {"kind": "ufunc", "meta": [], "blobs": [], "maker": {}},
        {"kind": "ufunc", "meta": {}, "blobs": [["a", 5]]},
        {"kind": "ufunc", "meta": {}, "blobs": [["a", 4]], "maker": {}},
        {"kind": "ufunc", "meta": {}, "blobs": [["a", 6]], "maker": {}},
        {"kind": "ufunc", "meta": {}, "blobs": [["a", -1], ["b", 6]], "maker": {}},
        {"kind": "ufunc", "meta": {}, "blobs": [["a", "5"]], "maker": {}},
        {"kind": "ufunc", "meta": {}, "blobs": ["a"], "maker": {}},
    ],
)
def test_a_signed_header_that_makes_no_sense_is_an_error_of_code(header):
    with pytest.raises(CodeError, match="payload:"):
        unseal(resealed(header), RING)


def test_a_signed_payload_that_lacks_what_its_kind_has_is_an_error_of_code():
    for kind in code.KINDS - {"python", "pytensor"}:
        with pytest.raises(CodeError, match=f"payload of {kind}|payload: "):
            code.loads(seal(Payload(kind, {}, {}, {}), RING), keyring=RING, allow=code.KINDS)


def test_what_is_checked_is_what_is_used():
    """The bytes may lie in shared memory, where their sender can still write."""
    data = SArray(np.frombuffer(code.dumps(MYFUNC, kind="ufunc", keyring=RING), np.uint8))
    myfunc = code.loads(data, keyring=RING)
    data[:] = 0
    assert myfunc(np.int32(2), np.int32(3), np.int32(4)) == 20


def test_ten_thousand_damaged_payloads_are_refused():
    rng = random.Random(5)
    for _ in range(9_000):
        assert payload(rng) == "refused"
    assert {header(rng) for _ in range(1_000)} <= {"refused", "read"}


def test_the_damage_is_none_that_leaves_all_as_it_was():
    rng = random.Random(6)
    assert all(damage(DATA, rng) != DATA for _ in range(1000))
