"""The examples do what their docstrings and their output say: each runs as people run it."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import numpush
import processes

EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest.fixture
def namespace() -> Iterator[str]:
    """A namespace of its own, in which nothing is left at the end: nobody cleans up here."""
    name = processes.new_namespace()
    yield name
    assert processes.files_of(name) == set()


def command(name: str, *args: str) -> list[str]:
    return [sys.executable, "-W", "error", str(EXAMPLES / name), *args]


def environment(namespace: str) -> dict[str, str]:
    return {**os.environ, "NUMPUSH_NAMESPACE": namespace, "COLUMNS": "100"}


def run(namespace: str, name: str, *args: str) -> str:
    """Run an example from a folder that is not the checkout; return what it printed."""
    done = subprocess.run(
        command(name, *args),
        env=environment(namespace),
        cwd="/",
        capture_output=True,
        text=True,
        timeout=2 * processes.LIMIT,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    return done.stdout


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A small file system of known contents, with names that are hard to take."""
    for i in range(40):
        folder = tmp_path / f"folder{i % 5}"
        folder.mkdir(exist_ok=True)
        (folder / f"file{i}.txt").write_bytes(b"x" * (i * 100))
    (tmp_path / "[bold]large.bin").write_bytes(bytes(123_456))
    (tmp_path / "empty").write_text("")
    (tmp_path / "größe.TXT").write_text("")
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/not-utf8-\xff")).write_text("")
    (tmp_path / "loop").symlink_to(tmp_path)
    os.utime(tmp_path / "folder0", (0, 0))  # 1970: the oldest
    return tmp_path


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_filesystem_finds_what_is_there_and_both_ways_agree(
    namespace: str, tree: Path, method: str
) -> None:
    text = run(namespace, "filesystem.py", str(tree), "--processes", "2", "--start-method", method)
    assert f"50 entries below {tree}" in text  # the symlink is not followed
    assert "skipped: none" in text
    assert "both frames are equal" in text
    for what in ("all of it", "the hand-off"):
        assert re.search(
            rf"^{what}: sharing is [\d.]+ times as (fast|slow) as pickling$", text, re.M
        )
    assert re.search(rf"\.txt +{100 * sum(range(40)):,} +41\b", text)
    assert re.search(r"^ *largest .* 123,456 ", text, re.M)
    assert "[bold]large.bin" in text
    assert re.search(r"^ *oldest +2\d,\d{3}\.\d ", text, re.M)


def test_filesystem_skips_and_counts_what_it_cannot_read(namespace: str, tree: Path) -> None:
    fd = os.open(tree, os.O_RDONLY)
    for _ in range(20):  # a path that no system call takes as a whole
        os.mkdir("d" * 250, dir_fd=fd)
        inner = os.open("d" * 250, os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = inner
    os.close(fd)
    text = run(namespace, "filesystem.py", str(tree), "--processes", "2")
    assert "skipped: 1 x File name too long" in text
    assert "both frames are equal" in text


def test_filesystem_of_nothing_says_so(namespace: str) -> None:
    done = subprocess.run(
        command("filesystem.py", "/nonexistent"),
        env=environment(namespace),
        capture_output=True,
        text=True,
        timeout=processes.LIMIT,
        check=False,
    )
    assert done.returncode == 1
    assert "nothing below /nonexistent" in done.stderr


def test_ctrl_c_ends_filesystem_and_its_workers(namespace: str) -> None:
    started = subprocess.Popen(
        command("filesystem.py", "/usr"),
        env=environment(namespace),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    processes.eventually(lambda: processes.files_of(namespace))  # it is past its imports
    time.sleep(0.5)
    os.killpg(started.pid, signal.SIGINT)  # as a terminal does: to all of them
    _, errors = started.communicate(timeout=processes.LIMIT)
    assert started.returncode == 130
    assert errors == "interrupted\n"
    processes.eventually(lambda: not processes.files_of(namespace))


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_shared_pandas_shows_what_the_workers_wrote(namespace: str, method: str) -> None:
    text = run(namespace, "shared_pandas.py", "--workers", "3", "--start-method", method)
    before, after = text.split("after:")
    assert re.findall(r"^\d +(.*)$", before, re.M) == ["0         0         0     0"] * 4
    rows = [re.findall(r"\d+", line) for line in after.splitlines() if re.match(r"\d ", line)]
    pids = rows[0][1:4]
    assert len(set(pids)) == 3
    assert all(row[1:4] == pids for row in rows)
    assert [row[4] for row in rows] == [*pids, "0"]
    assert "every worker's process id is here" in text


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_read_parquet_finds_the_hottest(namespace: str, method: str) -> None:
    pytest.importorskip("pyarrow", reason="no pyarrow")
    text = run(namespace, "read_parquet.py", "--rows", "20000", "--start-method", method)
    assert "20,000 rows of city, time, degrees in shared memory" in text
    assert re.search(r"hottest: [\d.]+ degrees, in \w+ at 2024-01-01 ", text)


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_locks_repairs_and_counts_exactly(namespace: str, method: str) -> None:
    text = run(namespace, "locks.py", "--rounds", "2000", "--start-method", method)
    debit, credit = re.search(r"holds the lock: debit (\d+), credit (\d+)", text).groups()
    assert int(debit) == int(credit) + 1  # it was killed half-way
    assert "repaired 1 time by the next holder" in text
    assert "debit 10001, credit 10001, wanted 10001" in text
    assert text.endswith("exact\n")


def test_parallel_apply_finds_who_is_late_and_fills_a_column(namespace: str) -> None:
    text = run(namespace, "parallel_apply.py", "--rows", "4000", "--processes", "2")
    assert re.search(r"^4,000 deliveries, [\d,]+ km, the farthest \d\d\.\d km$", text, re.M)
    first, *_, last = re.findall(r"^(D\d\d) +[\d.]+ +([\d.]+) ", text, re.M)
    assert (first[0], last[0]) < ("D03", "D20")
    assert float(last[1]) > float(first[1]) + 10
    odd, parts = re.search(r"^(\d+) odd ones, found in (\d) parts", text, re.M).groups()
    assert (int(odd) > 0, parts) == (True, "8")


def test_shared_series_counts_exactly(namespace: str) -> None:
    text = run(
        namespace, "shared_series.py", *("--sensors", "40", "--readings", "900", "--processes", "2")
    )
    pickled, shared = re.search(r"([\d,]+) bytes pickled, ([\d,]+) shared", text).groups()
    assert int(pickled.replace(",", "")) > 288_000 > 1000 > int(shared)
    towns = [int(n) for n in re.findall(r"^(?:Wien|Linz|Graz|Salzburg) +(\d+)$", text, re.M)]
    total, said = re.search(r"^([\d,]+) in all; the workers say ([\d,]+)$", text, re.M).groups()
    assert total == said == f"{sum(towns):,}"
    assert len(towns) == 4


def test_plain_receiver_reads_what_numpush_sends(namespace: str) -> None:
    key = "a key that both ends have"
    receiver = subprocess.Popen(
        command("plain_receiver.py", "0", key), stdout=subprocess.PIPE, text=True
    )
    url = receiver.stdout.readline().split()[-1]
    frame = pd.DataFrame({"a": [1.5, 2.5], "b": [1, 2], "c": [3.5, 4.5]})
    with numpush.ingest.connect(url, key=key, checksum=True) as link:
        for obj in (np.arange(6).reshape(2, 3), numpush.SArray(np.ones(3)), frame):
            link.send(obj)
    text, _ = receiver.communicate(timeout=processes.LIMIT)
    assert receiver.returncode == 0
    assert text.splitlines()[:3] == ["[[0 1 2]", " [3 4 5]]", "[1. 1. 1.]"]
    assert "0: array([1.5, 2.5])" in text
    assert "2: array([3.5, 4.5])" in text
    assert "1: array([1, 2])" in text


def test_ship_bitcode_uses_what_is_signed_and_refuses_the_rest(namespace: str) -> None:
    lines = [
        line for line in run(namespace, "ship_bitcode.py").splitlines() if not line.startswith(" ")
    ]
    assert re.fullmatch(r"sent [\d,]+ bytes", lines[0])
    assert re.fullmatch(r"received <ufunc 'myfunc'> in [\d.]+ ms: \['iii->i'\]", lines[1])
    assert lines[2:4] == ["[[ 0 10 20 30]", "numba was not needed"]
    assert lines[4].startswith("refused: UnsignedCode: changed since it was signed")
    assert re.match(r"refused: UnsignedCode: .* this process has only \w{16}$", lines[5])
    assert len(lines) == 6


def test_ship_bitcode_is_two_programs(namespace: str, tmp_path: Path) -> None:
    run(namespace, "ship_bitcode.py", "key", str(tmp_path / "key"))
    sender, receiver = (
        command("ship_bitcode.py", what, str(tmp_path / "key")) for what in ("send", "receive")
    )
    options: dict[str, Any] = {
        "env": environment(namespace),
        "capture_output": True,
        "check": True,
        "timeout": processes.LIMIT,
    }
    payload = subprocess.run(sender, **options).stdout
    received = subprocess.run(receiver, input=payload, **options).stdout.decode()
    assert " [10 20 30 40]" in received.splitlines()


@pytest.mark.skipif(shutil.which("clang") is None, reason="no clang")
def test_kernels_are_as_numpy_has_it(namespace: str) -> None:
    out = run(namespace, "kernels.py", "--rows", "20000", "--workers", "2")
    assert "20,000 quotes, 2 workers" in out
    assert "as NumPy has it: True" in out


def test_clang_module_calls_c(namespace: str) -> None:
    text = run(namespace, "clang_module.py")
    assert "<double force(struct Body const *, struct Body const *)>" in text
    assert "earth and moon: 1.98e+20 N" in text
    assert "with twice the gravity: 3.96e+20 N" in text
    assert "as a ufunc: [  0.  37. 100.]" in text
    assert len(re.findall(r"^refused: ", text, re.M)) == 2


def test_pipeline_prices_what_lands(namespace: str) -> None:
    text = run(namespace, "pipeline.py", "--frames", "4", "--rows", "40000", "--processes", "2")
    assert len(re.findall(r"4 frames, 4 MB, received and priced at [\d.]+ GB/s", text)) == 2
    totals = re.findall(r"^  (AAA [\d,]+, BBB [\d,]+, CCC [\d,]+, DDD [\d,]+)$", text, re.M)
    assert len(totals) == 2
    assert totals[0] == totals[1]  # the same trades, both ways


def test_stores_gives_one_frame_back_from_all(namespace: str) -> None:
    pytest.importorskip("h5py")
    text = run(namespace, "stores.py", "--rows", "20000")
    kinds = ["file", "hdf5", "hdf5 gzip", "blosc2", "arrow", "parquet", "csv"]
    kinds += ["redis+unix"] if shutil.which("redis-server") else []
    times = r" +put +[\d.]+ ms +get +[\d.]+ ms +[\d.]+ MB$"
    for kind in kinds:
        assert re.search(f"^{re.escape(kind)}{times}", text, re.M), kind
    assert re.search(r"^numexpr: the turnover of the second half is \d+$", text, re.M)
    assert re.search(r"^pandas: mean prices are aa [\d.]+, bb [\d.]+, cc [\d.]+$", text, re.M)
    assert re.search(r"^scikit-learn: price = [\d.]+ \+ -?[\d.]+ volume$", text, re.M)
