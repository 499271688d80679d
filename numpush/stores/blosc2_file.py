"""An object in a file of blosc2: what is written of it, and a `Stored` over such a file.

    .b2nd     an array: one frame. The record is in its vlmetalayer "numpush"
    .b2z      a DataFrame or Series: a tree with an array for each column, by its name (b2z.py)

(1) The record (numpush/record.py) says what an object is; what blosc2 calls shape and dtype is for others,
    and must agree in bytes. A file without a record is read as an array.
(2) A block of a frame, whose buffer has one column after the other, is an array for each column; any other
    buffer is one. "members" of the record has their names.
"""

from __future__ import annotations

import os
import re
import stat
import zlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from ..blocks import place
from ..layout import VERSION, Buffer, SchemaError, pack, unpack
from ..layout import selection as _selection
from ..layout.dtype import decode_dtype, encode_dtype
from ..record import Record, describe_object, read_record
from .b2nd import MAX_DIMS, Shape, choose_shape, dtype_text
from .b2z import Member, ZipWriter, read_members, write_tree_marks
from .blosc2_reading import Frame, Job, run
from .blosc2_writing import Codec, Output, Press, pieces_of, write_frame
from .errors import StoreDamaged
from .fetching import Piece

if TYPE_CHECKING:
    from ..shm.segment import Segment

__all__ = ["ARRAY", "TREE", "Blosc2File", "Description", "describe_for_blosc2", "write_object"]

ARRAY, TREE = ".b2nd", ".b2z"
_MAX_RECORD = 16 << 20
_VLMETA = "__vlmeta__.b2f"
_NO_LETTERS = re.compile(r"[^\w +=,;@()-]")
_MAX_NAME = 80
_BELIEVED = 1000  #: LZ4 shrinks to 1/255 at the most, but a chunk of one value to 40 bytes
Tell = Callable[[int], None]


class Description:
    """An object to be written: its record, packed; its buffers; of each the names it has in a tree."""

    def __init__(self, fields: dict[str, Any], buffers: list[Buffer]) -> None:
        self.schema = fields["schema"]
        self.buffers = buffers
        self.names = fields.get("members")
        self.note = _note(pack(fields))


def _note(record: bytes) -> dict[str, Any]:
    return {"v": 1, "record": record, "crc32": zlib.crc32(record)}


def describe_for_blosc2(obj: Any) -> Description:
    """Describe an object; copies nothing.

    Raises
    ------
    TypeError : it has no layout.
    ValueError : its attrs are too large for a record.
    """
    fields, buffers = describe_object(obj, keep_blocks=False)
    schema = fields["schema"]
    if schema["kind"] == "ndarray":
        if schema["order"] != "C":  # what everybody reads has no other; it is gathered part by part
            fields["schema"] = {**schema, "order": "C"}
            buffers = [Buffer.of(np.asarray(obj))]
        return Description(fields, buffers)
    dtypes = [obj.dtype] if fields.get("as") == "series" else obj.dtypes
    fields["dtypes"] = [str(dtype) for dtype in dtypes]
    labels = [obj.name] if fields.get("as") == "series" else list(obj.columns)
    fields["members"] = _name_buffers(schema, buffers, labels)
    return Description(fields, buffers)


def _name_buffers(schema: Any, buffers: list[Buffer], labels: list[Any]) -> list[list[str]]:
    """Give the names of the arrays that each buffer becomes; rule (2)."""
    found: list[list[str]] = [[f"__numpush__/{i}"] for i in range(len(buffers))]
    taken = {"__numpush__", "__vlmeta__", "embed", "__index__"}
    names = [_name_column(label, i, taken) for i, label in enumerate(labels)]
    for block in schema["blocks"]:
        known = {}
        at = block.get("at")
        if type(at) is int:
            known[at] = np.concatenate([np.empty(0, np.uint8), *buffers[at].parts(1 << 30)])
        places = _selection.places_of(block, known, len(labels))
        found[block["data"]] = [names[i] for i in places]
    groups = [("__index__", schema["index"]), *((names[i], node) for i, node in schema["arrays"])]
    for group, node in groups:
        seen: dict[str, int] = {}
        inside = _selection.find_references(node)
        for path, reference, _ in inside:
            key = path.rstrip("0123456789.").rpartition(".")[2]  # "data" of "values.data"
            seen[key] = n = seen.get(key, 0) + 1
            name = f"{group}/{key}" + (f"_{n}" if n > 1 else "")
            found[reference] = [group if len(inside) == 1 else name]
    return found


def _name_column(label: Any, i: int, taken: set[str]) -> str:
    """Make a name of a label that files can have, and that no other has."""
    name = _NO_LETTERS.sub("_", str(label))[:_MAX_NAME].strip() or "_"
    if name.casefold() in taken:
        name = f"{name}~{i}"
    taken.add(name.casefold())
    return name


def write_object(fd: int, described: Description, codec: Codec, n_threads: int, tell: Tell) -> None:
    """Write an object to an empty file.

    Raises
    ------
    OSError
    """
    out = Output(fd)
    with Press(n_threads) as press:
        if described.names is not None:
            _write_tree(out, described, described.names, codec, press, tell)
        else:
            schema, (buffer,) = described.schema, described.buffers
            dtype, dims = decode_dtype(schema["dtype"]), tuple(schema["shape"])
            dims = dims if len(dims) <= MAX_DIMS else (int(np.prod(dims)),)
            shape = choose_shape(dims, dtype.itemsize, codec.chunk)
            pieces = pieces_of(buffer.parts(codec.chunk), shape, codec, tell)
            chunks = press.compress(pieces, codec.checksum)
            write_frame(out, chunks, shape, dtype_text(dtype), codec, note=described.note)
    out.flush()


def _write_tree(
    out: Output,
    described: Description,
    members: list[list[str]],
    codec: Codec,
    press: Press,
    tell: Tell,
) -> None:
    kinds = [
        _kind_of(buffer, len(names), codec)
        for buffer, names in zip(described.buffers, members, strict=True)
    ]

    def pieces() -> Iterator[tuple[Any, dict[str, Any]]]:
        for buffer, names, (_, shape) in zip(described.buffers, members, kinds, strict=True):
            parts = _Parts(buffer.parts(codec.chunk))
            for _ in names:
                yield from pieces_of(parts.of(shape.nbytes), shape, codec, tell)

    chunks = press.compress(pieces(), checksum=True)
    writer = ZipWriter(out)
    for names, (dtype, shape) in zip(members, kinds, strict=True):
        for name in names:
            writer.begin(name + ARRAY)
            writer.finish(write_frame(out, chunks, shape, dtype_text(dtype), codec, is_member=True))
    write_tree_marks(writer, out, described.note)
    writer.close()


def _kind_of(buffer: Buffer, n: int, codec: Codec) -> tuple[np.dtype[Any], Shape]:
    """Return the dtype and shape of each of the *n* arrays that a buffer becomes."""
    dtype = buffer.dtype
    n_rows = buffer.nbytes // dtype.itemsize // n if dtype.itemsize else 0
    if n_rows * dtype.itemsize * n != buffer.nbytes:
        dtype, n_rows = np.dtype(np.uint8), buffer.nbytes // n
    return dtype, choose_shape((n_rows,), dtype.itemsize, codec.chunk)


class _Parts:
    """The parts of a buffer, for several that come one after the other."""

    def __init__(self, parts: Iterator[Any]) -> None:
        self._parts = parts
        self._left = np.empty(0, np.uint8)

    def of(self, size: int) -> Iterator[Any]:
        """Give the parts of the next *size* bytes."""
        while size:
            if not len(self._left):
                self._left = next(self._parts)
            part, self._left = self._left[:size], self._left[size:]
            size -= len(part)
            yield part


class Blosc2File:
    """A file that is open for reading; a `Stored`. It has the fd to itself.

    Raises
    ------
    StoreDamaged : it is no such file, or is damaged.
    OSError
    """

    def __init__(self, path: str, what: str, n_threads: int) -> None:
        self.what, self._n_threads = what, n_threads
        self.fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            self._members = self._read_members(path)
            self._frames: dict[str, Frame] = {}
            self.record, self._names = self._read_record()
        except (ValueError, SchemaError) as error:
            os.close(self.fd)
            if isinstance(error, StoreDamaged):
                raise
            raise StoreDamaged(f"{what}: {error}") from error
        except BaseException:
            os.close(self.fd)
            raise

    def _read_members(self, path: str) -> dict[str, Member]:
        if not stat.S_ISREG(os.fstat(self.fd).st_mode):
            raise ValueError("a directory (a sparse frame?), which is not read")
        if path.endswith(TREE):
            return read_members(self.fd)
        return {"": Member(0, os.fstat(self.fd).st_size)}

    def _frame(self, name: str) -> Frame:
        if name not in self._frames:
            member = self._members.get(name)
            if member is None:
                raise StoreDamaged(f"{self.what}: there is no member {name!r}")
            self._frames[name] = Frame(
                self.fd, *member, f"{self.what}, {name!r}" if name else self.what
            )
        return self._frames[name]

    def _read_record(self) -> tuple[Record, list[list[str]]]:
        """Read the record, or make one; and the names of the frames that each buffer is in."""
        if "" not in self._members:
            if _VLMETA not in self._members:
                raise ValueError("a tree that numpush did not write")
            fields = _unpack_note(self._frame(_VLMETA).note)
            return self._read_fields(fields)
        frame = self._frame("")
        if "record" not in frame.note:
            return _record_of_array(frame), [[""]]
        fields = _unpack_note(frame.note)
        record = read_record(fields, frame.nbytes)
        if len(record.sizes) != 1 or record.schema["kind"] != "ndarray":
            raise ValueError("the record of something else than an array")
        return record, [[""]]

    def _read_fields(self, fields: dict[str, Any]) -> tuple[Record, list[list[str]]]:
        sizes, members = fields.get("buffers"), fields.get("members")
        if type(sizes) is not list or not all(type(each) is int and each >= 0 for each in sizes):
            raise SchemaError("'buffers': a list of the buffers' lengths wanted")
        if (
            type(members) is not list
            or len(members) != len(sizes)
            or not all(
                type(names) is list and names and all(type(name) is str for name in names)
                for names in members
            )
        ):
            raise SchemaError("'members': the names of each buffer's arrays wanted")
        for size, names in zip(sizes, members, strict=True):
            for name in names if size else []:
                self._check_member(name + ARRAY, size // len(names))
        return read_record(fields, place(sizes)[1]), members

    def _check_member(self, name: str, wanted: int) -> None:
        """Check before memory is taken for it that a member is there, and has what it should.

        What it says itself is read only where it would have shrunk past belief: a directory of
        thousands need not be opened for a column of it.
        """
        member = self._members.get(name)
        if member is None:
            raise ValueError(f"there is no member {name!r}")
        if wanted > _BELIEVED * member.size and self._frame(name).nbytes != wanted:
            raise ValueError(
                f"member {name!r}: {wanted} bytes wanted, {self._frame(name).nbytes} found"
            )

    def read(
        self, pieces: list[Piece], segment: Segment | None, progress: Callable[[int], None]
    ) -> None:
        jobs = [job for piece in pieces for job in self._jobs(*piece)]
        run(jobs, self._n_threads, progress)

    def _jobs(self, buffer: int, start: int, stop: int, target: Any) -> Iterator[Job]:
        """Give what fills a piece; rule (2)."""
        names = self._names[buffer]
        suffix = "" if names == [""] else ARRAY
        width = self.record.sizes[buffer] // len(names)
        at = start
        while at < stop:
            i, skip = divmod(at, width)
            frame = self._frame(names[i] + suffix)
            if frame.nbytes != width or width * len(names) != self.record.sizes[buffer]:
                raise StoreDamaged(f"{frame.what}: {width} bytes wanted, {frame.nbytes} found")
            n = min(width - skip, stop - at)
            yield from frame.jobs(skip, skip + n, target[at - start : at - start + n])
            at += n

    def close(self) -> None:
        os.close(self.fd)


def _unpack_note(note: dict[str, Any]) -> dict[str, Any]:
    record = note.get("record")
    if note.get("v") != 1:
        raise ValueError(f"version 1 wanted, {note.get('v')!r} found")
    if type(record) is not bytes or len(record) > _MAX_RECORD:
        raise ValueError("there is no record")
    if zlib.crc32(record) != note.get("crc32"):
        raise ValueError("the record is damaged")
    return unpack(record)


def _record_of_array(frame: Frame) -> Record:
    """Make the record of an array that others wrote."""
    schema = {
        "kind": "ndarray",
        "v": VERSION,
        "dtype": encode_dtype(frame.dtype),
        "shape": list(frame.shape.shape),
        "order": "C",
        "data": 0,
    }
    return Record(schema, [frame.nbytes], frame.nbytes, None, "")
