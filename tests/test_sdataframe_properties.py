"""SDataFrame against plain pandas: any sequence of writes."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import numpush
from numpush import SDataFrame
from shared_frames import equal

pytestmark = pytest.mark.usefixtures("copy_on_write")

COLUMNS = st.sampled_from(["a", "b", "i", "new"])
VALUES = st.one_of(
    st.integers(-5, 5), st.floats(-5, 5, width=16), st.just("x"), st.none(), st.booleans()
)
ROWS = st.one_of(
    st.integers(0, 7),
    st.tuples(st.integers(0, 7), st.integers(0, 7)).map(lambda t: slice(min(t), max(t))),
    st.lists(st.integers(0, 6), max_size=4, unique=True),
    st.lists(st.booleans(), min_size=7, max_size=7),
)
STEPS = st.one_of(
    st.tuples(st.just("loc"), ROWS, COLUMNS, VALUES),
    st.tuples(st.just("loc"), ROWS, st.lists(COLUMNS, max_size=3, unique=True), VALUES),
    st.tuples(st.just("iloc"), ROWS, st.integers(0, 3), VALUES),
    st.tuples(st.just("at"), st.integers(0, 7), COLUMNS, VALUES),
    st.tuples(st.just("item"), st.none(), COLUMNS, VALUES),
    st.tuples(st.just("add"), st.none(), COLUMNS, st.integers(0, 3)),
)


def step(df: Any, kind: str, rows: Any, columns: Any, value: Any) -> Exception | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if kind == "item":
                df[columns] = value
            elif kind == "add":
                df[columns] = df[columns] + value
            else:
                getattr(df, kind)[rows, columns] = value
    except Exception as error:
        return error
    return None


@settings(max_examples=150, deadline=None)
@given(st.lists(STEPS, max_size=6))
def test_any_sequence_of_writes_is_that_of_pandas(steps):
    plain = pd.DataFrame({"a": np.arange(7.0), "b": np.arange(7.0), "i": np.arange(7)})
    sdf = SDataFrame(plain)
    for each in steps:
        before = plain.copy()
        wanted, found = step(plain, *each), step(sdf, *each)
        if found is not None or wanted is not None:
            assert found is not None, (each, wanted)
            # pandas makes a column without a type: df.loc[[], ["new"]] = "x"
            has_no_layout = type(found) is TypeError and "has no layout" in str(found)
            assert has_no_layout or type(found) is type(wanted), each
            plain = before  # nothing was written, where pandas may have written a part
        equal(sdf.to_pandas(), plain)
        equal(numpush.attach(sdf.name, "ro").to_pandas(), plain)
