"""Segments as rows of words: for `numpush ls`, for repr, and for notebooks.

A column that is optional appears when a row has something in it, so that an ordinary table fits
into 80 columns. HTML has no colours of its own: a notebook may be light or dark.
"""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from .overview import Holder, LockHolder, Overview
from .shm import naming, space

__all__ = [
    "Column",
    "as_html",
    "as_text",
    "cells",
    "columns",
    "html_table",
    "short",
    "who",
    "who_locks",
]

_SHORT = 12  #: digits shown of a random name, as other tools do
_RANDOM = re.compile(r"\b[0-9a-f]{32}\b")


class Column(NamedTuple):
    """A column, and how to get its text."""

    title: str
    text: Callable[[Overview], str]
    is_optional: bool = False
    is_number: bool = False
    no_wrap: bool = True


def columns(*, full: bool = False, named: bool = True) -> list[Column]:
    """Return the columns of a table. *full*: whole names and dtypes; *named*: what processes are called."""
    return [
        Column("name", lambda s: s.name if full else short(s.name), no_wrap=False),
        Column("what", lambda s: what(s, full=full), no_wrap=False),
        Column("size", lambda s: space.human(s.size), is_number=True),
        Column("state", lambda s: "" if s.state in ("live", s.kind) else s.state, True),
        Column("age", lambda s: human_time(s.age), is_number=True),
        Column("made by", lambda s: str(s.creator_pid), is_number=True),
        Column("used by", lambda s: users(s, named=named), no_wrap=False),
        Column("leases", lambda s: str(s.leases or ""), True, True),
        Column("locked by", lambda s: lockers(s, named=named), True, no_wrap=False),
    ]


def cells(rows: Sequence[Overview], wanted: list[Column]) -> tuple[list[Column], list[list[str]]]:
    """Return the columns that have something to show, and the text of each of their cells."""
    texts = [[column.text(row) for column in wanted] for row in rows]
    shown = [i for i, c in enumerate(wanted) if not c.is_optional or any(line[i] for line in texts)]
    return [wanted[i] for i in shown], [[line[i] for i in shown] for line in texts]


def as_text(rows: Sequence[Overview]) -> str:
    """Return a table in plain text."""
    if not rows:
        return "no segments"
    shown, texts = cells(rows, columns())
    texts = [[text.replace("\n", "; ") for text in line] for line in texts]
    widths = [
        max(len(column.title), *(len(line[i]) for line in texts)) for i, column in enumerate(shown)
    ]
    lines = [
        "  ".join(
            text.rjust(width) if column.is_number else text.ljust(width)
            for text, width, column in zip(line, widths, shown)
        ).rstrip()
        for line in ([column.title for column in shown], *texts)
    ]
    return "\n".join(lines)


def as_html(rows: Sequence[Overview]) -> str:
    """Return a table in HTML."""
    if not rows:
        return "<p>no segments</p>"
    shown, texts = cells(rows, columns())
    return html_table([column.title for column in shown], texts, [c.is_number for c in shown])


def html_table(
    titles: Iterable[str], rows: Iterable[Iterable[str]], is_number: Sequence[bool]
) -> str:
    """Return a table in HTML, of the class that notebooks know from pandas; all texts are escaped."""

    def line(tag: str, texts: Iterable[str]) -> str:
        made = (
            f'<{tag} style="{"text-align: right; white-space: nowrap" if number else "text-align: left"}">'
            f"{html.escape(text).replace(chr(10), '<br>')}</{tag}>"
            for text, number in zip(texts, is_number)
        )
        return f"<tr>{''.join(made)}</tr>"

    head = line("th", titles)
    body = "\n".join(line("td", row) for row in rows)
    return f'<table border="1" class="dataframe">\n<thead>{head}</thead>\n<tbody>\n{body}\n</tbody>\n</table>'


def what(seen: Overview, *, full: bool = False) -> str:
    """Return what a segment holds: its kind, and dtype and shape as people write them."""
    summary = seen.summary if full else _RANDOM.sub(lambda m: m[0][:_SHORT], seen.summary)
    return f"{seen.kind} {summary}".strip()


def users(seen: Overview, *, named: bool = True) -> str:
    """Return who uses a segment."""
    return ", ".join(who(holder, named=named) for holder in seen.holders) or "nobody"


def lockers(seen: Overview, *, named: bool = True) -> str:
    """Return who holds the locks of a segment, a line for each."""
    lines = [who_locks(seen.lock, named=named)] if seen.lock else []
    for entry in seen.range_locks:
        kind = "r" if entry.shared else "w"
        state = "" if entry.state == "held" else f" {entry.state}"
        lines.append(f"{entry.pid}/{entry.tid} {kind} {entry.start}:{entry.stop}{state}")
    return "\n".join(lines)


def who(holder: Holder, *, named: bool = True) -> str:
    """Return "pid", or "pid name" where the name is wanted and known."""
    if not holder.pid and holder.alive:
        return "kept"  # published to stay, without a process
    if not holder.alive:
        return f"{holder.pid or '?'} (dead)"
    return f"{holder.pid or '?'} {holder.process if named else ''}".strip()


def who_locks(holder: LockHolder, *, named: bool = True) -> str:
    """Return "pid/thread"; named, "pid name" for the main thread and "pid/thread name" else."""
    if not named:
        return f"{holder.pid}/{holder.tid}"
    thread = "" if holder.tid == holder.pid else f"/{holder.tid}"
    return f"{holder.pid or '?'}{thread} {holder.process}".strip()


def short(name: str) -> str:
    """Return as much of a name as people need: 12 digits of a random one."""
    if naming.is_random(name):
        return name[:_SHORT]
    return name.rpartition(".")[2] if name.startswith(naming.WARM) else name


def human_time(seconds: float) -> str:
    """Return a time in the largest unit of which there are two."""
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f}{unit}"
    return f"{seconds:.0f}s"
