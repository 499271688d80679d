"""blosc2://: a directory of compressed arrays and frames, in files that blosc2 itself opens."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from collections.abc import Callable, Iterator
from typing import Any

from ..blosc2_chunks import CODECS, FILTERS, load_blosc2
from ..errors import NumpushError
from .blosc2_file import ARRAY, TREE, Blosc2File, describe_for_blosc2, write_object
from .blosc2_reading import n_threads_of
from .blosc2_writing import Codec
from .describing import stat_of
from .errors import StoreFull, StoreUnavailable
from .fetching import fetch
from .replacing import replacing, sweep
from .store import Stat, Store

__all__ = ["Blosc2Store"]

#: A key has one of these; where there are two, which is so while one replaces the other, the first counts.
_SUFFIXES = (TREE, ARRAY, ".b2frame", ".b2f")
_FULL = (errno.ENOSPC, errno.EDQUOT)
_LEVELS = {"lz4": 5, "zstd": 1, "blosclz": 5}
_CHUNKS = (1 << 12, 1 << 30)


class Blosc2Store(Store):
    """``blosc2:///DIR``: a directory of blosc2's files; it is made when it is not there.

    Parameters
    ----------
    url : str
        ``blosc2:///DIR``.
    codec : {'lz4', 'zstd', 'blosclz'}
    level : int, optional
        0 (stored as it is) to 9. By default 5, and 1 for zstd: what more gains costs too much.
    filter : {'bitshuffle', 'shuffle', None}
        What sorts the bits or bytes of items before they are compressed.
    threads : int, optional
        That compress and decompress. By default one for each core, at most 8.
    chunk : int
        Bytes that are compressed as one, and that a part costs at the least.
    checksum : bool
        Keep a CRC-32 of each chunk as it is stored, and check it whenever the chunk is read: blosc2
        itself does not notice most damage.
    sync : bool
        Whether what was put is on the disk when `put` returns.

    Raises
    ------
    ImportError : blosc2 is not installed.
    """

    def __init__(
        self,
        url: str,
        *,
        codec: str = "lz4",
        level: int | None = None,
        filter: str | None = "bitshuffle",
        threads: int | None = None,
        chunk: int = 1 << 20,
        checksum: bool = True,
        sync: bool = True,
    ) -> None:
        super().__init__(
            url, codec=codec, level=level, filter=filter, threads=threads, chunk=chunk,
            checksum=checksum, sync=sync,
        )  # fmt: skip
        self._dir = url.partition("://")[2]
        if not os.path.isabs(self._dir):
            raise ValueError(f"URL {url!r}: an absolute path wanted, as in blosc2:///data")
        if codec not in CODECS:
            raise ValueError(f"codec {codec!r}: wanted one of {', '.join(map(repr, CODECS))}")
        if filter not in FILTERS:
            raise ValueError(f"filter {filter!r}: wanted one of {', '.join(map(repr, FILTERS))}")
        if level is not None and not 0 <= level <= 9:
            raise ValueError(f"level {level!r}: 0 to 9 wanted")
        if threads is not None and threads < 1:
            raise ValueError(f"threads {threads}: at least 1 wanted")
        if not _CHUNKS[0] <= chunk <= _CHUNKS[1]:
            raise ValueError(f"chunk {chunk}: {_CHUNKS[0]} to {_CHUNKS[1]} bytes wanted")
        load_blosc2()
        level = _LEVELS[codec] if level is None else level
        self._codec = Codec(codec, level, filter, chunk, checksum)
        self._n_threads, self._sync = n_threads_of(threads), sync
        self._swept: set[str] = set()
        os.makedirs(self._dir, exist_ok=True)

    def _path(self, key: str, suffix: str) -> str:
        return os.path.join(self._dir, key + suffix)

    def _put(self, key: str, obj: Any, tell: Callable[[int], None]) -> None:
        described = describe_for_blosc2(obj)
        kept = ARRAY if described.names is None else TREE
        path = self._path(key, kept)
        folder = os.path.dirname(path)
        with self._naming_errors(key):
            os.makedirs(folder, exist_ok=True)
            if folder not in self._swept:
                sweep(folder)
                self._swept.add(folder)
            with contextlib.ExitStack() as left:
                with replacing(path, sync=self._sync) as out:
                    write_object(out.fileno(), described, self._codec, self._n_threads, tell)
                    if (
                        self._sync
                    ):  # before others have to wait; what is left for `replacing` is little
                        os.fsync(out.fileno())
                    left.enter_context(_locked(folder))
                self._drop(key, [suffix for suffix in _SUFFIXES if suffix != kept])

    def _drop(self, key: str, suffixes: list[str]) -> int:
        n = 0
        for suffix in suffixes:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._path(key, suffix))
                n += 1
        return n

    def _get(
        self,
        key: str,
        into: Any,
        columns: list[Any] | None,
        rows: slice | None,
        name: str | None,
        tell: Callable[[int], None],
    ) -> Any:
        with self._naming_errors(key), contextlib.closing(self._open(key)[0]) as stored:
            return fetch(stored, into=into, columns=columns, rows=rows, name=name, progress=tell)

    def _open(self, key: str) -> tuple[Blosc2File, str]:
        for _ in range(3):  # it may be replaced by one of another suffix just now
            for suffix in _SUFFIXES:
                with contextlib.suppress(FileNotFoundError):
                    path = self._path(key, suffix)
                    return Blosc2File(path, self._what(key), self._n_threads), suffix
        raise self._missing(key)

    def _keys(self, prefix: str) -> list[str]:
        found = set()
        for folder, folders, files in os.walk(self._dir):
            folders[:] = [each for each in folders if not each.startswith(".")]
            for file in files:
                stem, suffix = os.path.splitext(file)
                if suffix in _SUFFIXES and not file.startswith("."):
                    key = os.path.relpath(os.path.join(folder, stem), self._dir)
                    if key.startswith(prefix):
                        found.add(key)
        return [*found]

    def _delete(self, key: str) -> None:
        with self._naming_errors(key):
            if not self._drop(key, [*reversed(_SUFFIXES)]):
                raise self._missing(key)

    def _stat(self, key: str) -> Stat:
        with self._naming_errors(key):
            stored, suffix = self._open(key)
            with contextlib.closing(stored):
                size = os.fstat(stored.fd).st_size
                ratio = round(stored.record.size / size, 2)
                return stat_of(key, stored, size, suffix[1:], {"ratio": ratio})

    def _has(self, key: str) -> bool:
        return any(os.path.isfile(self._path(key, suffix)) for suffix in _SUFFIXES)

    def _close(self) -> None:
        pass  # nothing stays open

    @contextlib.contextmanager
    def _naming_errors(self, key: str) -> Iterator[None]:
        try:
            yield
        except NumpushError:
            raise
        except (FileNotFoundError, NotADirectoryError):
            raise self._missing(key) from None
        except OSError as error:
            if error.errno in _FULL:
                raise StoreFull(error.errno, f"{self._what(key)}: {error.strerror}") from error
            raise StoreUnavailable(f"{self._what(key)}: {error}") from error


@contextlib.contextmanager
def _locked(folder: str) -> Iterator[None]:
    """Be the only one, of all processes, that makes a file visible there and removes others.

    Two that put an array and a frame by one key would remove each other's file else, and leave none.
    """
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        with contextlib.suppress(OSError):
            fcntl.flock(fd, fcntl.LOCK_UN)  # a child that was forked meanwhile has the fd, too
        os.close(fd)
