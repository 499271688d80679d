"""The main job on real input: this machine's file system, in one frame, from every core.

The directory tree becomes a DataFrame: path, size, owner, mode, time, extension, depth. It is put into
shared memory once (SDataFrame); a pool is handed partitions of it, and each worker computes columns
for its rows and writes them into the frame, in place. Then the same is done with the plain
DataFrame: its parts are pickled to the workers, the results pickled back and put together. Both
give equal frames; what each took is printed, whichever way it goes.

    python examples/filesystem.py [PATH] [--processes N] [--start-method fork|spawn|forkserver]
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import os
import pwd
import signal
import stat
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
from rich import box
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from numpush import SDataFrame

PARTS_PER_PROCESS = 4  # so that nobody waits long for the slowest


# -- the input


def walk(path: str, errors: Counter[str]) -> Iterator[tuple[str, os.stat_result]]:
    """Yield path and stat of everything below *path*, following no symlinks."""
    folders = [path]
    while folders:
        try:
            with os.scandir(folders.pop()) as entries:
                for entry in entries:
                    try:
                        st = entry.stat(follow_symlinks=False)
                    except OSError as error:
                        errors[error.strerror or "?"] += 1
                        continue
                    yield entry.path, st
                    if stat.S_ISDIR(st.st_mode):
                        folders.append(entry.path)
        except OSError as error:
            errors[error.strerror or "?"] += 1


def owner_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def make_frame(found: list[tuple[str, os.stat_result]]) -> pd.DataFrame:
    """Put what was found into columns, and add columns of zeros for the results."""
    # A file name is bytes; what is not UTF-8 in it is shown as such.
    paths = [os.fsencode(path).decode("utf-8", "backslashreplace") for path, _ in found]
    stats = [st for _, st in found]
    owners = {uid: owner_name(uid) for uid in {st.st_uid for st in stats}}
    return pd.DataFrame(
        {
            "path": pd.Series(paths, dtype="str"),
            "size": np.array([st.st_size for st in stats], "i8"),
            "owner": pd.Categorical([owners[st.st_uid] for st in stats]),
            "mode": pd.Categorical([stat.filemode(st.st_mode) for st in stats]),
            "mtime": np.array([st.st_mtime_ns for st in stats], "M8[ns]"),
            "extension": pd.Categorical([os.path.splitext(path)[1].lower() for path in paths]),
            "depth": np.array([path.count("/") for path in paths], "i8"),
            "entropy": np.zeros(len(stats)),
            "age_days": np.zeros(len(stats)),
            "size_class": np.zeros(len(stats), "i8"),
        }
    )


# -- the work


def shannon(text: str) -> float:
    """Return the entropy of *text* in bits per character."""
    n = len(text)
    return math.log2(n) - sum(k * math.log2(k) for k in Counter(text).values()) / n


def score(rows: pd.DataFrame, now: pd.Timestamp) -> dict[str, Any]:
    """Compute the result columns of some rows: the same for both ways."""
    return {
        "entropy": np.array([shannon(path) for path in rows["path"]]),
        "age_days": ((now - rows["mtime"]) / pd.Timedelta(days=1)).to_numpy(),
        "size_class": np.ceil(np.log2(rows["size"].to_numpy() + 1.0)).astype("i8"),
    }


def score_in_place(now: pd.Timestamp, part: SDataFrame) -> int:
    """Write the results into the frame that everybody shares; return nothing but a number."""
    for name, values in score(part, now).items():
        part[name] = values
    return len(part)


def score_and_return(now: pd.Timestamp, part: pd.DataFrame) -> pd.DataFrame:
    """Return the rows with their results, to be pickled back."""
    return part.assign(**score(part, now))


# -- the comparison


def leave_ctrl_c_to_the_parent() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def timed(function: Callable[..., Any], *args: Any) -> tuple[Any, float]:
    start = time.perf_counter()
    return function(*args), time.perf_counter() - start


def run_all(
    pool: Any, function: Callable[..., Any], parts: list[Any], progress: Progress, title: str
) -> list[Any]:
    task = progress.add_task(title, total=len(parts))
    results = []
    for result in pool.imap(function, parts):
        results.append(result)
        progress.advance(task)
    return results


def cut(frame: pd.DataFrame, n: int) -> list[pd.DataFrame]:
    """Cut a plain frame into *n* parts, as `SDataFrame.partitions` does."""
    edges = [len(frame) * i // n for i in range(n + 1)]
    return [frame.iloc[start:stop] for start, stop in pairwise(edges)]


def compare(
    frame: pd.DataFrame, n_processes: int, start_method: str | None, console: Console
) -> pd.DataFrame:
    """Do the work both ways, check that the results are equal, print what it took."""
    now = pd.Timestamp.now()
    n_parts = n_processes * PARTS_PER_PROCESS
    seconds: dict[str, tuple[float, float]] = {}
    context = multiprocessing.get_context(start_method)
    with (
        context.Pool(n_processes, initializer=leave_ctrl_c_to_the_parent) as pool,
        Progress(console=console, transient=True) as progress,
    ):
        # Importing and starting is nobody's merit or fault.
        pool.map(partial(score_and_return, now), cut(frame.iloc[:1000], n_processes))
        pool.map(len, SDataFrame(frame.iloc[:1000]).partitions(n_processes))

        shared, share = timed(SDataFrame, frame)
        parts = shared.partitions(n_parts)
        _, shared_handoff = timed(pool.map, len, parts)
        _, shared_work = timed(
            run_all, pool, partial(score_in_place, now), parts, progress, "shared"
        )

        plain_parts = cut(frame, n_parts)
        _, plain_handoff = timed(pool.map, len, plain_parts)
        results, plain_work = timed(
            run_all, pool, partial(score_and_return, now), plain_parts, progress, "plain"
        )
        plain, concat = timed(pd.concat, results)

    pd.testing.assert_frame_equal(shared.to_pandas(), plain)
    seconds["copy into shared memory, once"] = share, 0.0
    seconds["hand out, compute, results back"] = shared_work, plain_work
    seconds["put the results together"] = 0.0, concat
    all_shared, all_plain = (sum(column) for column in zip(*seconds.values(), strict=True))

    table = Table(
        title=f"seconds, with {n_processes} processes and {n_parts} parts",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )
    for title in ("", "shared", "pickled"):
        table.add_column(title, justify="right" if title else "left")
    for what, pair in seconds.items():
        table.add_row(what, *(f"{value:.3f}" if value else "-" for value in pair))
    table.add_section()
    table.add_row("all of it", f"{all_shared:.3f}", f"{all_plain:.3f}")
    table.add_section()
    table.add_row("hand-off alone", f"{shared_handoff:.4f}", f"{plain_handoff:.4f}")
    console.print(table)
    console.print("both frames are equal")
    console.print(ratio("all of it", all_shared, all_plain))
    console.print(ratio("the hand-off", shared_handoff, plain_handoff))
    return plain


def ratio(what: str, shared: float, pickled: float) -> str:
    if shared <= pickled:
        return f"{what}: sharing is {pickled / shared:.2f} times as fast as pickling"
    return f"{what}: sharing is {shared / pickled:.2f} times as slow as pickling"


# -- what was found


def rows_of(title: str, headings: Iterable[str], rows: Iterable[Iterable[Any]]) -> Table:
    """Make a table whose numbers are to the right."""
    lines = [list(row) for row in rows]
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for heading, value in zip(headings, lines[0], strict=True):
        is_text = isinstance(value, str)
        table.add_column(heading, justify="left" if is_text else "right", overflow="fold")
    for line in lines:
        # Text: a name may hold what rich would take for markup.
        table.add_row(*(Text(v if isinstance(v, str) else f"{v:,}") for v in line))
    return table


def show(frame: pd.DataFrame, console: Console) -> None:
    """Print what the frame says about this file system."""
    for column in ("extension", "owner"):
        sums = frame.groupby(column, observed=True)["size"].agg(["sum", "count"])
        sums = sums.sort_values("sum", ascending=False).head(8)
        rows = [
            (str(name) or "(none)", int(size), int(count))
            for name, size, count in sums.itertuples(name=None)
        ]
        console.print(rows_of(f"by {column}", (column, "bytes", "entries"), rows))
    extremes = {
        "oldest": frame["age_days"].idxmax(),
        "newest": frame["age_days"].idxmin(),
        "largest": frame["size"].idxmax(),
        "most varied": frame["entropy"].idxmax(),
        "least varied": frame["entropy"].idxmin(),
    }
    rows = [
        (
            what,
            round(float(frame.loc[i, "age_days"]), 1),
            int(frame.loc[i, "size"]),
            round(float(frame.loc[i, "entropy"]), 2),
            frame.loc[i, "path"],
        )
        for what, i in extremes.items()
    ]
    headings = ("extremes", "days old", "bytes", "bits per letter", "path")
    console.print(rows_of("", headings, rows))
    classes = frame["size_class"].value_counts().sort_index()
    most = int(classes.idxmax())
    console.print(
        f"{classes[most]:,} entries, the most, have {2**most // 2:,} to {2**most - 1:,} bytes"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("path", nargs="?", default="/usr")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--start-method", default=None)
    args = parser.parse_args()

    console = Console(highlight=False)
    errors: Counter[str] = Counter()
    found: list[tuple[str, os.stat_result]] = []
    start = time.perf_counter()
    columns = (SpinnerColumn(), "{task.description}", TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(f"reading {args.path}", total=None)
        for entry in walk(args.path, errors):
            found.append(entry)
            if len(found) % 2000 == 0:
                progress.update(task, description=f"reading {args.path}: {len(found):,} entries")
    if not found:
        print(f"nothing below {args.path}: {dict(errors)}", file=sys.stderr)
        return 1
    frame = make_frame(found)
    n_bytes = int(frame.memory_usage(deep=True).sum())
    skipped = ", ".join(f"{n} x {why}" for why, n in errors.items()) or "none"
    console.print(
        f"{len(frame):,} entries below {args.path}, read in {time.perf_counter() - start:.1f} s; "
        f"a frame of {n_bytes / 1e6:.1f} MB; skipped: {skipped}"
    )
    show(compare(frame, args.processes, args.start_method, console), console)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
