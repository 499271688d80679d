"""Fixtures of the tests of redis://: `server`, `client`, `store`. A plugin: `pytest_plugins`."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import redis

from numpush import stores
from redis_servers import Server, running


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def client(server: Server) -> Iterator[redis.Redis]:
    """Give redis-py's client of the server, which is empty."""
    with server.client() as client:
        client.flushall()
        yield client


@pytest.fixture
def store(server: Server, client: redis.Redis) -> Iterator[stores.Store]:
    with stores.open(server.url) as store:
        yield store
