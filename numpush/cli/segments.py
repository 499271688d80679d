"""`numpush ls`, `gc` and `rm`: what `numpush.overview` knows and does, for people and for scripts.

Written to a file or a pipe, lines are as long as they are, unless COLUMNS is in the environment.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from ..errors import SegmentDamaged, SegmentNotFound
from ..overview import Overview
from ..overview import gc as _gc
from ..overview import remove as _remove
from ..overview import segments as _segments
from ..segment_table import Column, cells, columns, users
from ..shm import naming, space

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

__all__ = ["gc", "ls", "make_console", "make_table", "many", "rm"]

_SHORTEST = 8  #: digits of a random name that `rm` takes for it


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
        console.print(make_table(found, columns(full=full, named=False)))
    console.print(_totals(found))
    return 0


def _as_dict(seen: Overview) -> dict[str, Any]:
    is_array = seen.kind == "array"
    return {
        "name": seen.name,
        "kind": seen.kind,
        "summary": seen.summary,
        "dtype": next(iter(seen.dtypes)) if is_array else None,
        "dtypes": seen.dtypes,
        "shape": seen.shape,
        "published": seen.published,
        "size": seen.size,
        "capacity": seen.capacity,
        "state": seen.state,
        "created": seen.created,
        "age": seen.age,
        "creator_pid": seen.creator_pid,
        "holders": [{**asdict(each), "node": f"{each.node:016x}"} for each in seen.holders],
        "leases": seen.leases,
        "lock": asdict(seen.lock) if seen.lock else None,
        "range_locks": [asdict(each) for each in seen.range_locks],
    }


def _shm() -> dict[str, int]:
    room = space.room(0)
    return {"total": room.total, "free": room.free}


def make_table(rows: Sequence[Overview], wanted: list[Column]) -> RenderableType:
    """Return a table of *rows* for a console; its lines are folded, not cut."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1, 0, 0))
    shown, lines = cells(rows, wanted)
    for column in shown:
        table.add_column(
            column.title,
            justify="right" if column.is_number else "left",
            no_wrap=column.no_wrap,
            overflow="fold",
        )
    for line in lines:
        texts = [Text(text) for text in line]
        for text in texts:
            text.highlight_regex(r"\d+ \(dead\)|\? \(dead\)|orphan|nobody", "red")
        table.add_row(*texts)
    return table


def _totals(found: list[Overview]) -> str:
    live = [seen for seen in found if not seen.is_warm]
    warm = [seen for seen in found if seen.is_warm]
    room = space.room(0)
    text = f"{many(len(live), 'segment')}, {space.human(sum(s.size for s in live))}"
    if warm:
        text += f"; {space.human(sum(s.capacity for s in warm))} kept for reuse"
    return text + (
        f"; {naming.DIR}: {space.human(room.total - room.free)} of {space.human(room.total)} in use"
    )


def many(n: int, noun: str, plural: str | None = None) -> str:
    return f"{n} {noun}" if n == 1 else f"{n} {plural or noun + 's'}"


# -- gc and rm


def gc(*, as_json: bool) -> int:
    swept = _gc()
    if as_json:
        found = {"segments": swept.n_segments, "bytes": swept.n_bytes, "processes": swept.n_nodes}
        print(json.dumps(found, indent=2))
        return 0
    print(
        f"freed {space.human(swept.n_bytes)}: {many(swept.n_segments, 'segment')} and the traces "
        f"of {many(swept.n_nodes, 'dead process', 'dead processes')}"
    )
    return 0


def rm(names: list[str]) -> int:
    code = 0
    for given in names:
        found = _segments()
        name = _resolve(given, [seen.name for seen in found])
        held = [seen for seen in found if seen.name == name and seen.holders]
        try:
            n_bytes = _remove(name)
        except (SegmentNotFound, SegmentDamaged) as error:
            print(f"numpush rm: {error}", file=sys.stderr)
            code = 1
            continue
        still = "".join(
            f"; still used by {users(seen, named=False)}: the memory goes with the last of them"
            for seen in held
        )
        print(f"removed {name}, {space.human(n_bytes)}{still}")
    return code


def _resolve(given: str, names: list[str]) -> str:
    """Return the random name that *given* begins, where just one does; else *given*."""
    if given in names or len(given) < _SHORTEST:
        return given
    begun = [name for name in names if naming.is_random(name) and name.startswith(given)]
    return begun[0] if len(begun) == 1 else given
