"""A job of a kernel after it was started: waiting for its end, and what comes in between.

(1) In the usual case this is never reached: the job is over before the first look.
(2) The job of a member that died is over when nothing is left to be taken and no living member is in a
    chunk. What is missing then is what the dead ones had claimed; it is named, or done once more.
(3) Whatever ends the waiting, no member is in a chunk when it has ended: the caller may use the arrays.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable

from ..ffi import Ref
from ..ffi import team as _team
from ..pool import answers
from ..pool.failures import WorkerDied
from .members import Death, Members, Worker
from .messages import FAILURE, STOPPED, split_answer
from .plans import Plan, Plans

__all__ = ["SLICE_NS", "Run", "stop"]

SLICE_NS = 20_000_000  #: between two looks at signals, and whether all members live
_TRIES = 3  #: of a chunk in which members die


class Run:
    """One call of `Team.run`.

    Parameters
    ----------
    retry : bool
        Do chunks again in which a member died.
    show : callable, optional
        Told how many chunks are done, now and then.
    """

    def __init__(
        self,
        members: Members,
        plans: Plans,
        plan: Plan,
        chunk: int,
        *,
        retry: bool,
        show: Callable[[int], object] | None = None,
    ) -> None:
        self._members = members
        self._plans = plans
        self._plan = plan
        self._chunk = chunk
        self._retry = retry
        self._show = show
        self._deaths: Counter[int] = Counter()  #: by first row of the chunk

    def finish(self, number: int, outcome: int, n: int) -> None:
        """Wait for the end of the job *number*, which does the rows up to *n*.

        *outcome* is what waiting for it gave so far.

        Raises
        ------
        WorkerDied : a member died in a chunk, in this one too often, or before it was ready.
        What the kernel raised.
        """
        lost = self._wait(number, outcome, -(-n // self._chunk))
        for begin in lost:
            self._redo(begin, min(n, begin + self._chunk))

    def _redo(self, begin: int, end: int) -> None:
        job = self._plan.part(begin, end)
        while True:
            outcome, number = _team.run(self._members.ref, job, SLICE_NS)
            if outcome == _team.OVER or not self._wait(number, outcome, 1, begin):
                return

    def _wait(self, number: int, outcome: int, n_chunks: int, begin: int = 0) -> list[int]:
        """Wait; return the first rows of the chunks that are to be done again."""
        ref = self._members.ref
        deaths: list[Death] = []
        while not outcome:
            for worker in self._members.find_dead():
                deaths.append(self._replace(worker, number))
            if deaths and self._members.is_quiet(number):
                break
            if _team.left(ref):
                _team.ring(ref)  # who was woken may be dead, or stopped
            if self._show is not None:
                self._show(self._count(number))
            outcome = _team.wait(ref, SLICE_NS)
        if outcome == _team.OVER:
            return []
        self._raise_failure(number, begin, deaths)
        n_done = self._count(number) + sum(
            death.report.done for death in deaths if death.report.job == number
        )
        claimed = {
            death.report.claim_chunk: death for death in deaths if death.report.claim_job == number
        }
        if n_done == n_chunks:
            return []
        if not claimed or (self._retry and len(claimed) < n_chunks - n_done):
            raise AssertionError(f"{n_chunks - n_done} chunks that nobody did, or had claimed")
        lost = []
        for chunk, death in sorted(claimed.items()):
            first = begin + chunk * self._chunk
            self._deaths[first] += 1
            if not self._retry or self._deaths[first] >= _TRIES:
                raise self._died(death, first)
            lost.append(first)
        return lost

    def _replace(self, worker: Worker, number: int) -> Death:
        """Have another in the place of a member that died, which knows the plan."""
        death = self._members.replace(worker)
        if death.report.claim_job == number and not self._retry:
            _team.abort(self._members.ref, number)
        self._plans.tell(self._plan, self._members.workers[worker.index])
        return death

    def _count(self, number: int) -> int:
        """Return how many chunks the members have done."""
        reports = map(self._members.look, range(len(self._members)))
        return sum(report.done for report in reports if report.job == number)

    def _task(self, first: int) -> str:
        return f"chunk {first // self._chunk} (from row {first}) of kernel {self._plan.name!r}"

    def _died(self, death: Death, first: int) -> WorkerDied:
        return death.error(self._task(first), first // self._chunk)

    def _raise_failure(self, number: int, begin: int, deaths: list[Death]) -> None:
        """Raise what the kernel raised, if it did; of several, in the first chunk."""
        for report, index, error in _failures(self._members, number):
            pid = self._members.workers[index].process.pid
            error.add_note(
                f"numpush.Team: {self._task(begin + report.failed * self._chunk)}, "
                f"in worker {index} (process {pid})"
            )
            raise error
        # It did, and its member died before it could tell what.
        for death in (*deaths, *map(self._members.replace, self._members.find_dead())):
            if death.report.job == number and death.report.rc:
                raise self._died(death, begin + death.report.failed * self._chunk)


def _failures(members: Members, number: int) -> list[tuple[_team.Report, int, BaseException]]:
    """Fetch the exceptions of a job that is over, with where they were raised, by chunk."""
    members.n_fetched = number
    found = []
    for index, worker in enumerate(members.workers):
        report = members.look(index)
        if report.job == number and report.rc:
            error = _receive_failure(worker, number)
            if error is not None:
                found.append((report, index, error))
    return sorted(found, key=lambda each: each[0].failed)


def _receive_failure(worker: Worker, number: int) -> BaseException | None:
    """Wait for the exception of a job; None: its member died before it was sent."""
    try:
        while True:
            job, _, _, kind, data = split_answer(worker.connection.recv_bytes())
            answer = answers.read(bytes(data))
            if job == number and kind == FAILURE:
                return answer.error
    except (EOFError, OSError):
        worker.process.join()
        return None


def stop(members: Members) -> None:
    """End the job that runs, if one does: wait until all members are out of it.

    A second Ctrl-C meanwhile kills them.
    """
    ref: Ref = members.ref
    number = _team.number(ref)
    try:
        _team.abort(ref, number)
        _team.break_barrier(ref)
        while not members.is_quiet(number, but_for=members.find_dead()):
            if _team.wait(ref, SLICE_NS):
                break
            _drain(members)
        if members.n_fetched != number:  # those that failed send their exceptions yet
            _failures(members, number)
        _drain(members)
    except BaseException:
        members.kill()
        raise


def _drain(members: Members) -> None:
    """Read what nobody wants: members may wait for that, and results may hold shared memory."""
    for worker in members.workers:
        with contextlib.suppress(EOFError, OSError):
            while worker.connection.poll(0):
                _, _, _, kind, data = split_answer(worker.connection.recv_bytes())
                if kind != STOPPED:
                    with contextlib.suppress(Exception):
                        answers.read(bytes(data))
