"""Having Dask's processes use the adapter, and undoing that; the plugins that do so on a client's workers."""

from __future__ import annotations

from typing import Any

import dask.config
import distributed
from distributed import NannyPlugin, WorkerPlugin

from ...shm import life
from . import frames, landing, links, memory, shared
from . import results as _results

__all__ = ["SHARE_FROM", "NannyAdapter", "WorkerAdapter", "dask_setup", "install", "uninstall"]

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
    shared.register()
    frames.wrap(share_from)
    landing.wrap(share_from)
    links.wrap()
    if client is not None:
        client.register_plugin(NannyAdapter())
        client.register_plugin(WorkerAdapter(share_from=share_from, results=results))


def uninstall(client: distributed.Client | None = None) -> None:
    """Undo `install`, in this process and on a client's workers. Objects that moved stay as they are."""
    if client is not None:
        client.unregister_worker_plugin(WorkerAdapter.name)
        client.unregister_worker_plugin(NannyAdapter.name, nanny=True)
    links.unwrap()
    landing.unwrap()
    frames.unwrap()


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
        memory.wrap_worker(worker)
        if self.results:
            _results.wrap(worker.executors, self.share_from, memory.most(worker))

    def teardown(self, worker: Any) -> None:
        _results.unwrap(worker.executors)
        memory.unwrap_worker(worker)
        if worker.status == distributed.core.Status.running:  # else it closes, and may still send
            uninstall()


class NannyAdapter(NannyPlugin):  # type: ignore[misc]  # as above
    """What `install` registers for nannies: a worker is not killed for pages that it shares."""

    name = "numpush-nanny"

    def setup(self, nanny: Any) -> None:
        memory.wrap_nanny(nanny)

    def teardown(self, nanny: Any) -> None:
        memory.unwrap_nanny(nanny)


def dask_setup(server: Any) -> None:
    """Do what `install` does, in a worker, nanny or scheduler that preloads this package.

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
