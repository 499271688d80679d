"""A plugin of pytest: numpush.adapters.dask in this process and in every worker that a test starts."""

from __future__ import annotations

import os
from pathlib import Path

import dask
import distributed.comm
import distributed.protocol
import distributed.shuffle
import pytest

if os.environ.get("NUMPUSH_ADAPTER"):
    # Workers and nannies, in processes of their own too, read it from the environment.
    from numpush.adapters import dask as adapter

    adapter.install(share_from=dask.config.get("numpush.share-from"))

# What distributed's tests import of each other, which its wheel does not have.
_checkout = Path(os.environ["DISTRIBUTED_CHECKOUT"]) / "distributed"
for _package in (distributed.comm, distributed.protocol, distributed.shuffle):
    _package.__path__.append(str(_checkout / _package.__name__.rpartition(".")[2]))


def pytest_configure(config: pytest.Config) -> None:
    for name in (
        "avoid_ci",
        "extra_packages",
        "flaky",
        "gpu",
        "ipython",
        "leaking",
        "slow",
        "workerstate",
    ):
        config.addinivalue_line("markers", f"{name}: of distributed's own")
