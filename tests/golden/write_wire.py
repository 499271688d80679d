"""Write the golden files of the wire format, version 1: one frame each, as docs/wire.md describes.

Run it when the version of the format changes, and never else: old files are what new code must read.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd


def objects() -> dict[str, tuple[Any, dict[str, Any]]]:
    """Give what each file holds, and how it was encoded."""
    frame = pd.DataFrame(
        {
            "x": [0.5, 1.5, float("nan")],
            "n": [1, 2, 3],
            "text": ["a", "é", ""],
            "kind": pd.Categorical(["b", "a", "b"]),
            "when": pd.to_datetime(["2026-01-01", "2026-11-28", None]).tz_localize("UTC"),
        },
        index=pd.Index([10, 20, 30], name="id"),
    )
    return {
        "array": (np.arange(6, dtype="<i4").reshape(2, 3), {}),
        "array_checksum": (np.array([1.5, -2.5], ">f8"), {"checksum": True}),
        "array_blosc2": (np.arange(1000, dtype="<u2"), {"checksum": True, "chunk": 512}),
        "frame": (frame, {}),
        "series": (frame["x"], {"checksum": True}),
    }


def main() -> None:
    from numpush.ingest import compress, wire

    for name, (obj, options) in objects().items():
        outgoing = wire.encode(obj, **options)
        if options.get("chunk"):
            compress.CHUNK = options["chunk"]
            body = b"".join(b"".join(compress.chunks(b, "lz4")) for b in outgoing.buffers)
        else:
            body = b"".join(bytes(part) for part in outgoing.parts())
        (Path(__file__).parent / f"{name}.npw").write_bytes(outgoing.head + body)


if __name__ == "__main__":
    main()
