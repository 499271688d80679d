"""PyTensor over the rows of shared arrays. It is in no extra of ours: its users have it, and its numba."""

from __future__ import annotations

import numpy as np
import pytest

from numpush import SArray, Team, kernels

pytensor = pytest.importorskip("pytensor")
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def function():
    from pytensor import tensor as pt

    x, y, c = pt.dvector("x"), pt.dvector("y"), pt.dscalar("c")
    return pytensor.function([x, y, c], pt.exp(-x) * y + c)


@pytest.fixture(scope="module")
def team():
    with Team(2, "spawn") as team:
        yield team


@pytest.fixture(params=["team", "alone"])
def where(request, team):
    return team if request.param == "team" else None


def test_each_row_is_computed(where, function):
    n = 300_001
    x, y, out = SArray(np.linspace(0, 1, n)), SArray(np.arange(float(n))), SArray.zeros(n)
    assert kernels.pytensor(function, x, y, 2.0, out=out, team=where, chunk=70_000) is out
    np.testing.assert_allclose(out, np.exp(-x) * y + 2)


def test_in_place(where, function):
    x = SArray(np.zeros(1000))
    kernels.pytensor(function, x, SArray(np.ones(1000)), 0.5, out=x, team=where)
    assert x.tolist() == [1.5] * 1000


def test_what_gives_no_row_for_a_row_is_refused(where, function):
    from pytensor import tensor as pt

    x = pt.dvector("x")
    total, both = pytensor.function([x], x.sum()), pytensor.function([x], [x, x])
    a, out = SArray(np.ones(100)), SArray.zeros(100)
    with pytest.raises(ValueError, match=r"gives shape \(\) for rows of shape"):
        kernels.pytensor(total, a, out=out, team=where)
    with pytest.raises(ValueError, match="gives 2 results for rows of shape"):
        kernels.pytensor(both, a, out=out, team=where)
    with pytest.raises(ValueError, match=r"array 1 has shape \(99,\), out \(100,\)"):
        kernels.pytensor(function, a, a[1:], 1.0, out=out, team=where)
    assert not out.any()
