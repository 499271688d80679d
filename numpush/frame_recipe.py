"""How to rebuild a frame once more, quickly: for workers that get the same frame with every task.

When a task is done its frame dies, and the next task brings it again. Most of what rebuilding costs
is reading the schema and making the labels; those are kept here for the latest few frames, where
the labels have memory of their own and the columns are plain NumPy blocks. A recipe refers to no
shared memory, so it keeps nothing alive.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from . import _pandas
from .layout import Schema

__all__ = ["Recipe", "find", "learn"]

_MOST = 32  #: frames

Key = tuple[str, int]  # name and identity of a segment
Memory = NDArray[np.uint8]


class Recipe(NamedTuple):
    """Labels, and of each block: offset and bytes in the data, dtype, shape, column positions."""

    row_labels: pd.Index
    column_labels: pd.Index
    blocks: list[tuple[int, int, np.dtype[Any], tuple[int, ...], NDArray[np.intp]]]

    def rebuild(self, memory: Memory) -> pd.DataFrame:
        """Build the frame over *memory*, the data of its segment."""
        blocks = [
            (
                memory[offset : offset + n].view(np.ndarray).view(dtype).reshape(shape),
                positions.copy(),
            )
            for offset, n, dtype, shape, positions in self.blocks
        ]
        # Views of the labels: the names of an index can be changed in place.
        return _pandas.make_frame(blocks, self.row_labels.view(), self.column_labels.view())


_recipes: OrderedDict[Key, Recipe] = OrderedDict()


def find(key: Key) -> Recipe | None:
    return _recipes.get(key)


def learn(key: Key, schema: Schema, n_buffers: int, memory: Memory, frame: pd.DataFrame) -> None:
    """Keep a recipe of *frame*, just rebuilt over *memory*, if one will do for it."""
    blocks, arrays = _pandas.read_blocks(frame)
    # The codec uses each buffer once: if every one is a block's, none is left for labels.
    is_plain = not arrays and len(blocks) == len(schema["blocks"]) == n_buffers
    has_objects = any(values.dtype.hasobject for values, _ in blocks)
    if not is_plain or has_objects or "attrs" in schema or "unique_labels" in schema:
        return
    base = memory.__array_interface__["data"][0]
    _recipes[key] = Recipe(
        frame.index.view(),
        frame.columns.view(),
        [
            (
                values.__array_interface__["data"][0] - base,
                values.nbytes,
                values.dtype,
                values.shape,
                np.array(positions, np.intp),
            )
            for values, positions in blocks
        ],
    )
    if len(_recipes) > _MOST:
        _recipes.popitem(last=False)
