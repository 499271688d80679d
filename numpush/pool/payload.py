"""Arguments and results as bytes, with the big plain objects among them in shared memory.

The bytes are loky's pickles (cloudpickle: lambdas, closures, functions of __main__), so shared
objects travel by handle. What is big and plain is found by the pickler, wherever it lies.

There are two ways to keep a parcel until it is received. Who sends arguments holds it until the
task is done (`Outbox`); with *holds_shared* that goes for what was shared before, too, and then any
number of processes may receive one pickle, since no lease is in it. Who sends a result never hears
of it again, so it takes a lease, and not before all of the result is pickled: what fails half-way
leaves none (`dumps_result`).
"""

from __future__ import annotations

import copyreg
import functools
import io
import pickle
import types
import weakref
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from cloudpickle import CloudPickler
from loky.backend import reduction

from .. import plain, transport
from ..attaching import access_of, attach_handle
from ..plain import Parcel
from ..shm import leases, life, naming, survey
from ..shm.sweep import has_leases

__all__ = ["Outbox", "can_pickle", "drop_lost", "dumps_result", "loads"]

transport.tell_loky()
loads = pickle.loads

_ATOMS = {int, float, bool, str, bytes, type(None)}
_FEW = 64


def _is_simple(obj: Any) -> bool:
    """Whether *obj* is a few numbers or texts, which need no pickler of ours: that takes 20 us."""
    cls = type(obj)
    if cls is tuple or cls is list:
        return len(obj) <= _FEW and all(map(_is_simple, obj))
    return cls in _ATOMS or (cls is dict and not obj)


class _Pickler(CloudPickler):  # type: ignore[misc]  # has no types
    """loky's pickler, with *reduce* for what is plain.

    Its own one makes its table through Python, entry by entry, which takes longer than most pickles.
    """

    def __init__(
        self,
        file: io.BytesIO,
        reduce: Callable[[Any], Any],
        shared: Mapping[type, Callable[[Any], Any]],
    ) -> None:
        # Before __init__, which looks for it.
        self.dispatch_table = {
            **copyreg.dispatch_table,
            **CloudPickler._dispatch_table,
            **reduction._dispatch_table,  # where `loky.register` enters what users have
            types.CodeType: _reduce_code,
            **dict.fromkeys(plain.plain_types(), reduce),
            **shared,
        }
        super().__init__(file, protocol=pickle.HIGHEST_PROTOCOL)


def _dumps(
    obj: Any,
    reduce: Callable[[Any], Any],
    shared: Mapping[type, Callable[[Any], Any]] = MappingProxyType({}),
) -> bytes:
    file = io.BytesIO()
    _Pickler(file, reduce, shared).dump(obj)
    return file.getvalue()


def _reduce_code(code: types.CodeType) -> Any:
    """Reduce as cloudpickle does, but say what file it is from: a traceback then shows the line.

    Since 3.1.3 it says "<dynamic-code>", so that equal functions have equal pickles.
    """
    make, args, *more = CloudPickler._dispatch_table[types.CodeType](code)
    named = tuple(code.co_filename if arg == "<dynamic-code>" else arg for arg in args)
    return (make, named, *more)


class Outbox:
    """Pickles the arguments of one call, putting each object into shared memory once.

    An object that the caller changes between two tasks must be sent anew: then use one Outbox each.
    """

    def __init__(self, share_from: int, *, holds_shared: bool = False) -> None:
        self.share_from = share_from
        self._holds_shared = holds_shared
        self._held: list[Any] = []  # what was shared before, and may be an object of a moment
        # By id, and whose it was: tasks may be made one by one, and are not kept alive here.
        self._known: dict[int, tuple[weakref.ref[Any], weakref.ref[Parcel]]] = {}
        self._latest: list[Parcel] = []

    def dumps(self, obj: Any) -> tuple[bytes, list[Parcel], int]:
        """Return the bytes, what is to be held until they are read, and what all of it weighs."""
        if _is_simple(obj):
            data = pickle.dumps(obj, pickle.HIGHEST_PROTOCOL)
            return data, [], len(data)
        used: list[Parcel] = []
        fresh: list[Parcel] = []
        shared = {}
        if self._holds_shared:
            shared = {cls: functools.partial(self._hold, cls) for cls in transport.types()}
        data = _dumps(obj, functools.partial(self._reduce, used, fresh), shared)
        # The tasks of a call mostly share the same objects: those stay until the next is sent.
        self._latest = used
        return data, used, len(data) + sum(parcel.nbytes for parcel in fresh)

    def _reduce(self, used: list[Parcel], fresh: list[Parcel], obj: Any) -> Any:
        known = self._known.get(id(obj))
        parcel = known[1]() if known is not None and known[0]() is obj else None
        if parcel is None:
            parcel = plain.pack(obj, self.share_from)
            if parcel is None:
                return plain.reduce_as_usual(obj, pickle.HIGHEST_PROTOCOL)
            self._known[id(obj)] = weakref.ref(obj), weakref.ref(parcel)
            fresh.append(parcel)
        used.append(parcel)
        return parcel.reduce()

    def _hold(self, cls: type, obj: Any) -> Any:
        """Reduce a shared object to its handle, and keep it."""
        if access_of(obj) not in ("rw", "ro"):  # private: as it always travels
            return transport.reducer(cls)(obj)
        self._held.append(obj)
        return attach_handle, (obj.handle,)


def dumps_result(obj: Any, share_from: int, prefix: str) -> bytes:
    """Pickle a result. Names of segments start with *prefix*, so that the pool finds lost ones."""
    if _is_simple(obj):
        return pickle.dumps(obj, pickle.HIGHEST_PROTOCOL)
    parcels: list[Parcel] = []

    def reduce(obj: Any) -> Any:
        parcel = plain.pack(obj, share_from, prefix + naming.random_name()[len(prefix) :])
        if parcel is None:
            return plain.reduce_as_usual(obj, pickle.HIGHEST_PROTOCOL)
        parcels.append(parcel)
        return parcel.reduce(life.node().id)

    data = _dumps(obj, reduce)
    for parcel in parcels:
        leases.lease(parcel.segment, to_child=False)
    return data


def drop_lost(prefix: str) -> None:
    """Free results that dead workers sent and nobody received, before the grace period ends."""
    for segment in survey():
        if segment.name.startswith(prefix):
            for holder in segment.holders:
                if holder.leases and not holder.alive:
                    has_leases(segment.name, holder.node, drop=True)


def can_pickle(obj: Any) -> bool:
    """Whether *obj* can be pickled; without its bulk, and without sending a handle."""
    stands_for = dict.fromkeys((*plain.plain_types(), *transport.types()), lambda _: (int, ()))
    try:
        reduction.dumps(obj, reducers=stands_for)
    except Exception:
        return False
    return True
