"""Shared frames that are filled where they lie: empty ones, and from Arrow, Parquet, Feather, CSV.

A frame is sketched first (layout/sketch.py: its schema, the size of each buffer), its segment is made,
and the data is written into it piece by piece as it is decoded; there is no private copy of the
whole. Names only; SDataFrame has them as class methods.
"""

from .arrow_source import from_arrow
from .csv import read_csv
from .empty import empty
from .feather import read_feather
from .parquet import read_parquet

__all__ = ["empty", "from_arrow", "read_csv", "read_feather", "read_parquet"]
