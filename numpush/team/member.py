"""What runs in a worker of a team: it sleeps, does chunks in C, and comes back for what needs Python.

(1) Whatever a chunk does is answered: by its count in the control block, and for Python's functions and
    what failed by a message. Nothing but the end of the process is left to the leader to find out.
(2) A kernel that failed is counted before its message is sent, which may wait for the leader to read.
(3) What came with a call of a function is dropped when that has no more chunks.
(4) LLVM is set up before the first kernel comes, where the leader has kernels. What Python's functions
    need (cloudpickle, loky) is imported for the first of them, and numba by a kernel that uses its
    runtime: a member that runs others needs neither.
"""

from __future__ import annotations

import contextlib
import os
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from .. import worker_start
from ..attaching import attach_handle
from ..ffi import team as _team
from ..handle import ArrayHandle, Handle
from ..plain import SHARE_FROM
from ..shm import Mutex, process
from .barrier import Barrier
from .messages import (
    FAILURE,
    RESULT,
    STOPPED,
    CallMail,
    DropMail,
    PartialOf,
    PlanMail,
    Recent,
    SharedMutex,
    join_answer,
)

__all__ = ["Setup", "run"]

_AWAKE_NS = 50_000  #: how long a member waits for the next job before it sleeps
_RC_NO_PLAN = -100  #: in place of an entry's result: the plan could not be made here
#: numba's layer that works in a process that was forked, and one thread for all that makes some.
_ENVIRONMENT = {
    "NUMBA_THREADING_LAYER": "forksafe",
    **dict.fromkeys(worker_start.THREAD_VARIABLES, "1"),
}


@dataclass(frozen=True, slots=True)
class Setup:
    """What a member is told when it starts."""

    leader: int  #: pid
    index: int
    n_members: int
    board: ArrayHandle
    has_kernels: bool  #: the leader has some: they will need LLVM


def run(setup: Setup, connection: Connection[bytes, bytes]) -> None:
    """Be a member until the team is closed, or its leader gone."""
    os.environ.update(_ENVIRONMENT)
    worker_start.begin(setup.leader, threads=1)
    if setup.has_kernels:
        with contextlib.suppress(ImportError):  # the first kernel will say so
            from .. import llvm
            from ..kernels import variant  # noqa: F401  # that of a Variant takes a while

            llvm.prepare()
    _Member(setup, connection).serve()


class _Shipped:
    """Something that was sent once: unpickled when it is first needed, so that a failure is told then."""

    def __init__(self, data: bytes) -> None:
        self._data: bytes | None = data
        self._value: Any = None

    def load(self) -> Any:
        if self._data is not None:
            self._value = pickle.loads(self._data)
            self._data = None
        return self._value


class _Plan:
    """A kernel with its arguments, in this process."""

    def __init__(self, variant: Any, args: tuple[Any, ...]) -> None:
        self.variant = variant
        self.entry: int = variant.entry()
        self._args = args  # the block has their addresses
        self.block = bytearray(variant.pack(args))
        self.pin: Any = None


class _Call:
    """A Python function with its other arguments, in this process."""

    def __init__(self, mail: CallMail, function: Callable[..., Any]) -> None:
        self._function = function
        self._args = pickle.loads(mail.args)
        self._is_each = mail.is_each
        self._chunk = mail.chunk
        self._blob: Any = None if mail.items is None else np.asarray(attach_handle(mail.items))
        self._loaded: tuple[int, list[Any]] = -1, []

    def __call__(self, row: int, rank: int, barrier: Barrier) -> Any:
        if self._is_each:
            return self._function(rank, barrier, *self._args)
        return self._function(row if self._blob is None else self._item(row), *self._args)

    def _item(self, row: int) -> Any:
        chunk, offset = divmod(row, self._chunk)
        if chunk != self._loaded[0]:
            start, stop = self._blob[8 * chunk : 8 * chunk + 16].view(np.int64)
            self._loaded = chunk, pickle.loads(self._blob[start:stop])
        return self._loaded[1][offset]


class _Member:
    def __init__(self, setup: Setup, connection: Connection[bytes, bytes]) -> None:
        self._index = setup.index
        self._n_members = setup.n_members
        self._connection = connection
        self._board = np.asarray(attach_handle(setup.board))
        self._ref = _team.at(self._board.__array_interface__["data"][0])
        _team.verify(self._ref, setup.n_members)
        self._table = _team.make_plans()
        self._plans: dict[int, _Plan | BaseException] = {}  # by place in the table
        self._variants = Recent()
        self._functions = Recent()
        self._call: CallMail | None = None
        self._n_read = 0
        self._seen = 0
        # One core is the leader's: more than the others would only keep each other from them.
        has_core = setup.index < len(os.sched_getaffinity(0)) - 1
        self._awake_ns = _AWAKE_NS if has_core else 0

    def serve(self) -> None:
        while True:
            event = _team.work(
                self._ref, self._index, self._table, self._n_read, self._seen, self._awake_ns
            )
            if event is None:
                continue
            if event.kind == _team.CLOSED:
                return
            if event.kind == _team.MAIL:
                self._read_mail(pickle.loads(self._connection.recv_bytes()))
                self._n_read += 1
            elif event.kind == _team.FAILED:
                plan = self._plans[event.plan % _team.N_PLANS]
                assert isinstance(plan, _Plan)
                self._tell_failure(event.number, plan.variant.error(event.rc, event.excinfo))
            elif event.kind == _team.UNKNOWN:
                self._refuse(event.number, event.plan)
            else:
                self._do_call(event.number)

    # -- kernels

    def _read_mail(self, mail: Any) -> None:
        if isinstance(mail, PlanMail):
            self._drop(mail.plan)
            self._note(self._variants, mail.key, mail.variant)
            try:
                self._make_plan(mail)
            except BaseException as error:
                self._plans[mail.plan % _team.N_PLANS] = error
        elif isinstance(mail, DropMail):
            for plan in mail.plans:
                if _team.has_plan(self._table, plan):
                    self._drop(plan)
        else:
            self._call = mail
            self._note(self._functions, mail.key, mail.function)

    def _note(self, recent: Recent, key: Any, data: bytes | None) -> None:
        """Keep what was sent, or what was sent before; the leader does the same with its keys."""
        if data is not None:
            recent.keep(key, _Shipped(data))
        else:
            recent.move_to_end(key)

    def _drop(self, plan: int) -> None:
        """Let go of what is in the place of *plan*."""
        _team.clear_plan(self._table, plan)
        self._plans.pop(plan % _team.N_PLANS, None)

    def _make_plan(self, mail: PlanMail) -> None:
        made = _Plan(self._variants[mail.key].load(), tuple(map(self._receive, mail.args)))
        self._plans[mail.plan % _team.N_PLANS] = made
        made.pin = _team.set_plan(self._table, mail.plan, made.entry, made.block)

    def _receive(self, arg: Any) -> Any:
        """Return what an argument of a kernel is here."""
        if isinstance(arg, Handle):
            return attach_handle(arg)
        if isinstance(arg, SharedMutex):
            return Mutex(*process.attach(arg.name, identity=arg.identity))
        if isinstance(arg, PartialOf):
            rows = attach_handle(arg.rows)
            size = int(np.prod(arg.shape)) * arg.dtype.itemsize
            return rows[self._index, :size].view(arg.dtype).reshape(arg.shape)
        return arg

    def _tell_failure(self, number: int, error: BaseException) -> None:
        from ..pool import answers

        self._send(number, 0, 0, FAILURE, answers.failure(error, 0))

    def _refuse(self, number: int, plan: int) -> None:
        """Fail a job whose plan could not be made."""
        self._seen = number
        part = _team.take(self._ref, self._index, number)
        if part is None:
            return
        error = self._plans.get(plan % _team.N_PLANS)
        _team.fail(self._ref, self._index, number, part[0], _RC_NO_PLAN)
        assert isinstance(error, BaseException)
        self._tell_failure(number, error)

    # -- Python's functions

    def _do_call(self, number: int) -> None:
        """Do chunks of a job of Python's, until there are none."""
        self._seen = number
        mail = self._call
        assert mail is not None
        call: _Call | None = None
        barrier = Barrier(self._ref, self._n_members)
        while (part := _team.take(self._ref, self._index, number)) is not None:
            from ..pool import answers

            _, begin, end = part
            results: list[Any] = []
            try:
                if call is None:
                    call = _Call(mail, self._functions[mail.key].load())
                for row in range(begin, end):
                    if _team.is_aborted(self._ref, number):
                        break
                    results.append(call(row, self._index, barrier))
            except BaseException as error:
                _team.break_barrier(self._ref)
                n_back = _team.abort(self._ref, number)
                data = answers.failure(error, len(results))
                self._send(number, begin, n_back, FAILURE, data)
            else:
                if len(results) < end - begin:
                    self._send(number, begin, 0, STOPPED, b"")
                else:
                    data = answers.success(results, SHARE_FROM, mail.prefix)
                    self._send(number, begin, 0, RESULT, data)
            if mail.is_each:
                _team.rest(self._ref, self._index)
                break

    def _send(self, number: int, begin: int, n_back: int, kind: int, data: bytes) -> None:
        self._connection.send_bytes(join_answer(number, begin, n_back, kind, data))
