"""The shared types, by the name that `multiprocessing.shared_memory` users look for."""

from .sarray import SArray
from .sdataframe import SDataFrame
from .sseries import SSeries

__all__ = ["SArray", "SDataFrame", "SSeries"]
