"""redis://: passwords, URLs, options and TLS; what is shown of them; connections and forks."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import redis
import trustme

import processes
import redis_servers
from numpush import stores
from numpush.stores.redis_client import hide_secrets
from redis_servers import running

pytest_plugins = ["redis_fixtures"]

BIG = np.arange(3_333_333.0)
ONCE = redis.retry.Retry(redis.backoff.NoBackoff(), 1)


class TestConnections:
    def test_a_wrong_password_is_refused_and_none_is_shown(self, tmp_path):
        with running(tmp_path, "--requirepass", "s3cret") as server:
            right = f"redis+unix://:s3cret@{server.socket}?db=2"
            with stores.open(right) as store:
                store.put("k", BIG)
                assert np.array_equal(pickle.loads(pickle.dumps(store)).get("k"), BIG)
                assert "s3cret" not in repr(store) + store.url
                with pytest.raises(stores.KeyNotFound) as caught:
                    store.get("other")
                assert "s3cret" not in str(caught.value)
            with stores.open(server.url, password="s3cret") as store:
                assert store.keys() == []  # of another database
                assert "s3cret" not in repr(store)
            for url in (f"redis://:wr0ng@127.0.0.1:{server.port}", server.url):
                with pytest.raises(stores.StoreUnavailable, match="refuses") as caught:
                    stores.open(url)
                assert "wr0ng" not in str(caught.value)

    def test_urls_are_shown_without_what_is_secret(self):
        for url, shown in {
            "redis://host:1/2": "redis://host:1/2",
            "redis://me:pw@host/2?a=b": "redis://me:***@host/2?a=b",
            "redis+unix://:pw@/a/b": "redis+unix://:***@/a/b",
            "redis://host?password=pw&ssl_password=pw": "redis://host?password=***&ssl_password=***",
            "redis://:p/w@host": "redis://...",
        }.items():
            assert hide_secrets(url) == shown
        for url in ("redis://:p/w@host", "redis+tcp://:pw@host", "reddis://:pw@host"):
            with pytest.raises(ValueError, match="URL") as caught:
                stores.open(url)
            assert "pw" not in str(caught.value)
            assert "'p'" not in str(caught.value)

    def test_wrong_options_are_named(self, server):
        wrong = [("chunk", 0), ("orphans", 0), ("spare", -1), ("spare", "x"), ("protocol", 3)]
        for name, value in (*wrong, ("decode_responses", True)):
            with pytest.raises(ValueError, match=name):
                stores.open(server.url, **{name: value})
        with pytest.raises(ValueError, match="decode_responses"):
            stores.open(f"{server.url}?decode_responses=True")
        with pytest.raises(TypeError, match="chunks"):
            stores.open(server.url, chunks=3)

    def test_tls(self, tmp_path):
        if not redis_servers.has_tls():
            pytest.skip("this redis-server was built without TLS")
        authority = trustme.CA()
        authority.cert_pem.write_to_path(tmp_path / "ca.pem")
        own = authority.issue_cert("localhost")
        own.private_key_pem.write_to_path(tmp_path / "key.pem")
        own.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
        port = redis_servers.free_port()
        options = {
            "--tls-port": str(port),
            "--tls-cert-file": f"{tmp_path}/cert.pem",
            "--tls-key-file": f"{tmp_path}/key.pem",
            "--tls-ca-cert-file": f"{tmp_path}/ca.pem",
            "--tls-auth-clients": "no",
        }
        with running(tmp_path, *(each for pair in options.items() for each in pair)):
            url = f"rediss://localhost:{port}"
            with stores.open(url, ssl_ca_certs=f"{tmp_path}/ca.pem") as store:
                store.put("k", BIG)
                assert np.array_equal(store.get("k"), BIG)
                assert np.array_equal(store.get("k", rows=slice(5, 999_999)), BIG[5:999_999])
            with pytest.raises(stores.StoreUnavailable, match="certificate"):
                stores.open(url, retry=ONCE)

    def test_forked_children_and_their_parent_do_not_meet(self, store):
        store.put("k", BIG)
        pids = [processes.fork(use, store, i) for i in range(3)]
        for _ in range(5):
            use(store, 9)
        assert [processes.wait(pid) for pid in pids] == [0, 0, 0]


def use(store, i):
    assert np.array_equal(store.get("k"), BIG)
    store.put(f"own/{i}", BIG[: 100_000 + i])
    assert np.array_equal(store.get(f"own/{i}"), BIG[: 100_000 + i])
