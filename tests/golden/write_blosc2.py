"""Write the golden files of blosc2:// stores, version 1: as docs/stores.md describes them.

Run it when the version of the format changes, and never else: old files are what new code must read.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

FOLDER = Path(__file__).parent / "blosc2"


def objects() -> dict[str, tuple[Any, dict[str, Any]]]:
    """Give what each file holds, and the options of the store that wrote it."""
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
        "array": (np.arange(6000, dtype="<i4").reshape(2000, 3), {"chunk": 4096}),
        "zeros": (np.zeros(3000, ">f8"), {"checksum": False, "chunk": 4096}),
        "zstd": (np.arange(999.0), {"codec": "zstd", "filter": "shuffle"}),
        "frame": (frame, {}),
        "series": (frame["x"], {"codec": "blosclz", "filter": None, "checksum": False}),
    }


def main() -> None:
    from numpush import stores

    for key, (obj, options) in objects().items():
        with stores.open(f"blosc2://{FOLDER}", **options) as store:
            store.put(key, obj)


if __name__ == "__main__":
    main()
