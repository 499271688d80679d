"""The layout codec: an object becomes a schema and buffers, and comes back. Names only.

Segments, the wire and the stores all describe data with this one codec. `describe` never changes
its argument and copies no bulk data: the caller allocates each `Buffer`'s bytes where it wants
them and runs `Buffer.copies`. `rebuild` gives an object over those bytes, without a copy where the
dtype allows. Importing this package loads NumPy and msgpack; pandas and pyarrow load when an
object of theirs is met.

It handles every dtype and index of pandas: NumPy's, datetimes with and without a zone, masked,
categorical, period, interval, sparse, strings, Arrow of any depth (no unions, no extension types of
one's own), and objects: strings and scalars as such, anything else as a pickle, where both `describe`
and `rebuild` are told to allow it.
"""

from .buffer import ALIGNMENT, Buffer
from .place import ColumnPlace, column_place
from .registry import describe, rebuild
from .schema import VERSION, Schema, SchemaError, pack, unpack

__all__ = [
    "ALIGNMENT",
    "VERSION",
    "Buffer",
    "ColumnPlace",
    "Schema",
    "SchemaError",
    "column_place",
    "describe",
    "pack",
    "rebuild",
    "unpack",
]
