"""Pour a source of Arrow data into a new shared frame: survey, sketch, write.

(1) What a source does not know of itself is surveyed by reading those columns once; what was read then
    is kept as long as it is little (`KEEP`), the rest is read again to be written. So memory is
    bounded by what threads decode at one time, whatever the size of the file. (Of a 183 MiB Parquet file,
    nearly all text: sizes from its footer 1.2 s and 118 MiB of private memory, everything read twice
    1.8 s and 142, `KEEP` 1.7 s and 208, everything kept 2.1 s and 735.)
(2) Columns that pandas keeps as Python objects are collected whole, as Arrow has them.
(3) An error, or Ctrl-C, stops all threads at their next batch; nothing is left.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from ..layout.sketch import Sketch
from .columns import ClaimFailed, Column, WholeColumn
from .pages import Pages
from .plan import Plan, types_mapper
from .text import ArrowColumn

if TYPE_CHECKING:
    from ..sdataframe import SDataFrame

__all__ = ["KEEP", "Source", "pour"]

#: Bytes of decoded columns that a survey keeps, so that small files are read once.
KEEP = 64 << 20
_MOST_THREADS = 8


class Source(Protocol):
    """Arrow data in pieces: row groups, record batches."""

    schema: Any
    #: what to call it in errors: the path
    what: str
    #: whether reading it twice costs nothing, since it is in memory
    is_free: bool

    def rows(self) -> list[int | None]:
        """Return how many rows each piece has, where that is known."""

    def claim(self, column: Column, i: int) -> None:
        """Tell a column what the source knows of field *i*: `n_null` and `n_bytes` of its pieces."""

    def bundles(self, piece: int, fields: list[int]) -> list[list[int]]:
        """Split fields into those that are best read together."""

    def read(self, piece: int, fields: list[int]) -> Iterator[list[Any]]:
        """Yield chunks of a piece in order: an Arrow array for each of *fields*."""

    def release(self, piece: int) -> None:
        """Let go of a piece: it will not be read again."""

    def errors(self) -> contextlib.AbstractContextManager[None]:
        """Turn errors of reading into ones that name the source."""


class _Task(NamedTuple):
    piece: int
    fields: list[int]


def pour(
    source: Source,
    *,
    dtype_backend: Any = None,
    name: str | None = None,
    threads: int | None = None,
    progress: bool = False,
    attrs: dict[Any, Any] | None = None,
) -> SDataFrame:
    """Make a shared frame of what a source has."""
    mapper = types_mapper(dtype_backend)
    try:
        return _Pouring(source, mapper, threads, progress, trust=True).run(name, attrs)
    except ClaimFailed:
        pass
    try:
        return _Pouring(source, mapper, threads, progress, trust=False).run(name, attrs)
    except ClaimFailed as error:
        raise ValueError(f"{source.what}: it changed while it was read: {error}") from error


class _Pouring:
    def __init__(
        self, source: Source, mapper: Any, threads: int | None, progress: bool, *, trust: bool
    ) -> None:
        self.source = source
        self.plan = Plan(source.schema, mapper)
        self.rows = source.rows()
        self.n_threads = _count_threads(threads)
        self.progress = progress
        self.kept: dict[tuple[int, int], list[Any]] = {}
        self.n_kept = 0
        self.stop = threading.Event()
        self.lock = threading.Lock()
        if trust:
            for i, column in enumerate(self.plan.columns):
                source.claim(column, i)

    def run(self, name: str | None, attrs: dict[Any, Any] | None) -> SDataFrame:
        """Survey, sketch, write; return the frame."""
        plan = self.plan
        columns = plan.columns
        with self._bar() as bar:
            self._survey()
            plan.settle()
            self._collect(bar)
            n_rows = sum(rows or 0 for rows in self.rows)
            sketch = Sketch(n_rows)
            for column in columns:
                if isinstance(column, ArrowColumn):
                    column.expect(len(self.rows))
            for i, position in plan.positions.items():
                label = plan.labels[position]
                sketch.name(f"column {label!r}", f"df[{label!r}]")
                columns[i].sketch(sketch, position)
            index = plan.make_index(n_rows, sketch)
            schema = sketch.finish(plan.labels, index, plan.attrs if attrs is None else attrs)
            with Pages(schema, sketch.sink.buffers, name=name) as pages:
                for i, column in enumerate(columns):
                    if not column.is_whole:
                        column.place(sketch.slots, plan.positions.get(i), pages)
                self._write(pages, bar)
            frame: SDataFrame = pages.finish()
            return frame

    # -- the three passes

    def _survey(self) -> None:
        """Read what the source does not know of itself; rule (1)."""
        tasks = []
        for piece, rows in enumerate(self.rows):
            fields = [
                i
                for i, column in enumerate(self.plan.columns)
                if not column.is_whole and not column.is_known(piece)
            ]
            if rows is None and not fields and self.plan.columns:
                fields = [0]
            tasks += [_Task(piece, bundle) for bundle in self._split(piece, fields)]

        def look(task: _Task) -> None:
            n_rows = 0
            kept: list[list[Any]] = [[] for _ in task.fields]
            for chunks in self._read(task):
                n_rows += len(chunks[0])
                for i, own, chunk in zip(task.fields, kept, chunks):
                    self.plan.columns[i].survey(task.piece, chunk)
                    self._keep(own, chunk)
            self.rows[task.piece] = n_rows
            for i, own in zip(task.fields, kept):
                if len(own) and own[0] is not None:
                    self.kept[task.piece, i] = own

        for column in self.plan.columns:
            for piece in range(len(self.rows)):
                if not column.is_known(piece):
                    column.n_null.pop(piece, None)
        self._run(look, tasks)

    def _keep(self, own: list[Any], chunk: Any) -> None:
        """Keep a chunk beside those before it, all of a piece or none; None marks the latter."""
        if self.source.is_free or (own and own[0] is None):
            return
        with self.lock:
            self.n_kept += chunk.nbytes
            if self.n_kept <= KEEP:
                own.append(chunk)
                return
            self.n_kept -= chunk.nbytes + sum(each.nbytes for each in own)
        own[:] = [None]

    def _collect(self, bar: Any) -> None:
        """Read what pandas keeps as objects; rule (2)."""
        whole = [i for i, column in enumerate(self.plan.columns) if column.is_whole]
        if not self.plan.has_plain_index:
            whole += [i for i in self.plan.index if i not in whole]
        for i in whole:
            self._make_whole(i)
        tasks = []
        for piece in range(len(self.rows)):
            fields = []
            for i in whole:
                chunks = self.kept.pop((piece, i), None)
                if chunks is None:
                    fields.append(i)
                for chunk in chunks or ():
                    self.plan.columns[i].survey(piece, chunk)
            tasks += [_Task(piece, bundle) for bundle in self._split(piece, fields)]

        def take(task: _Task) -> None:
            n_rows = 0
            for chunks in self._read(task):
                n_rows += len(chunks[0])
                for i, chunk in zip(task.fields, chunks):
                    self.plan.columns[i].survey(task.piece, chunk)
                    bar.update(len(chunk))
            self.rows[task.piece] = n_rows

        self._run(take, tasks)

    def _make_whole(self, i: int) -> None:
        column = self.plan.columns[i]
        if not isinstance(column, WholeColumn):
            self.plan.columns[i] = WholeColumn(column.label, column.field, None)

    def _write(self, pages: Pages, bar: Any) -> None:
        """Read and store the rest."""
        starts, at = [], 0
        for rows in self.rows:
            starts.append(at)
            at += rows or 0
        fields = [i for i, column in enumerate(self.plan.columns) if not column.is_whole]
        left = {}
        tasks = []
        for piece in range(len(self.rows)):
            bundles = self._split(piece, [i for i in fields if (piece, i) not in self.kept])
            kept = [[i] for i in fields if (piece, i) in self.kept]
            left[piece] = len(bundles) + len(kept)
            tasks += [_Task(piece, bundle) for bundle in (*kept, *bundles)]
            if not left[piece]:
                self.source.release(piece)

        def store(task: _Task) -> None:
            row = start = starts[task.piece]
            stop = start + (self.rows[task.piece] or 0)
            own = [self.plan.columns[i] for i in task.fields]
            for chunks in self._read(task):
                n = len(chunks[0])
                if row + n > stop:
                    raise ClaimFailed(f"more than {stop - start} rows")
                for column, chunk in zip(own, chunks):
                    column.write(pages, task.piece, row, chunk)
                row += n
                bar.update(n * len(own))
            if row != stop:
                raise ClaimFailed(f"{row - start} rows, not {stop - start}")
            for column in own:
                column.finish_piece(task.piece)
            with self.lock:
                left[task.piece] -= 1
                is_done = not left[task.piece]
            if is_done:
                self.source.release(task.piece)

        self._run(store, tasks)

    # -- how

    def _split(self, piece: int, fields: list[int]) -> list[list[int]]:
        return self.source.bundles(piece, fields) if fields else []

    def _read(self, task: _Task) -> Iterator[list[Any]]:
        kept = self.kept.pop((task.piece, task.fields[0]), None) if len(task.fields) == 1 else None
        chunks: Iterable[list[Any]]
        if kept is not None:
            chunks = ([chunk] for chunk in kept)
        else:
            chunks = self.source.read(task.piece, task.fields)
        with self.source.errors():
            for each in chunks:
                if self.stop.is_set():
                    raise _Stopped
                yield each

    def _run(self, work: Callable[[_Task], None], tasks: list[_Task]) -> None:
        """Do all tasks; rule (3)."""
        if self.n_threads == 1 or len(tasks) < 2:
            for task in tasks:
                work(task)
            return
        threads = ThreadPoolExecutor(self.n_threads, thread_name_prefix="numpush-fill")
        try:
            futures = {threads.submit(work, task) for task in tasks}
            done, _ = wait(futures, return_when=FIRST_EXCEPTION)
            self.stop.set()
            errors = [each.exception() for each in done]
            first = next((e for e in errors if e is not None and type(e) is not _Stopped), None)
            if first is not None:
                raise first
        finally:
            self.stop.set()
            threads.shutdown(wait=True, cancel_futures=True)
            # An error's traceback has this frame: it must not have the error, or both stay.
            futures, done, errors, first = set(), set(), [], None
            self.stop.clear()

    def _bar(self) -> contextlib.AbstractContextManager[Any]:
        if not self.progress:
            return contextlib.nullcontext(_Quiet())
        try:
            from tqdm.auto import tqdm
        except ImportError as error:
            raise ImportError(
                "progress=True needs tqdm, which is missing: pip install tqdm"
            ) from error
        known = [rows for rows in self.rows if rows is not None]
        total = sum(known) * len(self.plan.columns) if len(known) == len(self.rows) else None
        bar: contextlib.AbstractContextManager[Any] = tqdm(
            total=total, desc=self.source.what, unit=" values", unit_scale=True
        )
        return bar


class _Stopped(Exception):
    """Another thread failed, or Ctrl-C came."""


class _Quiet:
    def update(self, n: int) -> None:
        pass


def _count_threads(threads: int | None) -> int:
    if threads is None:
        return min(_MOST_THREADS, os.cpu_count() or 1)
    if threads < 1:
        raise ValueError(f"{threads} threads: at least 1 wanted")
    return threads
