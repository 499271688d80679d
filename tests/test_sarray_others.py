"""SArray and the libraries that take arrays, and against ndarray on random inputs."""

from __future__ import annotations

from multiprocessing.reduction import ForkingPickler

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from numpush import SArray

N = 333

EXAMPLES = settings(
    max_examples=80,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


@pytest.fixture
def a():
    return SArray(np.arange(float(N)))


class TestOthers:
    def test_numba_takes_it_as_an_array(self, a):
        numba = pytest.importorskip("numba", reason="numba is not installed")

        @numba.njit
        def double(x):
            for i in range(x.size):
                x[i] *= 2
            return x.sum()

        assert double(a) == N * (N - 1)
        assert a[-1] == 2 * (N - 1)
        assert double(a[::-3]) > 0
        assert len(double.signatures) == 2  # contiguous and not: no more than of plain arrays
        assert double(np.asarray(a)) > 0
        assert len(double.signatures) == 2

    def test_torch_shares_its_memory(self, a):
        torch = pytest.importorskip("torch", reason="torch is not installed")
        for tensor in (torch.from_numpy(a), torch.as_tensor(a), torch.from_dlpack(a)):
            tensor[0] += 1
        assert a[0] == 3
        assert a.sum() == tensor.sum()

    def test_pyarrow_shares_its_memory(self, a):
        pa = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
        array = pa.array(a, from_pandas=False)
        assert array.buffers()[1].address == a.ctypes.data
        assert pa.py_buffer(a).size == a.nbytes

    def test_pandas_shares_its_memory(self):
        a = SArray(np.arange(12.0).reshape(4, 3))
        frame = pd.DataFrame(a, copy=False, columns=list("xyz"))
        assert np.shares_memory(frame.to_numpy(), a)
        assert frame["y"].sum() == a[:, 1].sum()
        series = pd.Series(a[:, 0], copy=False)
        assert np.shares_memory(series.to_numpy(), a)

    def test_the_buffer_protocol(self, a):
        memory = memoryview(a)
        assert (memory.format, memory.nbytes, memory.readonly) == ("d", a.nbytes, False)
        memory[0] = 7.0
        assert a[0] == 7

    def test_ctypes_and_the_array_interface(self, a):
        assert np.shares_memory(np.ctypeslib.as_array(np.ctypeslib.as_ctypes(np.asarray(a))), a)

        class Wrapper:
            __array_interface__ = a.__array_interface__

        assert np.shares_memory(np.asarray(Wrapper()), a)

    def test_a_dlpack_round_trip(self, a):
        b = np.from_dlpack(a)
        assert np.shares_memory(a, b)

    def test_sorting_and_filling_in_place(self, a):
        a[...] = a[::-1].copy()
        a.sort()
        a.partition(5)
        a.fill(3)
        a.put([0], 1)
        np.copyto(a, 2, where=a > 2)
        np.random.default_rng(0).shuffle(a)
        np.random.default_rng(0).random(out=a)
        assert type(a) is SArray


dtypes = st.one_of(
    hnp.boolean_dtypes(),
    hnp.integer_dtypes(endianness="?"),
    hnp.unsigned_integer_dtypes(endianness="?"),
    hnp.floating_dtypes(endianness="?"),
    hnp.complex_number_dtypes(endianness="?"),
    hnp.datetime64_dtypes(endianness="?"),
    hnp.timedelta64_dtypes(endianness="?"),
    hnp.byte_string_dtypes(endianness="?", min_len=1),
    hnp.unicode_string_dtypes(endianness="?", min_len=1),
    hnp.array_dtypes(st.sampled_from(["u1", ">f4", "M8[s]"]), allow_subarrays=True),
)
shapes = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=6)
arrays = dtypes.flatmap(lambda dtype: hnp.arrays(dtype, shapes))


def same(a, b):
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


class TestAgainstNdarray:
    @EXAMPLES
    @given(arrays, st.sampled_from(["K", "F", "reverse", "step"]))
    def test_an_array_arrives_whole(self, plain, layout):
        if layout == "F":
            plain = np.asarray(plain, order="F")
        elif layout == "reverse" and plain.ndim:
            plain = plain[(slice(None, None, -1),) * plain.ndim]
        elif layout == "step" and plain.ndim:
            plain = plain[(slice(None, None, 2),) * plain.ndim]
        a = SArray(plain)
        assert same(a, plain)
        b = ForkingPickler.loads(ForkingPickler.dumps(a))
        assert type(b) is SArray
        assert same(b, plain)

    @EXAMPLES
    @given(arrays, st.data())
    def test_indexing_gives_what_ndarray_gives(self, plain, data):
        a = SArray(plain)
        key = data.draw(
            hnp.basic_indices(plain.shape, allow_newaxis=True)
            | (
                hnp.integer_array_indices(plain.shape)
                if plain.ndim and plain.size
                else st.just(...)
            )
            | hnp.arrays(bool, plain.shape)
        )
        expected, got = plain[key], a[key]
        assert np.asarray(got).tobytes() == np.asarray(expected).tobytes()
        assert np.shape(got) == np.shape(expected)
        if isinstance(got, np.ndarray) and got.size:
            assert (type(got) is SArray) == np.shares_memory(got, a)
            sent = ForkingPickler.loads(ForkingPickler.dumps(got))
            if type(got) is not SArray:  # NumPy's pickle makes some arrays native
                expected = ForkingPickler.loads(ForkingPickler.dumps(np.asarray(expected)))
            assert same(np.asarray(sent), np.asarray(expected))
            assert np.shares_memory(sent, a) == np.shares_memory(got, a)

    @EXAMPLES
    @given(arrays, st.data())
    def test_storing_does_what_ndarray_does(self, plain, data):
        a, expected = SArray(plain), plain.copy()
        key = data.draw(hnp.basic_indices(plain.shape))
        value = data.draw(hnp.arrays(plain.dtype, ()))
        expected[key] = value
        ForkingPickler.loads(ForkingPickler.dumps(a))[key] = value
        assert same(a, expected)

    @EXAMPLES
    @given(
        hnp.arrays(st.sampled_from(["f8", "i4", "u1", ">f4"]), shapes),
        st.sampled_from(["sum", "max", "argsort", "cumsum", "mean", "round", "T", "ravel", "std"]),
    )
    def test_methods_give_what_ndarray_gives(self, plain, name):
        a = SArray(plain)

        def call(x):
            with np.errstate(all="ignore"):
                found = getattr(x, name)
                return found() if callable(found) else found

        if plain.size == 0 and name in ("mean", "std"):
            return  # NumPy warns
        try:
            expected = call(plain)
        except ValueError as error:
            with pytest.raises(type(error)):
                call(a)
            return
        got = call(a)
        np.testing.assert_array_equal(np.asarray(got), expected)
        assert type(got) is type(expected) or np.shares_memory(got, a) or got.size == 0
