"""The processes of a team as their leader has them: started, told things, found dead, replaced.

(1) A member that died is replaced by one with the same index. It knows nothing of what the one before
    was told: `serial` differs.
(2) A message that was sent half cannot be taken back: its receiver is killed.
(3) Members are no daemons, so that they may have processes of their own. What ends them when this
    process ends is a finalizer that runs before multiprocessing joins its children.
"""

from __future__ import annotations

import itertools
import multiprocessing
import os
import pickle
import signal
import sys
from collections.abc import Iterable
from multiprocessing import forkserver, util
from multiprocessing.connection import Connection, wait
from typing import Any, NamedTuple

from ..ffi import Ref
from ..ffi import team as _team
from ..pool.failures import WorkerDied, describe_exit
from ..sarray import SArray
from ..worker_start import allowed_in_daemons, ctrl_c_blocked
from . import member
from .messages import Recent

__all__ = ["Death", "Members", "Worker"]

_KERNELS = "numpush.kernels"
_PATIENCE = 5.0  #: seconds that a member which is told to end may take


class Worker:
    """A member's process."""

    def __init__(self, index: int, serial: int, process: Any, connection: Any) -> None:
        self.index = index
        self.serial = serial
        self.process = process
        self.connection: Connection[bytes, bytes] = connection
        self.variants = Recent()  #: keys of what it was sent, as it keeps them
        self.functions = Recent()


class Death(NamedTuple):
    """A member that died, and what it was at."""

    rank: int
    pid: int
    exitcode: int | None
    report: _team.Report

    def error(self, task: str | None, place: int | None) -> WorkerDied:
        """Return what its leader raises; *task* says what it worked on."""
        how = f"worker {self.rank} (process {self.pid}) {describe_exit(self.exitcode)}"
        where = f"in {task}" if task else "before it was ready"
        # The kernel picks the process that uses most when memory runs out, and says so there.
        hint = "; if memory ran out, `dmesg` says so" if self.exitcode == -signal.SIGKILL else ""
        return WorkerDied(f"{how} {where}{hint}", self.pid, self.exitcode, task, place)


class Members:
    """*n* members, started by the start method of *context*."""

    def __init__(self, n: int, context: Any) -> None:
        self.pid = os.getpid()
        self._context = context
        self._n = n
        self._board = SArray.zeros(_team.size(n), "u1")
        self.ref: Ref = _team.at(self._board.__array_interface__["data"][0])
        _team.init(self.ref, n)
        self._serials = itertools.count()
        self.workers: list[Worker] = []
        self.is_closed = False
        self.epoch = 0  #: how many were replaced
        self.n_fetched = 0  #: number of the latest job whose exceptions were fetched
        self._n_stillborn = 0  #: one after the other, that died before they were ready
        try:
            for index in range(n):
                self.workers.append(self._start(index))
        except BaseException:
            self.close(kill=True)
            raise

    def __len__(self) -> int:
        return self._n

    def _start(self, index: int) -> Worker:
        ours, theirs = self._context.Pipe()
        process = None
        try:
            has_kernels = _KERNELS in sys.modules
            setup = member.Setup(self.pid, index, self._n, self._board.handle, has_kernels)
            process = self._context.Process(
                target=member.run, args=(setup, theirs), name=f"numpush-team-{index}"
            )
            if self._context.get_start_method() == "forkserver":
                forkserver.ensure_running()  # or it would have Ctrl-C blocked for good
            with ctrl_c_blocked(), allowed_in_daemons():
                process.start()
        except BaseException:
            ours.close()
            if process is not None and process.pid is not None:  # two of one index would be at work
                process.kill()
            raise
        finally:
            theirs.close()
        return Worker(index, next(self._serials), process, ours)

    # -- telling

    def tell(self, worker: Worker, mail: tuple[Any, ...]) -> None:
        """Send mail to one of them. That it is dead is found out elsewhere."""
        data = pickle.dumps(mail, pickle.HIGHEST_PROTOCOL)
        try:
            _team.tell(self.ref, worker.index)
            worker.connection.send_bytes(data)
        except OSError:
            pass
        except BaseException:
            worker.process.kill()
            raise

    # -- deaths

    def look(self, index: int) -> _team.Report:
        return _team.look(self.ref, index)

    def find_dead(self) -> list[Worker]:
        """Return those whose process has ended."""
        ended = set(wait([worker.process.sentinel for worker in self.workers], 0))
        return [
            worker
            for worker in self.workers
            # The exit code too: a child of its own may hold what the sentinel is the other end of.
            if worker.process.sentinel in ended or worker.process.exitcode is not None
        ]

    def replace(self, worker: Worker) -> Death:
        """Put a new one in the place of one that died; return what is known of that.

        Raises
        ------
        WorkerDied : as many as there are ended one after the other before they were ready.
        """
        worker.process.join()
        report = self.look(worker.index)
        death = Death(worker.index, worker.process.pid, worker.process.exitcode, report)
        self._n_stillborn = self._n_stillborn + 1 if report.state != _team.READY else 0
        _team.replace(self.ref, worker.index)
        self.epoch += 1
        self.workers[worker.index] = self._start(worker.index)
        self._forget(worker)
        if self._n_stillborn > len(self.workers):
            raise death.error(None, None)
        return death

    def _forget(self, worker: Worker) -> None:
        worker.connection.close()
        worker.process.close()

    def is_quiet(self, number: int, *, but_for: Iterable[Worker] = ()) -> bool:
        """Whether nothing is left of a job, and nobody is in a chunk of it.

        One that died is until it is replaced, unless it is one of *but_for*.
        """
        if _team.left(self.ref):
            return False
        left_out = {worker.index for worker in but_for}
        return not any(
            self.look(i).claim_job == number for i in range(self._n) if i not in left_out
        )

    # -- the end

    def kill(self) -> None:
        """Kill them all; the next job starts others."""
        for worker in self.workers:
            worker.process.kill()

    def close(self, *, kill: bool = False) -> None:
        """End them, and wait until they are gone. Nobody uses the team meanwhile."""
        if self.is_closed or self.pid != os.getpid():
            return
        self.is_closed = True
        _team.close(self.ref)
        if kill:
            self.kill()
        for worker in self.workers:
            worker.process.join(_PATIENCE)
            if worker.process.exitcode is None:
                worker.process.kill()
                worker.process.join()
            self._forget(worker)
        self.workers.clear()
        self.ref = None
        del self._board

    def close_with(self, owner: Any) -> Any:
        """Have them end with *owner*, or with this process; return what does it now when called."""
        return util.Finalize(owner, self.close, exitpriority=100)


def context_of(start_method: str | None) -> Any:
    """Return the context of multiprocessing for a start method; None: the default one."""
    return multiprocessing.get_context(start_method)
