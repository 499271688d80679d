"""Attach by name or handle, and names for objects: publish, withdraw.

A published name is a small segment of its own, whose description holds the handle. Its table keeps
it as long as its publisher lives; `persist=True` puts a slot that belongs to no process into it and
into the segment it names (see shm/node.py), so both stay until the name is withdrawn.
"""

from __future__ import annotations

import dataclasses
import os
from typing import TYPE_CHECKING, Any

from .handle import ArrayHandle, FrameHandle, Handle, SeriesHandle
from .layout import SchemaError, pack, unpack
from .shm import Segment, life, naming, node, process, table
from .shm.errors import SegmentDamaged, SegmentError, SegmentExists, SegmentNotFound
from .shm.mapping import MODES
from .shm.sweep import remove as remove_segment

if TYPE_CHECKING:
    from .sarray import SArray
    from .sdataframe import SDataFrame

__all__ = [
    "access_of",
    "attach",
    "attach_handle",
    "from_segment",
    "handle_of",
    "publish",
    "withdraw",
]

_RECORD = {"name", "target", "identity", "handle", "publisher"}
#: What this process has published: the record's token, and the object, so that both live on.
_published: dict[str, tuple[Any, Any]] = {}
os.register_at_fork(after_in_child=_published.clear)


def attach(name_or_handle: str | Handle, mode: str | None = None) -> Any:
    """Return the shared object of that name or handle. No copy.

    Parameters
    ----------
    name_or_handle : str or Handle
        The name of a segment, a published name, or the ``.handle`` of a shared object.
    mode : {'rw', 'ro', 'cow'}, optional
        'rw': stores are seen by everybody. 'ro': the pages are read-only, a store is a ValueError.
        'cow': stores are private to this process. By default a handle's own mode, for names 'rw'.

    Raises
    ------
    SegmentNotFound : there is none, or nobody uses it any more.
    SegmentDamaged : it is no segment of this user's, or its header contradicts itself.
    LayoutMismatch : it was made by another version of numpush.
    """
    if mode is not None and mode not in MODES:
        raise ValueError(f"mode {mode!r}: wanted 'rw', 'ro' or 'cow'")
    if isinstance(name_or_handle, Handle):
        return attach_handle(name_or_handle, mode=mode)
    if not isinstance(name_or_handle, str):
        raise TypeError(
            f"a name or a handle is wanted, not {type(name_or_handle).__name__}; "
            "a shared object is attached already"
        )
    name = naming.check_name(name_or_handle)
    segment, token = process.attach(name, mode or "rw")
    desc = _description(segment)
    if "name" in desc:
        return _attach_published(name, desc, mode)
    return from_segment(desc, segment, token, mode or "rw")


def attach_handle(handle: Handle, sender: int = 0, mode: str | None = None) -> Any:
    """Attach to what *handle* means and give back the lease of *sender*."""
    if mode is not None and mode != handle.mode:
        handle = dataclasses.replace(handle, mode=mode)
    if isinstance(handle, ArrayHandle):
        from .sarray import attach_array

        return attach_array(handle, sender)
    if isinstance(handle, SeriesHandle):
        from .sseries import receive_series

        return receive_series(*handle.fields(), sender)
    if isinstance(handle, FrameHandle):
        from .sdataframe import receive_frame

        return receive_frame(*handle.fields(), sender)
    raise TypeError(f"{type(handle).__name__} is no handle of an array or a frame")


def handle_of(obj: Any) -> tuple[Handle, Segment]:
    """Return the handle of a shared object, and its segment.

    Raises
    ------
    TypeError : *obj* is not in shared memory; the message says how to put it there.
    """
    from .sarray import SArray

    if isinstance(obj, SArray):
        return obj.handle, obj._segment()
    handle = getattr(obj, "handle", None)
    if not isinstance(handle, Handle):
        raise TypeError(
            f"a {type(obj).__name__} is not in shared memory; "
            "put it there with SArray(array), SDataFrame(frame) or SSeries(series)"
        )
    segment, _ = process.attach(handle.name, handle.mode, identity=handle.identity)
    return handle, segment


def access_of(obj: Any) -> str | None:
    """Return how a shared object is mapped: 'rw', 'ro' or 'cow'; None: it is private memory."""
    try:
        mode: str = obj._mapping().mode
    except SegmentError:
        return None
    return mode


def publish(name: str, obj: Any, persist: bool = False) -> None:
    """Let unrelated processes of this user attach to *obj* by *name*.

    It lives until this process ends or withdraws it; with *persist*, also without any process,
    until somebody withdraws it (or the machine is restarted).

    Parameters
    ----------
    name : str
        1 to 128 letters, digits, '.', '_' or '-'.
    obj : SArray or SDataFrame
        Or a view, a partition: that part is what ``attach(name)`` gives.

    Raises
    ------
    SegmentExists : the name is taken; the message says by whom.
    TypeError : *obj* is not in shared memory.
    """
    handle, target = handle_of(obj)
    if handle.mode == "cow":
        raise ValueError("a copy-on-write view is private to this process; publish the original")
    publisher = node.kept(name) if persist else life.node().id
    desc = pack(
        {
            "name": naming.check_name(name),
            "target": target.name,
            "identity": target.identity,
            "handle": handle.to_bytes(),
            "publisher": publisher,
        }
    )
    if os.path.exists(naming.path(naming.segment_file(name))):
        _clear_stale(name)
    record, token = process.create(desc, 0, name=name)
    if persist:
        table.keep(target, publisher)
        record.commit()
        table.keep(record, publisher)
    else:
        record.commit()
        _published[name] = token, obj


def withdraw(name: str) -> None:
    """Take a published name back. Who has attached keeps what it has.

    Raises
    ------
    SegmentNotFound : nothing is published by that name.
    SegmentError : it is another living process's, or a segment's own name.
    """
    if name in _published:
        remove_segment(name)
        del _published[name]
        return
    segment, _token = process.attach(naming.check_name(name), "rw")
    desc = _description(segment)
    if "name" not in desc:
        raise SegmentError(
            f"{name!r} is the name of a segment itself; `numpush rm {name}` removes it", name
        )
    publisher = desc["publisher"]
    if not node.is_kept(publisher) and node.is_alive(publisher):
        raise SegmentError(
            f"{name!r} is published by process {node.info(publisher).pid}, which must withdraw it",
            name,
        )
    remove_segment(name)
    table.release_kept(segment, publisher)
    try:
        target, _target_token = process.attach(desc["target"], "rw", identity=desc["identity"])
    except SegmentNotFound:
        return
    table.release_kept(target, publisher)


def _description(segment: Segment) -> dict[str, Any]:
    try:
        return unpack(segment.desc)
    except SchemaError as error:
        raise SegmentDamaged(
            f"segment {segment.name!r}: its description is damaged: {error}", segment.name
        ) from error


def _attach_published(name: str, desc: dict[str, Any], mode: str | None) -> Any:
    if not desc.keys() >= _RECORD:
        raise SegmentDamaged(f"segment {name!r}: a published name without its handle", name)
    if not node.is_alive(desc["publisher"]):
        raise SegmentNotFound(
            f"{name!r} was published by a process that is gone; publish(persist=True) outlives it",
            name,
        )
    try:
        handle, _ = Handle.from_bytes(desc["handle"])
    except ValueError as error:
        raise SegmentDamaged(f"segment {name!r}: {error}", name) from error
    return attach_handle(handle, mode=mode)


def _clear_stale(name: str) -> None:
    """Remove the record of a publisher that is gone, which a child of its may still hold.

    Raises
    ------
    SegmentExists : the name is in use.
    """
    try:
        segment, _token = process.attach(name, "rw")
    except SegmentNotFound:
        return
    desc = _description(segment)
    publisher = desc.get("publisher")
    if type(publisher) is not int:
        raise SegmentExists(f"{name!r} is the name of a segment; choose another name", name)
    if node.is_alive(publisher):
        who = "for good" if node.is_kept(publisher) else f"by process {node.info(publisher).pid}"
        raise SegmentExists(f"{name!r} is published {who}; withdraw({name!r}) first", name)
    remove_segment(name)


def from_segment(
    desc: dict[str, Any], segment: Segment, token: Any, mode: str
) -> SArray | SDataFrame:
    """Make the whole object that a segment holds, as its description *desc* says."""
    kind = desc["schema"].get("kind") if isinstance(desc.get("schema"), dict) else None
    if kind == "ndarray":
        from .sarray import from_segment as array_from_segment

        return array_from_segment(segment, token, mode)
    if kind == "frame":
        from .sdataframe import from_segment as frame_from_segment

        return frame_from_segment(segment, token, mode)
    raise SegmentDamaged(f"segment {segment.name!r}: it holds {kind!r}, not an array or a frame")
