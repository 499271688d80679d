"""The layout codec: what goes in comes out, over the very bytes. ndarrays, and what holds of all."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import numpush.layout
from layout_samples import RNG, N, arrow, fill, is_over, naming, pa, travel, words
from numpush.layout import describe, rebuild

ARRAYS = {
    "bool": lambda: RNG.random(N) > 0.5,
    **{
        code: lambda code=code: RNG.integers(0, 100, N).astype(code)
        for code in words("i1 i2 i4 i8 u1 u2 u4 u8 f2 f4 f8 g c8 c16 G >i2 >f8 >c16 >g S7 U5 >U5")
    },
    **{
        f"{kind}8[{unit}]": lambda kind=kind, unit=unit: np.arange(N).astype(f"{kind}8[{unit}]")
        for kind in "mM"
        for unit in words("Y M W D h m s ms us ns ps fs as 25s")
    },
    ">M8[ms]": lambda: np.arange(N).astype(">M8[ms]"),
    "M8 without a unit": lambda: np.full(3, "NaT", "M8"),
    "m8 without a unit": lambda: np.full(3, "NaT", "m8"),
    "V5": lambda: np.zeros(N, "V5"),
    "0-d": lambda: np.array(3.5),
    "empty": lambda: np.zeros((5, 0, 3), "i2"),
    "empty strings": lambda: np.zeros(3, "S0"),
    "no fields": lambda: np.zeros(3, np.dtype([])),
    "5-d": lambda: RNG.random((3, 1, 4, 1, 5)),
    "structured": lambda: np.ones(
        N, [("a", "i4"), ("b", ">f8", (2, 3)), ("c", [("x", "M8[s]"), ("y", "S3")])]
    ),
    "structured with holes and titles": lambda: np.ones(
        N,
        np.dtype(
            {
                "names": ["a", "b"],
                "formats": ["u1", "f8"],
                "offsets": [3, 16],
                "titles": ["the a", "the b"],
                "itemsize": 29,
            }
        ),
    ),
    "structured with overlap": lambda: np.ones(
        N, np.dtype({"names": ["a", "b"], "formats": ["u4", "u2"], "offsets": [0, 2]})
    ),
    "aligned": lambda: np.ones(N, np.dtype([("a", "u1"), ("b", "f8")], align=True)),
    "record": lambda: np.ones(N, np.dtype((np.record, [("a", "u1"), ("b", "f8")]))),
}


def test_arrays_of_every_dtype_come_back_equal_over_the_given_bytes():
    for name in ARRAYS:
        with naming(name):
            array = ARRAYS[name]()
            back, _, raws = travel(array)
            assert type(back) is np.ndarray
            assert back.dtype == array.dtype
            assert back.dtype.str == array.dtype.str
            assert back.dtype.isalignedstruct == array.dtype.isalignedstruct
            assert back.dtype.type is array.dtype.type
            assert back.shape == array.shape
            assert back.tobytes() == array.tobytes()
            assert back.flags.writeable
            assert not back.nbytes or is_over(back, raws)


def test_holes_in_structured_items_are_copied_too():
    array = np.zeros(N, np.dtype({"names": ["a"], "formats": ["u1"], "itemsize": 8}))
    array.view(np.uint8)[:] = np.arange(8 * N, dtype=np.uint8)
    _, _, raws = travel(array)
    assert raws[0].tobytes() == array.view(np.uint8).tobytes()


ORDERS = {
    "C": lambda a: a,
    "F": lambda a: a.T,
    "rows of C": lambda a: a[1::2],
    "columns of C": lambda a: a[:, 1::2],
    "rows of F": lambda a: a.T[1::2],
    "reversed": lambda a: a[::-1],
    "reversed twice": lambda a: a[::-1, ::-2],
    "axes permuted": lambda a: a.transpose(1, 2, 0),
    "axes permuted and cut": lambda a: a.transpose(2, 0, 1)[:, 1:3],
    "broadcast": lambda a: np.broadcast_to(a[0], a.shape),
    "single axes": lambda a: a.transpose(1, 0, 2)[:, None, ::2],
}


def test_arrays_of_every_order_come_back_dense_in_the_order_of_their_strides():
    for name in ORDERS:
        with naming(name):
            array = ORDERS[name](RNG.random((5, 7, 3)))
            back, _, _ = travel(array)
            np.testing.assert_array_equal(back, array)
            wanted = np.copy(array, order="C" if name == "broadcast" else "K")
            assert back.strides == wanted.strides or 1 in array.shape


def test_reading_only_buffers_gives_arrays_that_cannot_be_written():
    schema, buffers = describe(np.arange(N))
    raw = fill(buffers)[0]
    raw.flags.writeable = False
    assert not rebuild(schema, [raw]).flags.writeable


def test_an_array_keeps_its_buffer_alive():
    schema, buffers = describe(np.arange(N))
    raw = fill(buffers)[0]
    back = rebuild(schema, [raw])
    base = back
    while base.base is not None and base is not raw:
        base = base.base
    assert base is raw or base is raw.base


def test_record_arrays_come_back_as_structured_arrays():
    array = np.rec.array([(1, 2.0), (3, 4.0)], dtype=[("a", "i4"), ("b", "f8")])
    back, _, _ = travel(array)
    assert type(back) is np.ndarray
    assert back.tolist() == array.tolist()


@pytest.mark.parametrize(
    ("obj", "text"),
    [
        (np.ma.array([1, 2], mask=[0, 1]), r"mask would be lost; pass \.filled"),
        (np.array([{}, 3]), r"dtype object holding <class 'dict'>"),
        (np.zeros(3, [("a", "O")]), r"holding Python objects"),
        ({"a": 1}, r"the object is a dict, which cannot be laid out"),
        (None, r"the object is a NoneType"),
    ],
)
def test_what_has_no_layout_is_a_type_error_with_a_remedy(obj, text):
    with pytest.raises(TypeError, match=text):
        describe(obj)


def test_numpy_strings_of_variable_width_are_refused():
    strings = pytest.importorskip("numpy", "2.0", reason="StringDType came with NumPy 2")
    with pytest.raises(TypeError, match=r"astype\('U'\)"):
        describe(np.array(["a"], dtype=strings.dtypes.StringDType()))


def test_missing_pyarrow_is_an_import_error_that_names_the_extra(monkeypatch):
    schema, buffers = describe(pd.DataFrame({"a": arrow(pa.int64())}))
    raws = fill(buffers)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ImportError, match=r'pip install "numpush\[arrow\]"'):
        rebuild(schema, raws)


def test_arrays_need_neither_pandas_nor_pyarrow():
    code = (
        "import sys, numpy as np; from numpush.layout import describe, rebuild, pack, unpack\n"
        "s, b = describe(np.arange(5)); rebuild(unpack(pack(s)), [np.zeros(40, 'u1')])\n"
        "print([m for m in ('pandas', 'pyarrow') if m in sys.modules])"
    )
    root = Path(numpush.layout.__file__).parents[2]
    run = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=root,
        check=True,
    )
    assert run.stdout.strip() == "[]"


def test_private_names_of_pandas_stand_in_one_module():
    private = ("._mgr", "._ndarray", "._data", "._mask", "._pa_array", "_simple_new", "_from_mgr")
    root = Path(numpush.layout.__file__).parents[1]
    for path in root.rglob("*.py"):
        if path.name != "_pandas.py" and "layout" in path.parts:
            assert not [name for name in private if name in path.read_text()], path
