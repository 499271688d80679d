"""Every private pandas name that numpush uses, for pandas 2.2, 2.3 and 3.x, but those for writing to
a frame, which are in _managers.py and _arrays.py. There is no other.

A test looks for such names elsewhere. Each function below says what it is and why the public way
will not do. None changes the frame, series or index that it is given: the block manager is read,
never consolidated.

Where pandas differs:

=================  =======================  ==================================================
what               2.2 / 2.3                3.x
=================  =======================  ==================================================
frame from blocks  BlockManager by hand     pandas.api.internals.create_dataframe_from_blocks
wide blocks        none of periods          of periods, too
freq of an index   held by its array        held by the index (3.1)
NaN strings        own array classes        a dtype's na_value
lines of warnings  counted by one path      by a path that is kept (3.1), so by several
inplace            as it is                 deprecated, method by method (3.1)
=================  =======================  ==================================================
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterator
from importlib import import_module
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Array = NDArray[Any]
Positions = NDArray[np.intp]

#: pandas as mypy should see it here: its stubs know none of these names.
_pd: Any = pd
#: (major, minor) of the pandas that is running.
VERSION: tuple[int, int] = (
    int(pd.__version__.split(".")[0]),
    int(pd.__version__.split(".")[1]),
)
PANDAS_3 = VERSION >= (3, 0)


# Frames and their blocks.


def read_blocks(frame: Any) -> tuple[list[tuple[Any, Positions]], list[tuple[int, Any]]]:
    """Give the arrays that a frame's columns lie in, without a copy.

    Why: only `_mgr` tells which columns share a 2-D array; by public means each column is a Series
    of its own (20 us each), and a frame's one block would be copied as a thousand columns.

    Returns
    -------
    blocks : list of ((k, rows) array, (k,) positions)
        Columns of NumPy dtypes as ndarrays, naive datetimes and timedeltas among them; and zoned
        datetimes and periods, as extension arrays.
    arrays : list of (position, extension array)
        The others, each 1-D.
    """
    blocks: list[tuple[Any, Positions]] = []
    arrays: list[tuple[int, Any]] = []
    for block in frame._mgr.blocks:
        values, positions = block.values, block.mgr_locs.as_array
        if not isinstance(values, np.ndarray) and isinstance(values.dtype, np.dtype):
            blocks.append((values._ndarray, positions))
        elif values.ndim == 2:
            blocks.append((values, positions))
        else:
            arrays.append((int(positions[0]), values))
    return blocks, arrays


def make_frame(
    blocks: list[tuple[Any, Positions]], index: pd.Index, columns: pd.Index
) -> pd.DataFrame:
    """Make a frame over (k, rows) arrays and 1-D extension arrays as its blocks, without a copy.

    Why: the public constructor copies a dict of 2-D blocks, or leaves one block per column, which
    is up to 65 times slower to read. Positions must be complete and free of doubles; pandas does
    not look.
    """
    if PANDAS_3:
        make = import_module("pandas.api.internals").create_dataframe_from_blocks
        made: pd.DataFrame = make(blocks, index, columns)
        return made
    placement = import_module("pandas._libs.internals").BlockPlacement
    internals = import_module("pandas.core.internals.blocks")
    managers = import_module("pandas.core.internals.managers")
    made_blocks = []
    for values, positions in _split_blocks(blocks):
        shaped = internals.maybe_coerce_values(internals.ensure_block_shape(values, 2))
        made_blocks.append(internals.new_block(shaped, placement=placement(positions), ndim=2))
    axes = [columns, index]
    manager = managers.BlockManager(tuple(made_blocks), axes, verify_integrity=False)
    made = _pd.DataFrame._from_mgr(manager, axes)
    return made


def _split_blocks(blocks: list[tuple[Any, Positions]]) -> Iterator[tuple[Any, Positions]]:
    """Give blocks of one column each for those of which pandas 2 has no wider ones."""
    for values, positions in blocks:
        if may_be_wide(values.dtype) or values.ndim == 1:
            yield values, positions
        else:
            for row in range(len(positions)):
                yield values[row : row + 1], positions[row : row + 1]


def may_be_wide(dtype: Any) -> bool:
    """Whether several columns of a dtype may be one block.

    Why: pandas 2 builds such a block of periods, and then takes its first column for each other.
    """
    if isinstance(dtype, np.dtype | pd.DatetimeTZDtype):
        return True
    return PANDAS_3 and isinstance(dtype, pd.PeriodDtype)


def forbid_duplicate_labels(obj: Any) -> None:
    """Set flags.allows_duplicate_labels to False.

    Why: the public setter looks for duplicates, which hashes the whole index; the describing side
    has done that.
    """
    obj.flags._allows_duplicate_labels = False


# Datetimes.


def datetime_values(array: Any) -> Array:
    """Give the "M8" or "m8" ndarray of a datetime or timedelta array.

    Why: np.asarray of a zoned array makes objects.
    """
    values: Array = array._ndarray
    return values


def make_datetimes(values: Array, zone: Any | None) -> Any:
    """Make a datetime or timedelta array over an ndarray in a unit that pandas has.

    Why: the constructor is deprecated in 2.2 and gone in 3, and pd.array takes "M8" for wall time
    of the zone and copies.
    """
    if values.dtype.kind == "m":
        return _pd.arrays.TimedeltaArray._simple_new(values, dtype=values.dtype)
    if zone is None:
        return _pd.arrays.DatetimeArray._simple_new(values, dtype=values.dtype)
    dtype = _pd.DatetimeTZDtype(np.datetime_data(values.dtype)[0], zone)
    return _pd.arrays.DatetimeArray._simple_new(values, dtype=dtype)


def set_freq(index: Any, freq: Any) -> None:
    """Set the freq of a datetime or timedelta index that was just made.

    Why: the public setter generates the whole range again to compare it.
    """
    holder = index._data if hasattr(index._data, "_freq") else index
    holder._freq = freq


# Extension arrays.


def masked_parts(array: Any) -> tuple[Array, Array]:
    """Give the values and the mask of a masked array (Int64, Float64, boolean, ...).

    Why: to_numpy copies, and isna() gives a copy of the mask.
    """
    return array._data, array._mask


def categorical_dtype(categories: pd.Index, ordered: bool) -> pd.CategoricalDtype:
    """Make a categorical dtype whose categories are known to be unique and without a null.

    Why: the constructor hashes them all, which at 10 million categories takes seconds.
    """
    dtype: pd.CategoricalDtype = _pd.CategoricalDtype._from_fastpath(categories, ordered)
    return dtype


def make_interval(left: Any, right: Any, closed: str) -> Any:
    """Make an interval array over its two sides, which are of one dtype.

    Why: the public constructors copy the right side where both lie in one segment (they look for a
    common base), so what is written to it would be lost; and they compare all sides, O(n).
    """
    dtype = _pd.IntervalDtype(left.dtype, closed)
    return _pd.arrays.IntervalArray._simple_new(left, right, dtype=dtype)


def make_interval_index(array: Any, name: Any) -> Any:
    """Make an IntervalIndex over an interval array.

    Why: the public constructor makes another array first, and copies its right side as above.
    """
    return _pd.IntervalIndex._simple_new(array, name=name)


def make_sparse(
    values: Array, dtype: Any, n_rows: int, places: tuple[Array, ...], validate: bool
) -> Any:
    """Make a sparse array over its values and their places.

    Why: the classes of the indexes have no public name, and the public constructor looks at all
    values again.

    Parameters
    ----------
    places : (positions,) or (starts, lengths), int32
        For the index of kind "integer" and "block".
    """
    sparse = import_module("pandas._libs.sparse")
    if len(places) == 1:
        index = sparse.IntIndex(n_rows, places[0], check_integrity=validate)
    else:
        index = sparse.BlockIndex(n_rows, *places)
    return _pd.arrays.SparseArray._simple_new(values, index, dtype)


def string_classes() -> tuple[type, ...]:
    """Give the classes of string arrays, for dispatch; pyarrow need not be there.

    Why: 2.2 and 2.3 have classes of their own for the NaN flavours, which have no public name.
    """
    string_ = import_module("pandas.core.arrays.string_")
    string_arrow = import_module("pandas.core.arrays.string_arrow")
    classes = [pd.arrays.StringArray, pd.arrays.ArrowStringArray]
    for module, name in (
        (string_, "StringArrayNumpySemantics"),
        (string_arrow, "ArrowStringArrayNumpySemantics"),
    ):
        if hasattr(module, name):
            classes.append(getattr(module, name))
    return tuple(classes)


def string_flavour(dtype: pd.StringDtype) -> tuple[str, str]:
    """Give a string dtype's storage ("python", "pyarrow") and missing value ("NA", "nan").

    Why: 2.2 has one name, "pyarrow_numpy", for what later versions keep in two attributes.
    """
    storage = "python" if dtype.storage == "python" else "pyarrow"
    return storage, "NA" if dtype.na_value is pd.NA else "nan"


def make_strings(values: Any, storage: str, missing: str) -> Any:
    """Make a string array of a flavour over a pyarrow array, or an object ndarray.

    Why: 2.2 and 2.3 tell the flavours by class, 3 by dtype; the public pd.array copies.

    pandas 2.2 has no NaN strings in python storage, and there makes object columns of str instead:
    so they come as object here too.
    """
    na_value = pd.NA if missing == "NA" else np.nan
    if PANDAS_3:
        dtype = _pd.StringDtype(storage, na_value=na_value)
        return dtype.construct_array_type()(values, dtype=dtype)
    if missing == "NA":
        return _pd.StringDtype(storage).construct_array_type()(values)
    if VERSION >= (2, 3):
        dtype = _pd.StringDtype(storage, na_value=na_value)
        return dtype.construct_array_type()(values)
    if storage == "python":
        return values
    return _pd.StringDtype("pyarrow_numpy").construct_array_type()(values)


def register_arrow_types() -> None:
    """Have pyarrow know pandas' own types (period, interval) when it reads a file.

    Why: pandas' readers import this module for that; nothing public does.
    """
    import_module("pandas.core.arrays.arrow.extension_types")


# Warnings.


def attribute_warnings() -> None:
    """Have pandas' warnings name the line that called numpush, not ours that called pandas.

    Why: it skips the frames of the stack whose file is in its own folder, and nothing public adds
    another; DeprecationWarnings are shown for the user's own lines only. str.startswith takes several
    folders. Before 3.1 pandas does not keep the path, so there the line stays ours.
    """
    exceptions: Any = import_module("pandas.util._exceptions")
    exceptions.find_stack_level()  # which sets it
    folder = getattr(exceptions, "_pkg_dir", None)
    if type(folder) is str:
        exceptions._pkg_dir = (folder, os.path.dirname(__file__) + os.sep)


def warns_of_inplace(method: Any) -> bool:
    """Whether a method of DataFrame or Series warns where it is passed `inplace`."""
    code = inspect.unwrap(method).__code__
    return "_check_inplace_deprecation" in code.co_names


def warn_of_inplace(cls: Any) -> Any:
    """Give the function (obj, value, name) that does so, naming the line which called its caller.

    Why: it counts on being called by the method that the user called.
    """
    return getattr(cls, "_check_inplace_deprecation", None)


def mute_inplace(obj: Any) -> None:
    """Have pandas not warn of `inplace` when it runs on a frame, a series or a class of ours.

    Why: there, ours is the line that it would name. Who called us is warned by `warn_of_inplace`.
    """
    if isinstance(obj, type):
        obj._check_inplace_deprecation = staticmethod(_is_in_place)  # type: ignore[attr-defined]  # private
    else:
        object.__setattr__(obj, "_check_inplace_deprecation", _is_in_place)


def _is_in_place(value: Any, name: str) -> Any:
    return False if value is _pd.api.extensions.no_default else value
