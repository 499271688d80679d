"""`numpush top`: segments, live.

(1) Signals are noted and acted on between two looks, so that nothing comes between a change of the
    terminal and its taking back: Ctrl-C, SIGTERM and SIGHUP leave, Ctrl-Z stops, a change of the
    window's size has it drawn anew.
(2) Nobody writes down when a lock was taken: how long it is held is how long it was seen held by
    the same thread at each look.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import select
import signal
import sys
import termios
import time
import tty
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from ..overview import Overview, Segments, segments
from ..segment_table import Column, human_time, lockers, short, users, what
from ..shm import naming, space
from .segments import make_console, make_table, many

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

__all__ = ["SORTS", "top"]

#: Ways to sort, by what `--sort` calls them.
SORTS: dict[str, Callable[[Overview], Any]] = {
    "size": lambda seen: (-seen.size, seen.name),
    "name": lambda seen: seen.name,
    "age": lambda seen: (seen.created, seen.name),
    "holders": lambda seen: (-len(seen.holders), seen.name),
    "leases": lambda seen: (-seen.leases, seen.name),
}
_LEAVING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_NAMED_FROM = 100  #: columns of a terminal from which on processes are called by their names, too
_MAX_NAME = 20  #: characters shown of a name
_N_HEAD = 5  #: lines above the first row


def top(*, sort: str, interval: float, count: int | None) -> int:
    """Show segments every *interval* seconds, *count* times or until q or Ctrl-C.

    What is no terminal gets *count* tables, by default one.
    """
    console = make_console()
    held = _Held()
    look = functools.partial(_look, console, held, sort)
    if not console.is_terminal or console.is_dumb_terminal:
        for i in range(count or 1):
            if i:
                time.sleep(interval)
                console.print()
            console.print(look(None))
            sys.stdout.flush()
        return 0
    if count is not None:
        _show(console, look, interval, count)
        return 0
    while _show(console, look, interval, None):  # Ctrl-Z: stopped here, and on again by fg
        os.kill(os.getpid(), signal.SIGSTOP)
    return 0


class _Held:
    """Since when each lock has been seen held; (2)."""

    def __init__(self) -> None:
        self._since: dict[tuple[str, int], float] = {}

    def update(self, found: Segments) -> None:
        now = time.monotonic()
        keys = [(seen.name, seen.lock.tid) for seen in found if seen.lock]
        self._since = {key: self._since.get(key, now) for key in keys}

    def text(self, seen: Overview) -> str:
        """Return how long, from the second look on."""
        since = self._since.get((seen.name, seen.lock.tid)) if seen.lock else None
        seconds = 0.0 if since is None else time.monotonic() - since
        return human_time(seconds) if seconds >= 1 else ""


def _look(console: Console, held: _Held, sort: str, height: int | None) -> RenderableType:
    from rich.console import Group

    found = segments()
    held.update(found)
    rows = sorted((seen for seen in found if not seen.is_warm), key=SORTS[sort])
    named = console.width >= _NAMED_FROM
    wanted = [
        Column("name", lambda s: _cut(short(s.name))),
        Column("what", what, no_wrap=False),
        Column("size", lambda s: space.human(s.size), is_number=True),
        Column("used by", lambda s: users(s, named=named), no_wrap=False),
        Column("leases", lambda s: str(s.leases or ""), True, True),
        Column("locked by", lambda s: lockers(s, named=named), True, no_wrap=False),
        Column("for", held.text, True, True),
    ]
    head = f"numpush top, {time.strftime('%H:%M:%S')}, by {sort}"
    if height is not None:
        rows = rows[: max(0, height - _N_HEAD)]
        head += "; q leaves"
    lines = [head, _totals(found)]
    return Group(*lines, make_table(rows, wanted)) if rows else Group(*lines)


def _cut(name: str) -> str:
    return name if len(name) <= _MAX_NAME else f"{name[: _MAX_NAME - 1]}…"


def _totals(found: Segments) -> str:
    room = space.room(0)
    live = [seen for seen in found if not seen.is_warm]
    warm = sum(seen.capacity for seen in found if seen.is_warm)
    return (
        f"{many(len(live), 'segment')}: {space.human(sum(s.capacity for s in live))} used, "
        f"{space.human(warm)} warm; {naming.DIR}: {space.human(room.free)} of "
        f"{space.human(room.total)} free"
    )


def _show(
    console: Console,
    look: Callable[[int | None], RenderableType],
    interval: float,
    count: int | None,
) -> bool:
    """Draw until it is time to leave; True: Ctrl-Z, we are to stop for a while."""
    from rich.live import Live

    with (
        _listening() as wait,
        Live(console=console, screen=count is None, auto_refresh=False) as live,
    ):
        for i in itertools.count(1):
            live.update(look(None if count else console.height), refresh=True)
            event = "leave" if i == count else wait(interval)
            if event != "look":
                break
    return event == "stop"


@contextlib.contextmanager
def _listening() -> Iterator[Callable[[float], str]]:
    """Yield a function that waits for so many seconds, q, or a signal: "look", "leave" or "stop".

    Keys are read one by one meanwhile, and not shown.
    """
    seen: set[int] = set()
    with contextlib.ExitStack() as undo:
        reader, writer = os.pipe()
        undo.callback(os.close, reader)
        undo.callback(os.close, writer)
        os.set_blocking(writer, False)
        wakeup = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        undo.callback(signal.set_wakeup_fd, wakeup)
        for signum in (*_LEAVING, signal.SIGTSTP, signal.SIGWINCH):
            if signal.getsignal(signum) != signal.SIG_IGN:  # as nohup has SIGHUP
                before = signal.signal(signum, lambda signum, _frame: seen.add(signum))
                undo.callback(signal.signal, signum, before)
        sources = [reader]
        if sys.stdin.isatty():
            keys = sys.stdin.fileno()
            undo.callback(termios.tcsetattr, keys, termios.TCSADRAIN, termios.tcgetattr(keys))
            tty.setcbreak(keys, termios.TCSADRAIN)
            sources.append(keys)

        def wait(seconds: float) -> str:
            deadline = time.monotonic() + seconds
            while not seen:
                ready, _, _ = select.select(sources, [], [], max(0.0, deadline - time.monotonic()))
                if not ready:
                    return "look"
                if any(_ends(fd) for fd in ready):
                    return "leave"
            if seen.intersection(_LEAVING):
                return "leave"
            event = "stop" if signal.SIGTSTP in seen else "look"
            seen.clear()
            return event

        def _ends(fd: int) -> bool:
            try:
                data = os.read(fd, 4096)
            except OSError:  # nobody has the other end of the terminal any more
                return True
            return fd != reader and (not data or bool(set(data) & set(b"qQ")))

        yield wait
