"""blosc2://: a directory of compressed arrays and frames, in files that blosc2 itself opens."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable
from typing import Any

from ..blosc2_chunks import CODECS, FILTERS, load_blosc2
from .blosc2_file import ARRAY, TREE, Blosc2File, describe_for_blosc2, write_object
from .blosc2_reading import n_threads_of
from .blosc2_writing import Codec
from .describing import stat_of
from .directory import Directory, alone_in
from .replacing import replacing
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
        Whether what was put is on the disk when `.Store.put` returns.

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
        self._directory = Directory(url)

    def _path(self, key: str, suffix: str) -> str:
        return self._directory.path(key + suffix)

    def _put(self, key: str, obj: Any, tell: Callable[[int], None]) -> None:
        described = describe_for_blosc2(obj)
        kept = ARRAY if described.names is None else TREE
        path = self._path(key, kept)
        with self._naming_file_errors(key, is_put=True):
            self._directory.get_ready(path)
            with contextlib.ExitStack() as left:
                with replacing(path, sync=self._sync) as out:
                    write_object(out.fileno(), described, self._codec, self._n_threads, tell)
                    if self._sync:  # before others have to wait: it leaves `replacing` little to do
                        os.fsync(out.fileno())
                    left.enter_context(alone_in(os.path.dirname(path)))
                self._drop(key, [suffix for suffix in _SUFFIXES if suffix != kept])

    def _drop(self, key: str, suffixes: list[str]) -> int:
        n = 0
        for suffix in suffixes:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._path(key, suffix))
                n += 1
        return n

    def _use(self, key: str, use: Callable[[Blosc2File], Any]) -> Any:
        with self._naming_file_errors(key), contextlib.closing(self._open(key)[0]) as stored:
            return use(stored)

    def _open(self, key: str) -> tuple[Blosc2File, str]:
        for _ in range(3):  # it may be replaced by one of another suffix just now
            for suffix in _SUFFIXES:
                with contextlib.suppress(FileNotFoundError):
                    path = self._path(key, suffix)
                    return Blosc2File(path, self._what(key), self._n_threads), suffix
        raise self._missing(key)

    def _keys(self, prefix: str) -> list[str]:
        parts = map(os.path.splitext, self._directory.files())
        return [*{key for key, suffix in parts if suffix in _SUFFIXES and key.startswith(prefix)}]

    def _delete(self, key: str) -> None:
        with self._naming_file_errors(key):
            if not self._drop(key, [*reversed(_SUFFIXES)]):
                raise self._missing(key)

    def _stat(self, key: str) -> Stat:
        with self._naming_file_errors(key):
            stored, suffix = self._open(key)
            with contextlib.closing(stored):
                size = os.fstat(stored.fd).st_size
                ratio = round(stored.record.size / size, 2)
                return stat_of(key, stored, size, suffix[1:], {"ratio": ratio})

    def _has(self, key: str) -> bool:
        return any(os.path.isfile(self._path(key, suffix)) for suffix in _SUFFIXES)

    def _close(self) -> None:
        pass  # nothing stays open
