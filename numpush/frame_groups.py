"""The groups of a shared frame: pandas' own GroupBy, with `parallel_apply` added."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pandas.api import typing as _typing

__all__ = ["share_groups"]

_FrameGroups: Any = _typing.DataFrameGroupBy
_SeriesGroups: Any = _typing.SeriesGroupBy


class _Parallel:
    _shared: Any  #: the frame that they are groups of

    def parallel_apply(
        self,
        func: Callable[..., Any],
        *args: Any,
        processes: int | None = None,
        progress: bool = False,
        **kwargs: Any,
    ) -> Any:
        """Do ``.apply(func, *args, **kwargs)`` by processes, each for some of the groups.

        The result is what `apply` gives. What *func* changes in a group is lost; it may be any
        function, lambdas too.

        Parameters
        ----------
        processes : int, optional
            By default as many as this process may use cores.
        progress : bool
            Show a bar.
        """
        from . import parallel

        return parallel.apply_groups(self, self._shared, func, args, kwargs, processes, progress)


class SharedFrameGroups(_Parallel, _FrameGroups):  # type: ignore[misc]  # pandas has no types here
    def __getitem__(self, key: Any) -> Any:
        return share_groups(super().__getitem__(key), self._shared)


class SharedSeriesGroups(_Parallel, _SeriesGroups):  # type: ignore[misc]  # pandas has no types here
    pass


def share_groups(groups: Any, frame: Any) -> Any:
    """Give pandas' groups of a shared frame `parallel_apply`."""
    groups.__class__ = SharedFrameGroups if groups.ndim == 2 else SharedSeriesGroups
    object.__setattr__(groups, "_shared", frame)
    return groups
