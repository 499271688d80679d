"""Kernels with their arguments, as the members of a team know them: by a number.

(1) A plan is found by the kernel and where its arrays lie; then nothing is sent but its number. Numbers
    among the arguments may differ from run to run: those words go with the job.
(2) Plans keep no arrays. When the last view of one's memory is gone, the plan is taken back from the
    members too, who have the memory mapped; the leader does that when it can, at the latest with the
    next call.
(3) Whatever is sent carries no lease: a member receives it while the leader has it.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import pickle
import weakref
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import numpy as np

from ..ffi import Ref
from ..ffi import team as _team
from ..kernels.arguments import MOST_ROWS
from ..sarray import SArray
from ..shared import Shared
from ..shm import Mutex, registry
from .members import Members
from .messages import DropMail, PartialOf, PlanMail, SharedMutex

__all__ = ["Plan", "Plans"]

_MOST_CHUNKS = (1 << 31) - 1
_LINE = 64  #: bytes that no two members write to: a cache line


class Plan:
    """A kernel with arguments."""

    def __init__(self, number: int, kernel: Any, variant: Any) -> None:
        self.number = number
        self.kernel = kernel  #: so that its id is nobody else's
        self.variant = variant
        self.name: str = getattr(kernel, "name", "") or type(kernel).__name__
        self.args: tuple[Any, ...] = ()  #: as they are sent
        self.tokens: list[Any] = []  #: weak references to what says that the arrays live
        self.copies: list[SArray] = []  #: plain arrays, shared for one call
        self.partials: SArray | None = None  #: a row for each member
        self.words: list[int] = []
        self.scalars: tuple[Any, ...] = ()
        self.patches: dict[int, int] = {}
        self.told: set[int] = set()  #: serials of the members that know it
        self.epoch = -1  #: of the members, when all of them knew it
        self._job: tuple[int, int, Ref] = 0, 0, None

    def job(self, n: int, chunk: int) -> Ref:
        """Return the description of the job that does *n* rows."""
        if self._job[0] != n or self._job[1] != chunk:
            if n > MOST_ROWS or -(-n // chunk) > _MOST_CHUNKS:
                raise ValueError(f"{n} rows in chunks of {chunk} are too many chunks")
            self._job = n, chunk, _team.make_job(self.number, 0, n, chunk)
            _team.set_patches(self._job[2], self.patches)
        return self._job[2]

    def part(self, begin: int, end: int) -> Ref:
        """Return the description of the job that does some rows, as one chunk."""
        job = _team.make_job(self.number, begin, end, end - begin)
        _team.set_patches(job, self.patches)
        return job

    def rows(self, template: Any) -> list[Any]:
        """Return the members' own arrays, of the dtype and shape of *template*."""
        assert self.partials is not None
        return [_row(self.partials, i, template) for i in range(len(self.partials))]

    def set_scalars(self, scalars: tuple[Any, ...], args: tuple[Any, ...]) -> bool:
        """Have the next job use these numbers; False: they are too many words to go with it."""
        self.scalars = scalars
        for i, word in enumerate(_words(self.variant.pack(args))):
            # What was sent once is sent always: a member may have slept through the job before.
            if word != self.words[i] or i in self.patches:
                self.patches[i] = word
        if len(self.patches) > _team.N_PATCHES:
            return False
        if self._job[2] is not None:
            _team.set_patches(self._job[2], self.patches)
        return True


class Plans:
    """The plans of a team. All calls are made with its lock held, but for `bury`."""

    def __init__(self, members: Members, lock: Any) -> None:
        self.members = members
        self._lock = lock
        self._plans: OrderedDict[Any, Plan] = OrderedDict()  #: the latest last
        self._keys: dict[int, Any] = {}
        self._places = list(range(_team.N_PLANS, 2 * _team.N_PLANS))  #: numbers to be given
        self._gone: list[int] = []

    def find(self, kernel: Any, args: tuple[Any, ...], template: Any = None) -> Plan:
        """Return the plan for a kernel with *args*, known to all members.

        With a *template* the kernel has one argument more, of its dtype and shape, and every member
        its own of those.

        Raises
        ------
        TypeError : the kernel does not take such arguments, or one that it writes is no shared array.
        """
        key: list[Any] = [id(kernel)]
        scalars: list[Any] = []
        for arg in args:
            if isinstance(arg, np.ndarray):
                data = arg.__array_interface__["data"]
                key.append((data, arg.shape, arg.strides, arg.dtype))
            elif isinstance(arg, (Shared, Mutex)):
                segment, _ = _segment_of(arg)
                key.append((segment.name, segment.identity))
            else:
                key.append(type(arg))
                scalars.append(arg)
        if template is not None:
            key.append((template.dtype, template.shape))
        found = tuple(key)
        plan = self._plans.get(found)
        if plan is not None and not _same(plan.scalars, scalars):
            full = args if plan.partials is None else (*args, _row(plan.partials, 0, template))
            if not plan.set_scalars(tuple(scalars), full):
                self._drop([plan.number])
                plan = None
        if plan is None:
            plan = self._make(kernel, args, template)
            plan.scalars = tuple(scalars)
            self._keys[plan.number] = found
            self._plans[found] = plan
        else:
            self._plans.move_to_end(found)
        if plan.epoch != self.members.epoch:
            for worker in self.members.workers:
                self.tell(plan, worker)
            plan.epoch = self.members.epoch
        return plan

    def tell(self, plan: Plan, worker: Any) -> None:
        """Have a member know a plan."""
        if worker.serial in plan.told:
            return
        key = plan.variant.key
        shipped = None
        if not worker.variants.use(key):
            shipped = pickle.dumps(plan.variant, pickle.HIGHEST_PROTOCOL)
        self.members.tell(worker, PlanMail(plan.number, key, shipped, plan.args))
        worker.variants.keep(key, None)
        plan.told.add(worker.serial)

    # -- making one

    def _make(self, kernel: Any, args: tuple[Any, ...], template: Any) -> Plan:
        full = list(args)
        partials = None
        if template is not None:
            partials = _partials(len(self.members), template)
            full.append(_row(partials, 0, template))
        find = getattr(kernel, "variant", None)
        if find is None and not hasattr(kernel, "pack"):
            raise TypeError(
                f"a {type(kernel).__name__} is no kernel: numpush.kernel(signature) makes one of a "
                "function; Team.map runs Python functions"
            )
        variant = kernel if find is None else find(*full)
        plan = Plan(0, kernel, variant)
        sent: list[Any] = []
        for i, arg in enumerate(args):
            if isinstance(arg, np.ndarray) and registry.locate(_address(arg)) is None:
                full[i] = arg = _copy(plan.name, variant.arguments[i], arg)
                plan.copies.append(arg)
            sent.append(self._send(plan, arg))
        if partials is not None:
            plan.partials = partials
            sent.append(PartialOf(partials.handle, template.dtype, template.shape))
        plan.args = tuple(sent)
        plan.words = _words(variant.pack(full))
        plan.number = self._place()
        return plan

    def _send(self, plan: Plan, arg: Any) -> Any:
        """Return what stands for an argument in a message, and have the plan go with its memory."""
        if isinstance(arg, np.ndarray):
            mapping = registry.locate(_address(arg))
            assert mapping is not None
            if mapping.mode == "cow":
                raise TypeError(
                    f"kernel {plan.name!r}: an array attached with mode 'cow' is private to this "
                    "process; numpush.share(a.copy()) makes a shared one"
                )
            self._watch(plan, registry.token(mapping))
            handle = arg.view(SArray).handle
            return handle if arg.flags.writeable else dataclasses.replace(handle, mode="ro")
        if isinstance(arg, (Shared, Mutex)):
            segment, token = _segment_of(arg)
            self._watch(plan, token)
            return SharedMutex(segment.name, segment.identity)
        return arg

    def _watch(self, plan: Plan, token: Any) -> None:
        plan.tokens.append(weakref.ref(token, functools.partial(_on_gone, weakref.ref(self), plan)))

    def _place(self) -> int:
        """Return a number for a plan, taking it from the one that was not used for longest."""
        if not self._places:
            self._drop([next(iter(self._plans.values())).number])
        return self._places.pop(0)

    # -- taking back

    def end(self, plan: Plan) -> None:
        """Say that a run is over: what was shared for it is nobody's any more."""
        if plan.copies:
            self._drop([plan.number])
            plan.copies.clear()

    def note_gone(self, plan: Plan) -> None:
        """The memory of one of its arrays has gone, at any moment, in any thread."""
        self._gone.append(plan.number)
        self.bury()

    def bury(self) -> None:
        """Take back what has gone, unless somebody is at work, who then does."""
        if self._gone and not self._lock._is_owned() and self._lock.acquire(blocking=False):
            try:
                self.bury_locked()
            finally:
                self._lock.release()

    def bury_locked(self) -> None:
        if self._gone:
            gone, self._gone = self._gone, []
            self._drop(gone)

    def _drop(self, numbers: list[int]) -> None:
        there = [number for number in numbers if number in self._keys]
        for number in there:
            del self._plans[self._keys.pop(number)]
            self._places.append(number + _team.N_PLANS)
        if there and not self.members.is_closed:
            for worker in self.members.workers:
                self.members.tell(worker, DropMail(tuple(there)))


def _on_gone(
    plans: weakref.ref[Plans], plan: Plan, _: object, getpid: Callable[[], int] = os.getpid
) -> None:
    """Tell the plans. Arrays die at the end of the interpreter too, when modules have nothing left."""
    found = plans()
    if found is not None and not found.members.is_closed and found.members.pid == getpid():
        found.note_gone(plan)


def _address(array: Any) -> int:
    address: int = array.__array_interface__["data"][0]
    return address


def _segment_of(arg: Any) -> tuple[Any, Any]:
    """Return the segment of a shared object or of a lock, and what says that it lives."""
    return (arg.segment, arg.token) if isinstance(arg, Mutex) else arg._open_segment()


def _same(before: tuple[Any, ...], now: list[Any]) -> bool:
    """Whether these are the very objects, which cannot have changed. Equal ones may differ: 0.0, -0.0."""
    return all(a is b for a, b in zip(before, now))


def _words(block: bytes) -> list[int]:
    words: list[int] = np.frombuffer(block, np.int64).tolist()
    return words


def _copy(kernel: str, argument: Any, array: Any) -> SArray:
    """Share a plain array for one call, if the kernel does not write to it."""
    if not argument.readonly:
        raise TypeError(
            f"kernel {kernel!r}: argument {argument.name!r} is a plain array, and what workers write "
            f"to a copy would be lost; numpush.share(a) makes a shared one; where the kernel only "
            f"reads it, 'const' in its signature says so"
        )
    shared = SArray(array)
    shared.flags.writeable = False
    return shared


def _partials(n: int, template: Any) -> SArray:
    return SArray.zeros((n, -(-max(1, template.nbytes) // _LINE) * _LINE), "u1")


def _row(partials: Any, index: int, template: Any) -> Any:
    return partials[index, : template.nbytes].view(template.dtype).reshape(template.shape)
