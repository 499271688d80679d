"""Read a file into a shared frame: time, and the private memory that it takes at its highest.

Each run is a process of its own, which has imported everything and read a small file before the clock
starts. Its private memory (RssAnon in /proc: what is neither shared nor backed by a file) is sampled
from outside each millisecond, and counted from where it stood then. What is in shared memory comes on
top of it, in each way that ends there: `frame` in the title. Rounds are interleaved.
"""

from __future__ import annotations

import json
import select
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pyarrow.feather
import pyarrow.parquet as pq

from harness import arguments, machine, show
from numpush import SDataFrame, filling

MIB = 1 << 20


# -- what is run, in a child


def _parquet(path: str) -> Any:
    return filling.read_parquet(path)


def _parquet_one(path: str) -> Any:
    return filling.read_parquet(path, threads=1)


def _parquet_pandas(path: str) -> Any:
    return pd.read_parquet(path)


def _parquet_pandas_shared(path: str) -> Any:
    return SDataFrame(pd.read_parquet(path))


def _parquet_arrow(path: str) -> Any:
    return pq.read_table(path).to_pandas(self_destruct=True, split_blocks=True)


def _feather(path: str) -> Any:
    return filling.read_feather(path)


def _feather_pandas(path: str) -> Any:
    return pd.read_feather(path)


def _feather_pandas_shared(path: str) -> Any:
    return SDataFrame(pd.read_feather(path))


def _csv(path: str) -> Any:
    return filling.read_csv(path, parse_dates=["time"])


def _csv_pandas(path: str) -> Any:
    return pd.read_csv(path, parse_dates=["time"])


def _csv_pandas_shared(path: str) -> Any:
    return SDataFrame(pd.read_csv(path, parse_dates=["time"]))


def _csv_arrow(path: str) -> Any:
    return pyarrow.csv.read_csv(path).to_pandas()


RACES: dict[str, dict[str, str]] = {
    "parquet": {
        "numpush read_parquet": "_parquet",
        "numpush read_parquet, 1 thread": "_parquet_one",
        "pd.read_parquet (private)": "_parquet_pandas",
        "SDataFrame(pd.read_parquet)": "_parquet_pandas_shared",
        "pyarrow read_table, to_pandas (private)": "_parquet_arrow",
    },
    "feather": {
        "numpush read_feather": "_feather",
        "pd.read_feather (private)": "_feather_pandas",
        "SDataFrame(pd.read_feather)": "_feather_pandas_shared",
    },
    "csv": {
        "numpush read_csv": "_csv",
        "pd.read_csv (private)": "_csv_pandas",
        "SDataFrame(pd.read_csv)": "_csv_pandas_shared",
        "pyarrow.csv.read_csv, to_pandas (private)": "_csv_arrow",
    },
}


def child(function: str, path: str, small: str, check: str) -> None:
    """Read *small*, say so, wait for a line, read *path*; print seconds, and check what came."""
    run = globals()[function]
    run(small)
    print("ready", flush=True)
    sys.stdin.readline()
    start = time.perf_counter()
    frame = run(path)
    seconds = time.perf_counter() - start
    print(seconds, flush=True)
    sys.stdin.readline()  # the sampling is over
    found = _digest(frame)
    if any(not np.isclose(found[key], value) for key, value in json.loads(check).items()):
        raise AssertionError(f"wrong data: {found}, not {check}")


def _digest(frame: Any) -> dict[str, float]:
    return {
        "rows": len(frame),
        "x": float(frame["x"].sum()),
        "n": float(frame["n"].sum()),
        "word": float(frame["word"].str.len().sum()),
        "text": float(frame["text"].str.len().sum()),
        "time": float(frame["time"].astype("datetime64[s]").astype("i8").mean()),
    }


# -- measuring, from outside


def measure(function: str, path: str, small: str, check: str) -> tuple[float, int]:
    """Run one way in a child; return its seconds, and the most private memory beyond the start."""
    command = [sys.executable, __file__, "child", function, path, small, check]
    done = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert done.stdin is not None
    assert done.stdout is not None
    if done.stdout.readline() != "ready\n":
        raise RuntimeError(f"{function} failed")
    base = most = _private(done.pid)
    done.stdin.write("go\n")
    done.stdin.flush()
    while not select.select([done.stdout], [], [], 0.001)[0]:
        most = max(most, _private(done.pid))
    said = done.stdout.readline()
    done.communicate("check\n", timeout=600)
    if done.returncode:
        raise RuntimeError(f"{function} ended with {done.returncode}")
    return float(said), most - base


def _private(pid: int) -> int:
    with open(f"/proc/{pid}/status") as file:
        for line in file:
            if line.startswith("RssAnon:"):
                return int(line.split()[1]) << 10
    return 0


def make_frame(n: int) -> pd.DataFrame:
    rng = np.random.default_rng(7)
    words = np.array([f"word-{i}" for i in range(1000)])
    return pd.DataFrame(
        {
            "x": rng.random(n).round(6),
            "y": rng.standard_normal(n).round(6),
            "n": rng.integers(0, 1 << 40, n),
            "k": rng.integers(0, 100, n).astype("i4"),
            "time": pd.Timestamp("2024-01-01").as_unit("us") + pd.to_timedelta(np.arange(n), "s"),
            "word": words[rng.integers(0, 1000, n)],
            "text": np.char.add("unique text ", rng.integers(0, 1 << 40, n).astype("U")),
        }
    )


def write_files(folder: Path, n: int, suffix: str) -> None:
    table = pa.Table.from_pandas(make_frame(n), preserve_index=False)
    pq.write_table(table, folder / f"parquet{suffix}", row_group_size=256 << 10)
    pyarrow.feather.write_feather(table, folder / f"feather{suffix}", compression="lz4")
    pyarrow.csv.write_csv(table.slice(0, n // 4), folder / f"csv{suffix}")


def main() -> None:
    args = arguments(__doc__, rows=4_000_000, only="")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_files(folder, 1000, "-small")
        write_files(folder, args.rows, "")
        frame = make_frame(args.rows)
        checks = {"parquet": frame, "feather": frame, "csv": frame.iloc[: args.rows // 4]}
        shared = {kind: int(SDataFrame(each)._segment().data_size) for kind, each in checks.items()}
        digests = {kind: json.dumps(_digest(each)) for kind, each in checks.items()}
        rows = {kind: len(each) for kind, each in checks.items()}
        del frame, checks
        results = []
        for kind, ways in RACES.items():
            if args.only and kind != args.only:
                continue
            size = (folder / kind).stat().st_size
            what = (
                f"{kind}: {rows[kind]:,} rows of 7 columns, a file of {size // MIB} MiB, "
                f"a frame of {shared[kind] // MIB}"
            )
            found: dict[str, list[tuple[float, int]]] = {name: [] for name in ways}
            for _ in range(args.rounds):
                for name, function in ways.items():
                    path = str(folder / kind)
                    found[name].append(measure(function, path, f"{path}-small", digests[kind]))
            results.append(_results(what, found))
        for each in results:
            print(show(each), end="\n\n")
            print(_show_memory(each), end="\n\n")
    if args.json is not None:
        said = {"command": sys.argv, "machine": machine(), "races": results}
        args.json.write_text(json.dumps(said))


def _results(title: str, found: dict[str, list[tuple[float, int]]]) -> dict[str, Any]:
    medians = {name: statistics.median(s for s, _ in runs) for name, runs in found.items()}
    base = next(iter(found))
    rows = [
        {
            "name": name,
            "seconds": medians[name],
            "fastest": min(s for s, _ in runs),
            "slowest": max(s for s, _ in runs),
            "ratio": medians[name] / medians[base],
            "private": statistics.median(n for _, n in runs),
        }
        for name, runs in found.items()
    ]
    return {"title": title, "base": base, "missing": [], "rows": rows}


def _show_memory(results: dict[str, Any]) -> str:
    width = max(len(row["name"]) for row in results["rows"])
    lines = [
        f"| {'':{width}} | private memory, at its highest | ratio |",
        f"| {'-' * width} | ---: | ---: |",
    ]
    base = results["rows"][0]["private"] or 1
    for row in results["rows"]:
        ratio = row["private"] / base
        lines.append(f"| {row['name']:{width}} | {row['private'] / MIB:.0f} MiB | {ratio:.2f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    if sys.argv[1:2] == ["child"]:
        child(*sys.argv[2:])
    else:
        main()
