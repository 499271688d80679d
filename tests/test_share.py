"""share: what becomes shared, what stays, where it fails, and that all of it travels and computes."""

from __future__ import annotations

import dataclasses
import gc
import pickle
from collections import OrderedDict, defaultdict, namedtuple
from multiprocessing.reduction import ForkingPickler

import numpy as np
import pandas as pd
import pytest

import processes
from numpush import SArray, SDataFrame, SegmentFull, share
from numpush.shm import naming, space

N = 3333
Pair = namedtuple("Pair", "left right")


@dataclasses.dataclass
class Model:
    weights: np.ndarray
    name: str
    extra: dict = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, slots=True)
class Frozen:
    values: np.ndarray
    rate: float


class Names(list):
    pass


def frame():
    return pd.DataFrame({"a": np.arange(N), "b": np.arange(N) / 7})


class TestLeaves:
    def test_an_array_becomes_an_sarray(self):
        a = np.arange(N)
        shared = share(a)
        assert type(shared) is SArray
        assert (shared == a).all()

    def test_a_frame_becomes_an_sdataframe(self):
        shared = share(frame())
        assert type(shared) is SDataFrame
        pd.testing.assert_frame_equal(shared.to_pandas(), frame())

    def test_what_is_shared_stays(self):
        a, f = SArray(np.zeros(3)), SDataFrame(frame())
        assert share(a) is a
        assert share(a[1:]).base is not None
        assert share(f) is f
        both = [a, f]
        assert share(both) is both

    def test_an_sarray_of_private_memory_is_shared(self):
        private = np.zeros_like(SArray(np.zeros(3))).view(SArray)
        assert share(private).name

    @pytest.mark.parametrize("obj", [None, 3, "text", {1, 2}, object(), np.float64(2.0)])
    def test_what_cannot_be_is_refused_at_the_top(self, obj):
        with pytest.raises(TypeError, match="cannot be shared; pass an ndarray"):
            share(obj)

    def test_and_kept_inside(self):
        given = [None, 3, "text", {1, 2}, np.float64(2.0)]
        assert share(given) is given

    def test_a_series_is_shared_or_names_the_remedy(self):
        try:
            shared = share(pd.Series([1.0, 2.0]))
        except TypeError as error:
            shared, said = None, str(error)
        assert shared is not None or "to_frame()" in said
        assert shared is None or list(shared) == [1.0, 2.0]

    @pytest.mark.parametrize(
        "wrong", [np.array([object()]), pd.DataFrame({"x": [lambda: 0]})], ids=["array", "frame"]
    )
    def test_objects_are_refused_with_their_place(self, wrong):
        with pytest.raises(TypeError, match=r"obj\['x'\]\[1\]\.values: .*; or leave it out"):
            share({"x": [1, Frozen(wrong, 0.5)]})
        with pytest.raises(TypeError):
            share(wrong)


class TestContainers:
    def test_every_container_keeps_its_type(self):
        a = np.arange(5)
        given = {
            "dict": {"a": a},
            "ordered": OrderedDict(z=a, y=1),
            "default": defaultdict(list, a=a),
            "list": [a, 1],
            "tuple": (a, "x"),
            "pair": Pair(a, 2),
            "names": Names([a]),
            "model": Model(a, "m", {"deep": (a,)}),
            "frozen": Frozen(a, 0.5),
        }
        shared = share(given)
        assert {k: type(v) for k, v in shared.items()} == {k: type(v) for k, v in given.items()}
        found = [
            shared["dict"]["a"], shared["ordered"]["z"], shared["default"]["a"], shared["list"][0],
            shared["tuple"][0], shared["pair"].left, shared["names"][0], shared["model"].weights,
            shared["model"].extra["deep"][0], shared["frozen"].values,
        ]  # fmt: skip
        assert {type(each) for each in found} == {SArray}
        assert len({id(each) for each in found}) == 1, "an object that comes twice is shared once"
        assert list(shared["ordered"]) == ["z", "y"]
        assert shared["default"]["new"] == []
        assert shared["model"].name == "m"
        assert type(given["list"][0]) is np.ndarray, "what was given is not changed"

    def test_a_container_that_comes_twice_is_one(self):
        inner = [np.zeros(3)]
        first, second = share([inner, inner])
        assert first is second

    def test_one_that_contains_itself_is_refused(self):
        loop = [np.zeros(3)]
        loop.append(loop)
        with pytest.raises(TypeError, match=r"obj\[1\] contains itself"):
            share(loop)

    def test_everything_travels_as_handles(self):
        shared = share({"w": [np.zeros(N), frame()], "m": Model(np.ones(N), "m")})
        sent = bytes(ForkingPickler.dumps(shared))
        assert len(sent) < 2000
        back = pickle.loads(sent)
        back["w"][0][0] = 7
        assert shared["w"][0][0] == 7

    def test_a_full_dev_shm_leaves_nothing(self, monkeypatch):
        before = processes.files()
        monkeypatch.setattr(space, "room", lambda n=0: space.Room(9 << 20, 64 << 20, naming.DIR))
        with pytest.raises(SegmentFull):
            share([np.zeros(1 << 20), np.zeros(1 << 27)])
        gc.collect()  # the first one was in the traceback
        assert not {file for file in processes.files() - before if ".seg." in file}


def multiply(matrix, out):
    out[:] = matrix @ np.ones(matrix.shape[1])
    if matrix.format != "dia":
        matrix.data[0] = 77


class TestSparse:
    @pytest.fixture(params=["csr", "csc", "coo", "bsr", "dia"])
    def format(self, request):
        pytest.importorskip("scipy.sparse", reason="no scipy")
        return request.param

    @pytest.fixture(params=["array", "matrix"])
    def matrix(self, request, format):
        import scipy.sparse as sp

        rng = np.random.default_rng(3)
        dense = rng.random((60, 40)) * (rng.random((60, 40)) < 0.1)
        return getattr(sp, f"{format}_{request.param}")(dense)

    def test_it_is_the_same_over_sarrays(self, matrix):
        shared = share(matrix)
        assert type(shared) is type(matrix)
        assert shared.shape == matrix.shape
        assert type(shared.data) is SArray
        assert type(matrix.data) is np.ndarray, "the given one is not changed"
        assert (shared != matrix).nnz == 0
        assert share(shared) is shared

    def test_it_computes_as_usual(self, matrix):
        shared = share(matrix)
        v = np.arange(40.0)
        np.testing.assert_allclose(shared @ v, matrix @ v)
        for this, that in (
            (shared.T, matrix.T),
            (shared + shared, matrix + matrix),
            (shared * 2, matrix * 2),
            (shared.tocsr()[3:7], matrix.tocsr()[3:7]),
            (shared.tocoo(), matrix.tocoo()),
            (shared.copy(), matrix),
        ):
            np.testing.assert_allclose(this.toarray(), that.toarray())

    def test_it_travels_as_handles_and_writes_are_seen(self, matrix, ctx):
        shared = share({"m": matrix})["m"]
        out = SArray.zeros(60)
        expected = matrix @ np.ones(40)
        child = ctx.Process(target=multiply, args=(shared, out))
        child.start()
        assert processes.join(child) == [0]
        np.testing.assert_allclose(out, expected)
        if shared.format != "dia":
            assert shared.data[0] == 77

    def test_parts_that_come_twice_are_shared_once(self):
        sp = pytest.importorskip("scipy.sparse", reason="no scipy")
        one = sp.csr_array(np.eye(5))
        other = one.copy()
        other.indices = one.indices
        first, second = share([one, other])
        assert first.indices is second.indices

    def test_other_formats_name_the_remedy(self):
        sp = pytest.importorskip("scipy.sparse", reason="no scipy")
        with pytest.raises(TypeError, match=r"obj\['a'\] is a lil_matrix.*\.tocsr\(\)"):
            share({"a": sp.lil_matrix((3, 3))})


def test_neither_pandas_nor_scipy_is_imported():
    code = (
        "import sys, numpy as np, numpush\nnumpush.share([np.zeros(3), {'a': 1}])\n"
        "print(*({'pandas', 'scipy'} & set(sys.modules)))"
    )
    done = processes.run_script(code)
    assert (done.stdout.strip(), done.stderr) == ("", "")
