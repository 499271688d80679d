"""Arrow tables of every type, and how a shared frame is compared with a plain one."""

from __future__ import annotations

import contextlib
import gc
import types
from itertools import pairwise

import numpy as np
import pandas as pd
import pyarrow as pa

import processes
from numpush import SDataFrame

PANDAS_3 = int(pd.__version__.split(".")[0]) >= 3
BACKENDS = [None, "numpy_nullable", "pyarrow"]


def check(shared, expected):
    """Check that a shared frame equals a plain one, dtypes, categories, labels and attrs included."""
    assert type(shared) is SDataFrame
    found = shared.to_pandas()
    pd.testing.assert_frame_equal(
        found, expected, check_index_type="equiv" if len(expected) else False
    )
    assert found.attrs == expected.attrs
    for i, dtype in enumerate(expected.dtypes):
        if isinstance(dtype, pd.CategoricalDtype):
            theirs = expected.iloc[:, i].cat.categories
            pd.testing.assert_index_equal(found.iloc[:, i].cat.categories, theirs)


def holes(values, every=7):
    return [None if i % every == 3 else value for i, value in enumerate(values)]


def make_arrays(n):
    """One Arrow array of each type that has a shared form in pandas' default dtypes."""
    numbers = [i % 100 for i in range(n)]
    arrays = {}
    for name in ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"):
        arrays[name] = pa.array(numbers, name)
        arrays[f"{name}_null"] = pa.array(holes(numbers), name)
    for name in ("float16", "float32", "float64"):
        values = np.arange(n).astype(name) / np.dtype(name).type(7)
        arrays[name] = pa.array(values)
        arrays[f"{name}_null"] = pa.array(values, mask=np.arange(n) % 5 == 0)
    arrays["bool"] = pa.array([i % 3 == 0 for i in range(n)])
    for unit in ("s", "ms", "us", "ns"):
        arrays[f"time_{unit}"] = pa.array(holes(range(n)), pa.timestamp(unit))
        arrays[f"zone_{unit}"] = pa.array(holes(range(n)), pa.timestamp(unit, "Europe/Paris"))
        arrays[f"duration_{unit}"] = pa.array(holes(range(n)), pa.duration(unit))
    arrays["offset"] = pa.array(holes(range(n)), pa.timestamp("us", "+01:30"))
    words = ["" if i % 11 == 0 else f"wörd-{i}" * (i % 4) for i in range(n)]
    arrays["string"] = pa.array(words, pa.string())
    arrays["string_null"] = pa.array(holes(words), pa.string())
    arrays["large_string"] = pa.array(holes(words), pa.large_string())
    arrays["all_null"] = pa.nulls(n, pa.int64())
    arrays["no_string"] = pa.nulls(n, pa.string())
    arrays["dictionary"] = pa.array(holes([f"c{i % 300}" for i in range(n)])).dictionary_encode()
    arrays["ints"] = pa.array(holes([i % 7 for i in range(n)])).dictionary_encode()
    return arrays


def pieces(table, *cuts):
    """The same table in chunks."""
    edges = [0, *cuts, table.num_rows]
    return pa.concat_tables([table.slice(a, b - a) for a, b in pairwise(edges)])


def segments():
    """The files of segments that are there: not of nodes, nor of warm memory."""
    # An exception's traceback keeps what its functions had (3.12 and later, in a cycle).
    for each in gc.get_objects():
        if isinstance(each, types.TracebackType):
            with contextlib.suppress(RuntimeError):
                each.tb_frame.clear()
    gc.collect()
    return {file for file in processes.files() if ".seg." in file}


def for_backend(table, backend):
    """Leave out what pandas 2 cannot compare."""
    return table if PANDAS_3 or backend != "pyarrow" else table.drop_columns(["float16_null"])
