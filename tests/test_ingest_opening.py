"""`listen` and `connect`: what they refuse and say, and addresses that are in use or that nobody answers."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

import processes
from ingest_links import LIMIT, TIPC_TRANSPORTS, contexts, url_of
from numpush import ingest
from numpush.ingest.url import parse

HAS_TIPC = "TIPC " in Path("/proc/net/protocols").read_text()


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("127.0.0.1:9000", "wanted one of"),
        ("http://x:1", "wanted one of"),
        ("tcp://127.0.0.1", "HOST:PORT"),
        ("tcp://127.0.0.1:x", "Port"),
        ("tcp://127.0.0.1:99999", "Port"),
        ("tcp://127.0.0.1:1/path", "HOST:PORT"),
        ("tcp://127.0.0.1:1?type=pull", "no options"),
        ("unix://relative", "unix:///PATH"),
        ("unix:///" + "x" * 120, "107 bytes"),
        ("tipc+dgram://1000:1", "wanted one of"),
        ("tipc://1000", "TYPE:INSTANCE"),
        ("tipc+rdm://1000:-1", "TYPE:INSTANCE"),
        ("tipc://63:1", "at least 64"),
        ("tipc+seqpacket://0x100000000:1", "32 bits"),
        ("tipc://1000:0x100000000", "32 bits"),
    ],
)
def test_a_wrong_url_says_what_is_wrong(url, message):
    for use in (ingest.listen, ingest.connect):
        with pytest.raises(ValueError, match=message):
            use(url)


def test_tipc_addresses_are_decimal_or_not():
    for scheme in TIPC_TRANSPORTS:
        assert str(parse(f"{scheme}://0x3E8:0xffffffff")) == f"{scheme}://1000:4294967295"


@pytest.mark.skipif(HAS_TIPC, reason="this kernel has TIPC")
def test_a_kernel_without_tipc_says_so():
    for use in (ingest.listen, ingest.connect):
        with pytest.raises(OSError, match="modprobe tipc"):
            use("tipc://1000:1")


def test_wrong_options_say_what_is_wrong():
    url = "tcp://127.0.0.1:0"
    for options, message in (
        ({"io": "mmap"}, "io 'mmap'"),
        ({"compress": "gzip"}, "compress 'gzip'"),
        ({"timeout": 0}, "timeout"),
        ({"max_bytes": -1}, "max_bytes"),
        ({"key": b"short"}, "16 bytes"),
        ({"ssl": contexts()[0]}, "tls"),
    ):
        with pytest.raises(ValueError, match=message):
            ingest.listen(url, **options)
    with pytest.raises(TypeError, match="key"):
        ingest.listen(url, key=5)


def test_an_address_in_use(tmp_path):
    for transport in ("tcp", "unix"):
        with (
            ingest.listen(url_of(transport, tmp_path)) as listener,
            pytest.raises(OSError, match="cannot listen at"),
        ):
            ingest.listen(listener.url)


def test_the_socket_of_a_killed_listener_is_taken_over(tmp_path):
    url = url_of("unix", tmp_path)
    pid = processes.fork(lambda: (ingest.listen(url), time.sleep(LIMIT)))
    processes.eventually((tmp_path / "link.sock").exists)
    os.kill(pid, signal.SIGKILL)
    assert processes.wait(pid) == -signal.SIGKILL
    with ingest.listen(url), ingest.connect(url):
        pass
    assert not (tmp_path / "link.sock").exists()


def test_nobody_there():
    with ingest.listen("tcp://127.0.0.1:0") as listener:
        url = listener.url
    with pytest.raises(ingest.PeerGone, match="nobody answers"):
        ingest.connect(url, timeout=0.1)
