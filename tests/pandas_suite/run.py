"""Run pandas' own tests with SDataFrame for DataFrame, and with an empty subclass; compare.

What fails for SDataFrame alone is listed by what went wrong, and the number that must pass is looked
at. ``python tests/pandas_suite/run.py [folder of pandas/tests ...]``
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pandas

HERE = Path(__file__).parent
TESTS = Path(pandas.__file__).parent / "tests"
FOLDERS = ["frame", "copy_view", "indexing"]
MUST_PASS = 20_400  #: of those of pandas 3.1 in FOLDERS; docs/pandas.md has what fails, and why


def run(stand_in: str, folders: list[str]) -> tuple[dict[str, int], dict[str, str]]:
    """Return how many passed, failed .., and what is said of each that failed."""
    command = [sys.executable, "-m", "pytest", "-q", "-c", os.devnull, f"--rootdir={TESTS.parent}"]
    command += ["-p", "plugin", "-p", "no:cacheprovider", "-W", "ignore", "--tb=line", "-rfE"]
    command += [str(TESTS / folder) for folder in folders]
    env = {**os.environ, "PYTHONPATH": str(HERE), "NUMPUSH_STAND_IN": stand_in, "COLUMNS": "500"}
    done = subprocess.run(
        command, env=env, capture_output=True, text=True, cwd=HERE, check=False, timeout=3000
    )
    counts = {
        what: int(n)
        for n, what in re.findall(r"(\d+) (passed|failed|error|skipped)", done.stdout[-300:])
    }
    if not counts:
        sys.exit(done.stdout[-3000:] + done.stderr[-3000:])
    failed = dict(re.findall(r"^(?:FAILED|ERROR) (\S+.*?)(?: - (.*))?$", done.stdout, re.M))
    return counts, failed


def kind(said: str) -> str:
    """Bring what is said of a failure down to its kind."""
    return re.sub(r"0x[0-9a-f]+|\d+|'[^']*'", "_", said)[:90]


def main() -> None:
    folders = [arg for arg in sys.argv[1:] if not arg.startswith("-")] or FOLDERS
    ours, failed = run("SDataFrame", folders)
    others, failed_too = run("subclass", folders)
    print(f"SDataFrame: {ours}")
    print(f"an empty subclass: {others}")
    alone = {test: said for test, said in failed.items() if test not in failed_too}
    print(f"fail for SDataFrame alone: {len(alone)}")
    for what, n in Counter(map(kind, alone.values())).most_common():
        print(f"{n:6}  {what}")
    if "-v" in sys.argv:
        for test, said in sorted(alone.items()):
            print(test, said)
    if folders == FOLDERS and ours.get("passed", 0) < MUST_PASS:
        sys.exit(f"{ours.get('passed', 0)} passed; at least {MUST_PASS} wanted")


if __name__ == "__main__":
    main()
