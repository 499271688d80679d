"""Connections that carry handles: what keeps a segment between a message and its answer, and until when.

The other end is a process of its own over real TCP. Whatever becomes of it, nothing is left.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import msgpack
import numpy as np
import pytest
from distributed.comm import CommClosedError, connect, listen
from distributed.comm.tcp import TCP
from distributed.protocol import Serialized, to_serialize
from distributed.security import Security

import numpush
import processes
from numpush.adapters import dask as adapter
from numpush.adapters.dask import frames, links

N = 333_333


def be_peer(address: str, what: str) -> None:
    """Be the other end: connect, read a message, and do as *what* says."""
    if what in ("die", "stop"):  # between the message and its attach
        sign = signal.SIGKILL if what == "die" else signal.SIGSTOP
        frames._fetch = lambda *args: os.kill(os.getpid(), sign)  # type: ignore[assignment]

    async def main() -> None:
        comm = await connect(address)
        if what == "send":
            await comm.write(request(np.ones(N)))
            await comm.read()
        message = await comm.read()
        if what == "hold":
            await asyncio.sleep(processes.LIMIT)
        await comm.write(float(message["data"].sum()))
        await comm.read()

    with contextlib.suppress(OSError):
        asyncio.run(asyncio.wait_for(main(), processes.LIMIT))


@pytest.fixture(autouse=True)
def _installed() -> Iterator[None]:
    adapter.install(share_from=1 << 16)
    yield
    adapter.uninstall()


def _be_forked_peer(reader: int, writer: int, what: str) -> None:
    os.close(writer)
    with os.fdopen(reader) as file:
        be_peer(file.read(), what)


def run(what: str, handle: Callable[[TCP, Any], Awaitable[Any]]) -> None:
    """Have *handle* talk to a peer that does *what*; it gets the peer's pid, too."""
    reader, writer = os.pipe()
    pid = processes.fork(
        _be_forked_peer, reader, writer, what
    )  # before there is a loop, or a thread
    os.close(reader)

    async def main() -> None:
        done = asyncio.get_running_loop().create_future()

        async def on_connection(comm: TCP) -> None:
            try:
                done.set_result(await handle(comm, pid))
            except BaseException as error:
                done.set_exception(error)
            finally:
                comm.abort()

        async with listen("tcp://127.0.0.1:0", on_connection) as listener:
            with os.fdopen(writer, "w") as file:
                file.write(listener.contact_address)
            await asyncio.wait_for(done, processes.LIMIT)

    try:
        asyncio.run(main())
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            processes.wait(pid)


def segments() -> set[str]:
    return {f for f in processes.files() if ".seg." in f}


def kept(comm: TCP) -> list[Any]:
    link = links.link_of(comm.handshake_options)
    return list(link._kept)


def request(x: Any) -> dict[str, Any]:
    return {"op": "put", "reply": True, "data": to_serialize(x)}


def test_it_is_kept_until_the_answer():
    array = np.ones(N)

    async def handle(comm: TCP, peer: int) -> None:
        await comm.write(request(array))
        assert len(segments()) == 1
        assert await comm.read() == N
        assert not kept(comm)

    run("answer", handle)
    processes.collect_garbage()  # of a peer that was killed while it had it
    assert not segments()


def test_what_serializers_of_others_are_told_can_be_packed():
    """As Dask's own test of a serializer does, which sends all of its context along."""

    async def handle(comm: TCP, peer: int) -> None:
        told = {"sender": comm.local_info, "recipient": comm.remote_info, **comm.handshake_options}
        assert links.link_of(msgpack.loads(msgpack.dumps(told))) is not None
        await comm.write(request(0.0))

    run("hold", handle)


@pytest.mark.parametrize("n", [N, N // 50])
def test_what_is_sent_in_one_list_is_let_go_one_by_one(n):
    """A shuffle's shards come in one message, and go to tasks that end at different times."""

    class Shards(list[Any]):  # which Dask pickles, as one object
        pass

    async def handle(comm: TCP, peer: int) -> None:
        await comm.write(request(Shards(np.ones(n) for _ in range(3))))
        assert len(segments()) == (3 if n == N else 0)

    run("hold", handle)


def test_a_receiver_that_is_killed_before_it_attaches_leaves_nothing():
    array = np.ones(N)

    async def handle(comm: TCP, peer: int) -> None:
        await comm.write(request(array))
        assert len(segments()) == 1
        with pytest.raises(CommClosedError):
            await comm.read()
        assert not segments()

    run("die", handle)


def test_a_receiver_that_is_stopped_finds_it_as_long_as_the_connection_lives():
    array = np.ones(N)

    async def handle(comm: TCP, peer: int) -> None:
        await comm.write(request(array))
        await asyncio.to_thread(processes.eventually, lambda: _state(peer) == "T")
        numpush.gc()
        assert len(segments()) == 1
        os.kill(peer, signal.SIGKILL)
        with pytest.raises(CommClosedError):
            await comm.read()
        assert not segments()

    run("stop", handle)


def _state(pid: int) -> str:
    with open(f"/proc/{pid}/stat") as file:
        return file.read().rpartition(")")[2].split()[0]


@pytest.mark.parametrize("end", ["abort", "close"])
def test_it_goes_with_the_connection(end):
    array = np.ones(N)

    async def handle(comm: TCP, peer: int) -> None:
        await comm.write(request(array))
        assert len(segments()) == 1
        ended = getattr(comm, end)()
        if ended is not None:
            await ended
        assert not segments()

    run("stop", handle)


def test_a_sender_that_dies_before_we_attach_is_a_lost_connection(monkeypatch):
    fetch = frames._fetch

    async def handle(comm: TCP, peer: int) -> None:
        def kill_first(places: Any, rest: Any) -> Any:
            os.kill(peer, signal.SIGKILL)
            processes.wait(peer)
            processes.collect_garbage()
            return fetch(places, rest)

        monkeypatch.setattr(frames, "_fetch", kill_first)
        with pytest.raises(CommClosedError, match=r"nobody uses it|no segment|there is none"):
            await comm.read()
        assert comm.closed()

    run("send", handle)
    assert not segments()


@pytest.mark.parametrize(
    "message",
    [
        lambda x: [{"op": "put", "data": x}],  # of a stream
        lambda x: {"op": "put", "reply": False, "data": x},
        lambda x: {"status": "OK", "result": x},  # an answer that nobody answers
    ],
)
def test_what_is_not_answered_goes_as_bytes(message):
    assert not links._is_answered(message(0))

    async def handle(comm: TCP, peer: int) -> None:
        await comm.write(message(to_serialize(np.ones(N))))
        assert not kept(comm)

    run("hold", handle)


def test_a_peer_with_another_shared_memory_gets_bytes():
    """Of another namespace: it cannot find our node, as on another host."""
    done = processes.run_script(
        """
import asyncio
from unittest import mock
import numpy as np
from distributed.comm import connect, listen
from distributed.protocol import to_serialize
from numpush.adapters import dask as adapter
from numpush.adapters.dask import links
from numpush.shm import life

adapter.install(share_from=1 << 16)
mine = life.node().id

async def on_connection(comm):
    comm.handshake_options.clear()
    await comm.write(float((await comm.read())["data"].sum()))
    await comm.close()

async def main():
    async with listen("tcp://127.0.0.1:0", on_connection) as listener:
        comm = await connect(listener.contact_address)
        assert comm.remote_info["numpush"]["node"] == mine
        assert "numpush" not in comm.handshake_options
        await comm.write({"op": "put", "reply": True, "data": to_serialize(np.ones(333_333))})
        print(await comm.read())
        await comm.close()

with mock.patch.object(links.naming, "NODE", "nptest-none.node."):
    asyncio.run(main())
"""
    )
    assert (done.stdout, done.stderr) == ("333333.0\n", "")


@pytest.mark.parametrize("node", [None, "x", -1, 0, 1 << 64, True, 5])
def test_what_is_no_node_of_ours_is_not_here(node):
    assert not links._is_here(node)


def test_who_passes_messages_on_gets_bytes():
    """As the scheduler does, which never unpacks them."""

    async def main() -> None:
        got = asyncio.get_running_loop().create_future()

        async def on_connection(comm: TCP) -> None:
            got.set_result(await comm.read())
            await comm.write("OK")

        async with listen("tcp://127.0.0.1:0", on_connection, deserialize=False) as listener:
            comm = await connect(listener.contact_address)
            assert links.link_of(comm.handshake_options) is None
            await comm.write(request(np.ones(N)))
            assert await comm.read() == "OK"
            message = await got
            assert type(message["data"]) is Serialized
            assert sum(memoryview(f).nbytes for f in message["data"].frames) >= 8 * N
            assert not segments()
            await comm.close()

    asyncio.run(main())


def test_over_tls_too():
    security = Security.temporary()

    async def main() -> None:
        async def on_connection(comm: TCP) -> None:
            message = await comm.read()
            array = message["data"]
            array[0] = 7.0  # its own
            await comm.write(float(array.sum()))

        listener = listen("tls://127.0.0.1:0", on_connection, **security.get_listen_args("worker"))
        async with listener:
            comm = await connect(listener.contact_address, **security.get_connection_args("client"))
            array = np.ones(N)
            await comm.write(request(array))
            assert len(segments()) == 1
            assert await comm.read() == N + 6
            assert array[0] == 1
            await comm.close()

    asyncio.run(main())
    processes.eventually(lambda: not segments())


def test_full_shared_memory_leaves_it_to_dask(monkeypatch):
    def no_room(*args: Any, **kwargs: Any) -> Any:
        raise numpush.errors.SegmentFull("full", "x")

    async def handle(comm: TCP, peer: int) -> None:
        monkeypatch.setattr("numpush.blocks.process.create", no_room)
        await comm.write(request(np.ones(N)))
        assert not kept(comm)
        monkeypatch.undo()
        assert await comm.read() == N

    run("answer", handle)


def test_uninstall_gives_dask_back_what_was_there():
    from distributed.comm import tcp
    from distributed.protocol.serialize import families

    wrapped = (TCP.write, TCP.read, tcp.read_bytes_rw, families["pickle"], families["dask"])
    adapter.uninstall()
    assert "numpush" not in repr([*map(_module, (TCP.write, TCP.read, tcp.read_bytes_rw))])
    assert "handshake_info" not in vars(TCP)
    assert not any("numpush" in _module(f[0]) for f in families.values() if f[0] is not None)
    adapter.install(share_from=1 << 16)
    adapter.install(share_from=1 << 16)
    assert [_module(f) for f in (TCP.write, TCP.read)] == [_module(f) for f in wrapped[:2]]
    adapter.uninstall()
    assert "numpush" not in _module(TCP.write)


def _module(function: Any) -> str:
    return str(function.__module__)
