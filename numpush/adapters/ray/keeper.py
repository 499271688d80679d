"""The keeper: an actor of Ray, one per node and job, that holds what Ray's objects refer to.

Ray tells nobody when an object is forgotten, but it counts references, also those that lie inside of
other objects. So with each shared object that is serialized goes a *tag*: an ObjectRef, of nothing,
that the keeper owns. As long as an object with the tag in it lives, somewhere, the tag is counted;
when it no longer is, the keeper lets go of the segment.

(1) Who sends has a view, and waits for the keeper to have the segment too: there is no moment without
    a user. The keeper is an entry in the segment's table like any other process.
(2) The keeper does not look after receivers: from `attach` on they are in the table themselves.
(3) A tag belongs to one sending. A worker gives it on and forgets it at once: Ray learns that a result
    has it from the worker, when that has no reference of its own left, and not at all if it dies
    before. (An actor that kept one lost what it had returned when it ended, each time.) What is left of
    that is a moment after a task has returned. So where a sender dies soon after it sent, and the tag
    goes out of count soon after that, nobody knows why: it is held for GRACE seconds more, as
    leases are.
(4) The keeper is the job's: Ray ends it, hard, with the driver. `_SWEEP` waits for that, at the other
    end of a pipe, and takes away what all processes of the job have left in this /dev/shm.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ...attaching import attach, handle_of
from ...handle import Handle
from ...sarray import SArray
from ...sharing import share
from ...shm import life, node, process, sweep
from ...shm.errors import NumpushError, SegmentNotFound
from ...shm.sweep import GRACE

__all__ = ["NAMESPACE", "Keeper", "start"]

NAMESPACE = "numpush"  #: of the keepers' names

_LOOK_EVERY = 0.5  #: seconds between two looks at what is counted
_SWEEP_EVERY = 5.0  #: seconds between two sweeps for workers that were killed
_SOON = (
    5.0  #: seconds in which a worker has told Ray what its results refer to; and Ray, that it died
)
_N_COPIES = 1024  #: copies of other nodes' objects that are looked for here before they are fetched

# A shell that waits takes 1 MB, and Python 30. Ray kills a worker's children with it, so it is a
# grandchild. Ray's processes are gone within seconds; those of a node that is short of time, in ten.
_SWEEP = """
exec 3<&0
(
    read _ <&3
    for seconds in 1 3 10; do
        sleep $seconds
        "$0" -P -c 'from numpush.shm import sweep; sweep(thorough=True)'
    done
) &
"""


def start(node_id: str, **options: Any) -> Any:
    """Start a keeper on a node of Ray, to end with the process that does; return its handle."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    return (
        ray.remote(Keeper)
        .options(
            num_cpus=0,
            max_restarts=-1,
            max_task_retries=-1,
            max_concurrency=16,
            scheduling_strategy=NodeAffinitySchedulingStrategy(node_id, soft=False),
            **options,
        )
        .remote()
    )


@dataclass(slots=True)
class _Hold:
    """A segment that is held for a tag."""

    token: Any
    sender: int  #: its node (shm/node.py)
    sent: float  #: all times by time.monotonic()
    died: float = 0.0  #: when we found it dead; 0: it was alive when we last looked
    until: float = 0.0  #: when to let go; 0: the tag is counted

    def is_doubtful(self, now: float) -> bool:
        """Whether the tag may be in a result, though *now* it is counted no more; see (3)."""
        return 0 < self.died < self.sent + _SOON and now < self.died + _SOON


@dataclass(slots=True)
class _Copy:
    """What this node has of another node's object; it may be gone."""

    handle: Handle | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)  #: whoever fetches it has it


class Keeper:
    """What runs in the actor; see the head of this file."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._holds: dict[bytes, _Hold] = {}  # by tag, as Ray writes it in hex
        self._keepers: dict[str, Any] = {}  # of other nodes, by the id of these
        self._copies: OrderedDict[bytes, _Copy] = OrderedDict()  # by the handle of the original
        here, self._watched = os.pipe()
        subprocess.run(
            ["sh", "-c", _SWEEP, sys.executable], stdin=here, start_new_session=True, check=True
        )
        os.close(here)
        threading.Thread(target=self._look_after, daemon=True).start()

    # -- what other processes of the job ask for

    def keeper_of(self, node_id: str) -> Any:
        """Return the keeper of a node, started if there is none yet. Asked of the driver's only."""
        import ray

        context = ray.get_runtime_context()
        if node_id == context.get_node_id():
            return context.current_actor
        with self._lock:
            if node_id not in self._keepers:
                self._keepers[node_id] = start(node_id)
            return self._keepers[node_id]

    def hold(self, data: bytes, sender: int) -> list[Any]:
        """Hold the segment of the handle in *data*; return [tag]. The sender waits meanwhile."""
        handle, _ = Handle.from_bytes(data)
        _, token = process.attach(handle.name, "ro", identity=handle.identity)
        return [self._tag(token, sender)]

    def value(self, data: bytes) -> Any:
        """Return what a handle means by value, for another node."""
        shared = attach(Handle.from_bytes(data)[0])
        # Ray copies an array from where it lies.
        return shared.view(np.ndarray) if isinstance(shared, SArray) else shared.to_pandas()

    def fetch(self, origin: Any, data: bytes) -> tuple[bytes, Any]:
        """Return a handle to this node's copy of an object that *origin* keeps, and a tag for it.

        One copy, as long as anybody here uses it; then it is fetched again. It is us who send the
        tag: who receives it keeps it until it has attached, and (3) is not about that.
        """
        import ray

        with self._lock:
            copy = self._copies.setdefault(data, _Copy())
            self._copies.move_to_end(data)
            if len(self._copies) > _N_COPIES:
                self._copies.popitem(last=False)
        with copy.lock:
            shared = None
            if copy.handle is not None:
                with contextlib.suppress(SegmentNotFound):
                    shared = attach(copy.handle)
            if shared is None:
                shared = share(ray.get(origin.value.remote(data)))
            copy.handle, segment = handle_of(shared)
        _, token = process.attach(segment.name, "ro", identity=segment.identity)
        return copy.handle.to_bytes(), self._tag(token, life.node().id)

    def _tag(self, token: Any, sender: int) -> Any:
        import ray

        tag = ray.put(None)
        with self._lock:
            self._holds[tag.hex().encode()] = _Hold(token, sender, time.monotonic())
        return tag

    # -- what it does by itself

    def _look_after(self) -> None:
        swept = time.monotonic()
        while True:
            time.sleep(_LOOK_EVERY)
            let_go = self._let_go()
            del let_go  # outside of our lock: it may unlink
            if time.monotonic() - swept > _SWEEP_EVERY:
                with contextlib.suppress(OSError, NumpushError):
                    sweep()
                swept = time.monotonic()

    def _let_go(self) -> list[_Hold]:
        """Take out the holds whose tags are counted no more; return them."""
        import ray

        with self._lock:
            holds = list(self._holds.items())
        # In this order: what is in the list is counted already, and whoever is alive now was so when
        # its tag was not.
        counted = ray._private.worker.global_worker.core_worker.get_all_reference_counts()
        alive = {sender: node.is_alive(sender) for sender in {hold.sender for _, hold in holds}}
        now = time.monotonic()
        gone = []
        for tag, hold in holds:
            if not hold.died and not alive[hold.sender]:
                hold.died = now
            if tag in counted:
                continue
            if not hold.until:
                hold.until = now + GRACE if hold.is_doubtful(now) else now
            if now >= hold.until:
                gone.append(tag)
        with self._lock:
            return [self._holds.pop(tag) for tag in gone]
