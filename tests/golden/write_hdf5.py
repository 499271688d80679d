"""Write the golden files of hdf5://, version 1, and one of pandas' (gzipped): needs PyTables (`tables`).

Run it when the version of the layout changes, and never else: old files are what new code must read.
"""

from __future__ import annotations

import gzip
import tempfile
from pathlib import Path
from typing import Any

import pandas as pd

FOLDER = Path(__file__).parent


def pandas_objects() -> dict[str, Any]:
    """Give what pandas.h5 holds that we read."""
    frame = pd.DataFrame(
        {
            "a": [0.5, float("nan"), 2.5],
            "n": [1, 2, 3],
            "b": [True, False, True],
            "when": pd.to_datetime(["2026-01-01", None, "2026-11-28"]).as_unit("ns"),
            "zoned": pd.date_range("2026", periods=3, tz="Europe/Paris", unit="ns"),
            "for": pd.to_timedelta([1, 2, 3], unit="s").as_unit("ns"),
            "c": [1.0, 2.0, 3.0],
        },
        index=pd.Index([3, 4, 5], name="id"),
    )
    when = pd.DatetimeIndex(["2026-01-01", "2026-01-03", "2026-01-04"], name="day").as_unit("ns")
    return {
        "frame": frame,
        "deep/by_day": frame[["a", "n"]].set_index(when),
        "deep/by_name": frame[["a"]].set_index(pd.Index(["x", "é", "z"])),
        "series": frame["a"],
    }


def main() -> None:
    from write_wire import objects

    from numpush import stores

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "pandas.h5")
        for key, obj in pandas_objects().items():
            obj.to_hdf(path, key=key)
        pandas_objects()["frame"].to_hdf(path, key="table", format="table")
        pd.DataFrame({"t": ["a", "b"]}).to_hdf(path, key="text")
        (FOLDER / "pandas.h5.gz").write_bytes(gzip.compress(path.read_bytes(), mtime=0))

        path = Path(folder, "store.h5")
        for options in ({"checksum": True}, {"compression": "gzip"}):
            with stores.open(f"hdf5://{path}", **options) as store:
                name = "gzip" if "compression" in options else "plain"
                for key, (obj, _) in objects().items():
                    store.put(f"{name}/{key}", obj)
        (FOLDER / "store.h5.gz").write_bytes(gzip.compress(path.read_bytes(), mtime=0))


if __name__ == "__main__":
    main()
