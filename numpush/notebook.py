"""What a notebook shows of a shared object besides its values: segment, who uses it, its lock.

(1) Nothing here waits: what is read is read without locks, as a hint.
(2) Nothing here raises: an object that cannot be shown in HTML is shown as text.
(3) Whatever a user or another process may have named is escaped.
(4) No colours: a notebook may be light or dark.
"""

from __future__ import annotations

import html
import os
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from .ffi import mutex as _mutex
from .ffi import seg as _seg
from .overview import holder_of, lock_holder
from .segment_table import html_table, who, who_locks
from .shm import Holder, Mapping, node, space, table
from .shm.segment import Segment

if TYPE_CHECKING:
    from .sarray import SArray
    from .shared_pandas import SharedPandas

__all__ = ["array_html", "frame_html", "series_html"]

#: Holders that are looked up by name, 60 us each.
_MAX_HOLDERS = 8
_MODES = {"ro": "read-only", "cow": "private: changes are this process's own"}


def array_html(array: SArray) -> str | None:
    """Return an array's repr below a table of what it is and where it lies; None: it is private.

    0.2 ms, and 0.1 ms for each process that uses it, 8 at most; then what NumPy's repr costs.
    """
    try:
        mapping = array._mapping()
        facts = {
            "shape": " x ".join(map(str, array.shape)) or "scalar",
            "dtype": str(array.dtype),
            "bytes": f"{array.nbytes:,}",
            **{title: text for title, text in _facts(mapping) if title != "size"},
        }
        above = html_table(facts, [facts.values()], [False] * len(facts))
        return f"<div>\n{above}\n{_text(array)}</div>"
    except Exception:
        return None


def frame_html(frame: SharedPandas, pandas_html: Callable[[], str | None]) -> str | None:
    """Return pandas' table and a line on where the frame lies; None where pandas shows text.

    What pandas' own takes, and as much more as `array_html`.
    """
    try:
        made = pandas_html()
        return None if made is None else f"{_escape_info(made)}\n{_caption(frame)}"
    except Exception:  # as text it is told what is wrong
        return None


def series_html(series: SharedPandas) -> str | None:
    """Return a series' repr and a line on where it lies; None where pandas shows text."""
    try:
        import pandas as pd

        is_wanted = pd.get_option("display.notebook_repr_html")
        return f"<div>\n{_text(series)}\n{_caption(series)}</div>" if is_wanted else None
    except Exception:  # as above
        return None


#: Jupyter has other text than code in a font of its own, also here.
_PRE = '<pre style="font-family: var(--jp-code-font-family, monospace)">'


def _escape_info(made: str) -> str:
    """Escape what `info` says (option display.large_repr): pandas does so for its first line only."""
    if not made.startswith("<pre>"):
        return made
    text = made.removeprefix("<pre>").removesuffix("</pre>")
    text = text.replace("&lt;", "<", 1).replace("&gt;", ">", 1)  # what pandas has done
    return f"{_PRE}{html.escape(text)}</pre>"


def _text(shown: object) -> str:
    return f"{_PRE}{html.escape(repr(shown))}</pre>"


def _caption(shared: SharedPandas) -> str:
    try:
        told = " · ".join(
            f"{title} {html.escape(text)}" for title, text in _facts(shared._mapping())
        )
    except Exception:  # the table is what is wanted
        return ""
    return f'<p style="opacity: 0.7">{told}</p>'


def _facts(mapping: Mapping) -> Iterator[tuple[str, str]]:
    segment = mapping.segment
    mode = f" ({_MODES[mapping.mode]})" if mapping.mode in _MODES else ""
    yield "segment", f"{segment.name}{mode}{', closed by this process' if segment.closed else ''}"
    yield "size", space.human(_size(segment))
    holders, n_leases = _users(segment)
    yield "used by", holders
    if n_leases:
        yield "handles under way", str(n_leases)
    yield "lock", _lock(segment)


def _size(segment: Segment) -> int:
    """Return the bytes of its data, with what generations added."""
    generation, _, _, end, floor = _seg.place(segment.ref)
    return end - floor if generation else segment.data_size


def _users(segment: Segment) -> tuple[str, int]:
    """Return who uses it, this process first, and how many handles are under way."""
    own = segment.node
    lines = sorted(table.peek(segment), key=lambda line: line[0] != own)
    texts = []
    for id, attached, leases in lines[:_MAX_HOLDERS]:
        info = node.info(id)
        holder = holder_of(Holder(id, info.pid, info.alive, attached, leases))
        texts.append(who(holder) + (" (this process)" if id == own else ""))
    more = len(lines) - len(texts)
    if more:
        texts.append(f"and {more} more")
    return ", ".join(texts) or "nobody", sum(leases for _, _, leases in lines)


def _lock(segment: Segment) -> str:
    tid = _mutex.holder(_seg.data_mutex(segment.ref))
    pid = node.pid_of_thread(tid) if tid else 0
    held = lock_holder(pid, tid)
    if held is None:
        return "free"
    return f"held by {who_locks(held)}" + (" (this process)" if pid == os.getpid() else "")
