"""SArray: every dtype and order arrives; results are plain; views share; others take it as it is."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import io
import pickle
from multiprocessing.reduction import ForkingPickler

import numpy as np
import pytest

import numpush
import processes
from numpush import SArray, errors

N = 333

DTYPES = [
    *"?bBhHiIlLqQefdgFDG",
    ">i4",
    ">f8",
    ">c16",
    "<u2",
    "S7",
    "U5",
    ">U3",
    "V11",
    "M8[ns]",
    "M8[D]",
    "m8[us]",
    "M8",
    [("a", "i4"), ("b", ">f8", (2, 3))],
    np.dtype([("x", "u1"), ("y", "f8")], align=True),
    [("outer", [("inner", "S3"), ("n", "M8[s]")])],
    {"names": ["p", "q"], "formats": ["i2", "f4"], "offsets": [8, 0], "itemsize": 16},
]


def values(dtype, shape=(N,)):
    """Return an array with all sorts of bytes that are values of *dtype*."""
    dtype = np.dtype(dtype)
    count = int(np.prod(shape))
    if dtype.kind in "US":
        return np.array([str(i) for i in range(count)]).astype(dtype).reshape(shape)
    if dtype.kind == "b":
        return (np.arange(count) % 3 == 0).reshape(shape)
    if dtype.kind in "VmM" and dtype.itemsize:
        raw = np.random.default_rng(3).integers(0, 100, count * dtype.itemsize, "u1")
        return raw.view(dtype).reshape(shape)
    return np.arange(count).astype(dtype).reshape(shape)


def same(a, b):
    """Whether dtype, shape and bytes are the same (NaT and NaN too)."""
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


def travel(a):
    """Send through multiprocessing's pickler and back."""
    return ForkingPickler.loads(ForkingPickler.dumps(a))


class TestMaking:
    @pytest.mark.parametrize("dtype", DTYPES, ids=str)
    def test_every_dtype_arrives(self, dtype):
        source = values(dtype)
        a = SArray(source)
        assert type(a) is SArray
        assert same(a, source)
        b = travel(a)
        assert same(b, source)
        assert np.shares_memory(a, b)
        assert same(numpush.attach(a.name), source)
        assert same(SArray.zeros(7, dtype), np.zeros(7, dtype))
        assert SArray.empty((2, 3), dtype).dtype == np.dtype(dtype)

    @pytest.mark.parametrize(
        "source",
        [
            np.float64(3.5),
            np.array(7),
            np.zeros(0),
            np.zeros((3, 0, 2)),
            np.arange(24).reshape(2, 3, 4),
            np.asfortranarray(np.arange(24).reshape(2, 3, 4)),
            np.arange(24).reshape(2, 3, 4).transpose(1, 2, 0),
            np.arange(24).reshape(4, 6)[::-1, ::2],
            np.arange(24)[::-3],
            np.arange(24).reshape(4, 6)[:, 1],
            np.arange(6).reshape(1, 6, 1),
            np.broadcast_to(np.arange(3), (5, 3)),
            np.array([(1, 2.0)], "i4,f8")["f1"],
            [[1, 2], [3, 4]],
            range(5),
            True,
        ],
        ids=lambda s: f"{type(s).__name__}{getattr(s, 'shape', '')}{getattr(s, 'strides', '')}",
    )
    def test_every_layout_arrives(self, source):
        a = SArray(source)
        plain = np.asarray(source)
        assert same(a, plain)
        assert same(travel(a), plain)
        assert same(numpush.attach(a.name), plain)
        assert a.flags.writeable

    @pytest.mark.parametrize("order", ["C", "F"])
    def test_the_memory_order_is_kept(self, order):
        a = SArray(np.asarray(np.arange(12).reshape(3, 4), order=order))
        assert a.flags[f"{order}_CONTIGUOUS"]
        assert numpush.attach(a.name).strides == a.strides
        assert SArray.zeros((3, 4), order=order).flags[f"{order}_CONTIGUOUS"]
        assert SArray.full((3, 4), 7, order=order).sum() == 84

    def test_zeros_are_zero_in_used_memory_too(self):
        for _ in range(3):
            a = SArray.full((3, 1 << 17), 7.0, order="F")
            del a
            assert not SArray.zeros((3, 1 << 17), order="F").any()
            assert not SArray.zeros((1 << 17, 3)).any()

    def test_big_arrays_arrive_in_fresh_and_in_used_memory(self):
        source = np.random.default_rng(1).random((777, 1001))
        for layout in (source, source.T, source[::-1, ::3], source[:, 5:6]):
            for _ in range(3):
                a = SArray(layout)
                np.testing.assert_array_equal(a, layout)
                del a

    def test_the_source_may_be_shared_itself(self):
        a = SArray(np.arange(N))
        b = SArray(a[::2])
        assert not np.shares_memory(a, b)
        assert (b == np.arange(N)[::2]).all()

    def test_a_dtype_converts(self):
        assert SArray(np.arange(5), "f4").dtype == np.float32
        assert SArray([1, 2], dtype="i1").dtype == np.int8
        assert SArray.full(3, 7).dtype == np.full(3, 7).dtype

    @pytest.mark.parametrize("make", [SArray, lambda a: SArray.empty(3, a.dtype)])
    @pytest.mark.parametrize(
        "source",
        [
            np.array([1, "a", None], object),
            np.array([("a",)], [("f", object)]),
            np.array(["a", "bc"], np.dtypes.StringDType()),
        ],
        ids=["object", "field", "StringDType"],
    )
    def test_objects_are_refused_with_a_remedy(self, make, source):
        with pytest.raises(TypeError, match=r"(?s).{40}"):
            make(source)
        assert processes.files() == set()

    def test_bad_arguments_are_refused(self):
        for name in ("", "a/b", "../x", "-x", "x" * 129, "é", "a b", 7, ".."):
            with pytest.raises(ValueError, match="cannot name a segment"):
                SArray(np.zeros(1), name=name)
        with pytest.raises(ValueError, match="order 'K'"):
            SArray.empty(3, order="K")
        with pytest.raises(ValueError, match="negative"):
            SArray.empty(-1)
        assert processes.files() == set()

    def test_more_than_two_to_the_31_elements(self):
        a = SArray.empty(3_000_000_001, "u1", reserve=False)
        a[-1] = 7
        a[2_500_000_000] = 5
        b = travel(a[2_499_999_999:])
        assert (len(b), b[1], b[-1]) == (500_000_002, 5, 7)
        assert numpush.attach(a.name, "ro")[-1] == 7
        two = SArray.empty((3, 1 << 30), "u1", reserve=False)
        two[2, -1] = 9
        assert travel(two)[2, -1] == 9


class TestViewsAndResults:
    @pytest.fixture
    def a(self):
        return SArray(np.arange(1.0, 61.0).reshape(3, 4, 5))

    VIEWS = {
        "slice": lambda a: a[1:, ::2],
        "negative": lambda a: a[::-1, :, ::-2],
        "transpose": lambda a: a.T,
        "swapaxes": lambda a: a.swapaxes(0, 2),
        "reshape": lambda a: a.reshape(12, 5),
        "ravel": lambda a: a.ravel(),
        "view": lambda a: a.view("i8"),
        "newaxis": lambda a: a[None, 1],
        "ellipsis": lambda a: a[..., 2],
        "squeeze": lambda a: a[:1].squeeze(),
        "diagonal": lambda a: a.diagonal(),
        "real": lambda a: a.real,
        "zero-dim": lambda a: a[1, 2, 3, ...],
        "empty": lambda a: a[:0],
        "split": lambda a: np.array_split(a, 2)[1],
        "broadcast": lambda a: np.broadcast_to(a, (2, 3, 4, 5), subok=True),
        "sliding": lambda a: np.lib.stride_tricks.sliding_window_view(a, 2, 0, subok=True),
    }

    @pytest.mark.parametrize("make", VIEWS.values(), ids=VIEWS)
    def test_views_share_and_travel_as_views(self, a, make):
        view = make(a)
        assert type(view) is SArray
        assert view.size == 0 or np.shares_memory(view, a)
        got = travel(view)
        assert type(got) is SArray
        assert same(got, make(np.asarray(a)))
        if view.size and view.flags.writeable:
            got[...] = 0
            assert not view.any()
            assert got.strides == view.strides

    def test_one_element_is_a_scalar(self, a):
        assert type(a[0, 0, 0]) is np.float64
        assert type(SArray(np.array([(1, 2)], "i4,i4"))[0]) is np.void

    def test_fancy_indexing_copies(self, a):
        for key in ([0, 2], a > 3, np.array([1]), (slice(None), [0]), np.ix_([0], [1], [2])):
            part = a[key]
            assert type(part) is np.ndarray
            assert not np.shares_memory(part, a)

    @pytest.mark.parametrize(
        "name", sorted(n for n in dir(np) if isinstance(getattr(np, n), np.ufunc))
    )
    def test_results_of_ufuncs_are_plain(self, name):
        ufunc = getattr(np, name)
        for dtype in ("f8", "i8", "?", "M8[s]", "m8[s]", "c16", "U3", "S3"):
            a = SArray(values(dtype, (3, 3)))
            plain = np.asarray(a)
            with np.errstate(all="ignore"):
                calls = [(ufunc, [a] * ufunc.nin)]
                if ufunc.nin == 2 and ufunc.nout == 1:
                    calls += [
                        (ufunc.reduce, [a]),
                        (ufunc.accumulate, [a]),
                        (ufunc.outer, [a, a]),
                        (ufunc.reduceat, [a, [0, 1]]),
                        (ufunc, [a, plain]),
                        (ufunc, [plain, a]),
                    ]
                for call, arguments in calls:
                    try:
                        result = call(*arguments)
                    except (TypeError, ValueError, RuntimeError, OverflowError):
                        continue
                    for each in result if isinstance(result, tuple) else (result,):
                        assert type(each) is not SArray, name

    def test_results_into_shared_memory_are_shared(self, a):
        b = SArray(np.zeros_like(a))
        assert np.add(a, 1, out=b) is b
        assert b[0, 0, 0] == 2
        a += 1
        assert type(a) is SArray
        a *= a
        assert a[0, 0, 0] == 4
        assert np.cumsum(a, axis=0, out=b) is b
        assert a.sum(0, out=b[0]) is not None
        assert type(np.add(1, 2, out=SArray(np.zeros(())))) is SArray

    def test_every_method_of_ndarray_gives_a_plain_or_a_sharing_result(self, tmp_path, monkeypatch):
        """All of them, found by dir(): one that is new in NumPy fails here, not at a user's."""
        monkeypatch.chdir(tmp_path)  # dump and tofile make files
        called = set()
        for name in dir(np.ndarray):
            if name in {"__class__", "__array_finalize__", "__setstate__", "__class_getitem__"}:
                continue
            if name == "imag":  # an attribute in C: private, and says so when asked
                continue
            for arguments in ((), (0,), (2,), ([0, 1],), ("i8",), (np.zeros(9),), (slice(1),)):
                a = SArray(np.arange(9.0))
                try:
                    found = getattr(a, name)
                    result = found(*arguments) if callable(found) else found
                except Exception:
                    continue
                called.add(name)
                parts = result if isinstance(result, (tuple, list)) else (result,)
                for part in parts:
                    if type(part) is SArray and part.size:
                        assert np.shares_memory(part, a), (name, arguments)
        assert len(called) > 100

    def test_functions_of_numpy_give_plain_or_sharing_results(self):
        skip = {"save", "savetxt", "savez", "savez_compressed", "load", "fromfile", "test", "info"}
        called = set()
        for name in sorted(set(dir(np)) - skip):
            function = getattr(np, name)
            if not callable(function) or inspect.isclass(function) or name.startswith("_"):
                continue
            a = SArray(np.arange(1.0, 10.0).reshape(3, 3))
            for arguments in (
                (a,),
                (a, a),
                ([a, a],),
                (a, 1),
                (a, 0, 1),
                (a > 2, a, a),
                (a, (1, 1)),
            ):
                try:
                    with np.errstate(all="ignore"):
                        result = function(*arguments)
                except Exception:
                    continue
                called.add(name)
                for part in result if isinstance(result, (tuple, list)) else (result,):
                    if type(part) is SArray and part.size:
                        assert np.shares_memory(part, a), name
        assert len(called) > 200

    def test_asarray_is_free(self, a):
        assert np.shares_memory(np.asarray(a), a)
        assert type(np.asarray(a)) is np.ndarray
        assert np.asanyarray(a) is a

    def test_a_private_copy_says_that_it_is_one(self, a):
        private = np.ndarray.copy(a)
        assert type(private) is SArray
        for use in (lambda: private.name, lambda: private.lock, lambda: private.handle):
            with pytest.raises(errors.SegmentError, match="not in shared memory"):
                use()
        assert same(travel(private), private)


class TestPickling:
    def test_plain_pickle_is_by_value(self):
        a = SArray(np.arange(N))
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
            data = pickle.dumps(a[3:], protocol)
            got = pickle.loads(data)
            assert type(got) is np.ndarray
            assert same(got, np.arange(N)[3:])
            assert len(data) > got.nbytes or protocol == 0
        buffers = []
        data = pickle.dumps(a, 5, buffer_callback=buffers.append)
        assert same(pickle.loads(data, buffers=buffers), np.arange(N))
        file = io.BytesIO()
        np.save(file, a)
        file.seek(0)
        assert same(np.load(file), np.arange(N))

    def test_copies_are_plain(self):
        a = SArray(np.arange(N))
        for made in (a.copy(), copy.copy(a), copy.deepcopy(a), np.copy(a), np.array(a)):
            assert type(made) is np.ndarray
            assert not np.shares_memory(made, a)

    @pytest.mark.parametrize("dtype", ["f8", "?", ">i4", "U9", "M8[ns]"])
    def test_a_handle_is_small(self, dtype):
        a = SArray(np.zeros((100, 3, 5, 7), dtype))
        message = ForkingPickler.dumps(a[::2, 1:])
        assert len(message) <= 300
        assert len(pickle.dumps(a.handle)) <= 500
        ForkingPickler.loads(message)

    def test_a_handle_attaches_and_keeps_nothing_alive(self):
        a = SArray(np.arange(12).reshape(3, 4))
        handle = pickle.loads(pickle.dumps(a[1:, ::2].handle))
        assert same(numpush.attach(handle), np.arange(12).reshape(3, 4)[1:, ::2])
        del a
        with pytest.raises(errors.SegmentNotFound):
            numpush.attach(handle)

    def test_attaching_twice_gives_the_same_memory(self):
        a = SArray(np.arange(9))
        assert numpush.attach(a.name).ctypes.data == a.ctypes.data == travel(a).ctypes.data

    @pytest.mark.parametrize(
        "change",
        [
            {"offset": 1 << 40},
            {"offset": -8},
            {"shape": (1 << 40,)},
            {"strides": (1 << 40,)},
            {"strides": (-8,)},
            {"dtype": np.dtype("V99999")},
        ],
        ids=str,
    )
    def test_a_handle_out_of_bounds_is_refused(self, change):
        a = SArray(np.arange(9))
        with pytest.raises(errors.SegmentDamaged, match="out of bounds"):
            numpush.attach(dataclasses.replace(a.handle, **change))

    def test_a_handle_to_objects_is_refused(self):
        a = SArray(np.arange(9))
        with pytest.raises(errors.SegmentDamaged, match="objects"):
            numpush.attach(dataclasses.replace(a.handle, dtype=np.dtype(object)))
        with pytest.raises(TypeError):
            a.view(object)
