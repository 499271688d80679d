"""What is where in an HDF5 file: docs/stores.md.

An array is a dataset at its key. A frame is a group at its key, with a dataset for each column that is one
array of numbers, named by its label; a column of more parts (text, masked values, ..) is a group of
datasets, named by what they are in the schema of the layout codec.

(1) Names are for people. Which datasets a buffer is made of, one behind the other, the record says, in a
    list for each buffer: those of a block of a frame are its columns.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..layout import Buffer, Schema, SchemaError
from ..layout.dtype import decode_dtype
from ..layout.place import KINDS
from ..layout.schema import Node
from ..layout.selection import find_references, places_of

__all__ = ["Part", "dataset_dtype", "name_parts"]

_INDEX = "index"
_LABELS = "numpush labels"
_MOST_CATEGORIES = 16 << 10  #: bytes of an attribute, of which HDF5 has 64 KiB


class Part(NamedTuple):
    """A dataset of a frame: its path below the group, its items, what people should know of it."""

    name: str
    dtype: np.dtype[Any]
    attrs: dict[str, Any]


def dataset_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return what a dtype is stored as. HDF5 has no times, nor UTF-32, which are ints and bytes then."""
    if dtype.kind in "mM":
        return np.dtype("i8").newbyteorder(dtype.byteorder)
    if dtype.kind in "US":
        return np.dtype((np.void, dtype.itemsize)) if dtype.itemsize else np.dtype("u1")
    if dtype.names is not None and any(dtype[n].base.kind in "mMUSV" for n in dtype.names):
        return np.dtype((np.void, dtype.itemsize))
    return dtype


def name_parts(schema: Schema, buffers: list[Buffer], frame: Any) -> list[list[Part]]:
    """Name the datasets that each buffer of a frame is made of; rule (1)."""
    parts: list[list[Part]] = [[] for _ in buffers]
    names = _Names()
    columns = [names.take(label, f"column {i}") for i, label in enumerate(frame.columns)]
    for block in schema["blocks"]:
        dtype = decode_dtype(block["dtype"])
        attrs: dict[str, Any] = {"dtype": str(dtype)} if dtype.kind in "mM" else {}
        attrs |= {key: str(block[key]) for key in KINDS if key in block}
        at = block.get("at")
        known = {at: _bytes_of(buffers[at])} if type(at) is int else {}
        parts[block["data"]] = [
            Part(columns[position], dataset_dtype(dtype), attrs)
            for position in places_of(block, known, schema["cols"])
        ]
        if type(at) is int:
            name = names.take(None, f"numpush places {block['data']}")
            parts[at] = [Part(name, np.dtype("<i8"), {})]
    for position, node in schema["arrays"]:
        attrs = {"kind": node["kind"], "dtype": str(frame.dtypes.iloc[position])}
        if node["kind"] == "categorical":
            attrs |= _categories(frame.dtypes.iloc[position].categories)
        _name_node(parts, buffers, columns[position], node, attrs)
    _name_node(parts, buffers, names.take(_INDEX, _INDEX), schema["index"], {"kind": "index"})
    _name_node(parts, buffers, _LABELS, schema["columns"], {})
    return parts


class _Names:
    """Names of datasets in a group, each once."""

    def __init__(self) -> None:
        self._taken = {_LABELS}

    def take(self, label: Any, otherwise: str) -> str:
        """Return the label where it can be a name; else another."""
        name = label if isinstance(label, str) else ""
        is_good = name and name.isprintable() and "/" not in name and not name.startswith(".")
        if not is_good or name in self._taken or len(name) > 200:
            name = otherwise
        while name in self._taken:
            name += "_"
        self._taken.add(name)
        return name


def _name_node(
    parts: list[list[Part]], buffers: list[Buffer], name: str, node: Node, attrs: dict[str, Any]
) -> None:
    found = find_references(node)
    for path, buffer, holder in found:
        full = name if len(found) == 1 else f"{name}/{path}"
        dtype = _item_dtype(path, holder, buffers[buffer].nbytes)
        parts[buffer] = [Part(full, dtype, attrs)]


def _item_dtype(path: str, holder: Node, nbytes: int) -> np.dtype[Any]:
    """Return what a buffer's items are, where that is plain; else bytes."""
    last = path.rpartition(".")[2]
    code = {"data": holder.get("dtype"), "offsets": "<i8", "mask": "|b1"}.get(last)
    if last == "offsets" and nbytes != 8 * (holder.get("rows", -1) + 1):
        code = "<i4" if nbytes == 4 * (holder.get("rows", -1) + 1) else None
    try:
        dtype = dataset_dtype(decode_dtype(code))
    except SchemaError:
        return np.dtype("u1")
    return dtype if dtype.itemsize and nbytes % dtype.itemsize == 0 else np.dtype("u1")


def _categories(categories: Any) -> dict[str, Any]:
    labels = list(categories)
    is_text = all(isinstance(label, str) for label in labels)
    if is_text and sum(len(label.encode(errors="replace")) for label in labels) < _MOST_CATEGORIES:
        return {"categories": labels}
    return {}


def _bytes_of(buffer: Buffer) -> NDArray[np.uint8]:
    return np.concatenate([np.empty(0, np.uint8), *buffer.parts(1 << 62)])
