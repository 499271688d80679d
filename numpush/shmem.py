"""The shared types, by the name that `multiprocessing.shared_memory` users look for."""

from .sarray import SArray
from .sdataframe import SDataFrame

__all__ = ["SArray", "SDataFrame"]
