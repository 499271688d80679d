"""What goes into a segment instead of into a message, and how it is found there.

Dask serializes an object to a header and frames, which are views of the object's memory. On a
connection with a Link, frames that lie in a segment already go as its name and a place in it; others
are copied into a new one. The other side maps the segment privately, and has Dask build the object over
that: what arrives is plain, writable, private, and of whatever type Dask (or pickle) can take apart.

(1) A segment is not written to once it is whole: each holder has a private mapping. What one writes,
    the other does not see; and what it hands on, if it was written to, is copied (shm/private.py).
(2) Without a Link (another host, the scheduler, a spill to disk) nothing is different.
"""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from distributed.protocol.serialize import families, register_serialization_family
from distributed.utils import ensure_memoryview

from ... import blocks, plain_pickles
from ...plain import plain_types
from ...shm.errors import SegmentDamaged, SegmentFull
from ...shm.private import attach_private, locate
from .links import Link, link_of

__all__ = ["address_of", "note_received", "received_bytes", "received_in", "unwrap", "wrap"]

_KEY = "numpush"  #: in a header: the frames that are elsewhere
_SMALLEST = 4096  #: bytes; smaller frames stay in their message
_FAMILIES = ("dask", "pickle")

_before: dict[str, tuple[Any, ...]] = {}
_share_from = 0
#: Objects that were received, by id; how many of their bytes lie in segments of others, and in which.
_received: dict[int, tuple[weakref.ref[Any], int, frozenset[str]]] = {}


def wrap(share_from: int) -> None:
    """Have Dask's serializers use segments, for objects of at least *share_from* bytes."""
    global _share_from
    _share_from = share_from
    for name in _FAMILIES:
        if name not in _before:
            dumps, loads, takes_context = _before[name] = families[name]
            register_serialization_family(
                name, _dumping(dumps, takes_context, name == "pickle"), _loading(loads)
            )


def unwrap() -> None:
    for name in _FAMILIES:
        if name in _before:
            families[name] = _before.pop(name)


def _dumping(dumps: Callable[..., Any], takes_context: bool, is_pickle: bool) -> Callable[..., Any]:
    def dump(x: Any, context: dict[str, Any] | None = None) -> tuple[dict[str, Any], list[Any]]:
        link = link_of(context)
        if link is None or not link.is_answered:
            given = {"context": context} if takes_context else {}
            return dumps(x, **given)  # type: ignore[no-any-return]  # Dask has no types
        header, frames = None, []
        if is_pickle and type(x) in plain_types():
            with contextlib.suppress(Exception):  # Dask has other picklers to try
                rest, buffers = plain_pickles.dumps(x)
                header = {"writeable": tuple(not buffer.readonly for buffer in buffers)}
                frames = [rest, *buffers]
        if header is None:
            header, frames = dumps(x, context=context) if takes_context else dumps(x)
            frames = list(frames)
        is_one = not is_pickle or type(x) in plain_types()
        places = _move(link, frames, is_one)
        return {**header, _KEY: places} if places else header, frames

    return dump


def _move(link: Link, frames: list[Any], is_one: bool) -> list[list[Any]]:
    """Replace frames by places: [index, segment, its identity, offset, bytes] of each.

    Those of one array or frame go into one segment. In what else is pickled (a shuffle's list of shards)
    each may be what outlives the others, so each has a segment, if it is big enough for one.
    """
    smallest = _SMALLEST if is_one else max(_SMALLEST, _share_from)
    views = {i: ensure_memoryview(frame) for i, frame in enumerate(frames)}
    views = {i: view for i, view in views.items() if view.nbytes >= smallest}
    if sum(view.nbytes for view in views.values()) < _share_from:
        return []
    places: list[list[Any]] = []
    private = []
    for i, view in views.items():
        array = np.frombuffer(view, np.uint8)
        found = locate(address_of(array), array.nbytes)
        if found is None:
            private.append((i, array))
            continue
        segment, offset = found
        link.keep(array)
        places.append([i, segment.name, segment.identity, offset, array.nbytes])
    with contextlib.suppress(SegmentFull):  # else they stay in the message
        for together in [private] if is_one and private else [[frame] for frame in private]:
            places += _copy(link, together)
    for place in places:
        frames[place[0]] = b""
    return places


def address_of(buffer: Any) -> int:
    """Return where the memory of a buffer that is not empty begins."""
    return int(np.frombuffer(buffer, np.uint8).__array_interface__["data"][0])


def _copy(link: Link, frames: list[tuple[int, np.ndarray[Any, Any]]]) -> list[list[Any]]:
    sizes = [array.nbytes for _, array in frames]
    segment, token, raw = blocks.allocate({"kind": "message"}, sizes)
    blocks.fill(segment, [(dest, array) for dest, (_, array) in zip(raw, frames)])
    segment.commit()
    link.keep(token)
    offsets = [offset for offset, _ in blocks.place(sizes)[0]]
    return [
        [i, segment.name, segment.identity, offset, array.nbytes]
        for (i, array), offset in zip(frames, offsets)
    ]


def _loading(loads: Callable[..., Any]) -> Callable[..., Any]:
    def load(header: dict[str, Any], frames: list[Any]) -> Any:
        places = header.get(_KEY)
        if not places:
            return loads(header, frames)
        x = loads(header, _fetch(places, list(frames)))
        note_received(x, sum(place[-1] for place in places), {place[1] for place in places})
        return x

    return load


def _fetch(places: list[list[Any]], frames: list[Any]) -> list[Any]:
    """Put the frames that are elsewhere back in their places.

    Raises
    ------
    SegmentNotFound : their sender is gone.
    """
    buffers: dict[tuple[str, int], memoryview] = {}
    for i, name, identity, offset, n in places:
        if (name, identity) not in buffers:
            buffers[name, identity] = memoryview(attach_private(name, identity)[1])
        whole = buffers[name, identity]
        if not 0 <= offset <= offset + n <= whole.nbytes:
            raise SegmentDamaged(f"segment {name!r}: {n} bytes at {offset} of {whole.nbytes}", name)
        frames[i] = whole[offset : offset + n]
    return frames


def note_received(x: Any, n: int, names: Iterable[str]) -> None:
    """Remember that *n* bytes of *x* lie in segments of these names, which another process made."""
    key = id(x)
    with contextlib.suppress(TypeError):  # a list or a dict: counted as its own
        ref = weakref.ref(x, lambda _: _received.pop(key, None))
        _received[key] = ref, n, frozenset(names)


def received_bytes(x: Any) -> int:
    """Return how many bytes of *x* lie in segments that another process made."""
    ref, n, _ = _received.get(id(x), (None, 0, None))
    return n if ref is not None and ref() is x else 0


def received_in(x: Any) -> frozenset[str]:
    """Return the names of the segments that *x* lies in, if another process made them."""
    ref, _, names = _received.get(id(x), (None, 0, frozenset[str]()))
    return names if ref is not None and ref() is x else frozenset()
