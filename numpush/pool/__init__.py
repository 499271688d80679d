"""Pool: multiprocessing.Pool's interface, on loky's executor. Names only."""

from . import loky_apart  # noqa: F401  # before anyone imports loky
from .calls import AsyncResult
from .failures import RemoteError, ResultTimeout, WorkerDied
from .pool import Pool

__all__ = ["AsyncResult", "Pool", "RemoteError", "ResultTimeout", "WorkerDied"]
