"""Run Dask's own tests of serialization, connections and shuffles with the adapter, and without; compare.

``python tests/dask_suite/run.py CLONE [test file or folder ...] [option of pytest ...]``: CLONE is one of
dask.distributed, and what is installed (``make test-dask`` does that): its wheel has no tests. They run
with its own settings of pytest; objects go through shared memory however small, unless
``DASK_NUMPUSH__SHARE_FROM`` in the environment says from how many bytes. It exits with 0 if they differ
where they are meant to (`DIFFERENCES`), and nowhere else.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import distributed

HERE = Path(__file__).resolve().parent
BUILD = HERE.parent.parent / "build"  #: what pytest said, as it says it
FOLDERS = ["protocol/tests", "comm/tests", "shuffle/tests"]
SHARE_FROM = os.environ.get("DASK_NUMPUSH__SHARE_FROM", "1")
LIMIT = 3600  #: seconds for each of the two runs
PRELOAD = "['numpush.adapters.dask']"

_COMPRESSED = "one host with two addresses stands for two hosts; what is not sent is not compressed"
_NO_BUFFER = (
    "what came by shared memory, or landed in it, lies in no buffer of NumPy's or Python's own"
)
#: Where the adapter does other than Dask, and is meant to, if all goes through shared memory: tests, by
#: name without parameters, that fail with it, each time; and why.
DIFFERENCES = {
    "protocol/tests/test_compression.py::test_compress_remote_comms": _COMPRESSED,
    "comm/tests/test_comms.py::test_do_not_share_buffers": _NO_BUFFER,
    "comm/tests/test_comms.py::test_share_buffer_with_header": _NO_BUFFER,
    "shuffle/tests/test_rechunk.py::test_rechunk_in_memory_shards_dont_share_buffer": _NO_BUFFER,
}


class Outcome(NamedTuple):
    """What a run of pytest said."""

    counts: dict[str, int]
    passed: set[str]
    failed: set[str]


def expected(test: str) -> str | None:
    """Return why a test fails with the adapter, and is to; None: it is not."""
    if SHARE_FROM != "1":
        return None
    return DIFFERENCES.get(test.partition("[")[0].removeprefix("distributed/"))


def run(clone: Path, arguments: list[str], *, adapter: bool) -> Outcome:
    command = [sys.executable, "-m", "pytest", "-q", "--color=no", "--durations=0", "-rfEp"]
    command += ["-p", "plugin", "-p", "no:cacheprovider", "--timeout-method=signal", "--tb=short"]
    # A cluster that is not there within 30 s, on a busy machine, is no difference: once more.
    command += ["--reruns=2", "--only-rerun=TimeoutError"]
    env = {**os.environ, "PYTHONPATH": str(HERE), "COLUMNS": "300"}
    if adapter:
        env |= {
            "NUMPUSH_ADAPTER": "1",
            "DASK_NUMPUSH__SHARE_FROM": SHARE_FROM,
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
    passed = re.findall(r"^PASSED (\S+)", output, re.M)
    return Outcome(counts, set(passed), set(re.findall(r"^(?:FAILED|ERROR) (\S+)", output, re.M)))


def main() -> None:
    clone = Path(distributed.__file__).parent.parent
    if len(sys.argv) < 2 or Path(sys.argv[1]).resolve() != clone:
        sys.exit(f"{__doc__}\ninstalled is {clone}, given: {' '.join(sys.argv[1:2]) or 'nothing'}")
    arguments = sys.argv[2:] or [f"distributed/{folder}" for folder in FOLDERS]
    print(f"distributed {distributed.__version__}", flush=True)
    without = run(clone, arguments, adapter=False)
    print(f"as it is: {without.counts}", flush=True)
    with_it = run(clone, arguments, adapter=True)
    print(f"with the adapter: {with_it.counts}")
    differ = with_it.failed - without.failed
    meant = {test for test in differ if expected(test)}
    no_longer = {test for test in with_it.passed if expected(test)}
    for name, tests in (
        ("fails with the adapter alone", differ - meant),
        ("fails without it alone", without.failed - with_it.failed),
        ("fails both ways", with_it.failed & without.failed),
        ("passes, and is to be taken out of DIFFERENCES", no_longer),
    ):
        for test in sorted(tests):
            print(f"{name}: {test}")
    for test in sorted(meant):
        print(f"differs, as it is meant to: {test}: {expected(test)}")
    sys.exit(bool(differ - meant or no_longer) or not with_it.counts["sent in segments"])


if __name__ == "__main__":
    main()
