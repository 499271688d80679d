"""What lies in shared memory, who uses it, and how to get rid of it: behind `numpush ls`."""

from __future__ import annotations

from typing import Any, NamedTuple

from .layout import SchemaError, unpack
from .layout.dtype import decode_dtype
from .shm import Holder, SegmentInfo, Swept, survey, sweep
from .shm.registry import lock
from .shm.sweep import remove as remove_segment
from .shm.warm import drop_all

__all__ = ["Overview", "dtype_name", "gc", "remove", "segments"]


class Overview(NamedTuple):
    """One segment: what the runtime knows of it, and what it holds."""

    name: str
    kind: str  #: "array", "frame", "name", "channel", or "?" when the description is damaged
    summary: str  #: dtype and shape, or what the name stands for
    size: int  #: bytes of data
    info: SegmentInfo

    @property
    def holders(self) -> tuple[Holder, ...]:
        return self.info.holders

    @property
    def leases(self) -> int:
        """Handles that were sent and not received."""
        return sum(holder.leases for holder in self.info.holders)


def segments() -> list[Overview]:
    """Return what this user has in shared memory, warm memory included; nothing is changed.

    Opens and maps the header of every segment: about 20 us each.
    """
    return [_overview(info) for info in survey()]


def gc() -> Swept:
    """Take away what dead processes left, and all memory that is kept warm.

    A handle that a dead process sent holds its segment for the grace period of 60 s.
    Returns how many segments, bytes and nodes went.
    """
    swept = sweep(thorough=True)
    with lock:
        warm = drop_all()
    return swept._replace(n_bytes=swept.n_bytes + warm)


def remove(name: str) -> int:
    """Unlink a segment whoever uses it; return its bytes.

    Processes that have it attached keep the memory until they are done; nobody else finds it.

    Raises
    ------
    SegmentNotFound : there is none of that name.
    SegmentDamaged : the file is another user's.
    """
    return remove_segment(name)


def _overview(info: SegmentInfo) -> Overview:
    if info.state == "warm":
        return Overview(info.name, "warm", "kept for reuse", info.size, info)
    try:
        desc = unpack(info.description)
        kind, summary = _summarize(desc)
    except (SchemaError, KeyError, TypeError, ValueError, IndexError):
        kind, summary = "?", "damaged description"
    return Overview(info.name, kind, summary, info.size, info)


def _summarize(desc: dict[str, Any]) -> tuple[str, str]:
    if "name" in desc:
        return "name", f"of segment {desc['target']}"
    if "channel" in desc:
        return "channel", f"up to {desc['channel']} handles"
    schema = desc["schema"]
    if schema["kind"] == "ndarray":
        shape = " x ".join(map(str, schema["shape"])) or "scalar"
        return "array", f"{dtype_name(schema['dtype'])} {shape}"
    if schema["kind"] == "frame":
        return "frame", f"{schema['rows']} rows x {schema['cols']} columns"
    return str(schema["kind"]), ""


def dtype_name(code: Any) -> str:
    """Return what people call the dtype that *code* of a schema means. Raises SchemaError."""
    dtype = decode_dtype(code)
    if dtype.names is not None:
        return "structured"
    return dtype.name if dtype.isnative and dtype.kind in "biufcmM" else dtype.str
