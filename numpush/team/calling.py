"""A call of a Python function by the members of a team: what is sent, and the answers.

(1) A chunk is done when its answer is here, whatever happened to its member after it sent that.
(2) All answers of chunks that were taken are read, also of a call that has failed: results may hold
    shared memory that is ours to free.
"""

from __future__ import annotations

import contextlib
import hashlib
import secrets
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from multiprocessing.connection import wait
from typing import Any

import numpy as np

from ..ffi import team as _team
from ..plain import SHARE_FROM
from ..pool import answers
from ..pool.payload import Outbox, drop_lost
from ..sarray import SArray
from .members import Death, Members, Worker
from .messages import STOPPED, CallMail, split_answer

__all__ = ["Call"]

_SLICE = 0.05  #: seconds between two looks whether all members live
_TRIES = 3  #: of a chunk in which members die


class Call:
    """One call of `Team.map` or `Team.each`.

    Parameters
    ----------
    items : sequence, optional
        What the function is called with; None: with the numbers of the rows.
    n, chunk : int
        How many rows, and how many in a chunk.
    show : callable, optional
        Told how many rows are done, with each answer.
    """

    def __init__(
        self,
        members: Members,
        function: Callable[..., Any],
        items: Sequence[Any] | None,
        args: tuple[Any, ...],
        n: int,
        chunk: int,
        *,
        is_each: bool = False,
        retry: bool = False,
        show: Callable[[int], object] | None = None,
    ) -> None:
        self._members = members
        self._name: str = getattr(function, "__name__", type(function).__name__)
        self._n = n
        self._chunk = chunk
        self._is_each = is_each
        self._retry = retry
        self._show = show
        self._outbox = Outbox(SHARE_FROM, holds_shared=True)
        self._parcels: list[Any] = []
        self._function = self._dumps(function)
        self._key = hashlib.blake2b(self._function, digest_size=16).digest()
        self._args = self._dumps(args)
        self._items = None if items is None else self._blob(items)
        self._prefix = secrets.token_hex(8)
        self._results: dict[int, list[Any]] = {}  #: by first row; of each, by rank
        self._error: BaseException | None = None
        self._error_place = False, 0
        self._answered: set[int] = set()  #: by first row
        self._first = 0  #: row of the job
        self._n_done = 0
        self._is_aborted = False
        self._deaths: Counter[int] = Counter()

    # -- what is sent

    def _dumps(self, obj: Any) -> bytes:
        data, parcels, _ = self._outbox.dumps(obj)
        self._parcels += parcels
        return data

    def _blob(self, items: Sequence[Any]) -> SArray:
        """Put the pickles of all chunks' items into one array, for whoever takes the chunk."""
        parts = [
            self._dumps(list(items[i : i + self._chunk])) for i in range(0, self._n, self._chunk)
        ]
        head = 8 * (len(parts) + 1)
        offsets = np.cumsum([head, *map(len, parts)], dtype=np.int64)
        blob = SArray.empty(int(offsets[-1]), "u1")
        blob[:head] = offsets.view("u1")
        blob[head:] = np.frombuffer(b"".join(parts), "u1")
        return blob

    def _tell(self, worker: Worker) -> None:
        shipped = None if worker.functions.use(self._key) else self._function
        mail = CallMail(
            self._key,
            shipped,
            self._args,
            None if self._items is None else self._items.handle,
            self._chunk,
            self._is_each,
            self._prefix,
        )
        self._members.tell(worker, mail)
        worker.functions.keep(self._key, None)

    # -- running it

    def run(self) -> list[Any]:
        """Return the results in the order of the rows, for `each` of the members.

        Raises
        ------
        WorkerDied : a member died in a chunk, in this one too often, or before it was ready.
        What the function raised, for the row that failed first.
        """
        for worker in self._members.workers:
            self._tell(worker)
        lost = self._do(0, self._n)
        while lost:
            lost = [again for begin in lost for again in self._do(begin, begin + self._chunk)]
        return [result for _, results in sorted(self._results.items()) for result in results]

    def _do(self, begin: int, end: int) -> list[int]:
        """Run a job; return the first rows of the chunks that are to be done again."""
        ref = self._members.ref
        if self._is_each:
            _team.raise_barrier(ref)
        end = min(end, self._n)
        self._first = begin
        number = _team.start(ref, _team.make_job(0, begin, end, self._chunk))
        n_open = -(-(end - begin) // self._chunk)
        deaths: list[Death] = []
        while n_open > 0:
            n_over = self._take_answers(number, _SLICE)
            n_open -= n_over
            if n_over == 0:
                for worker in self._members.find_dead():
                    n_open -= self._drain(worker, number)
                    deaths.append(self._replace(worker, number))
                if _team.left(ref):
                    _team.ring(ref)  # who was woken may be dead, or stopped
            if self._is_aborted:
                n_open -= _team.abort(ref, number)
            if deaths and self._members.is_quiet(number):
                for worker in self._members.workers:
                    self._drain(worker, number)
                break
        return self._settle(number, end, deaths)

    def _replace(self, worker: Worker, number: int) -> Death:
        """Have another in the place of a member that died."""
        death = self._members.replace(worker)
        if self._is_each and death.rank in self._results and self._error is None:
            # Another of its rank might do what is left for somebody else.
            self._is_aborted = True
            self._error = death.error(f"{self._name}, which it had done", None)
        if self._has_lost(death, number):
            self._is_aborted |= not self._retry
            _team.break_barrier(self._members.ref)
        drop_lost(self._prefix)
        self._tell(self._members.workers[worker.index])
        return death

    def _settle(self, number: int, end: int, deaths: list[Death]) -> list[int]:
        """Raise what the job ended with, or return what it left undone."""
        error, (is_consequence, _) = self._error, self._error_place
        self._error = None  # no cycle of the exception, its traceback and us
        if error is not None and not is_consequence:
            raise error
        claims = {
            self._begin_of(death): death for death in deaths if death.report.claim_job == number
        }
        missing = self._missing(end) if deaths else []
        lost = []
        for begin in missing if self._retry else sorted(claims.keys() & set(missing)):
            self._deaths[begin] += 1
            if not self._retry or self._deaths[begin] >= _TRIES:
                last = min(self._n, begin + self._chunk) - 1
                raise claims.get(begin, deaths[-1]).error(self._task(begin, last), begin)
            lost.append(begin)
        if error is not None:
            raise error
        if missing and not lost:  # given up for a chunk that another did after all
            raise deaths[-1].error(self._task(missing[0]), missing[0])
        return lost

    def _missing(self, end: int) -> list[int]:
        """Return the first rows of the job's chunks that have no answer."""
        return [
            begin for begin in range(self._first, end, self._chunk) if begin not in self._answered
        ]

    def _begin_of(self, death: Death) -> int:
        return self._first + death.report.claim_chunk * self._chunk

    def _has_lost(self, death: Death, number: int) -> bool:
        """Whether something is missing since a member died."""
        return death.report.claim_job == number and self._begin_of(death) not in self._answered

    def _task(self, row: int, last: int | None = None) -> str:
        if last is None or last == row:
            return f"task {row} of {self._name}"
        return f"tasks {row} to {last} of {self._name}"

    # -- answers. Each of these returns how many chunks are over by them

    def _take_answers(self, number: int, timeout: float) -> int:
        """Wait for answers, or for a death, and take what is there."""
        workers = {worker.connection: worker for worker in self._members.workers}
        sentinels = [worker.process.sentinel for worker in self._members.workers]
        ready = wait([*workers, *sentinels], timeout)
        return sum(self._take(workers[each], number) for each in ready if each in workers)

    def _drain(self, worker: Worker, number: int) -> int:
        """Take all that a member has sent."""
        n_over = 0
        with contextlib.suppress(EOFError, OSError):
            while worker.connection.poll(0):
                n_over += self._read(worker, number)
        return n_over

    def _take(self, worker: Worker, number: int) -> int:
        """Take one answer, unless its member died, maybe in the middle of it."""
        with contextlib.suppress(EOFError, OSError):
            return self._read(worker, number)
        return 0

    def _read(self, worker: Worker, number: int) -> int:
        job, begin, n_back, kind, data = split_answer(worker.connection.recv_bytes())
        if kind == STOPPED:
            answer = answers.Answer(None)
        else:
            try:
                answer = answers.read(bytes(data))
            except Exception as error:
                answer = answers.Answer(None, error)
        if job != number:
            return 0
        self._answered.add(begin)
        if answer.results is not None:
            self._results[worker.index if self._is_each else begin] = answer.results
            self._n_done += len(answer.results)
            if self._show is not None:
                self._show(self._n_done)
        elif answer.error is not None:
            self._note_error(answer.error, begin + answer.offset, worker)
        return 1 + n_back

    def _note_error(self, error: BaseException, row: int, worker: Worker) -> None:
        """Keep the exception that the call will raise: of the first row, but a cause, no consequence."""
        self._is_aborted = True
        place = isinstance(error, threading.BrokenBarrierError), row
        if self._error is None or place < self._error_place:
            self._error, self._error_place = error, place
            with contextlib.suppress(AttributeError):
                error.add_note(
                    f"numpush.Team: {self._task(row)}, in worker {worker.index} "
                    f"(process {worker.process.pid})"
                )
