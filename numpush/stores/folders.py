"""Where whole files lie: a directory of this machine, or whatever fsspec reaches.

Both name files by their path below the folder, with slashes. `replace` makes a file visible whole or
not at all: by a rename in a directory; elsewhere as the file system itself does it, which object
stores (S3, GCS, Azure) do at the end of an upload, and others (SFTP, HTTP PUT) may not. Nor have those
locks: of two who put an array and a table by one key at the same time, both may go.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from typing import Any, Protocol

from .directory import Directory, alone_in
from .replacing import replacing

__all__ = ["Folder", "open_folder"]


class Folder(Protocol):
    """Files below some place."""

    def read(self, path: str) -> Any:
        """Return what readers take: the path of a local file, or a binary file object.

        Raises
        ------
        FileNotFoundError
        """

    def replace(self, path: str, write: Callable[[Any], None], others: list[str]) -> None:
        """Have *write* fill a file, and make it visible, in place of one that is there and of *others*.

        In a directory, of two who do this with each other's files the later one's stays.
        """

    def delete(self, path: str) -> None:
        """Remove a file.

        Raises
        ------
        FileNotFoundError
        """

    def size(self, path: str) -> int | None:
        """Return the bytes of a file; None: there is none."""

    def paths(self) -> Iterator[str]:
        """Give all files, also those in folders below."""


def open_folder(url: str, storage: dict[str, Any]) -> Folder:
    """Open the folder that ``FORMAT:///DIR`` or ``FORMAT+PROTOCOL://..`` means.

    Raises
    ------
    ValueError : the path is not absolute.
    ImportError : fsspec, or what it needs for this protocol, is missing.
    """
    scheme, _, rest = url.partition("://")
    _, _, protocol = scheme.partition("+")
    if not protocol:
        if storage:
            raise TypeError(
                f"{', '.join(storage)}: options of fsspec, for {scheme}+PROTOCOL:// only"
            )
        return _LocalFolder(url)
    return _FsspecFolder(protocol, rest, storage)


class _LocalFolder:
    """A directory of this machine."""

    def __init__(self, url: str) -> None:
        self._directory = Directory(url)

    def read(self, path: str) -> str:
        full = self._directory.path(path)
        os.stat(full)
        return full

    def replace(self, path: str, write: Callable[[Any], None], others: list[str]) -> None:
        full = self._directory.path(path)
        self._directory.get_ready(full)
        with contextlib.ExitStack() as left:
            with replacing(full) as out:
                write(out)
                os.fsync(out.fileno())  # before others have to wait
                left.enter_context(alone_in(os.path.dirname(full)))
            for other in others:
                with contextlib.suppress(FileNotFoundError):
                    self.delete(other)

    def delete(self, path: str) -> None:
        os.unlink(self._directory.path(path))

    def size(self, path: str) -> int | None:
        try:
            return os.stat(self._directory.path(path)).st_size
        except (FileNotFoundError, NotADirectoryError):
            return None

    def paths(self) -> Iterator[str]:
        return self._directory.files()


class _FsspecFolder:
    """A folder of one of fsspec's file systems."""

    def __init__(self, protocol: str, rest: str, storage: dict[str, Any]) -> None:
        try:
            import fsspec
        except ImportError as error:
            raise ImportError(
                f'{protocol}:// needs fsspec, which is missing: pip install "numpush[fsspec]"'
            ) from error
        self._fs, root = fsspec.core.url_to_fs(f"{protocol}://{rest}", **storage)
        self._root = root.rstrip("/")

    def _full(self, path: str) -> str:
        return f"{self._root}/{path}"

    def read(self, path: str) -> Any:
        return self._fs.open(self._full(path), "rb")

    def replace(self, path: str, write: Callable[[Any], None], others: list[str]) -> None:
        full = self._full(path)
        with contextlib.suppress(NotImplementedError):
            self._fs.makedirs(full.rpartition("/")[0], exist_ok=True)
        out = self._fs.open(full, "wb", autocommit=False)
        try:
            with out:
                write(out)
        except BaseException:
            with contextlib.suppress(
                Exception
            ):  # not every file system can; the first error counts
                out.discard()
            raise
        out.commit()
        for other in others:
            with contextlib.suppress(FileNotFoundError):
                self.delete(other)

    def delete(self, path: str) -> None:
        self._fs.rm_file(self._full(path))

    def size(self, path: str) -> int | None:
        try:
            found: int = self._fs.size(self._full(path))
        except FileNotFoundError:
            return None
        return found

    def paths(self) -> Iterator[str]:
        for path in self._fs.find(self._root):
            yield path.removeprefix(self._root).lstrip("/")
