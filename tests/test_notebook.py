"""What notebooks show of shared objects and of `numpush.segments()`: HTML that never raises or waits."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import numpush
import processes
from numpush import SArray, SDataFrame, SSeries, notebook
from numpush.ffi import mutex as _mutex
from numpush.ffi import seg as _seg
from numpush.shm.node import process_name

EVIL = "<script>alert('x')</script>"


TAGS = {"div", "style", "table", "thead", "tbody", "tr", "th", "td", "p", "pre", "br"}


class Balanced(HTMLParser):
    """Fails on a tag that is closed out of turn; `text` is what people read."""

    def __init__(self, html):
        super().__init__()
        self.open = []
        self.text = ""
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        assert tag in TAGS
        if tag != "br":
            self.open.append(tag)
        assert "color" not in dict(attrs).get("style", "")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def read(shown):
    return Balanced(shown._repr_html_()).text


def frame():
    return pd.DataFrame({"a": np.arange(3333.0), EVIL: EVIL})


def test_a_frame_is_shown_as_pandas_does_with_a_line_on_its_segment():
    sdf = SDataFrame(frame(), name="shown")
    assert sdf._repr_html_().startswith(frame()._repr_html_())
    text = read(sdf)
    assert "segment shown · " in text
    assert f"used by {os.getpid()} " in text
    assert "(this process) · lock free" in text
    assert EVIL in text  # as text: no tag


def test_pandas_options_count():
    sdf, ss = SDataFrame(frame()), SSeries([1.0, 2.0])
    with pd.option_context("display.max_rows", 4):
        assert sdf._repr_html_().count("<tr") == frame()._repr_html_().count("<tr") == 6
    with pd.option_context("display.notebook_repr_html", False):
        assert sdf._repr_html_() is None
        assert ss._repr_html_() is None
    with pd.option_context("display.large_repr", "info", "display.max_rows", 2):
        text = read(sdf)  # which pandas does not escape
        assert text.startswith("<class 'numpush.sdataframe.SDataFrame'>\nRangeIndex: 3333 entries")
        assert EVIL in text


def test_a_series_is_shown_as_its_text():
    ss = SSeries([1.5, 2.5], name=EVIL)
    text = read(ss)
    assert repr(pd.Series([1.5, 2.5], name=EVIL)) in text
    assert f"segment {ss.handle.name}" in text


def test_an_array_is_shown_as_what_it_is_and_its_text():
    a = SArray(np.zeros((100, 3), [(EVIL, "f4")]))
    text = read(a)
    assert "100 x 3" in text
    assert "1,200" in text
    assert EVIL in text
    assert a.name in text
    assert repr(a) in text
    assert read(a[5:7]).count("2 x 3") == 1


def test_what_is_derived_is_plain():
    a, sdf = SArray(np.zeros(9)), SDataFrame(frame())
    assert "segment" not in sdf.head()._repr_html_()
    assert not hasattr(a + 1, "_repr_html_")
    assert not hasattr(sdf["a"], "_repr_html_")


def test_an_array_whose_memory_is_private_is_shown_as_text():
    assert np.zeros(3).view(SArray)._repr_html_() is None


def test_who_holds_the_lock_is_told():
    a = SArray(np.zeros(9))
    with a.lock:
        text = read(a)
        seen = []
        other = threading.Thread(target=lambda: seen.append(read(a)))
        other.start()
        other.join(processes.LIMIT)
    assert f"held by {os.getpid()} " in text
    assert f"held by {os.getpid()} " in seen[0]
    assert "held" not in read(a)


def stop_with_locks(array, name):
    """Hold the mutex of the data and that of the table, and stop."""
    Path("/proc/self/comm").write_text(name)
    guard = array.lock.lock()
    segment = array._segment()
    assert _mutex.try_lock(_table_mutex(segment)) == 0
    os.kill(os.getpid(), signal.SIGSTOP)
    _mutex.unlock(_table_mutex(segment))
    guard.unlock()


def _table_mutex(segment):
    """The mutex at byte 128 of the header (npush_seg.h)."""
    return _mutex.at(segment.mappings["header"].address + 128)


def test_a_stopped_process_with_every_lock_keeps_nobody_waiting_and_is_named_as_text():
    sdf = SDataFrame(frame(), name="kept-waiting")
    a = sdf.column("a")
    child = processes.fork(stop_with_locks, a, "<script>")
    try:
        processes.eventually(lambda: _mutex.holder(_table_mutex(a._segment())) == child)
        for shown in (sdf, a):
            assert f"{child} <script>" in read(shown)
            assert f"held by {child} <script>" in read(shown)
        (seen,) = (seen for seen in numpush.segments() if seen.name == "kept-waiting")
        assert seen.lock == numpush.overview.LockHolder(child, child, "<script>")
        assert "<script>" in Balanced(numpush.segments()._repr_html_()).text
    finally:
        os.kill(child, signal.SIGCONT)
        assert processes.wait(child) == 0


def test_nothing_is_raised_whatever_goes_wrong(monkeypatch):
    sdf, a, ss = SDataFrame(frame()), SArray(np.zeros(9)), SSeries([1.0])
    table = frame()._repr_html_()

    def fail(*args, **kwargs):
        raise OSError("no")

    monkeypatch.setattr(notebook, "_facts", fail)
    assert sdf._repr_html_().strip() == table.strip()
    assert read(ss).strip() == repr(ss)
    assert a._repr_html_() is None
    monkeypatch.setattr(pd.DataFrame, "_repr_html_", fail)
    assert sdf._repr_html_() is None


def test_what_was_closed_or_removed_is_still_shown():
    a, sdf = SArray(np.zeros(9)), SDataFrame(frame())
    a.close()
    assert "closed by this process" in read(a)
    numpush.remove(sdf.name)
    assert sdf.name in read(sdf)


def test_many_users_are_counted_not_named(monkeypatch):
    a = SArray(np.zeros(9))
    segment = a._segment()
    nodes = [1 << 40 | i for i in range(40)]
    for node in nodes:
        assert _seg.join(segment.ref, segment.n_slots, segment.identity, node) == 0
    try:
        assert "(this process)" in read(a)
        assert "and 33 more" in read(a)
    finally:
        for node in nodes:
            _seg.evict(segment.ref, segment.n_slots, node, keep_leases=False)


class TestSegments:
    def test_items_are_typed_and_the_repr_is_a_table(self):
        df = pd.DataFrame(
            {
                "f": [0.5, 1.5],
                "g": [0.5, 1.5],
                "i": pd.array([1, None], dtype="UInt8"),
                "b": pd.array([True, None], dtype="boolean"),
                "c": pd.Categorical(["x", "y"]),
                "t": pd.date_range("2020", periods=2, tz="Europe/Berlin", unit="us"),
            }
        )
        a, sdf = SArray(np.zeros((2, 3), "i4"), name="an-array"), SDataFrame(df, name="a-frame")
        numpush.publish("prices", sdf)
        try:
            found = {seen.name: seen for seen in numpush.segments()}
            text, html = repr(numpush.segments()), numpush.segments()._repr_html_()
        finally:
            numpush.withdraw("prices")
        seen = found["an-array"]
        assert (seen.kind, seen.shape, seen.dtypes, seen.size) == (
            "array",
            (2, 3),
            {"int32": 1},
            24,
        )
        assert seen.published == ()
        assert seen.creator_pid == os.getpid()
        assert seen.creator == process_name(os.getpid()) != ""
        assert [(h.pid, h.process, h.alive) for h in seen.holders] == [
            (os.getpid(), seen.creator, True)
        ]
        assert seen.lock is None
        assert not seen.is_warm
        seen = found["a-frame"]
        assert (seen.kind, seen.shape, seen.published) == ("frame", (2, 6), ("prices",))
        assert seen.dtypes == {
            "float64": 2,
            "UInt8": 1,
            "boolean": 1,
            "category": 1,
            "datetime64[us, zoned]": 1,
        }
        assert (found["prices"].kind, found["prices"].target) == ("name", "a-frame")
        head, *rows = text.splitlines()
        assert head.split() == ["name", "what", "size", "age", "made", "by", "used", "by"]
        assert sorted(row.split()[0] for row in rows) == sorted(found)
        assert "float64" not in Balanced(html).text
        assert "array int32 2 x 3" in Balanced(html).text
        del a

    def test_warm_memory_is_said_to_be_warm(self):
        a = SArray(np.zeros(1 << 18))
        del a
        (seen,) = (seen for seen in numpush.segments() if seen.is_warm)
        assert seen.state == seen.kind == "warm"
        numpush.gc()

    def test_of_nothing_it_says_so(self):
        numpush.gc()
        numpush.segments().clear()
        empty = type(numpush.segments())()
        assert repr(empty) == "no segments"
        assert Balanced(empty._repr_html_()).text == "no segments"


@pytest.mark.parametrize(
    ("options", "called"),
    [
        (["-W", "error", "-c", "input()"], " -c"),
        (["-u", "-m", "code"], " code"),
        (["/dev/stdin", "an argument"], " stdin"),
    ],
)
def test_a_python_is_called_by_what_it_runs(options, called):
    with subprocess.Popen(
        [sys.executable, *options], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL
    ) as process:
        try:
            processes.eventually(lambda: process_name(process.pid).endswith(called))
            assert process_name(process.pid).startswith("python")
        finally:
            process.kill()


def test_a_process_that_is_gone_has_no_name():
    assert process_name(1 << 22) == ""
