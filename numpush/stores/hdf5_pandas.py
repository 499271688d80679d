"""pandas' HDFStore, format 'fixed' (`to_hdf`): blocks of columns, transposed, with what PyTables notes.

(1) Attributes that hold pickles are never unpickled.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .errors import StoreDamaged

__all__ = ["read_pandas"]

_NONE = b"N."  #: None, as PyTables pickles it


def read_pandas(group: Any, what: str) -> Any:
    """Read a frame or series of the format 'fixed'.

    Raises
    ------
    StoreDamaged : it is of a kind that is not read here; the message says who does.
    """
    import pandas as pd

    form = _text(group.attrs["pandas_type"])
    if form == "series":
        index = _read_axis(group, "index", what)
        values = _read_block(group["values"], what)
        return pd.Series(values, index=index, name=_name_of(group.attrs.get("name"), what))
    if form != "frame":
        raise _not_read(what, f"pandas' format {form!r}")
    columns, index = _read_axis(group, "axis0", what), _read_axis(group, "axis1", what)
    found: list[Any] = [None] * len(columns)
    for i in range(int(group.attrs["nblocks"])):
        items = _read_axis(group, f"block{i}_items", what)
        block = _read_block(group[f"block{i}_values"], what)
        places = columns.get_indexer(items) if columns.is_unique else [-1]
        if (np.asarray(places) < 0).any() or block.ndim != 2 or block.shape[1] != len(items):
            raise _not_read(what, "labels that occur twice, or blocks that are none")
        for row, place in enumerate(places):
            found[place] = _zoned(block[:, row], group[f"block{i}_values"])
    if any(column is None for column in found):
        raise StoreDamaged(f"{what}: not all columns are there")
    frame = pd.DataFrame(dict(enumerate(found)), index=index)
    frame.columns = columns
    return frame


def _not_read(what: str, found: str) -> StoreDamaged:
    return StoreDamaged(f"{what}: {found}, which we do not read; pandas.read_hdf does")


def _read_block(dataset: Any, what: str) -> Any:
    import h5py

    if "PSEUDOATOM" in dataset.attrs or dataset.dtype.hasobject:
        raise _not_read(what, f"pickled objects in {dataset.name}")
    if "shape" in dataset.attrs:  # pandas writes one item where there is none
        raise _not_read(what, f"an empty array, {dataset.name}")
    values = dataset[()]
    if dataset.id.get_type().get_class() == h5py.h5t.BITFIELD:
        values = values.astype(bool)
    kind = _text(dataset.attrs.get("value_type", b""))
    if kind.startswith(("datetime64", "timedelta64")):
        unit = kind if "[" in kind else f"{kind}[ns]"
        values = values.view(np.dtype(unit))
    elif kind and kind != str(values.dtype):
        raise _not_read(what, f"values of {kind}")
    return values


def _zoned(values: Any, dataset: Any) -> Any:
    import pandas as pd

    zone = dataset.attrs.get("tz")
    if zone is None:
        return values
    return pd.DatetimeIndex(values).tz_localize("UTC").tz_convert(_text(zone))


def _read_axis(group: Any, name: str, what: str) -> Any:
    import pandas as pd

    if _text(group.attrs.get(f"{name}_variety", b"regular")) != "regular":
        raise _not_read(what, f"a {name} of several levels")
    dataset = group[name]
    kind = _text(dataset.attrs.get("kind", b""))
    label = _name_of(dataset.attrs.get("name"), what)
    values = dataset[()]
    if "PSEUDOATOM" in dataset.attrs or dataset.dtype.hasobject or "shape" in dataset.attrs:
        raise _not_read(what, f"objects or nothing in {name}")
    if kind == "string":
        encoding = _text(group.attrs.get("encoding", b"UTF-8"))
        return pd.Index(list(np.char.decode(values, encoding)), name=label)
    if kind in ("integer", "float"):
        return pd.Index(values, name=label)
    if kind.startswith("datetime64"):
        unit = kind if "[" in kind else "datetime64[ns]"
        return pd.DatetimeIndex(_zoned(values.view(unit), dataset), name=label)
    raise _not_read(what, f"an index of kind {kind!r}")


def _name_of(stored: Any, what: str) -> str | None:
    if stored is None or bytes(stored) == _NONE:
        return None
    if bytes(stored).endswith(b"."):  # rule (1)
        raise _not_read(what, f"a pickled name {bytes(stored)!r:.40}")
    return _text(stored)


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
