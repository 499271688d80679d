"""The registry: which module describes a type and which rebuilds a kind.

A family of dtypes is one module of this package. It calls `register_type` for each class that it
describes and `register_kind` for each kind of node that it rebuilds, and is listed in FAMILIES so
that it is imported when its library is first met. That is all that a new family needs.

(1) Modules listed under "pandas" may import pandas at their top; no other module here may.
    pyarrow is imported inside functions only.
(2) `rebuild` gives an object or raises SchemaError (or an ImportError that names the extra),
    whatever the schema holds.
(3) No pickle is made or read but in objects.py, and there only when the caller allows it.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .buffer import Buffer, Sink
from .schema import VERSION, Node, Schema, SchemaError, found, read_node
from .source import Source

Describer = Callable[[Any, Sink], Node]
Rebuilder = Callable[[Node, Source], Any]

#: Library -> modules here that handle its types, imported when it is first met.
FAMILIES = {
    "numpy": ("array",),
    "pandas": (
        *("datetimes", "masked", "categorical", "strings", "arrow", "period", "interval"),
        *("sparse", "objects", "index", "block", "frame"),
    ),
}
#: Nodes inside nodes: frame > index > level > categories > interval > values is six.
MAX_DEPTH = 12

_describers: dict[type, Describer] = {}
_open_types: set[type] = set()
_rebuilders: dict[str, tuple[str, Rebuilder]] = {}
_loaded: set[str] = set()


def register_type(cls: type, describer: Describer, *, subclasses: bool = False) -> None:
    """Say who describes a class.

    Parameters
    ----------
    subclasses : bool
        Subclasses come back as `cls`. Otherwise they are refused: what a stranger's extension
        array adds would be lost without a word.
    """
    _describers[cls] = describer
    if subclasses:
        _open_types.add(cls)


def register_kind(kind: str, group: str, rebuilder: Rebuilder) -> None:
    """Say who rebuilds a kind of node; `group` is where it may stand: "array", "index", "table"."""
    _rebuilders[kind] = (group, rebuilder)


def describe(
    obj: object, *, keep_blocks: bool = False, allow_pickle: bool = False
) -> tuple[Schema, list[Buffer]]:
    """Describe an object: a small schema, and the buffers that hold its data.

    Copies no fixed-width data and never changes `obj`. Strings held as Python objects are encoded
    here (their size is not known before), which is O(n).

    Parameters
    ----------
    obj : ndarray, DataFrame, Series, Index or extension array
        A subclass of these is described as its base.
    keep_blocks : bool
        Describe the blocks of a frame as they are, so that those which lie in a segment already
        need no copy. By default the columns of one dtype become one block.
    allow_pickle : bool
        Pickle object columns and labels whose cells have no layout, instead of refusing them. For
        what stays between processes of one user on one host: nobody else should read it.

    Returns
    -------
    schema : dict
        For `pack` and `rebuild`.
    buffers : list of Buffer
        To be allocated and filled by the caller, in this order.

    Raises
    ------
    TypeError : `obj` or a part of it has no layout (and is not to be pickled, or cannot be). Names
        the column, the dtype and the remedy.
    """
    sink = Sink()
    sink.allow_pickle = allow_pickle
    sink.keep_blocks = keep_blocks
    node = describe_node(obj, sink)
    node["v"] = VERSION
    return node, sink.buffers


def describe_node(obj: object, sink: Sink) -> Node:
    """Describe a part of an object into the same sink."""
    describer = _describers.get(type(obj))
    if describer is None:
        describer = _find_describer(type(obj))
        if describer is None:
            if type(obj).__module__.partition(".")[0] in FAMILIES and hasattr(obj, "dtype"):
                raise sink.refuse(obj.dtype, "that has no layout")
            raise TypeError(
                f"{sink.where} is a {type(obj).__name__}, which cannot be laid out in shared "
                f"memory; pass an ndarray or a pandas DataFrame, Series, Index or extension array"
            )
    return describer(obj, sink)


def _find_describer(cls: type) -> Describer | None:
    for base in cls.__mro__:
        _load(base.__module__.partition(".")[0])
    for base in cls.__mro__:
        if base in _describers and (base is cls or base in _open_types):
            return _describers[base]
    return None


def _load(library: str) -> None:
    if library in FAMILIES and library not in _loaded:
        for name in FAMILIES[library]:
            import_module(f"{__package__}.{name}")
        _loaded.add(library)  # last: a failed import is tried again


def load_families() -> None:
    """Import the modules of all families, and their libraries."""
    for library in FAMILIES:
        _load(library)


def rebuild(
    schema: Schema,
    buffers: list[NDArray[np.uint8]],
    *,
    validate: bool = False,
    allow_pickle: bool = False,
) -> Any:
    """Build the object that a schema describes over the given buffers.

    No copy of fixed-width and Arrow data; strings kept as Python objects are decoded, O(n), into
    objects of this process. What is built keeps the buffers alive and is writable where they are.

    Parameters
    ----------
    schema : dict, from `describe` or `unpack`
    buffers : list of (nbytes,) uint8
        In the order of `describe`, of exactly the sizes declared there.
    validate : bool
        Check also what takes O(n): categorical and MultiIndex codes, Arrow offsets, UTF-8. Without
        it those are taken on trust, and pandas reads out of bounds where they lie: use it for
        data from outside. It says nothing of writers who change the buffers afterwards.
    allow_pickle : bool
        Read what was pickled. That runs whatever code its author wants: only for what a process of
        the same user wrote. Without it, pickled objects are a SchemaError and stay unread.

    Raises
    ------
    SchemaError : the schema is damaged or does not fit the buffers.
    TypeError : `buffers` are not uint8 arrays.
    ImportError : the object needs pyarrow, which is missing here.
    """
    if type(schema) is not dict or schema.get("v") != VERSION:
        version = schema.get("v") if type(schema) is dict else schema
        raise SchemaError(f"schema version: {VERSION} wanted, {found(version)}")
    source = Source(buffers, validate, allow_pickle)
    try:
        result = build(schema, source, ("array", "index", "table"), "top")
    except (SchemaError, ImportError, MemoryError):
        raise
    except Exception as error:
        # The fields were checked one by one; NumPy and pandas may still refuse how they go
        # together, with any exception they like. Rule (2) is kept here.
        raise SchemaError(f"schema: a buildable object wanted, found {error!r}") from error
    source.finish()
    return result


def build(value: object, source: Source, groups: tuple[str, ...], what: str) -> Any:
    """Build the object of one node, which must be of one of the `groups`."""
    node = read_node(value, what)
    kind = node.get("kind")
    entry = _rebuilders.get(kind) if type(kind) is str else None
    if entry is None:
        load_families()
        entry = _rebuilders.get(kind) if type(kind) is str else None
        if entry is None:
            raise SchemaError(f"schema {what}: a known kind wanted, {found(kind)}")
    group, rebuilder = entry
    if group not in groups:
        raise SchemaError(f"schema {what}: one of {groups} wanted, {kind!r} found")
    if source.depth >= MAX_DEPTH:
        raise SchemaError(f"schema {what}: at most {MAX_DEPTH} nested nodes wanted, more found")
    source.depth += 1
    result = rebuilder(node, source)
    source.depth -= 1
    return result
