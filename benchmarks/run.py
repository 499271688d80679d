"""Run all benchmarks, one after the other, and write docs/benchmarks.md and its plot."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from harness import installed, machine, show

HERE = Path(__file__).parent
DOCS = HERE.parent / "docs"
SCRIPTS = [
    *("handoff", "pool", "parallel", "frames", "result", "creation", "filling"),
    *(
        "ingest",
        "ingest_zmq",
        "dask_adapter",
        "dask_between_hosts",
        "ray_adapter",
        "stores_file",
        "stores_redis",
        "stores_hdf5",
        "stores_blosc2",
    ),
    *("attach", "locks", "kernels", "team", "scaling", "shipped_code", "importtime"),
]
#: For peers that cannot be imported with pandas 3: a Python with pandas 2, numpush and pandarallel.
PANDAS_2 = os.environ.get("NUMPUSH_BENCH_PANDAS_2")

#: What the figures of a script do not say themselves.
NOTES = {
    "handoff": "Each task reads from a thousand pages of the array, or a view of the frame: that is in "
    "every row but the first, and those that say so. What that takes alone is in the row of the "
    "workers' own data, for which nothing is handed over.",
    "parallel": "pandarallel needs pandas 2: NUMPUSH_BENCH_PANDAS_2 names a Python that has it, and numpush "
    "and pandarallel beside it; its races say so in their titles.",
    "frames": "A shared frame looks at every access whether another process has replaced its structure: "
    "which is most of what `len` costs. `+= 1` makes a new array, as in pandas, and "
    "copies it into place.",
    "creation": "Cold: memory that nobody has touched. Warm: what was freed before is used again; Ray "
    "keeps one object and writes into what the one before it had. The ways to fill fresh memory are "
    "measured in what pages it has here: huge ones, which are cleared when they are reserved (that "
    "is counted).",
    "ingest": "Several objects one after the other, the whole time counts. Flight's figures count a copy "
    "into shared memory that is touched already; Dask's end in private memory.",
    "ingest_zmq": "The sender is pyzmq in all rows. Small messages become one SArray each with numpush, "
    "and bytes with pyzmq.",
    "dask_adapter": "A transfer includes Dask's messages that bring it about: most of what a handle takes.",
    "attach": "The first row counts unpickling; the second is the look-up and the call into C alone. "
    "The first attach of a process also makes its node, and sweeps.",
    "locks": "A robust mutex in Python is two calls into C, about what a lock written in C costs as a "
    "whole, and the two Python functions that any context manager has which is no C type. "
    "In exchange it survives its holder, and says so.",
    "ray_adapter": "Both sides in one Ray, on one node. What a task of Ray costs anyway is in all rows.",
    "scaling": "Two cores of a virtual machine are all that there were: what more bring is not known.\n\n"
    "![Times one core, by workers](scaling.svg)",
    "team": "What a job on all cores costs beyond its work, one job after the other.",
    "kernels": "One function and one signature in all rows. A new process says itself how long it took, from "
    "its first line on. Two threads contend for a cache line as two processes do.",
    "shipped_code": "In a process that has loaded llvmlite. A payload is checked, read and linked in each "
    "round; what is pickled of numba's ufunc is Python's bytecode, which is compiled anew.",
}

HEAD = """# Benchmarks

Made by `make bench`, which runs every peer that is installed in the same rounds, each time in another
order; medians of {rounds} rounds, of at least 20 ms each. A ratio is to the row with 1.00. {machine}.
Two cores of a shared virtual machine: trust the ratios, not the seconds.

![Hand-off and result, by peer](benchmarks.svg)
"""


def main() -> None:
    rounds = sys.argv[1] if len(sys.argv) > 1 else "7"
    text = [HEAD.format(rounds=rounds, machine=machine())]
    races: list[dict[str, Any]] = []
    for name in SCRIPTS:
        print(f"-- {name}", flush=True)
        found = measure(sys.executable, name, rounds)
        if name == "parallel" and PANDAS_2 is not None:
            found += measure(PANDAS_2, name, rounds)
        text.append(f"## `python benchmarks/{name}.py`\n")
        if name in NOTES:
            text.append(NOTES[name] + "\n")
        text += [show(race) + "\n" for race in found]
        races += found
    (DOCS / "benchmarks.md").write_text("\n".join(text))
    if installed("matplotlib"):
        plot([race for race in races if race["title"].startswith(("Hand-off", "A result"))])
        plot_scaling([race for race in races if race["title"].endswith("workers)")])


def measure(python: str, name: str, rounds: str) -> list[dict[str, Any]]:
    """Run a script, and return its races."""
    with tempfile.NamedTemporaryFile(suffix=".json") as file:
        command = [python, str(HERE / f"{name}.py"), "--rounds", rounds, "--json", file.name]
        subprocess.run(command, check=True)
        races: list[dict[str, Any]] = json.loads(Path(file.name).read_text())["races"]
        return races


def plot(races: list[dict[str, Any]]) -> None:
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "numpush"
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(len(races), 1, figsize=(8, 2.1 * len(races)), layout="constrained")
    for axis, race in zip(axes, races, strict=True):
        rows = sorted(race["rows"], key=lambda row: -row["seconds"])
        ours = ["#c44e52" if "numpush" in row["name"] else "#8c8c8c" for row in rows]
        axis.barh([row["name"] for row in rows], [row["seconds"] * 1e3 for row in rows], color=ours)
        axis.set_xscale("log")
        axis.xaxis.set_major_formatter("{x:g}")
        axis.xaxis.set_minor_formatter("")
        axis.set_xlabel("ms")
        axis.set_title(race["title"], fontsize=9, loc="right")  # longer than the axis is wide
        axis.tick_params(labelsize=8)
    figure.savefig(DOCS / "benchmarks.svg", metadata={"Date": None})


def plot_scaling(races: list[dict[str, Any]]) -> None:
    """Draw how many times as fast as one core each contestant is, by the number of workers."""
    import matplotlib.pyplot as plt

    jobs: dict[str, dict[int, dict[str, float]]] = {}
    for race in races:
        title, _, workers = race["title"].removesuffix(" workers)").rpartition(" (")
        seconds = {row["name"]: row["seconds"] for row in race["rows"]}
        alone = seconds.pop(race["base"])
        jobs.setdefault(title, {})[int(workers)] = {
            name: alone / each for name, each in seconds.items()
        }
    figure, axes = plt.subplots(1, len(jobs), figsize=(9, 3.6), layout="constrained")
    for axis, (title, steps) in zip(axes, jobs.items(), strict=True):
        for name in next(iter(steps.values())):
            axis.plot(list(steps), [step[name] for step in steps.values()], marker="o", label=name)
        axis.plot(list(steps), list(steps), color="#cccccc", zorder=0)
        axis.set_xticks(list(steps))
        axis.set_xlabel("workers")
        axis.set_title(title, fontsize=9)
    axes[0].set_ylabel("times one core")
    axes[0].legend(fontsize=7)
    figure.savefig(DOCS / "scaling.svg", metadata={"Date": None})


if __name__ == "__main__":
    main()
