"""Dask's workers hand each other arrays and frames through shared memory: `install`, `share`.

    from numpush.adapters import dask as np_dask

    client = Client(cluster)
    np_dask.install(client)          # here, and on every worker that there is or comes

Nothing else changes: futures, collections and keys are Dask's, and so are lifetimes. What an adapter-less
process (or the scheduler) gets is what Dask would have sent it. docs/scaling-out.md says what it brings.
"""

try:
    from distributed import NannyPlugin, WorkerPlugin  # noqa: F401  # what fails below is not for lack of it
except ImportError as error:
    raise ImportError(
        'numpush.adapters.dask needs dask.distributed: pip install "numpush[dask]"'
    ) from error

from .installing import SHARE_FROM, NannyAdapter, WorkerAdapter, dask_setup, install, uninstall
from .shared import share

__all__ = [
    "SHARE_FROM",
    "NannyAdapter",
    "WorkerAdapter",
    "dask_setup",
    "install",
    "share",
    "uninstall",
]
