"""The bar of ``progress=True``: drawn by the parent alone, so workers share nothing with it."""

from __future__ import annotations

from typing import Any

__all__ = ["make_bar"]


def make_bar(name: str, total: int | None) -> Any:
    """Return a tqdm bar over tasks, for a terminal or a notebook.

    Raises
    ------
    ImportError : tqdm is not installed.
    """
    from tqdm.auto import tqdm

    class Bar(tqdm):  # type: ignore[misc]  # tqdm has no types
        monitor_interval = 0  # no thread that outlives the bar

    return Bar(total=total, desc=name, unit="task")
