"""Dask's workers hand each other arrays and frames through shared memory: `install`, `share`.

    from numpush.adapters import dask as np_dask

    client = Client(cluster)
    np_dask.install(client)          # here, and on every worker that there is or comes

Nothing else changes: futures, collections and keys are Dask's, and so are lifetimes. What an adapter-less
process (or the scheduler) gets is what Dask would have sent it. docs/scaling-out.md says what it brings.
"""

from __future__ import annotations

from typing import Any

try:
    import dask.config
    import distributed
    from distributed import NannyPlugin, WorkerPlugin
except ImportError as error:
    raise ImportError(
        'numpush.adapters.dask needs dask.distributed: pip install "numpush[dask]"'
    ) from error

from ..sharing import share as _share
from ..shm import life
from . import dask_frames, dask_landing, dask_links, dask_memory, dask_results, dask_shared

__all__ = ["SHARE_FROM", "NannyAdapter", "WorkerAdapter", "install", "share", "uninstall"]

SHARE_FROM = 1 << 20  #: bytes; what is smaller Dask sends as fast as we would


def install(
    client: distributed.Client | None = None,
    *,
    share_from: int = SHARE_FROM,
    results: bool = True,
) -> None:
    """Have Dask send big objects through shared memory, in this process and on a client's workers.

    Between processes of one host that both have it, arrays, frames and whatever else Dask takes apart
    into buffers move as handles. They arrive as ever: plain, writable, private. Calling it again changes the
    settings.

    Parameters
    ----------
    client : distributed.Client, optional
        Also tell its workers and nannies, those that come later too. Without one, only this process;
        workers may start with ``--preload numpush.adapters.dask``.
    share_from : int
        Bytes from which an object goes through shared memory.
    results : bool
        Whether workers put results into shared memory when their task ends, a copy each, so that every
        transfer takes the same short time whatever the size. Otherwise each transfer makes that copy.
    """
    share_from = int(share_from)
    if share_from < 0:
        raise ValueError(f"share_from={share_from}: a number of bytes is wanted")
    dask_shared.register()
    dask_frames.wrap(share_from)
    dask_landing.wrap(share_from)
    dask_links.wrap()
    if client is not None:
        client.register_plugin(NannyAdapter())
        client.register_plugin(WorkerAdapter(share_from=share_from, results=results))


def uninstall(client: distributed.Client | None = None) -> None:
    """Undo `install`, in this process and on a client's workers. Objects that moved stay as they are."""
    if client is not None:
        client.unregister_worker_plugin(WorkerAdapter.name)
        client.unregister_worker_plugin(NannyAdapter.name, nanny=True)
    dask_links.unwrap()
    dask_landing.unwrap()
    dask_frames.unwrap()


class WorkerAdapter(WorkerPlugin):  # type: ignore[misc]  # not typed in every version
    """What `install` registers for workers.

    Parameters as of `install`.
    """

    name = "numpush-worker"

    def __init__(self, share_from: int = SHARE_FROM, results: bool = True) -> None:
        self.share_from = share_from
        self.results = results

    def setup(self, worker: Any) -> None:
        if worker.address.startswith("inproc://"):
            return  # of one process: everything is shared already
        install(share_from=self.share_from)
        life.node()  # which takes away what the worker left that was killed before this one
        dask_memory.wrap_worker(worker)
        if self.results:
            dask_results.wrap(worker.executors, self.share_from, dask_memory.most(worker))

    def teardown(self, worker: Any) -> None:
        dask_results.unwrap(worker.executors)
        dask_memory.unwrap_worker(worker)
        if worker.status == distributed.core.Status.running:  # else it closes, and may still send
            uninstall()


class NannyAdapter(NannyPlugin):  # type: ignore[misc]  # as above
    """What `install` registers for nannies: a worker is not killed for pages that it shares."""

    name = "numpush-nanny"

    def setup(self, nanny: Any) -> None:
        dask_memory.wrap_nanny(nanny)

    def teardown(self, nanny: Any) -> None:
        dask_memory.unwrap_nanny(nanny)


def dask_setup(server: Any) -> None:
    """Do what `install` does, in a worker, nanny or scheduler that preloads this module.

    Dask's configuration has its settings: ``numpush.share-from`` and ``numpush.results``.
    """
    share_from = int(dask.config.get("numpush.share-from", SHARE_FROM))
    results = bool(dask.config.get("numpush.results", True))
    if isinstance(server, distributed.Worker):
        WorkerAdapter(share_from, results).setup(server)
    elif isinstance(server, distributed.Nanny):
        NannyAdapter().setup(server)
    else:
        install(share_from=share_from)


def share(ddf: Any) -> Any:
    """Return a persisted Dask DataFrame or Series whose partitions are SDataFrames or SSeries.

    Each is made by the worker that has the partition, by one copy, and lies in that host's memory once
    however many of its workers use it: they get handles. Tasks see the shared object itself, with its
    locks, `numpush.SDataFrame.column` for kernels, and so on. What a task did not make it may write to only
    in place and under the lock; the others see it, and a partition that Dask computes again starts anew.

    Parameters
    ----------
    ddf : dask.dataframe.DataFrame or Series

    Raises
    ------
    TypeError : it is something else. Of a partition that cannot be shared (it has columns of Python
        objects) it comes when the collection is computed.
    """
    if not hasattr(ddf, "map_partitions") or not hasattr(ddf, "_meta"):
        raise TypeError(
            f"{type(ddf).__name__} cannot be shared by partitions; pass a dask.dataframe.DataFrame or "
            f"Series, or use numpush.share for what is in this process"
        )
    return ddf.map_partitions(_share, meta=ddf._meta, enforce_metadata=False).persist()
