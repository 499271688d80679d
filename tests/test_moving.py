"""docs/moving.md: each block is a script that runs, and all of them do the same job."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

import processes

TEXT = (Path(__file__).parent.parent / "docs" / "moving.md").read_text()
DATA, *SCRIPTS = re.findall(r"^```python\n(.*?)^```$", TEXT, re.M | re.S)
pytestmark = pytest.mark.system  # not that it needs much: it takes long, most of it Ray's start
OPTIONAL = ("joblib", "pandarallel", "ray")
NAMES = [f"{i}-{re.search(r'import .*', code).group()}" for i, code in enumerate(SCRIPTS)]


@pytest.mark.parametrize("code", SCRIPTS, ids=NAMES)
def test_the_block_does_the_job(code: str, tmp_path: Path) -> None:
    for name in OPTIONAL:
        if re.search(rf"^(import|from) {name}\b", code, re.M) and not importlib.util.find_spec(
            name
        ):
            pytest.skip(f"{name} is not installed")
        if name == "pandarallel" and name in code and pd.__version__ >= "3":
            pytest.skip("pandarallel cannot be imported with pandas 3")
    (tmp_path / "data.py").write_text(DATA)
    (tmp_path / "script.py").write_text(code)
    namespace = processes.new_namespace()
    done = subprocess.run(
        [sys.executable, "script.py"],
        cwd=tmp_path,
        env={
            **os.environ,
            "NUMPUSH_NAMESPACE": namespace,
            "RAY_USAGE_STATS_ENABLED": "0",
            "PYTHONPATH": f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}",
        },
        capture_output=True,
        text=True,
        timeout=2 * processes.LIMIT,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == expected()
    # joblib's workers outlive the script, and are stopped by a signal.
    processes.run_script("import numpush; numpush.gc()", namespace=namespace)
    left = processes.files_of(namespace)
    for file in left:
        os.unlink(processes.SHM / file)
    assert not any(".seg." in file for file in left), left


def expected() -> str:
    space: dict[str, object] = {}
    exec(DATA, space)
    df = space["trades"]()
    return str([round(space["vwap"](df, symbol), 2) for symbol in "ABCDEFGH"])


def test_there_is_a_block_for_each() -> None:
    assert len(SCRIPTS) == 11
    for name in ("multiprocessing", *OPTIONAL):
        assert f"\n## {name}\n" in TEXT.replace("## Ray", "## ray")
