"""A pytest plugin: pandas' own tests, with SDataFrame wherever they say DataFrame.

`make test-pandas` runs it. NUMPUSH_STAND_IN=subclass puts an empty subclass of DataFrame there, whose
results are plain: what fails then, fails for any subclass.

The names `DataFrame` and `pd` are replaced in each test module and conftest. Results are plain frames
and must pass as DataFrame too, hence the metaclass; and pandas' comparison asks for one type on both
sides, so it is shown plain frames over the same data.
"""

from __future__ import annotations

import os
import sys
import types
from typing import Any

import pandas as pd
import pandas._testing as tm
import pytest

PLAIN: Any = pd.DataFrame


class EmptySubclass(PLAIN):  # type: ignore[misc]  # PLAIN is Any
    """What any subclass with plain results is."""

    @property
    def _constructor(self) -> Any:
        return PLAIN

    def _constructor_from_mgr(self, mgr: Any, axes: Any) -> Any:
        return PLAIN._from_mgr(mgr, axes)

    def _constructor_sliced_from_mgr(self, mgr: Any, axes: Any) -> Any:
        series = pd.Series._from_mgr(mgr, axes)  # type: ignore[attr-defined]  # private
        object.__setattr__(series, "_name", None)
        return series


def _choose() -> Any:
    if os.environ.get("NUMPUSH_STAND_IN") == "subclass":
        return EmptySubclass
    from numpush import SDataFrame

    return SDataFrame


BASE = _choose()


class _PassesAsFrame(type(BASE)):  # type: ignore[misc]  # PLAIN is Any
    def __instancecheck__(cls, instance: Any) -> bool:
        return isinstance(instance, PLAIN)

    def __subclasscheck__(cls, subclass: Any) -> bool:
        return issubclass(subclass, PLAIN)


class StandIn(BASE, metaclass=_PassesAsFrame):  # type: ignore[misc]  # PLAIN is Any
    """What the tests call DataFrame."""


StandIn.__name__ = StandIn.__qualname__ = "DataFrame"


class _Pandas(types.ModuleType):
    """The module, with another DataFrame."""

    def __getattr__(self, name: str) -> Any:
        return getattr(pd, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(pd, name, value)


_pandas = _Pandas("pandas")
types.ModuleType.__setattr__(_pandas, "DataFrame", StandIn)


def _replace_names(module: Any) -> None:
    for name, value in list(vars(module).items()):
        if value is PLAIN:
            setattr(module, name, StandIn)
        elif value is pd:
            setattr(module, name, _pandas)


def _plain(obj: Any) -> Any:
    if type(obj) not in (StandIn, BASE):
        return obj
    return PLAIN._from_mgr(obj._mgr, obj._mgr.axes).__finalize__(obj)


def _show_plain(compare: Any) -> Any:
    def compare_plain(left: Any, right: Any, *args: Any, **kwargs: Any) -> Any:
        __tracebackhide__ = True
        return compare(_plain(left), _plain(right), *args, **kwargs)

    return compare_plain


for _name in ("assert_frame_equal", "assert_equal"):
    setattr(tm, _name, _show_plain(getattr(tm, _name)))

_done: set[str] = set()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    modules = [item.module for item in items]  # type: ignore[attr-defined]  # private
    modules += [module for name, module in list(sys.modules.items()) if name.endswith("conftest")]
    for module in modules:
        if module.__name__ not in _done and "pandas" in (module.__file__ or ""):
            _done.add(module.__name__)
            _replace_names(module)
