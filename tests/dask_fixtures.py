"""Fixtures of the tests of Dask's adapter, over a `client` of theirs. A plugin: `pytest_plugins`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from distributed import Client


@pytest.fixture
def workers(client: Client) -> list[str]:
    return sorted(client.scheduler_info()["workers"])


@pytest.fixture
def on(client: Client, workers: list[str]) -> Callable[..., Any]:
    """Give what calls a function on the worker of that number, and returns the future."""

    def submit(i: int, function: Callable[..., Any], *args: Any) -> Any:
        return client.submit(function, *args, workers=workers[i], pure=False)

    return submit
