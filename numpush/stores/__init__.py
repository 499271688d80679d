"""Stores: arrays and frames by key, in files, servers and formats of others, and in segments at once.

``open(url)`` gives a `Store`; what is read lands straight in shared memory, what is written comes
straight from it. Names only.
"""

from .errors import (
    KeyNotFound,
    StoreClosed,
    StoreDamaged,
    StoreError,
    StoreFull,
    StoreUnavailable,
    StoreUnsupported,
)
from .opening import open
from .store import Stat, Store

__all__ = [
    "KeyNotFound",
    "Stat",
    "Store",
    "StoreClosed",
    "StoreDamaged",
    "StoreError",
    "StoreFull",
    "StoreUnavailable",
    "StoreUnsupported",
    "open",
]
