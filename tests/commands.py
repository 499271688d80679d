"""numpush's commands, run as people run them: processes of their own, over segments that another holds."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import processes

HOLD = """
import os, sys
import numpy as np
import numpush
from numpush import SArray

prices = SArray(np.arange(300.0).reshape(100, 3), name="prices")
big = SArray(np.zeros(3333, "i4"))
{more}
print(big.name, flush=True)
for line in sys.stdin:
    print(eval(line), flush=True)
"""


def run(*args: str, namespace: str, code: int = 0, **env: str) -> subprocess.CompletedProcess[str]:
    """Run the command and check its exit code."""
    done = subprocess.run(
        [sys.executable, "-m", "numpush", *args],
        env={**environment(namespace), **env},
        capture_output=True,
        text=True,
        timeout=processes.LIMIT,
        check=False,
    )
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done


def environment(namespace: str) -> dict[str, str]:
    env = {**os.environ, "NUMPUSH_NAMESPACE": namespace, "PYTHONWARNINGS": "error"}
    for name in ("COLUMNS", "FORCE_COLOR", "NO_COLOR", "TTY_COMPATIBLE"):
        env.pop(name, None)
    return env


def ls(namespace: str) -> dict[str, Any]:
    """Return the segments by name."""
    found = json.loads(run("ls", "--json", namespace=namespace).stdout)
    return {segment["name"]: segment for segment in found["segments"]}


class Holder:
    """A process with segments: "prices", and `big`, whose name nobody chose."""

    def __init__(self, namespace: str, more: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", HOLD.format(more=more)],
            env=environment(namespace),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        self.pid = self.process.pid
        self.big = self.process.stdout.readline().strip()
        assert len(self.big) == 32

    def evaluate(self, expression: str) -> str:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(expression, file=self.process.stdin, flush=True)
        return self.process.stdout.readline().strip()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(processes.LIMIT)

    def end(self) -> None:
        self.process.communicate(timeout=processes.LIMIT)


@contextlib.contextmanager
def holder(namespace: str, more: str = "") -> Iterator[Holder]:
    held = Holder(namespace, more)
    try:
        yield held
    finally:
        held.end()
