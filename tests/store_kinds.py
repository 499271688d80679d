"""The kinds of stores that tests/test_stores.py holds to one contract: how to get an empty one of each."""

from __future__ import annotations

import os
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import redis_servers


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
KINDS["hdf5"] = Kind(lambda path: (f"hdf5://{path}/store.h5", {}), True)
KINDS["hdf5-gzip"] = Kind(
    lambda path: (f"hdf5://{path}/x.h5", {"compression": "gzip", "chunk": 5000, "checksum": True}),
    True,
)
if "NUMPUSH_MOOSEFS" in os.environ:  # in tests/moosefs/cell.sh
    KINDS["moosefs"] = Kind(
        lambda path: (f"file://{os.environ['NUMPUSH_MOOSEFS']}/{uuid.uuid4().hex}", {}), True
    )
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

_redis: dict[str, str] = {}  # URLs, by their scheme


@contextmanager
def servers() -> Iterator[None]:
    """Run what servers the kinds need, if they are installed."""
    if redis_servers.BINARY is None:
        yield
        return
    with (
        tempfile.TemporaryDirectory() as folder,
        tempfile.TemporaryDirectory() as nodes,
        redis_servers.running(Path(folder)) as server,
        redis_servers.cluster(Path(nodes)) as (node, *_others),
    ):
        _redis["redis"] = server.url
        _redis["redis+cluster"] = f"redis+cluster://127.0.0.1:{node.port}"
        try:
            yield
        finally:
            _redis.clear()


def _on_redis(scheme: str, **options: Any) -> tuple[str, dict[str, Any]]:
    if not _redis:
        pytest.skip("there is no redis-server on PATH")
    return _redis[scheme], {"namespace": uuid.uuid4().hex, **options}


KINDS["redis"] = Kind(lambda path: _on_redis("redis"), True)
KINDS["redis-parts"] = Kind(
    lambda path: _on_redis("redis", chunk=1000, checksum=True, spare=9), True
)
KINDS["redis-cluster"] = Kind(lambda path: _on_redis("redis+cluster", chunk=5000, spare=9), True)

LOSSLESS = [pytest.param(kind, id=name) for name, kind in KINDS.items() if kind.is_lossless]
ALL = [pytest.param(kind, id=name) for name, kind in KINDS.items()]
