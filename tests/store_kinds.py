"""The kinds of stores that tests/test_stores.py holds to one contract: how to get an empty one of each."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest


class Kind(NamedTuple):
    """A kind of store.

    Attributes
    ----------
    make : (tmp_path) -> (url, options) of an empty store; may skip, with the reason
    is_lossless : whether every family of dtypes, index and array comes back equal. Others are tested
        with what their format has
    """

    make: Callable[[Path], tuple[str, dict[str, Any]]]
    is_lossless: bool


KINDS: dict[str, Kind] = {
    "file": Kind(lambda path: (f"file://{path}/store", {}), True),
    "file-checksum": Kind(lambda path: (f"file://{path}/store", {"checksum": True}), True),
}
KINDS |= {
    "blosc2": Kind(lambda path: (f"blosc2://{path}/store", {}), True),
    "blosc2-zstd-small-chunks": Kind(
        lambda path: (
            f"blosc2://{path}/store",
            {"codec": "zstd", "filter": "shuffle", "chunk": 4096, "threads": 3, "checksum": False},
        ),
        True,
    ),
}
for _name in ("arrow", "parquet"):
    KINDS[_name] = Kind(lambda path, name=_name: (f"{name}://{path}/store", {}), False)

LOSSLESS = [pytest.param(kind, id=name) for name, kind in KINDS.items() if kind.is_lossless]
ALL = [pytest.param(kind, id=name) for name, kind in KINDS.items()]
