"""Pool: multiprocessing.Pool's interface, on loky's executor. Names only."""

from .calls import AsyncResult
from .failures import RemoteError, ResultTimeout, WorkerDied
from .pool import Pool

__all__ = ["AsyncResult", "Pool", "RemoteError", "ResultTimeout", "WorkerDied"]
