"""Parts of objects, from their schemas: the references of every family are found, and no others."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from layout_families import FAMILY_COLUMNS, family
from layout_samples import COLUMNS, INDEXES, fill, made_index, naming, series
from numpush.layout import SchemaError, describe, rebuild
from numpush.layout.selection import (
    label_buffers,
    read_labels,
    references,
    select_array,
    select_frame,
)


def frames():
    for name in COLUMNS:
        yield name, pd.DataFrame({"x": series(name), "y": 1.0})
    for name in FAMILY_COLUMNS:
        yield name, pd.DataFrame({"x": family(name)})
    for name in INDEXES:
        index = made_index(name)
        yield name, pd.DataFrame({"x": np.arange(len(index))}, index=index)
        yield f"labels {name}", pd.DataFrame(np.zeros((1, len(index))), columns=index)


def test_the_references_of_every_family_are_its_buffers():
    """Rule (1): a family with a reference under another key fails here."""
    for name, frame in frames():
        with naming(name):
            schema, buffers = describe(frame)
            assert sorted(references(schema)) == list(range(len(buffers)))


def cut(schema, buffers, selection):
    """Rebuild a selection from what its ranges say."""
    whole = fill(buffers)
    raw = []
    for i, buffer in enumerate(selection.buffers):
        if i in selection.ranges:
            parts = [whole[each.buffer][each.start : each.stop] for each in selection.ranges[i]]
            raw.append(np.concatenate(parts) if parts else np.empty(0, np.uint8))
        else:
            raw.append(fill([buffer])[0])
    return rebuild(selection.schema, raw, validate=True)


def test_a_part_of_a_wide_frame_is_its_ranges():
    frame = pd.DataFrame(np.arange(6000.0).reshape(3, 2000))
    for at in range(0, 2000, 7):
        frame[at] = frame[at].astype("i4")  # places without a pattern: in a buffer of their own
    schema, buffers = describe(frame)
    known = {i: fill(buffers)[i] for i in label_buffers(schema)}
    labels = read_labels(schema, known)
    wanted = [1999, 5, 7, 700, 6]
    sizes = [buffer.nbytes for buffer in buffers]
    selection = select_frame(schema, sizes, known, wanted, labels.take(wanted), (1, 3))
    assert selection.is_cut
    moved = sum(r.stop - r.start for ranges in selection.ranges.values() for r in ranges)
    assert moved == 2 * (3 * 8 + 2 * 4)
    pd.testing.assert_frame_equal(cut(schema, buffers, selection), frame[wanted][1:3])


def test_neighbours_are_one_range():
    frame = pd.DataFrame(np.arange(30.0).reshape(3, 10))
    schema, _ = describe(frame)
    selection = select_frame(schema, [240], {}, [2, 3, 4, 8], frame.columns[[2, 3, 4, 8]], None)
    assert [list(each) for each in selection.ranges[0]] == [[0, 48, 120], [0, 192, 216]]


def test_rows_of_no_fixed_width_are_not_cut():
    frame = pd.DataFrame({"x": pd.array(["a", "bb", None], dtype="str"), "y": [1.0, 2.0, 3.0]})
    schema, buffers = describe(frame)
    sizes = [buffer.nbytes for buffer in buffers]
    selection = select_frame(schema, sizes, {}, None, None, (0, 2))
    assert not selection.is_cut
    pd.testing.assert_frame_equal(cut(schema, buffers, selection), frame)


def test_a_damaged_schema_reads_nothing_outside():
    schema, buffers = describe(np.arange(12.0).reshape(3, 4))
    for damage in ({"data": 5}, {"data": -1}, {"shape": [3, 5]}, {"shape": "x"}, {"dtype": "<f4"}):
        with pytest.raises(SchemaError):
            select_array({**schema, **damage}, [96], 0, 2)
    frame = pd.DataFrame({"a": [1.0, 2.0], "b": pd.array([1, None], dtype="Int64")})
    schema, buffers = describe(frame)
    sizes = [buffer.nbytes for buffer in buffers]
    block, (at, node) = schema["blocks"][0], schema["arrays"][0]
    for damage in (
        {"blocks": [{**block, "data": 9}]},
        {"blocks": [{**block, "count": 2}]},
        {"blocks": [{**block, "at": 7}]},
        {"blocks": [3]},
        {"arrays": [[at, {**node, "mask": 9}]]},
        {"arrays": [[at, {**node, "data": -1}]]},
        {"arrays": [[at]]},
        {"arrays": [["x", node]]},
        {"index": None},
        {"rows": -1},
    ):
        with pytest.raises(SchemaError):
            select_frame({**schema, **damage}, sizes, {}, None, None, (0, 1))
