"""Run Dask's own tests of serialization, connections and shuffles with the adapter, and without; compare.

``python tests/dask_suite/run.py CLONE [test file or folder ...] [option of pytest ...]``: CLONE is one of
dask.distributed, and what is installed (``make test-dask`` does that): its wheel has no tests. They run
with its own settings of pytest; objects go through shared memory however small, unless
``DASK_NUMPUSH__SHARE_FROM`` in the environment says from how many bytes.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import distributed

HERE = Path(__file__).resolve().parent
BUILD = HERE.parent.parent / "build"  #: what pytest said, as it says it
FOLDERS = ["protocol/tests", "comm/tests", "shuffle/tests"]
LIMIT = 3600  #: seconds for each of the two runs
PRELOAD = "['numpush.adapters.dask']"


def run(clone: Path, arguments: list[str], *, adapter: bool) -> tuple[dict[str, int], set[str]]:
    """Return how many passed, failed .., and which failed."""
    command = [sys.executable, "-m", "pytest", "-q", "--color=no", "--durations=0", "-rfE"]
    command += ["-p", "plugin", "-p", "no:cacheprovider", "--timeout-method=signal", "--tb=short"]
    # A cluster that is not there within 30 s, on a busy machine, is no difference: once more.
    command += ["--reruns=2", "--only-rerun=TimeoutError"]
    env = {**os.environ, "PYTHONPATH": str(HERE), "COLUMNS": "300"}
    if adapter:
        env |= {
            "NUMPUSH_ADAPTER": "1",
            "DASK_NUMPUSH__SHARE_FROM": os.environ.get("DASK_NUMPUSH__SHARE_FROM", "1"),
            "DASK_DISTRIBUTED__WORKER__PRELOAD": PRELOAD,
            "DASK_DISTRIBUTED__NANNY__PRELOAD": PRELOAD,
        }
    log = BUILD / f"dask-{'with' if adapter else 'without'}.log"
    log.parent.mkdir(exist_ok=True)
    with log.open("w") as file:
        subprocess.run(
            command + arguments,
            env=env,
            stdout=file,
            stderr=subprocess.STDOUT,
            cwd=clone,
            check=False,
            timeout=LIMIT,
        )
    output = log.read_text()
    counts = {
        what: int(n)
        for n, what in re.findall(r"(\d+) (passed|failed|error|skipped|rerun)", output[-300:])
    }
    if not counts:
        sys.exit(f"{log}:\n{output[-3000:]}")
    n_moved = re.findall(r"^objects sent in segments: (\d+)", output, re.M)
    counts["sent in segments"] = int(n_moved[0]) if n_moved else 0
    return counts, set(re.findall(r"^(?:FAILED|ERROR) (\S+)", output, re.M))


def main() -> None:
    clone = Path(distributed.__file__).parent.parent
    if len(sys.argv) < 2 or Path(sys.argv[1]).resolve() != clone:
        sys.exit(f"{__doc__}\ninstalled is {clone}, given: {' '.join(sys.argv[1:2]) or 'nothing'}")
    arguments = sys.argv[2:] or [f"distributed/{folder}" for folder in FOLDERS]
    print(f"distributed {distributed.__version__}", flush=True)
    without, failed_too = run(clone, arguments, adapter=False)
    print(f"as it is: {without}", flush=True)
    with_it, failed = run(clone, arguments, adapter=True)
    print(f"with the adapter: {with_it}")
    for name, tests in (
        ("with the adapter alone", failed - failed_too),
        ("without it alone", failed_too - failed),
        ("both ways", failed & failed_too),
    ):
        for test in sorted(tests):
            print(f"fails {name}: {test}")
    sys.exit(bool(failed - failed_too) or not with_it["sent in segments"])


if __name__ == "__main__":
    main()
