"""Ray: shared objects pass between its tasks and actors as handles.

(1) What is pickled is a handle, a *tag* (an ObjectRef that the keeper owns; keeper.py says what for)
    and where it lies: in which /dev/shm, with which keeper. Who has that /dev/shm attaches. Anybody else
    has the keeper of its own node fetch the value, once for all.
(2) What is pickled outside of Ray's objects (by cloudpickle, or closed over by a function) goes by
    value: there is nothing whose life the tag could share.
(3) While an object is pickled Ray is called from a thread of ours. Its serializer keeps what is under way
    in the thread, and a second pickling in there would lose it; and a worker's main thread, when it
    waits, has Ray start another worker in its place.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from ... import transport
from ...attaching import access_of, attach, handle_of
from ...handle import Handle
from ...shm import naming
from ...shm.errors import SegmentNotFound
from .keeper import NAMESPACE, start

__all__ = ["install"]

_TIMEOUT = 60.0  #: seconds that a keeper may take to start, or to answer
_N_THREADS = 8

Where = tuple[str, str]  # a job and a node of Ray's, by their ids

_keepers: dict[Where, Any] = {}  #: a driver may have several sessions, one after the other


def install() -> None:
    """Have SArray, SDataFrame and SSeries pass between Ray's tasks and actors by handle.

    As arguments, as results, by ``ray.put``, and inside of other objects. Who receives one on the same
    node works on the same memory, and may write; another node receives a copy in shared memory of
    its own.

    Call it in the driver, after ``ray.init``. There it starts an actor that keeps segments as long as Ray
    keeps objects that refer to them; so does the first use on each other node. Workers call it by
    ``ray.init(runtime_env={"worker_process_setup_hook": "numpush.adapters.ray.install"})``; one that has
    received a shared object needs no hook.

    To send costs a call of that actor, some milliseconds, whatever the size: what goes to many tasks
    is better put once (``ray.put``). To receive costs what `numpush.attach` does.

    Raises
    ------
    ImportError : Ray is not installed.
    RuntimeError : Ray is not initialized; or this is a client (``ray://``), on no node of the cluster.
    """
    try:
        import ray
        import ray.util
    except ImportError as error:
        raise ImportError(
            'numpush.adapters.ray needs Ray: pip install "numpush[ray]"', name="ray"
        ) from error

    if ray.util.client.ray.is_connected():
        raise RuntimeError(
            "numpush.adapters.ray wants a driver on a node of the cluster, and this is a client (ray://); "
            "submit the script as a job"
        )
    if not ray.is_initialized():
        raise RuntimeError("Ray is not initialized: call ray.init() before install()")
    transport.follow(_register)
    if _is_driver():
        _outside_of_pickling(_keeper, _where())


def _register(cls: type) -> None:
    from ray.util import register_serializer

    register_serializer(cls, serializer=serialize, deserializer=receive)


# -- sending


def serialize(obj: Any) -> Any:
    """Return what is pickled for a shared object: (space, job, node, handle, tag), or a plain one.

    Raises
    ------
    RuntimeError : there is no keeper: `install` was not called in the driver, or that has ended.
    HandleClosed : this process closed it.
    """
    if not _is_in_band() or access_of(obj) in (None, "cow"):  # private changes are nobody else's
        return obj.view(np.ndarray) if isinstance(obj, np.ndarray) else obj.to_pandas()
    handle, segment = handle_of(obj)
    data = handle.to_bytes()
    [tag] = _outside_of_pickling(_ask, "hold", data, segment.node)
    return _space(), *_where(), data, tag


# -- receiving


def receive(parcel: Any) -> Any:
    """Make what `serialize` was given.

    Raises
    ------
    SegmentNotFound : the keeper that had it was killed, or its node is down.
    """
    if not isinstance(parcel, tuple):
        return parcel
    space, job, node, data, _tag = parcel
    transport.follow(_register)  # who receives one may send it on
    if space != _space():
        # Here, not in another thread: this one may hold Ray's lock of its functions, which is re-entrant.
        data, _tag = _fetch((job, node), data)
    return attach(Handle.from_bytes(data)[0])


def _fetch(where: Where, data: bytes) -> tuple[bytes, Any]:
    """Have our keeper fetch what that of *where* has; return a handle here, and a tag for it."""
    import ray

    try:
        copy: tuple[bytes, Any] = _ask("fetch", data, origin=where, timeout=None)
        return copy
    except (RuntimeError, ray.exceptions.RayError) as error:
        name = Handle.from_bytes(data)[0].name
        raise SegmentNotFound(
            f"segment {name!r} on node {where[1]} of Ray cannot be fetched: {error}", name
        ) from error


# -- keepers


def _ask(
    method: str, *args: Any, origin: Where | None = None, timeout: float | None = _TIMEOUT
) -> Any:
    """Call a method of this node's keeper; with *origin*, that keeper is its first argument."""
    import ray

    def call() -> Any:
        first = [_keeper(origin)] if origin else []
        return ray.get(getattr(_keeper(_where()), method).remote(*first, *args), timeout=timeout)

    try:
        try:
            return call()
        except ray.exceptions.ActorDiedError:
            _forget_others()  # the driver's was killed, and they with it: there are new ones
            return call()
    except ray.exceptions.GetTimeoutError as error:
        raise TimeoutError(
            f"the keeper of numpush on this node did not answer within {timeout} s"
        ) from error


def _forget_others() -> None:
    """Forget all keepers but the driver's own, which Ray starts again, and ends with this handle."""
    for where in list(_keepers):
        if not (_is_driver() and where == _where()):
            _keepers.pop(where, None)


def _keeper(where: Where) -> Any:
    """Return the keeper of a node.

    The driver's has a name, and starts the others: an actor ends with who started it, and a worker may
    end at any time.

    Raises
    ------
    RuntimeError : the driver has none.
    """
    import ray

    found = _keepers.get(where)
    if found is None:
        job, node = where
        name = f"keeper-{job}"
        if _is_driver() and where == _where():
            found = start(node, name=name, namespace=NAMESPACE, get_if_exists=True)
        else:
            try:
                first = ray.get_actor(name, namespace=NAMESPACE)
            except ValueError as error:
                raise RuntimeError(
                    f"no keeper of numpush for job {job} of Ray: call numpush.adapters.ray.install() in its "
                    "driver; when the driver ends, so does what it shared"
                ) from error
            found = ray.get(first.keeper_of.remote(node), timeout=_TIMEOUT)
        _keepers[where] = found
    return found


def _where() -> Where:
    import ray

    context = ray.get_runtime_context()
    return context.get_job_id(), context.get_node_id()


@functools.cache
def _space() -> str:
    """Return which /dev/shm this is, and what of it is ours: who agrees on it can attach."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{boot} {os.stat(naming.DIR).st_dev} {os.geteuid()} {naming.NAMESPACE}"


@functools.cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(_N_THREADS, "numpush.adapters.ray")


def _outside_of_pickling(function: Callable[..., Any], *args: Any) -> Any:
    """Call a function that calls Ray; see (3)."""
    return _threads().submit(function, *args).result()


# -- private names of Ray


def _is_driver() -> bool:
    import ray

    return bool(ray._private.worker.global_worker.mode == ray.SCRIPT_MODE)


def _is_in_band() -> bool:
    """Whether what is pickled now, by this thread, is part of an object of Ray's."""
    import ray

    context = ray._private.worker.global_worker.get_serialization_context()
    return bool(context.is_in_band_serialization())
