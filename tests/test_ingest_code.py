"""Signed code over links: it arrives as what it is, and only where both ends have a key."""

from __future__ import annotations

import numpy as np
import pytest

from numpush import code, ingest
from numpush.ingest import AccessDenied, PeerRefused, wire
from numpush.ingest.errors import FrameError

KEY = "a key for these tests"
IR = """
define i32 @myfunc(i32, i32, i32) {
        %3 = add i32 %0, %1
        %4 = mul i32 %3, %2
        ret i32 %4
}
"""


@pytest.fixture(scope="module")
def ring():
    return code.Keyring.generate()


@pytest.fixture(scope="module")
def signed(ring):
    return code.dumps(IR, kind="ufunc", keyring=ring)


@pytest.fixture(params=["tcp://127.0.0.1:0", "unix://{}/link"], ids=["tcp", "unix"])
def url(request, tmp_path):
    return request.param.format(tmp_path)


@pytest.mark.parametrize("options", [{}, {"checksum": True}, {"compress": "lz4"}], ids=str)
def test_code_arrives_between_data(url, ring, signed, options):
    with (
        ingest.listen(url, key=KEY) as source,
        ingest.connect(source.url, key=KEY, **options) as sink,
    ):
        for obj in (np.arange(3.0), signed, np.zeros(100_000)):
            sink.send(obj)
        got = [source.recv(timeout=30) for _ in range(3)]
    assert [len(obj) for obj in got] == [3, len(signed), 100_000]
    assert type(got[1]) is code.SignedCode
    assert str(got[1]) == f"<SignedCode, {len(signed)} bytes>"
    assert got[1] == signed
    myfunc = code.loads(got[1], keyring=ring)
    assert myfunc(np.arange(3, dtype="i4"), np.int32(2), np.int32(10)).tolist() == [20, 30, 40]


def test_code_is_not_sent_over_a_link_without_a_key(url, signed):
    with ingest.listen(url) as source, ingest.connect(source.url) as sink:
        with pytest.raises(
            AccessDenied, match="code is sent only over a link with a key: say key="
        ):
            sink.send(signed)
        sink.send(np.arange(3))  # the link goes on
        assert source.recv(timeout=30).tolist() == [0, 1, 2]


def test_code_is_not_taken_by_a_link_without_a_key(url, signed, monkeypatch):
    monkeypatch.setattr(ingest.link.Link, "_check_code", lambda self, obj: None)
    with ingest.listen(url) as source, ingest.connect(source.url) as sink:
        sink.send(signed)
        with pytest.raises(PeerRefused, match="code is taken only over a link with a key"):
            sink.flush(timeout=30)
        assert source.statistics().objects == 0


def test_code_is_not_sent_over_zeromq(tmp_path, signed):
    url = f"zmq+ipc://{tmp_path}/link"
    with ingest.connect(url + "?type=push") as sink, pytest.raises(AccessDenied, match="ZeroMQ"):
        sink.send(signed)


def test_what_says_it_is_code_and_is_no_bytes_is_refused():
    outgoing = wire.encode(np.arange(10))
    size = wire.read_prologue(outgoing.head[: wire.PROLOGUE_SIZE]).header_size
    header = outgoing.head[wire.PROLOGUE_SIZE : wire.PROLOGUE_SIZE + size]
    fields = wire.unpack(header)
    fields["as"] = "code"
    with pytest.raises(FrameError, match="code is an array of bytes"):
        wire.read_header(wire.pack(fields), outgoing.size)
