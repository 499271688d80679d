"""The shared-memory runtime: segments, who uses them, and the locks in them.

It knows bytes and processes; arrays and frames are the layer above.
"""

from . import process
from .mapping import Mapping
from .mutex import Guard, Mutex
from .range import RangeGuard, RWLock, lock_range
from .segment import Segment
from .sweep import Holder, SegmentInfo, Swept, survey, sweep

__all__ = [
    "Guard",
    "Holder",
    "Mapping",
    "Mutex",
    "RWLock",
    "RangeGuard",
    "Segment",
    "SegmentInfo",
    "Swept",
    "lock_range",
    "process",
    "survey",
    "sweep",
]
