"""What is sent by ZeroMQ, to libzmq and to each other, and the options of links."""

from __future__ import annotations

import asyncio
import io
import threading
import time

import numpy as np
import pandas as pd
import pytest
import zmq

import processes
from ingest_links import LIMIT
from numpush import SArray, SDataFrame, SSeries, WaitTimeout, ingest
from numpush.ingest import url, zmq_messages
from zmq_peers import (  # noqa: F401  # fixtures
    ANY,
    bound,
    collector_of_pyzmq,
    connected,
    context_of_libzmq,
    frame,
    no_thread_is_left,
    send_many,
    until_it_arrives,
)


class TestSending:
    @pytest.mark.parametrize("scheme", ["tcp", "ipc"])
    @pytest.mark.parametrize("is_bound", [True, False])
    def test_what_numpush_sends_arrives_equal(self, tmp_path, scheme, is_bound):
        where = ANY if scheme == "tcp" else f"zmq+ipc://{tmp_path}/a"
        if is_bound:
            out = ingest.listen(f"{where}?type=push", checksum=True)
            link = ingest.connect(out.url)
        else:
            link = ingest.listen(where)
            out = ingest.connect(f"{link.url}?type=push", checksum=True)
        with link, out:
            df = frame()
            big = np.random.default_rng(0).random((500, 400))
            for array in (big, big.T, big[::3, ::-2], np.arange(3), np.array(1), big[:0]):
                out.send(array, LIMIT)
                np.testing.assert_array_equal(link.recv(LIMIT), array)
            out.send(SArray(big)[100:200], LIMIT)
            np.testing.assert_array_equal(link.recv(LIMIT), big[100:200])
            for table in (df, SDataFrame(df), df[:0], df[[]]):
                out.send(table, LIMIT)
                found = link.recv(LIMIT)
                assert type(found) is SDataFrame
                pd.testing.assert_frame_equal(pd.DataFrame(found), pd.DataFrame(table))
            out.send(df["x"], LIMIT)
            found = link.recv(LIMIT)
            assert type(found) is SSeries
            pd.testing.assert_series_equal(pd.Series(found), df["x"])
            assert out.statistics().sent_objects == 12

    def test_to_a_plain_pull_of_pyzmq(self, context):
        sock, where = bound(context, zmq.PULL)
        with ingest.connect(where + "?type=push") as out:
            sender = threading.Thread(target=out.send, args=(np.arange(100_000),))
            sender.start()
            head, body = sock.recv_multipart()
            sender.join(LIMIT)
            assert head[:4] == b"\x89NPW"
            np.testing.assert_array_equal(np.frombuffer(body, int), np.arange(100_000))

    def test_after_send_the_object_may_be_changed(self, context):
        with ingest.listen(ANY) as link, ingest.connect(link.url + "?type=push") as out:
            for size in (10, 1_000_000):
                array = SArray(np.zeros(size))
                for i in range(10):
                    array[:] = i
                    out.send(array, LIMIT)
                array[:] = -1
                for i in range(10):
                    assert (link.recv(LIMIT) == i).all()

    def test_a_topic_is_what_subscriptions_are_compared_with(self):
        with ingest.listen(ANY + "?type=pub") as out:
            where = f"{out.url}?type=sub&subscribe="
            with ingest.connect(where + "a", topics=True) as link:
                until_it_arrives(out, link, np.arange(3), topic=b"abc")
                out.send(np.arange(4), topic=b"b")
                out.send(np.arange(5))
                out.send(np.arange(6), topic=b"a")
                while (found := link.recv(LIMIT))[1].size != 6:
                    assert found[0] == b"abc"
                assert found[0] == b"a"
            with pytest.raises(ValueError, match="topic"):
                out.send(np.arange(3), topic=bytes(zmq_messages.MAX_TOPIC + 1))

    def test_a_subscriber_that_does_not_read_misses_nothing(self, context):
        with ingest.listen(ANY + "?type=pub") as out:
            sock = connected(context, out, zmq.SUB, rcvhwm=1)
            sock.subscribe(b"t")
            processes.eventually(lambda: out.send(np.zeros(1), topic=b"t") or sock.poll(10), LIMIT)
            n = 0
            try:
                while n < 50_000:
                    n += 1
                    out.send(np.full(300, n), 0.3, topic=b"t")
            except WaitTimeout:
                n -= 1
            assert n < 49_999
            found = [0]
            while found[-1] < n:
                found.append(np.frombuffer(sock.recv_multipart()[2], int)[0])
            assert [i for i in found if i] == list(range(1, n + 1))

    def test_a_subscriber_of_pyzmq(self, context):
        with ingest.listen(ANY + "?type=pub") as out:
            sock = connected(context, out, zmq.SUB, rcvtimeo=10)
            sock.subscribe(b"t")

            def arrives():
                out.send(np.arange(3), topic=b"t")
                return sock.poll(10)

            processes.eventually(arrives, LIMIT)
            topic, head, body = sock.recv_multipart()
            assert (topic, head[:4]) == (b"t", b"\x89NPW")
            np.testing.assert_array_equal(np.frombuffer(body, int), np.arange(3))

    def test_without_a_peer_it_waits_and_stays_open(self):
        for link in (
            ingest.listen(ANY + "?type=push"),
            ingest.connect("zmq+tcp://127.0.0.1:9?type=push"),
        ):
            with link:
                for size in (3, 1_000_000):
                    with pytest.raises(WaitTimeout, match="no peer"):
                        link.send(np.zeros(size), 0.2)

    def test_a_peer_that_does_not_read_ends_it(self, context):
        sock, where = bound(context, zmq.PULL, rcvhwm=1)
        with ingest.connect(where + "?type=push") as out:
            with pytest.raises(WaitTimeout, match="the link is closed"):
                send_many(out)
            with pytest.raises(ingest.LinkClosed):
                out.send(np.zeros(3), 1)
        sock.close(0)

    def test_closing_while_another_thread_sends(self, context):
        sock, where = bound(context, zmq.PULL, rcvhwm=1)
        out = ingest.connect(where + "?type=push", timeout=1)
        errors = []

        def send():
            try:
                while True:
                    out.send(np.zeros(4_000_000))
            except ingest.LinkClosed as error:
                errors.append(error)

        sender = threading.Thread(target=send)
        sender.start()
        time.sleep(0.3)
        out.close()
        sender.join(LIMIT)
        assert len(errors) == 1
        sock.close(0)

    def test_all_small_ones_are_there_after_the_with(self):
        with ingest.listen(ANY) as link:
            with ingest.connect(link.url + "?type=push") as out:
                for i in range(3000):
                    out.send(np.full(i % 50, i))
            for i in range(3000):
                assert (link.recv(LIMIT) == i).all()

    def test_send_and_recv_in_one_call(self, tmp_path):
        where = f"zmq+ipc://{tmp_path}/one"
        sender = threading.Thread(target=ingest.send, args=(where, np.arange(7)))
        sender.start()
        assert ingest.recv(where, timeout=LIMIT).sum() == 21
        sender.join(LIMIT)

    def test_the_wrong_direction_names_the_remedy(self):
        with ingest.listen(ANY) as link, pytest.raises(io.UnsupportedOperation, match="type=push"):
            link.send(np.arange(3))
        with ingest.listen(ANY + "?type=pub") as out:
            for call in (lambda: out.recv(1), lambda: next(iter(out))):
                with pytest.raises(io.UnsupportedOperation, match="type=pull"):
                    call()
            with pytest.raises(io.UnsupportedOperation, match="type=pull"):
                asyncio.run(out.recv_async())


class TestOptions:
    def test_pyzmq_is_loaded_when_it_is_needed(self):
        code = f"""if True:
            import sys
            from numpush import ingest
            with ingest.listen({ANY!r}) as link:
                assert "zmq" not in sys.modules
            with ingest.listen({ANY + "?type=push"!r}):
                assert "zmq" in sys.modules
        """
        done = processes.run_script(code)
        assert (done.returncode, done.stderr) == (0, "")

    @pytest.mark.parametrize(
        ("text", "kind", "topics"),
        [
            ("zmq+tcp://h:1", "pull", ()),
            ("zmq+tcp://h:1?type=push", "push", ()),
            ("zmq+ipc:///a/b?type=pub", "pub", ()),
            ("zmq+ipc://@a?type=sub", "sub", (b"",)),
            ("zmq+tcp://h:1?type=sub&subscribe=a%26b&subscribe=", "sub", (b"a&b", b"")),
            ("zmq+tcp://h:1?subscribe=a%00&type=sub", "sub", (b"a\0",)),
        ],
    )
    def test_urls(self, text, kind, topics):
        found = url.parse(text)
        assert (found.zmq_type, found.topics) == (kind, topics)
        assert str(found) == text.partition("?")[0]

    @pytest.mark.parametrize(
        ("text", "why"),
        [
            ("zmq+tcp://h", "HOST:PORT"),
            ("zmq+tcp://h:1?type=dealer", "pull, sub, push, pub"),
            ("zmq+tcp://h:1?type=", "pull, sub, push, pub"),
            ("zmq+tcp://h:1?type=pull&type=push", "one type="),
            ("zmq+tcp://h:1?typ=pull", "'typ'"),
            ("zmq+tcp://h:1?subscribe=a", "for type=sub"),
            ("zmq+tcp://h:1?type=push&subscribe=a", "for type=sub"),
            ("zmq+tcp://h:1#a", "options"),
            ("zmq+ipc://relative", "zmq+ipc:///PATH"),
            (f"zmq+ipc:///{'a' * 107}", "107"),
            ("zmq://h:1", "wanted one of"),
            ("tcp://h:1?type=pull", "takes no options"),
        ],
    )
    def test_wrong_urls_say_why(self, text, why):
        with pytest.raises(ValueError, match=r"^URL") as caught:
            url.parse(text)
        assert why in str(caught.value)

    @pytest.mark.parametrize(
        ("options", "error"),
        [
            ({"key": b"k" * 32}, ValueError),
            ({"compress": "lz4"}, ValueError),
            ({"io": "fast"}, ValueError),
            ({"dtype": object}, TypeError),
            ({"dtype": "S"}, ValueError),
            ({"dtype": "nonsense"}, TypeError),
            ({"shape": (-1, -1)}, ValueError),
            ({"shape": (-2,)}, ValueError),
            ({"shape": [1] * 33}, ValueError),
            ({"curve": (b"x" * 40, b"y" * 40)}, ValueError),
            ({"curve": (b"short", b"y" * 40, b"z" * 40)}, ValueError),
            ({"curve": (b"x" * 40,) * 3, "plain": ("a", "b")}, ValueError),
            ({"unknown": 1}, TypeError),
        ],
        ids=str,
    )
    def test_wrong_options_are_refused(self, options, error):
        for call in (ingest.listen, ingest.connect):
            with pytest.raises(error):
                call("zmq+tcp://127.0.0.1:0", **options)

    def test_options_of_zeromq_are_for_zeromq(self):
        for call in (ingest.listen, ingest.connect):
            with pytest.raises(TypeError, match="dtype: for zmq"):
                call("tcp://127.0.0.1:0", dtype="f8")

    def test_an_address_in_use_is_an_oserror(self):
        for kind in ("pull", "push"):
            with ingest.listen(f"{ANY}?type={kind}") as link, pytest.raises(OSError, match="use"):
                ingest.listen(f"{link.url}?type={kind}")
