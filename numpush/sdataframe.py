"""SDataFrame: a pandas DataFrame whose data lies in shared memory.

(1) A write through any pandas spelling does what pandas does. Values of fixed width are written in
    place; what cannot be (columns, dtypes, rows, labels, strings) becomes a new generation of the
    frame (frame_structure.py), which every process shows at its next access. Nothing ever detaches.
    A part of a frame, and a private ('cow') one, takes values in place only: SharedStructureError.
(2) Results are plain pandas objects. What is derived from a shared frame (``df['a']``,
    ``df.rename(..)``) never writes to shared memory, and keeps its values when this process writes
    to the frame: pandas' copy-on-write. Writes of other processes do show in it, until `.copy()`.
    pandas 2 without ``mode.copy_on_write`` has views there, which write through.
(3) Every read takes the block manager from `_mgr`, and every replacement passes its setter; all
    that writes is listed in frame_spellings.py. That is the whole border to pandas.
(4) Through multiprocessing it travels as a handle; pickle.dump writes its values.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import pandas as pd

from . import _managers, frame_structure, transport
from .frame_groups import share_groups
from .frame_spellings import SharedAttrs, WritesInPlace, set_attrs
from .frame_store import Window, create_store, store_of
from .frame_writes import adopt
from .handle import FrameHandle
from .sarray import SArray
from .shared_pandas import SharedPandas, open_window
from .shm.errors import SharedStructureError
from .shm.mapping import Mapping
from .shm.segment import Segment

__all__ = ["SDataFrame"]


class _Empty:
    """`SDataFrame.empty(n_rows, schema)` makes one; `sdf.empty` says whether it has no items."""

    def __get__(self, frame: Any, cls: type) -> Any:
        if frame is not None:
            return 0 in frame.shape
        from . import filling

        return filling.empty


def receive_frame(*fields: Any) -> SDataFrame:
    """Make the frame that a handle means; *fields* and errors as of `open_window`."""
    return SDataFrame._over(*open_window(*fields))


class SDataFrame(SharedPandas, WritesInPlace, pd.DataFrame):  # type: ignore[misc]  # its stubs differ from pandas
    """A DataFrame in shared memory, made by one copy.

    Parameters
    ----------
    data, index, columns, dtype, copy : as for pandas.DataFrame
        A DataFrame, or whatever makes one. Columns of one NumPy dtype become one block.
    name : str, optional
        A name to attach by. By default a random one: pass the frame itself, or `.handle`.
    reserve : bool
        Reserve the memory now. False: pages are found at first touch, and where there are none any
        more, the process that touches dies of SIGBUS.

    Raises
    ------
    TypeError : a column holds Python objects; the message names it, and the remedy.
    SegmentFull : shared memory has no room for it.
    SegmentExists : the name is taken.

    Notes
    -----
    ``sdf.access`` is 'rw', 'ro' or 'cow', and `updating` is SArray's ``update``: ``mode`` and ``update``
    are pandas' methods. ``sdf.flags`` are this one object's.

    Two processes that write to the same cells at once need the lock, as with any shared memory:
    ``with sdf.lock: sdf.loc[3, "a"] += 1``. Assigning a column writes all of it, and others may see
    it half-done; writes to other cells are never undone.

    Examples
    --------
    >>> import pandas as pd
    >>> from numpush import SDataFrame
    >>> sdf = SDataFrame(pd.DataFrame({"a": [1, 2, 3], "b": [0.5, 1.5, 2.5]}))
    >>> sdf["a"] += 10
    >>> sdf.loc[1, "b"] = 9.0
    >>> sdf.sum().tolist(), type(sdf.head()).__name__
    ([36.0, 12.0], 'DataFrame')
    >>> [len(part) for part in sdf.partitions(2)]
    [2, 1]
    """

    _internal_names: ClassVar[list[str]] = [*_managers.internal_names(), "_shown", "_token"]
    _internal_names_set: ClassVar[set[str]] = set(_internal_names)
    _handle_type = FrameHandle
    _receive = staticmethod(receive_frame)
    _shown: Window
    _token: Any

    def __init__(
        self,
        data: Any = None,
        index: Any = None,
        columns: Any = None,
        dtype: Any = None,
        copy: bool | None = None,
        *,
        name: str | None = None,
        reserve: bool = True,
    ) -> None:
        if isinstance(data, pd.DataFrame) and index is columns is dtype is None:
            frame = data
        else:
            # Everything is copied once, into the segment; not before.
            frame = pd.DataFrame(data, index, columns, dtype, copy=bool(copy))
        store, token = create_store(frame, name, reserve)
        self._show(store.whole(), token)

    def _show(self, window: Window, token: Any) -> None:
        """Be a frame over *window*, keeping its mapping. Instead of DataFrame.__init__."""
        store = window.store
        object.__setattr__(self, "_shown", window)
        object.__setattr__(self, "_attrs", SharedAttrs(store.attrs, self))
        _managers.init_frame(self, store.has_unique_labels)
        # Last, so that what pandas 2 caches in the frame is gone when the token's death is noticed.
        object.__setattr__(self, "_token", token)

    @classmethod
    def _over(cls, window: Window, token: Any) -> SDataFrame:
        self = cls.__new__(cls)
        self._show(window, token)
        return self

    # -- filled without a detour

    empty = _Empty()

    @classmethod
    def from_arrow(cls, data: Any, **kwargs: Any) -> SDataFrame:
        """Make a frame of an Arrow table or batches: see numpush.filling.from_arrow."""
        from . import filling

        return filling.from_arrow(data, **kwargs)

    @classmethod
    def read_parquet(cls, path: Any, **kwargs: Any) -> SDataFrame:
        """Read Parquet, row groups by threads: see numpush.filling.read_parquet."""
        from . import filling

        return filling.read_parquet(path, **kwargs)

    @classmethod
    def read_feather(cls, path: Any, **kwargs: Any) -> SDataFrame:
        """Read Feather (Arrow IPC): see numpush.filling.read_feather."""
        from . import filling

        return filling.read_feather(path, **kwargs)

    @classmethod
    def read_csv(cls, path: Any, **kwargs: Any) -> SDataFrame:
        """Read CSV in a stream: see numpush.filling.read_csv."""
        from . import filling

        return filling.read_csv(path, **kwargs)

    # -- where it lies

    @property
    def _window(self) -> Window:
        """What it shows: of the latest generation, if it follows them."""
        window = self._shown
        if not window.is_latest():
            store = window.store
            window = store_of(store.segment, self._token, store.mode).whole()
            object.__setattr__(self, "_shown", window)
            object.__setattr__(self, "_attrs", SharedAttrs(window.store.attrs, self))
        return window

    @property
    def _mgr(self) -> Any:
        window = self._shown
        if window.is_latest() and window.is_unchanged():
            return window.current
        self._window.manager()  # what was done to it behind our back is done properly now
        return self._mgr

    @_mgr.setter
    def _mgr(self, manager: Any) -> None:
        window = self._window
        if manager is not window.manager():
            adopt(window, manager)

    def _mapping(self) -> Mapping:
        return self._shown.store.mapping()

    def __len__(self) -> int:
        # What pandas finds through its index, of which a frame may have no other number of rows.
        window = self._shown
        return len(window if window.is_latest() else self._window)

    # -- parts

    def partitions(self, n: int) -> list[SDataFrame]:
        """Return *n* frames of consecutive rows of this one, whose sizes differ by at most one.

        They are shared frames of the same segment: writing to one writes to this frame, and each
        travels as a handle. With fewer rows than *n*, the last ones are empty.

        Raises
        ------
        ValueError : *n* is less than 1.
        """
        count = int(n.__index__())
        if count < 1:
            raise ValueError(f"{count} partitions: at least 1 wanted")
        window = self._window
        window.verify()
        size, more = divmod(len(window), count)
        parts = []
        start = window.start
        for i in range(count):
            stop = start + size + (i < more)
            parts.append(SDataFrame._over(window.store.window(start, stop), self._token))
            start = stop
        return parts

    def map_partitions(
        self,
        func: Callable[..., Any],
        *args: Any,
        n: int | None = None,
        processes: int | None = None,
        progress: bool = False,
        **kwargs: Any,
    ) -> Any:
        """Call ``func(part, *args, **kwargs)`` for each of *n* parts, by processes.

        The parts are shared: what *func* writes to one is written to this frame.

        Parameters
        ----------
        n : int, optional
            By default four for each process.
        processes : int, optional
            By default as many as this process may use cores. They are kept for the next call.
        progress : bool
            Show a bar.

        Returns
        -------
        The results put together by ``pandas.concat``, if they are frames or series; else a list.
        """
        from . import parallel

        return parallel.map_partitions(self, func, args, kwargs, n, processes, progress)

    def parallel_apply(
        self,
        func: Callable[..., Any],
        axis: Any = 0,
        raw: bool = False,
        result_type: Any = None,
        args: tuple[Any, ...] = (),
        *,
        processes: int | None = None,
        progress: bool = False,
        **kwargs: Any,
    ) -> Any:
        """Do ``apply(func, axis, raw, result_type, args, **kwargs)`` by processes.

        Each does it for some of the rows (``axis=1``) or columns, and the results are put together.
        """
        from . import parallel

        kwargs.update(raw=raw, result_type=result_type, args=args)
        return parallel.apply(self, func, axis, kwargs, processes, progress)

    def groupby(self, *args: Any, **kwargs: Any) -> Any:
        """As DataFrame.groupby; the groups have `parallel_apply` too."""
        return share_groups(super().groupby(*args, **kwargs), self)

    def column(self, label: Any) -> SArray:
        """Return a column as an SArray: its very memory, for numba and for work in place.

        What is written to it, this frame and every process see at once.

        Parameters
        ----------
        label : label of a column of a fixed-width NumPy dtype
            Naive datetimes come as their "M8" dtype.

        Raises
        ------
        KeyError : there is no such column.
        ValueError : several columns have that label.
        TypeError : its values are of another kind; the message names the remedy.
        """
        position = self.columns.get_loc(label)
        if not isinstance(position, int):
            raise ValueError(f"{label!r} is the label of several columns; relabel before sharing")
        values = _managers.column_values(self._mgr, position)
        if values is None:
            dtype = self.dtypes.iloc[position]
            raise TypeError(
                f"column {label!r} has dtype {dtype}, which is not one NumPy array of fixed width; "
                f"use sdf[{label!r}].to_numpy() for a copy, or share it as a NumPy dtype: "
                f".astype('float64')"
            )
        return values.view(SArray)

    def to_pandas(self) -> pd.DataFrame:
        """Return a plain DataFrame with a copy of the data, private to this process."""
        return _managers.copy_frame(self)

    def compact(self) -> int:
        """Copy all data into one place, and free what earlier structures left; return the bytes.

        Replacing columns, rows or labels appends what is new, and keeps what was: for other
        processes, and for what was derived. That is freed when no other process is attached, no
        handle is under way, and nothing in this process was derived from it; else 0 is returned,
        and a later call frees it. Handles to it that are kept (``part.handle``) are void then.

        Raises
        ------
        SegmentFull : there is no room for the copy.
        SharedStructureError : it is a part of a frame, or attached with mode 'cow'.
        """
        window = self._window
        if not window.follows:
            raise SharedStructureError("only a whole shared frame can be compacted")
        if window.store.generation and not frame_structure.is_compact(window):
            frame_structure.compact(window)
        del window
        return frame_structure.free(self._window)

    def _repr_html_(self) -> str | None:
        """What a notebook shows: pandas' table; and its segment, who uses it, and its lock."""
        from . import notebook

        return notebook.frame_html(self, super()._repr_html_)  # type: ignore[misc]  # no stubs for it

    # -- what pandas asks for

    @property
    def _constructor(self) -> Any:
        return pd.DataFrame

    def _constructor_from_mgr(self, mgr: Any, axes: Any) -> pd.DataFrame:
        return _managers.frame_of(mgr)

    def _constructor_sliced_from_mgr(self, mgr: Any, axes: Any) -> Any:
        return _managers.series_of(mgr)

    @classmethod
    def _from_mgr(cls, mgr: Any, axes: Any) -> SDataFrame:
        return cls(_managers.frame_of(mgr))

    def _consolidate_inplace(self) -> None:
        """Do nothing: columns of one dtype are one block from the start."""

    @property
    def attrs(self) -> Any:
        """What is told of the frame, for every process: a dict. Setting an item changes it."""
        _ = self._window
        return self._attrs

    @attrs.setter
    def attrs(self, value: Any) -> None:
        set_attrs(self._window, dict(value))


def from_segment(segment: Segment, token: Any, mode: str) -> SDataFrame:
    """Make the whole frame that a segment holds, from its description."""
    store = store_of(segment, token, mode)
    return SDataFrame._over(store.whole(), token)


transport.register(SDataFrame, SDataFrame._reduce_to_handle)
transport.tell_loky()
