"""A kernel that came over a link, signed, runs on a team that never saw its source."""

from __future__ import annotations

import subprocess
import sys

import numpy as np

from numpush import SArray, Team, code, ingest

SENDER = """
import sys
import numpush
from numpush import code, ingest

@numpush.kernel("const f8[:], f8[:], f8")
def scale(i0, i1, x, y, c):
    for i in range(i0, i1):
        y[i] = x[i] * c

url, path, key = sys.argv[1:]
with ingest.connect(url, key=key) as sink:
    sink.send(code.dumps(scale, keyring=code.Keyring.from_file(path)))
"""


def test_a_team_runs_a_kernel_that_was_received(tmp_path):
    ring = code.Keyring.generate()
    ring.save(tmp_path / "ring")
    key = "a key for this very test"
    with ingest.listen("tcp://127.0.0.1:0", key=key) as source:
        script = [sys.executable, "-c", SENDER, source.url, str(tmp_path / "ring"), key]
        done = subprocess.run(script, timeout=120, check=False)
        assert done.returncode == 0
        kernel = code.loads(source.recv(timeout=30), keyring=ring)
    x, y = SArray(np.arange(5000.0)), SArray.zeros(5000)
    with Team(2, "spawn") as team:
        team.run(kernel, 5000, x, y, 3.0)
        loaded = team.each(lambda rank, barrier: "numba" in sys.modules)
    assert np.array_equal(y, x * 3)
    assert loaded == [False, False]
