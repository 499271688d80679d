"""`numpush ls`, `top`, `gc` and `rm`: words and tables for what `numpush.overview` knows.

A column appears when a row has something in it, so that an ordinary table fits into 80 columns.
Written to a file or a pipe, lines are as long as they are, unless COLUMNS is in the environment.
"""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Iterable
from types import FrameType
from typing import TYPE_CHECKING, Any, NamedTuple

from ..errors import SegmentDamaged, SegmentNotFound
from ..ffi import range as _range
from ..layout import SchemaError, unpack
from ..overview import Overview, dtype_name
from ..overview import gc as _gc
from ..overview import remove as _remove
from ..overview import segments as _segments
from ..shm import Holder, naming, space

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

__all__ = ["gc", "ls", "make_console", "rm", "top"]

_SHORT = 12  #: digits shown of a random name, as other tools do
_SHORTEST = 8  #: digits of one that `rm` takes for it
_RANDOM = re.compile(r"\b[0-9a-f]{32}\b")
_RANGE_STATES = {_range.WAITING: "waiting", _range.HELD: "held", _range.ORPHAN: "orphan"}


def make_console(*, to_stderr: bool = False) -> Console:
    """Return a console as wide as the terminal or COLUMNS; a pipe folds nothing."""
    from rich.console import Console

    console = Console(stderr=to_stderr, highlight=False, soft_wrap=False)
    if not console.is_terminal and not os.environ.get("COLUMNS", "").isdigit():
        console = Console(stderr=to_stderr, highlight=False, width=1000)
    return console


# -- ls


def ls(*, as_json: bool, full: bool) -> int:
    found = _segments()
    if as_json:
        print(json.dumps({"segments": [_as_dict(each) for each in found], "shm": _shm()}, indent=2))
        return 0
    console = make_console()
    if found:
        console.print(_table(found, full=full))
    console.print(_totals(found))
    return 0


def _as_dict(seen: Overview) -> dict[str, Any]:
    info = seen.info
    dtype, shape = _dtype_and_shape(seen)
    return {
        "name": seen.name,
        "kind": seen.kind,
        "summary": seen.summary,
        "dtype": dtype,
        "shape": shape,
        "size": seen.size,
        "capacity": info.capacity,
        "state": info.state,
        "created": info.created_ns / 1e9,
        "age": _age(seen),
        "creator_pid": info.creator_pid,
        "holders": [
            {
                "pid": holder.pid,
                "node": f"{holder.node:016x}",
                "alive": holder.alive,
                "attached": holder.attached,
                "leases": holder.leases,
            }
            for holder in seen.holders
        ],
        "leases": seen.leases,
        "lock": {"pid": info.lock_pid, "tid": info.lock_tid} if info.lock_tid else None,
        "range_locks": [
            {
                "start": entry.start,
                "stop": entry.stop,
                "pid": entry.pid,
                "tid": entry.tid,
                "state": _RANGE_STATES.get(entry.state, "?"),
                "shared": bool(entry.shared),
            }
            for entry in info.range_locks
        ],
    }


def _dtype_and_shape(seen: Overview) -> tuple[str | None, list[int] | None]:
    """Return what NumPy would call dtype and shape, as far as the description says."""
    if seen.kind not in ("array", "frame"):
        return None, None
    try:
        schema = unpack(seen.info.description)["schema"]
        if seen.kind == "frame":
            return None, [int(schema["rows"]), int(schema["cols"])]
        return dtype_name(schema["dtype"]), [int(n) for n in schema["shape"]]
    except (SchemaError, KeyError, TypeError, ValueError):
        return None, None


def _shm() -> dict[str, int]:
    room = space.room(0)
    return {"total": room.total, "free": room.free}


def _age(seen: Overview) -> float:
    return max(0.0, time.time() - seen.info.created_ns / 1e9)


def _human_age(seconds: float) -> str:
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f}{unit}"
    return f"{seconds:.0f}s"


def _short(name: str) -> str:
    if naming.is_random(name):
        return name[:_SHORT]
    return name.rpartition(".")[2] if name.startswith(naming.WARM) else name


def _who(holder: Holder) -> str:
    if not holder.pid and holder.alive:
        return "kept"  # published to stay, without a process
    return f"{holder.pid or '?'}" + ("" if holder.alive else " (dead)")


class _Column(NamedTuple):
    title: str
    text: Callable[[Overview], str]
    is_optional: bool = False
    is_number: bool = False
    no_wrap: bool = True


def _columns(full: bool) -> list[_Column]:
    return [
        _Column("name", lambda s: s.name if full else _short(s.name), no_wrap=False),
        _Column("what", lambda s: _what(s, full), no_wrap=False),
        _Column("size", lambda s: space.human(s.size), is_number=True),
        _Column("state", lambda s: "" if s.info.state in ("live", s.kind) else s.info.state, True),
        _Column("age", lambda s: _human_age(_age(s)), is_number=True),
        _Column("made by", lambda s: str(s.info.creator_pid), is_number=True),
        _Column("used by", _users, no_wrap=False),
        _Column("leases", lambda s: str(s.leases or ""), True, True),
        _Column("locked by", _lockers, True, no_wrap=False),
    ]


def _what(seen: Overview, full: bool) -> str:
    summary = seen.summary if full else _RANDOM.sub(lambda m: m[0][:_SHORT], seen.summary)
    return f"{seen.kind} {summary}".strip()


def _users(seen: Overview) -> str:
    return ", ".join(_who(holder) for holder in seen.holders) or "nobody"


def _lockers(seen: Overview) -> str:
    info = seen.info
    lines = []
    if info.lock_tid:
        lines.append(f"{info.lock_pid}/{info.lock_tid}")
    for entry in info.range_locks:
        what = "r" if entry.shared else "w"
        state = "" if entry.state == _range.HELD else f" {_RANGE_STATES.get(entry.state, '?')}"
        lines.append(f"{entry.pid}/{entry.tid} {what} {entry.start}:{entry.stop}{state}")
    return "\n".join(lines)


def _table(found: Iterable[Overview], *, full: bool = False) -> RenderableType:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    rows = list(found)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1, 0, 0))
    columns = _columns(full)
    cells = [[column.text(row) for column in columns] for row in rows]
    shown = [
        i for i, c in enumerate(columns) if not c.is_optional or any(line[i] for line in cells)
    ]
    for i in shown:
        column = columns[i]
        table.add_column(
            column.title,
            justify="right" if column.is_number else "left",
            no_wrap=column.no_wrap,
            overflow="fold",
        )
    for line in cells:
        texts = [Text(line[i]) for i in shown]
        for text in texts:
            text.highlight_regex(r"\d+ \(dead\)|\? \(dead\)|orphan|nobody", "red")
        table.add_row(*texts)
    return table


def _totals(found: list[Overview]) -> str:
    live = [seen for seen in found if seen.kind != "warm"]
    warm = [seen for seen in found if seen.kind == "warm"]
    room = space.room(0)
    text = f"{_many(len(live), 'segment')}, {space.human(sum(s.size for s in live))}"
    if warm:
        text += f"; {space.human(sum(s.info.capacity for s in warm))} kept for reuse"
    return text + (
        f"; {naming.DIR}: {space.human(room.total - room.free)} of {space.human(room.total)} in use"
    )


def _many(n: int, noun: str, plural: str | None = None) -> str:
    return f"{n} {noun}" if n == 1 else f"{n} {plural or noun + 's'}"


# -- top


def top(*, interval: float, count: int | None) -> int:
    """Show segments until Ctrl-C, SIGTERM or *count* looks; a pipe gets one table after another."""
    from rich.console import Group
    from rich.live import Live

    def stop(_signum: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, stop)  # or the terminal would stay on the other screen
    console = make_console()

    def look() -> RenderableType:
        found = sorted(_segments(), key=lambda seen: -seen.size)
        head = f"numpush top, {time.strftime('%H:%M:%S')}, {_totals(found)}"
        return Group(head, _table(found)) if found else Group(head)

    try:
        if not console.is_terminal:
            for i in _looks(interval, count):
                console.print(*([""] if i else []), look(), sep="\n")
            return 0
        with Live(console=console, screen=count is None, auto_refresh=False) as live:
            for _ in _looks(interval, count):
                live.update(look(), refresh=True)
    except KeyboardInterrupt:
        pass
    return 0


def _looks(interval: float, count: int | None) -> Iterable[int]:
    i = 0
    while True:
        yield i
        sys.stdout.flush()
        i += 1
        if i == count:
            return
        time.sleep(interval)


# -- gc and rm


def gc(*, as_json: bool) -> int:
    swept = _gc()
    if as_json:
        found = {"segments": swept.n_segments, "bytes": swept.n_bytes, "processes": swept.n_nodes}
        print(json.dumps(found, indent=2))
        return 0
    print(
        f"freed {space.human(swept.n_bytes)}: {_many(swept.n_segments, 'segment')} and the traces "
        f"of {_many(swept.n_nodes, 'dead process', 'dead processes')}"
    )
    return 0


def rm(names: list[str]) -> int:
    code = 0
    for given in names:
        found = _segments()
        name = _resolve(given, [seen.name for seen in found])
        users = next((_users(seen) for seen in found if seen.name == name and seen.holders), "")
        try:
            n_bytes = _remove(name)
        except (SegmentNotFound, SegmentDamaged) as error:
            print(f"numpush rm: {error}", file=sys.stderr)
            code = 1
            continue
        still = f"; still used by {users}: the memory goes with the last of them" if users else ""
        print(f"removed {name}, {space.human(n_bytes)}{still}")
    return code


def _resolve(given: str, names: list[str]) -> str:
    """Return the random name that *given* begins, where just one does; else *given*."""
    if given in names or len(given) < _SHORTEST:
        return given
    begun = [name for name in names if naming.is_random(name) and name.startswith(given)]
    return begun[0] if len(begun) == 1 else given
