"""Barrier: where the members of a team that run `Team.each` wait for one another."""

from __future__ import annotations

import threading
import time

from ..ffi import Ref
from ..ffi import team as _team

__all__ = ["Barrier"]

_SLICE_NS = 50_000_000  #: between two looks at signals


class Barrier:
    """A barrier in shared memory; `wait` is threading.Barrier's.

    Attributes
    ----------
    parties : int
        How many have to arrive.
    """

    def __init__(self, ref: Ref, parties: int) -> None:
        self._ref = ref
        self.parties = parties

    def wait(self, timeout: float | None = None) -> None:
        """Wait until all members of the team are here.

        Raises
        ------
        threading.BrokenBarrierError : a member raised an exception, died, or waited for *timeout*
            seconds, so that not all will come.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        phase = _team.arrive(self._ref, self.parties)
        try:
            while not _team.await_phase(self._ref, phase, _SLICE_NS):
                if deadline is not None and time.monotonic() > deadline:
                    _team.break_barrier(self._ref)
        except BrokenPipeError:
            raise threading.BrokenBarrierError("a member of the team will not come") from None
