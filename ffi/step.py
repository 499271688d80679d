"""Python calls for npush_step.c: where the crash suite kills a process."""

from __future__ import annotations

from ._numpush import lib


def arm(n: int) -> None:
    """Die by SIGKILL at the *n*-th step from now; 0: never."""
    lib.npush_step_countdown = n


def left() -> int:
    """How many steps are still to go."""
    return lib.npush_step_countdown
