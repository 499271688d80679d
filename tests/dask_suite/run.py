"""Run Dask's own tests of serialization, connections and shuffles with the adapter, and without; compare.

``python tests/dask_suite/run.py CHECKOUT [test file ...]``: distributed's wheel has no tests, so CHECKOUT is
its source, best of the version that is installed. Objects go through shared memory however small.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
FILES = [
    *(f"protocol/tests/test_{name}.py" for name in (
        "arrow", "collection", "compression", "highlevelgraph", "numpy", "pandas", "pickle",
        "protocol", "protocol_utils", "scipy", "serialize", "to_pickle", "utils", "utils_test",
    )),
    *(f"comm/tests/test_{name}.py" for name in ("comms", "tcp")),
    *(f"shuffle/tests/test_{name}.py" for name in (
        "shuffle", "merge", "merge_column_and_index", "rechunk", "graph", "metrics", "shuffle_plugins",
    )),
]  # fmt: skip
PRELOAD = "['numpush.adapters.dask']"


def run(checkout: Path, files: list[str], *, adapter: bool) -> tuple[dict[str, int], set[str]]:
    """Return how many passed, failed .., and which failed."""
    command = [sys.executable, "-m", "pytest", "-q", "-c", os.devnull, "--import-mode=importlib"]
    command += [f"--rootdir={checkout}", "-p", "plugin", "-p", "no:cacheprovider", "-W", "ignore"]
    command += ["--tb=line", "-rfE", *(str(checkout / "distributed" / file) for file in files)]
    env = {
        **os.environ,
        "PYTHONPATH": str(HERE),
        "DISTRIBUTED_CHECKOUT": str(checkout),
        "COLUMNS": "300",
    }
    if adapter:
        env |= {
            "NUMPUSH_ADAPTER": "1",
            "DASK_NUMPUSH__SHARE_FROM": "1",
            "DASK_DISTRIBUTED__WORKER__PRELOAD": PRELOAD,
            "DASK_DISTRIBUTED__NANNY__PRELOAD": PRELOAD,
        }
    done = subprocess.run(
        command, env=env, capture_output=True, text=True, cwd=HERE, check=False, timeout=3000
    )
    counts = {
        what: int(n)
        for n, what in re.findall(r"(\d+) (passed|failed|error|skipped)", done.stdout[-300:])
    }
    if not counts:
        sys.exit(done.stdout[-3000:] + done.stderr[-3000:])
    return counts, set(re.findall(r"^(?:FAILED|ERROR) (\S+)", done.stdout, re.M))


def main() -> None:
    if len(sys.argv) < 2 or not (Path(sys.argv[1]) / "distributed").is_dir():
        sys.exit(
            f"{__doc__}\nno source of distributed: {' '.join(sys.argv[1:2]) or 'no CHECKOUT given'}"
        )
    checkout = Path(sys.argv[1]).resolve()
    files = sys.argv[2:] or FILES
    without, failed_too = run(checkout, files, adapter=False)
    print(f"as it is: {without}", flush=True)
    with_it, failed = run(checkout, files, adapter=True)
    print(f"with the adapter: {with_it}")
    alone = sorted(failed - failed_too)
    for test in alone:
        print(f"fails with the adapter alone: {test}")
    sys.exit(bool(alone))


if __name__ == "__main__":
    main()
