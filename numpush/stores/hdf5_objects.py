"""Which datasets and groups of an HDF5 file are objects, and which are folders of others.

(1) Only hard links are followed: what others lead to may lie in other files, or nowhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from typing import Any

__all__ = ["RECORD", "collect", "find_object", "is_object", "members"]

RECORD = "numpush record"  #: the attribute of an array, or the dataset of a frame, with its record


def is_object(item: Any) -> bool:
    """Whether a dataset or group is what a key means: not a folder of others."""
    if hasattr(item, "shape"):
        return item.shape is not None and not item.dtype.hasobject
    if RECORD in item or "pandas_type" in item.attrs:
        return True
    inside = [member for _, member in members(item)]
    shapes = [getattr(each, "shape", None) for each in inside]
    return (
        bool(shapes)
        and all(shape is not None and len(shape) == 1 and shape == shapes[0] for shape in shapes)
        and not any(RECORD in each.attrs or each.dtype.hasobject for each in inside)
    )


def find_object(file: Any, key: str) -> Any:
    """Return what a key means, or None: nothing, or what is in other files."""
    item = file
    for name in key.split("/"):
        if hasattr(item, "shape") or not _is_member(item, name):
            return None
        item = item[name]
    return item if is_object(item) else None


def members(group: Any) -> Iterator[tuple[str, Any]]:
    """Give what is in a group; what lies in other files, or nowhere, is not looked at."""
    for name in group:
        if _is_member(group, name):
            yield name, group[name]


def _is_member(group: Any, name: str) -> bool:
    return isinstance(group.get(name, getlink=True), import_module("h5py").HardLink)


def collect(group: Any, path: str, found: list[str]) -> None:
    for name, item in members(group):
        if name.startswith("."):
            continue
        if is_object(item):
            found.append(path + name)
        elif not hasattr(item, "shape"):
            collect(item, f"{path}{name}/", found)
