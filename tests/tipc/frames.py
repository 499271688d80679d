"""A frame from one TIPC node to another: `frames.py send|receive|knock|wait_here URL`.

`receive` listens and compares with what `send` sends. `knock` expects that nobody answers, on one node,
while `wait_here` on the other listens for that node alone.
"""

from __future__ import annotations

import sys
import threading

import numpy as np
import pandas as pd
import pytest

from numpush import ingest

KEY = b"0123456789abcdef"
LIMIT = 60.0
N = 333_333


def frame() -> pd.DataFrame:
    rng = np.random.default_rng(N)
    return pd.DataFrame(
        {
            "x": rng.random(N),
            "n": rng.integers(0, 1 << 60, N),
            "text": [f"row {i}" for i in range(N)],
            "kind": pd.Categorical(["a", "b", "c"] * (N // 3)),
        }
    )


def send(url: str) -> None:
    ingest.send(url, frame(), key=KEY, timeout=LIMIT)


def receive(url: str) -> None:
    got = ingest.recv(url, key=KEY, timeout=LIMIT)
    pd.testing.assert_frame_equal(got.to_pandas(), frame())


def knock(url: str) -> None:
    with pytest.raises(ingest.PeerGone, match="no process has bound it"):
        ingest.connect(url, timeout=2)


def wait_here(url: str) -> None:
    """Listen with node scope, and be found on this node."""
    with ingest.listen(url) as listener, ingest.connect(url) as connection:
        connection.send(np.arange(3))
        assert listener.recv(LIMIT).tolist() == [0, 1, 2]
        threading.Event().wait(4)


if __name__ == "__main__":
    {"send": send, "receive": receive, "knock": knock, "wait_here": wait_here}[sys.argv[1]](
        sys.argv[2]
    )
