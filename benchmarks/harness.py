"""What the benchmarks share: rounds in which the contestants take turns, medians, and a table.

Every contestant of a benchmark runs in the same process (or its own pool), round by round, in an order
that changes, so that noise of the machine, and what the one before leaves behind, meets all of them
alike; the median of the rounds counts. What is over in less than 20 ms is done again until then, in its
turn, and the time of one is the mean: a single millisecond tells more of what ran before it, and of whom
the kernel woke, than of itself. A contestant whose library is not installed is named, not dropped.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import random
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

Contestant = Callable[[], Any]

_TURN = 0.02  #: seconds


def installed(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def arguments(description: str | None, **defaults: Any) -> argparse.Namespace:
    """Parse ``--rounds``, ``--json PATH`` and one option for each of *defaults*."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--rounds", type=int, default=7, help="how often each one runs")
    parser.add_argument("--json", type=Path, help="write the results to this file too")
    for name, value in defaults.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(value), default=value)
    return parser.parse_args()


class Race:
    """Contestants that are timed in turn.

    Parameters
    ----------
    title : str
        What is measured, with shapes and bytes.
    base : str
        The contestant that the ratios are taken to.
    clock : callable
        What is measured: time, or ``time.process_time`` for the seconds of CPU of this process.
    """

    def __init__(
        self, title: str, base: str, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self.clock = clock
        self.title = title
        self.base = base
        self.contestants: dict[str, Contestant] = {}
        self.missing: list[str] = []
        self.slow: set[str] = set()
        self.before: dict[str, Contestant] = {}
        self.seconds: dict[str, list[float]] = {}

    def add(
        self,
        name: str,
        run: Contestant,
        needs: str | None = None,
        *,
        slow: bool = False,
        before: Contestant | None = None,
    ) -> None:
        """Enter *run*, which checks what it computed; *needs* names its library.

        A *slow* one, that takes seconds, runs in one round only. *before* is called each time
        before the clock starts, and then it runs once in its turn; what *run* returns is dropped
        after the clock has stopped.
        """
        if before is not None:
            self.before[name] = before
        if slow:
            self.slow.add(name)
        if needs is not None and not installed(needs):
            self.missing.append(name)
        else:
            self.contestants[name] = run

    def run(self, rounds: int, warm_up: int = 1) -> None:
        """Time *rounds* rounds, after *warm_up* that do not count."""
        self.seconds = {name: [] for name in self.contestants}
        for i in range(warm_up + rounds):
            order = list(self.contestants.items())
            random.Random(i).shuffle(order)
            for name, contestant in order:
                if name in self.slow and i != warm_up:
                    continue
                elapsed = self._take_turn(name, contestant)
                if i >= warm_up:
                    self.seconds[name].append(elapsed)

    def _take_turn(self, name: str, contestant: Contestant) -> float:
        before = self.before.get(name)
        if before is not None:
            before()
        n, elapsed, began = 0, 0.0, time.perf_counter()
        while n == 0 or (before is None and time.perf_counter() - began < _TURN):
            start = self.clock()
            result = contestant()
            elapsed += self.clock() - start
            del result
            n += 1
        return elapsed / n

    def results(self) -> dict[str, Any]:
        medians = {name: statistics.median(times) for name, times in self.seconds.items()}
        return {
            "title": self.title,
            "base": self.base,
            "missing": self.missing,
            "rows": [
                {
                    "name": name,
                    "seconds": median,
                    "fastest": min(self.seconds[name]),
                    "slowest": max(self.seconds[name]),
                    "ratio": median / medians[self.base],
                }
                for name, median in medians.items()
            ],
        }


def show(results: dict[str, Any]) -> str:
    """Return the table of one race as Markdown."""
    width = max(len(row["name"]) for row in results["rows"])
    lines = [
        f"**{results['title']}**",
        "",
        f"| {'':{width}} | median | fastest - slowest | ratio |",
        f"| {'-' * width} | ---: | ---: | ---: |",
    ]
    for row in results["rows"]:
        times = f"{duration(row['fastest'])} - {duration(row['slowest'])}"
        lines.append(
            f"| {row['name']:{width}} | {duration(row['seconds'])} | {times} | {row['ratio']:.2f} |"
        )
    if results["missing"]:
        lines += ["", f"Not installed: {', '.join(results['missing'])}."]
    return "\n".join(lines)


def duration(seconds: float) -> str:
    for factor, unit in ((1, "s"), (1e3, "ms"), (1e6, "us")):
        if seconds * factor >= 1:
            return f"{seconds * factor:.3g} {unit}"
    return f"{seconds * 1e9:.3g} ns"


def machine() -> str:
    """Return what the figures were taken on, in one line."""
    import numpy
    import pandas

    gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return (
        f"{os.cpu_count()} cores, {gib:.0f} GiB, Linux {platform.release().split('-')[0]}, "
        f"Python {platform.python_version()}, NumPy {numpy.__version__}, "
        f"pandas {pandas.__version__}, {time.strftime('%Y-%m-%d')}"
    )


def finish(races: list[Race], path: Path | None) -> None:
    """Print the tables and write them as JSON."""
    results = [race.results() for race in races]
    for each in results:
        print(show(each), end="\n\n")
    if path is not None:
        path.write_text(json.dumps({"command": sys.argv, "machine": machine(), "races": results}))
