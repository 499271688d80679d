"""A plugin of pytest: numpush.adapters.dask in this process and in every worker that a test starts."""

from __future__ import annotations

import os
from typing import Any

import dask
import pytest

from numpush.adapters import dask as adapter
from numpush.adapters.dask import frames

_n_moved = [0]


def pytest_configure(config: pytest.Config) -> None:
    # Workers and nannies, in processes of their own too, read it from the environment.
    if os.environ.get("NUMPUSH_ADAPTER"):
        adapter.install(share_from=dask.config.get("numpush.share-from"))
        move = frames._move

        def counting(*args: Any) -> list[list[Any]]:
            places = move(*args)
            _n_moved[0] += bool(places)
            return places

        frames._move = counting


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Say how many objects this process sent by way of a segment: all are in one, with most tests."""
    terminalreporter.write_line(f"objects sent in segments: {_n_moved[0]}")
