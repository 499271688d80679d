"""Python calls for npush_team.c: one function per C function, and what makes the records that they take."""

from __future__ import annotations

import errno
from typing import Any, NamedTuple

from . import Ref, check
from ._numpush import ffi, lib

MAIL: int = lib.NPUSH_TEAM_MAIL
CALL: int = lib.NPUSH_TEAM_CALL
FAILED: int = lib.NPUSH_TEAM_FAILED
UNKNOWN: int = lib.NPUSH_TEAM_UNKNOWN
CLOSED: int = lib.NPUSH_TEAM_CLOSED
N_PLANS: int = lib.NPUSH_TEAM_PLANS
N_PATCHES: int = lib.NPUSH_TEAM_PATCHES
READY: int = lib.NPUSH_TEAM_READY
OVER: int = lib.NPUSH_TEAM_OVER
ABORTED: int = lib.NPUSH_TEAM_ABORTED


class Event(NamedTuple):
    """Why `work` came back; what does not belong to `kind` is 0."""

    kind: int
    number: int
    plan: int
    rc: int
    excinfo: int


class Report(NamedTuple):
    """What a member was at; see npush_report_t."""

    state: int
    claim_job: int
    claim_chunk: int
    job: int
    done: int
    failed: int
    rc: int


# -- records


def at(address: int) -> Ref:
    """Refer to the team at *address*."""
    return ffi.cast("npush_team_t *", address)


def make_job(plan: int, begin: int, end: int, chunk: int) -> Ref:
    """Make the description of a job, without patches."""
    job: Any = ffi.new("npush_job_t *")
    job.plan = plan
    job.begin = begin
    job.end = end
    job.chunk = chunk
    job.n_chunks = -(-(end - begin) // chunk)
    return job


def set_patches(job: Ref, patches: dict[int, int]) -> None:
    """Have each member store these words, by their places, into its block before the job."""
    job.n_patches = len(patches)
    for i, (place, value) in enumerate(patches.items()):
        job.place[i] = place
        job.value[i] = value


def make_plans() -> Ref:
    """Make a member's table of plans, empty."""
    return ffi.new(f"npush_plan_t[{N_PLANS}]")


def set_plan(plans: Ref, plan: int, entry: int, block: Any) -> Any:
    """Enter a plan; return what keeps its block where it is, for as long as it is there."""
    words = ffi.from_buffer("int64_t[]", block, require_writable=True)
    place = plans[plan % N_PLANS]
    place.entry = ffi.cast("int32_t (*)(const int64_t *, int64_t, int64_t, void **)", entry)
    place.block = words
    place.id = plan
    return words


def has_plan(plans: Ref, plan: int) -> bool:
    return bool(plans[plan % N_PLANS].id == plan)


def clear_plan(plans: Ref, plan: int) -> None:
    """Empty the place of *plan*, whatever is in it."""
    plans[plan % N_PLANS].id = 0


# -- both


def size(n_members: int) -> int:
    """Return the bytes that a team takes."""
    return lib.npush_team_size(n_members)


def verify(ref: Ref, n_members: int) -> None:
    """Raise OSError (EINVAL) unless it is a team of so many, of our layout."""
    check(lib.npush_team_check(ref, n_members))


# -- the leader


def init(ref: Ref, n_members: int) -> None:
    lib.npush_team_init(ref, n_members)


def run(ref: Ref, job: Ref, timeout_ns: int) -> tuple[int, int]:
    """Start a job and `wait`; return what that gives, and the job's number."""
    out: Any = ffi.new("uint32_t *")
    return lib.npush_team_run(ref, job, timeout_ns, out), out[0]


def start(ref: Ref, job: Ref) -> int:
    """Start a job; return its number."""
    return lib.npush_team_start(ref, job)


def wait(ref: Ref, timeout_ns: int) -> int:
    """Wait until the job is over: OVER or ABORTED; 0: ask again."""
    return lib.npush_team_wait(ref, timeout_ns)


def abort(ref: Ref, number: int) -> int:
    """Take back what nobody has taken of job *number*; return how many chunks."""
    return lib.npush_team_abort(ref, number)


def number(ref: Ref) -> int:
    """Return the number of the latest job."""
    return lib.npush_team_number(ref)


def left(ref: Ref) -> int:
    return lib.npush_team_left(ref)


def done(ref: Ref) -> int:
    return lib.npush_team_done(ref)


def ring(ref: Ref) -> None:
    lib.npush_team_ring(ref)


def tell(ref: Ref, member: int) -> None:
    lib.npush_team_tell(ref, member)


def close(ref: Ref) -> None:
    lib.npush_team_close(ref)


def look(ref: Ref, member: int) -> Report:
    report: Any = ffi.new("npush_report_t *")
    lib.npush_team_look(ref, member, report)
    return Report(
        report.state,
        report.claim_job,
        report.claim_chunk,
        report.job,
        report.done,
        report.failed,
        report.rc,
    )


def replace(ref: Ref, member: int) -> None:
    lib.npush_team_replace(ref, member)


def raise_barrier(ref: Ref) -> None:
    lib.npush_team_raise_barrier(ref)


# -- a member


def work(ref: Ref, member: int, plans: Ref, n_read: int, seen: int, awake_ns: int) -> Event | None:
    """Sleep and work until there is something for Python; None: a signal handler wants to run."""
    out: Any = ffi.new("uint32_t[2]")
    rc: Any = ffi.new("int32_t *")
    excinfo: Any = ffi.new("void **")
    kind = lib.npush_team_work(
        ref, member, plans, n_read, seen, awake_ns, out, out + 1, rc, excinfo
    )
    if kind == -errno.EINTR:
        return None
    return Event(check(kind), out[0], out[1], rc[0], int(ffi.cast("uintptr_t", excinfo[0])))


def take(ref: Ref, member: int, number: int) -> tuple[int, int, int] | None:
    """Take a chunk of job *number*: its place, its first row, its last row + 1; None: none is left."""
    rows: Any = ffi.new("int64_t[2]")
    chunk = lib.npush_team_take(ref, member, number, rows)
    return None if chunk < 0 else (chunk, rows[0], rows[1])


def fail(ref: Ref, member: int, number: int, chunk: int, rc: int) -> None:
    """Give up a chunk that was taken, and the job with it."""
    lib.npush_team_fail(ref, member, number, chunk, rc)


def rest(ref: Ref, member: int) -> None:
    lib.npush_team_rest(ref, member)


def is_aborted(ref: Ref, number: int) -> bool:
    return bool(lib.npush_team_is_aborted(ref, number))


# -- the barrier


def arrive(ref: Ref, n: int) -> int:
    return lib.npush_team_arrive(ref, n)


def await_phase(ref: Ref, phase: int, timeout_ns: int) -> bool:
    """Wait for a phase; False: not yet. Raises OSError (EPIPE): somebody will not come."""
    return bool(check(lib.npush_team_await(ref, phase, timeout_ns)))


def break_barrier(ref: Ref) -> None:
    lib.npush_team_break_barrier(ref)
