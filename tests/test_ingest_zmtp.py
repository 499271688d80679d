"""The codec of ZMTP: what is made is read back, and what is not ZMTP is a FrameError."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from numpush.ingest import FrameError, zmtp

MAX = 2**63 - 1
#: Reads of the codec, each of any bytes.
READERS = [
    zmtp.read_version,
    zmtp.read_greeting,
    zmtp.read_header,
    zmtp.read_command,
    zmtp.read_metadata,
    zmtp.read_error,
    zmtp.read_ping,
]
names = st.from_regex(r"[A-Za-z0-9._+-]{1,30}", fullmatch=True)


def body_of(command):
    """Return a command as it is read from its frame."""
    n = zmtp.header_size(command[0])
    header, data = zmtp.read_header(command[:n]), command[n:]
    assert header == zmtp.Frame(len(data), False, True)
    return zmtp.read_command(data)


@given(st.from_regex(r"[A-Z0-9._+-]{1,20}", fullmatch=True), st.booleans())
def test_a_greeting_is_read_back(mechanism, is_server):
    data = zmtp.pack_greeting(mechanism, is_server)
    assert len(data) == zmtp.GREETING_SIZE
    assert zmtp.read_version(data[: zmtp.VERSION_END]) == 1
    assert zmtp.read_greeting(data) == zmtp.Greeting(1, mechanism, is_server)


def test_a_greeting_of_3_0_is_taken_and_older_ones_are_refused():
    data = bytearray(zmtp.pack_greeting())
    data[11] = 0
    assert zmtp.read_greeting(data).minor == 0
    for major in (0, 1, 2, 4, 255):
        data[10] = major
        with pytest.raises(FrameError, match=f"version {major} found"):
            zmtp.read_version(data[: zmtp.VERSION_END])


def test_another_protocol_is_named():
    with pytest.raises(FrameError, match=r"does not speak ZeroMQ.*GET / HTTP"):
        zmtp.read_version(b"GET / HTTP/1.1\r\n\r\n")


@given(st.integers(0, MAX), st.booleans())
@example(0, True)
@example(255, False)
@example(256, False)
@example(MAX, True)
def test_a_header_is_read_back(size, has_more):
    data = zmtp.pack_header(size, has_more)
    assert len(data) == zmtp.header_size(data[0]) == (2 if size < 256 else 9)
    assert zmtp.read_header(data) == zmtp.Frame(size, has_more, False)


def test_a_long_header_may_have_a_small_size():
    assert zmtp.read_header(b"\x02" + bytes(7) + b"\x05").size == 5


@pytest.mark.parametrize("size", [MAX + 1, 2**64 - 1])
def test_a_frame_of_2_to_the_63_is_refused(size):
    with pytest.raises(FrameError, match=str(size)):
        zmtp.read_header(b"\x02" + size.to_bytes(8, "big"))


@pytest.mark.parametrize("flags", [0x05, 0x07, 0x08, 0x10, 0x80, 0xFF])
def test_unknown_flags_are_refused(flags):
    with pytest.raises(FrameError, match="flags"):
        zmtp.header_size(flags)


def test_a_command_as_long_as_a_message_is_refused():
    assert zmtp.read_header(zmtp.pack_header(zmtp.MAX_COMMAND, is_command=True)).is_command
    with pytest.raises(FrameError, match="command"):
        zmtp.read_header(zmtp.pack_header(zmtp.MAX_COMMAND + 1, is_command=True))


@given(names, st.binary(max_size=600))
def test_a_command_is_read_back(name, body):
    assert body_of(zmtp.pack_command(name, body)) == (name, body)


@given(st.binary(max_size=255))
def test_ready_is_read_back(identity):
    name, body = body_of(zmtp.pack_ready("PULL", identity))
    assert name == "READY"
    assert zmtp.read_metadata(body) == {"socket-type": b"PULL", "identity": identity}


@given(st.text(max_size=400))
def test_a_reason_is_read_back_as_far_as_it_fits(reason):
    name, body = body_of(zmtp.pack_error(reason))
    assert name == "ERROR"
    found = zmtp.read_error(body)
    assert found == reason or found.rstrip("\ufffd") == reason[: len(found.rstrip("\ufffd"))]


@given(st.integers(0, 65535), st.binary(max_size=16))
def test_ping_and_pong_are_read_back(tenths, context):
    name, body = body_of(zmtp.pack_ping(tenths / 10, context))
    assert (name, zmtp.read_ping(body)) == ("PING", (tenths / 10, context))
    assert body_of(zmtp.pack_pong(context)) == ("PONG", context)


def test_a_longer_context_is_refused():
    with pytest.raises(FrameError, match="PING"):
        zmtp.read_ping(bytes(2 + 17))


@given(st.binary(max_size=300), st.booleans())
def test_subscriptions_are_commands_to_3_1_and_messages_to_3_0(topic, cancel):
    assert body_of(zmtp.pack_subscription(topic, 1, cancel)) == (
        "CANCEL" if cancel else "SUBSCRIBE",
        topic,
    )
    data = zmtp.pack_subscription(topic, 0, cancel)
    n = zmtp.header_size(data[0])
    assert zmtp.read_header(data[:n]) == zmtp.Frame(len(topic) + 1, False, False)
    assert data[n:] == bytes((not cancel,)) + topic


@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.__name__)
@given(data=st.binary(max_size=100))
@example(data=b"")
@example(data=b"\xff" * 100)
def test_any_bytes_are_read_or_refused(reader, data):
    try:
        reader(data)
    except FrameError:
        return


SAMPLES = [
    (zmtp.read_greeting, zmtp.pack_greeting()),
    (zmtp.read_metadata, body_of(zmtp.pack_ready("PUSH", b"me"))[1]),
    (zmtp.read_error, body_of(zmtp.pack_error("no"))[1]),
    (zmtp.read_command, zmtp.pack_command("PING", b"\0\0")[2:]),
]


@pytest.mark.parametrize(("reader", "data"), SAMPLES, ids=lambda x: getattr(x, "__name__", ""))
def test_what_is_cut_short_is_refused(reader, data):
    """But for a command, which has no length of its own, and metadata between two of its pairs."""
    for n in range(len(data)):
        try:
            found = reader(data[:n])
        except FrameError:
            continue
        if reader is zmtp.read_command:
            assert found[0] == "PING"
        else:
            assert reader is zmtp.read_metadata
            assert len(found) < 2


@pytest.mark.parametrize(("reader", "data"), SAMPLES, ids=lambda x: getattr(x, "__name__", ""))
@given(at=st.integers(0, 63), bit=st.integers(0, 7))
def test_a_flipped_bit_is_read_or_refused(reader, data, at, bit):
    damaged = bytearray(data)
    damaged[at % len(data)] ^= 1 << bit
    try:
        reader(bytes(damaged))
    except FrameError:
        return


@given(
    st.lists(st.tuples(st.binary(max_size=400), st.booleans()), max_size=6),
    st.lists(st.integers(1, 50), min_size=1, max_size=50),
)
def test_a_stream_of_frames_is_read_whatever_the_cuts(frames, cuts):
    """As a receiver does: no more is looked at than has come."""
    stream = b"".join(zmtp.pack_header(len(body), more) + body for body, more in frames)
    buffered, found, wanted, at, turn = b"", [], 1, 0, 0
    header = None
    while at < len(stream) or len(buffered) >= wanted:
        while len(buffered) < wanted and at < len(stream):
            step = cuts[turn % len(cuts)]
            buffered, at, turn = buffered + stream[at : at + step], at + step, turn + 1
        if header is None and wanted == 1:
            wanted = zmtp.header_size(buffered[0])
        elif header is None:
            header = zmtp.read_header(buffered[:wanted])
            buffered, wanted = buffered[wanted:], header.size
        else:
            found.append((buffered[:wanted], header.has_more))
            buffered, wanted, header = buffered[wanted:], 1, None
    assert found == frames
    assert header is None
