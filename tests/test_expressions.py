"""numexpr over the rows of shared arrays, by a team and by this process."""

from __future__ import annotations

import resource

import numpy as np
import pandas as pd
import pytest

from numpush import SArray, SDataFrame, Team, kernels

N = 40_003


@pytest.fixture(scope="module")
def team():
    with Team(2, "fork") as team:
        yield team


@pytest.fixture(params=["team", "alone"])
def where(request, team):
    return team if request.param == "team" else None


def test_each_row_is_computed(where):
    x, y = SArray(np.linspace(0, 1, N)), SArray(np.arange(float(N)))
    out = SArray.zeros(N)
    assert kernels.numexpr("2*x + sqrt(y) - c", out=out, team=where, x=x, y=y, c=3.0) is out
    np.testing.assert_allclose(out, 2 * x + np.sqrt(y) - 3)


@pytest.mark.parametrize("chunk", [1, 7, 59, 60, 1000])
def test_chunks_cover_all_rows(team, chunk):
    x, out = SArray(np.arange(60)), SArray.zeros(60, "i8")
    kernels.numexpr("x + 1", out=out, team=team, chunk=chunk, x=x)
    assert out.tolist() == list(range(1, 61))


def test_two_dimensions_views_and_what_broadcasts(where):
    x = SArray(np.arange(240.0).reshape(60, 4))
    out = SArray.zeros((60, 4))
    row = np.array([1.0, 2.0, 3.0, 4.0])
    kernels.numexpr("x * row", out=out[::-1], team=where, x=x[::-1], row=row)
    np.testing.assert_array_equal(out, np.asarray(x) * row)


def test_columns_of_a_shared_frame(where):
    sdf = SDataFrame(pd.DataFrame({"a": np.arange(50.0), "b": np.arange(50.0) ** 2}))
    out = SArray.zeros(50, bool)
    kernels.numexpr("a + b > 100", out=out, team=where, a=sdf["a"], b=sdf["b"])
    assert out.tolist() == (sdf["a"] + sdf["b"] > 100).tolist()


def test_plain_arrays_are_shared_for_the_call(team):
    x, out = np.arange(300_000.0), SArray.zeros(300_000)
    kernels.numexpr("-x", out=out, team=team, x=x)
    assert out[-1] == -299_999


def test_in_place(where):
    x = SArray(np.arange(1000.0))
    kernels.numexpr("x * 2", out=x, team=where, x=x)
    assert np.array_equal(x, np.arange(1000.0) * 2)


def test_no_rows_at_all(where):
    out = SArray.zeros(0)
    assert kernels.numexpr("x + 1", out=out, team=where, x=SArray.zeros(0)) is out


def test_no_temporaries_the_size_of_the_data(team):
    def peak(_):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10

    n = 8 << 20
    x, out = SArray.zeros(n), SArray.zeros(n)
    kernels.numexpr("x + 1", out=out[:1000], team=team, x=x[:1000])
    before = max(team.map(peak, 8, chunk=1))
    kernels.numexpr("(x + 1) * (x + 2) / (x + 3) - sin(x) ** 2", out=out, team=team, x=x)
    grown = max(team.map(peak, 8, chunk=1)) - before
    assert grown < 2 * x.nbytes + (16 << 20)  # of those, all are pages of x and out themselves
    assert np.allclose(out, 2 / 3)


@pytest.mark.parametrize(
    ("expr", "given", "error", "says"),
    [
        ("x + z", {}, ValueError, "names 'z', which is not given: there are x"),
        ("sum(x)", {}, ValueError, r"gives shape \(\) for a row"),
        ("x == s", {"s": np.array(["a"] * 10, object)}, TypeError, "s has dtype object"),
        ("x * 1j", {}, TypeError, "complex128, which out of dtype float64 cannot hold"),
        ("x + y", {"y": np.zeros(9)}, ValueError, r"y has shape \(9,\), out \(10,\)"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_written(where, expr, given, error, says):
    out = SArray(np.full(10, 7.0))
    with pytest.raises(error, match=says):
        kernels.numexpr(expr, out=out, team=where, x=SArray(np.zeros(10)), **given)
    assert out.tolist() == [7.0] * 10


def test_a_plain_result_is_refused_by_a_team(team):
    with pytest.raises(TypeError, match=r"numpush.share\(out\)"):
        kernels.numexpr("x", out=np.zeros(10), team=team, x=np.zeros(10))


def test_rows_that_overlap_otherwise_are_refused(where):
    x = SArray(np.arange(10.0))
    with pytest.raises(ValueError, match="x overlaps out without being the same"):
        kernels.numexpr("x + 1", out=x[1:], team=where, x=x[:-1])
    assert x.tolist() == list(range(10))
