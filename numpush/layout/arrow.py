"""Arrow arrays and ArrowDtype columns, over the very buffers; pyarrow loads when one is met.

Node: {"kind": "arrow", "type": code (see arrow_types.py), "rows"} and, as the type has them:

"validity"    a bitmap, if something is null
"data"        the values, or the bytes of strings; not of nested types
"offsets"     of strings, lists and maps
"fields"      what nested types hold: [[name, nullable, metadata, arrow node], ..]
"ends"        of runs
"dictionary"  the labels (an arrow node) that the values are indices of, and "ordered"

(1) One array comes out, whatever chunks and slices went in: pieces of the data are gathered by the
    one copy that fills the buffer. Only offsets, run ends and bitmaps that start elsewhere are made
    anew.
(2) The lengths of all buffers and both ends of the offsets are always checked, at every depth. What
    lies between (offsets, UTF-8, indices) is O(n) and checked with `Source.validate`; compute kernels
    read out of bounds where it lies.
(3) Views (string_view, list_view) are made anew over the data: 16 bytes a row. All else is rebuilt
    without a copy.
"""

from __future__ import annotations

from typing import Any

import pandas as pd

from .arrow_describe import describe_arrow_array
from .arrow_rebuild import rebuild_arrow_array
from .buffer import Sink
from .registry import register_kind, register_type
from .schema import Node
from .source import Source


def describe_arrow(array: Any, sink: Sink) -> Node:
    """Describe an ArrowExtensionArray."""
    return describe_arrow_array(array.__arrow_array__(), sink)


def rebuild_arrow(node: Node, source: Source) -> Any:
    """Build an ArrowExtensionArray over its buffers."""
    return pd.arrays.ArrowExtensionArray(rebuild_arrow_array(node, source))


register_type(pd.arrays.ArrowExtensionArray, describe_arrow)
register_kind("arrow", "array", rebuild_arrow)
