"""`numpush send` and `numpush listen`, run as people run them: two processes, files and names."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import processes

ARRAY = np.arange(99_999.0).reshape(3, -1)


@pytest.fixture
def namespace() -> Iterator[str]:
    name = processes.new_namespace()
    yield name
    assert processes.files_of(name) == set()


def start(namespace: str, *args: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-m", "numpush", *args],
        env={**os.environ, "NUMPUSH_NAMESPACE": namespace, "PYTHONUNBUFFERED": "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def send(namespace: str, *args: str, stdin: bytes = b"", code: int = 0) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "numpush", "send", *args],
        env={**os.environ, "NUMPUSH_NAMESPACE": namespace},
        input=stdin,
        capture_output=True,
        timeout=processes.LIMIT,
        check=False,
    )
    assert done.returncode == code, done.stderr
    return done.stderr.decode()


def listen(namespace: str, *args: str) -> tuple[subprocess.Popen[str], str]:
    """Start a listener; return it and its URL."""
    listener = start(namespace, "listen", "tcp://127.0.0.1:0", *args)
    line = listener.stderr.readline()
    assert line.startswith("listening at tcp://127.0.0.1:"), line
    return listener, line.split()[-1]


def end(listener: subprocess.Popen[str]) -> tuple[str, str]:
    out, err = listener.communicate(timeout=processes.LIMIT)
    assert listener.returncode == 0, err
    return out, err


def test_files_of_every_kind_arrive_and_are_saved(namespace: str, tmp_path: Path) -> None:
    frame = pd.DataFrame({"a": np.arange(999), "t": ["x", "y", "z"] * 333})
    np.save(tmp_path / "a.npy", ARRAY)
    frame.to_parquet(tmp_path / "f.parquet")
    frame.to_csv(tmp_path / "f.csv", index=False)
    saved = tmp_path / "saved"
    key = tmp_path / "key"
    key.write_text("a secret of some length\n")
    options = ("--key-file", str(key))
    listener, url = listen(namespace, "--save", str(saved), "--count", "4", *options)
    told = send(namespace, url, str(tmp_path / "a.npy"), *options)
    assert "array 3 x 33333 float64: 781.2 KiB sent to" in told
    send(namespace, url, str(tmp_path / "f.parquet"), "--compress", "lz4", *options)
    send(namespace, url, str(tmp_path / "f.csv"), *options)
    send(namespace, url, "-", *options, stdin=(tmp_path / "a.npy").read_bytes())
    out, err = end(listener)
    assert len(out.splitlines()) == 4
    assert "4 objects" in err
    assert np.array_equal(np.load(saved / "000000.npy"), ARRAY)
    assert np.array_equal(np.load(saved / "000003.npy"), ARRAY)
    for name in ("000001.parquet", "000002.parquet"):
        pd.testing.assert_frame_equal(pd.read_parquet(saved / name), frame)
    assert len(list(saved.iterdir())) == 4


def test_a_name_for_the_latest(namespace: str, tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", ARRAY)
    np.save(tmp_path / "b.npy", ARRAY[:, :10])
    listener, url = listen(namespace, "--name", "latest")
    for file, shape in (("a.npy", "(3, 33333)"), ("b.npy", "(3, 10)")):
        send(namespace, url, str(tmp_path / file))
        assert 'numpush.attach("latest")' in listener.stdout.readline()
        code = "import numpush; print(numpush.attach('latest').shape)"
        done = processes.run_script(code, namespace=namespace)
        assert done.stdout.strip() == shape, done.stderr
    listener.send_signal(signal.SIGINT)
    end(listener)


def test_what_goes_wrong_is_one_line(namespace: str, tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", ARRAY)
    (tmp_path / "a.txt").write_text("a")
    listener, url = listen(namespace, "--max-bytes", "1000")
    for args, words in (
        ((url, str(tmp_path / "nothing.npy")), "No such file"),
        ((url, str(tmp_path / "a.txt")), "wanted a .npy"),
        ((url, str(tmp_path / "a.npy")), "at most 1000 (max_bytes)"),
        (("http://x", str(tmp_path / "a.npy")), "wanted one of"),
        (("unix:///nowhere/x", str(tmp_path / "a.npy"), "--timeout", "0.1"), "nobody answers"),
    ):
        told = send(namespace, *args, code=1)
        assert words in told
        assert len(told.splitlines()) <= 2, told
    listener.send_signal(signal.SIGINT)
    end(listener)
