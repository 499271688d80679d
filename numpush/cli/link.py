"""`numpush send` and `numpush listen`: a file to a URL, and what comes to files or under names.

What is sent is read into memory of this process: a table from Parquet, Feather (Arrow IPC) or CSV by
its ending, an array from .npy; "-" is .npy bytes on standard input. Each object that is received is
printed in one line, with what is needed to attach to it.
"""

from __future__ import annotations

import io
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import ingest
from ..ingest.link import Link
from ..shm.space import human

if TYPE_CHECKING:
    from tqdm import tqdm

__all__ = ["listen", "send"]


def _read_key(path: str | None) -> bytes | None:
    if path is None:
        return None
    return Path(path).read_bytes().strip()


def send(url: str, path: str, *, key_file: str | None, compress: str | None, timeout: float) -> int:
    """Send the file *path*; return the exit code."""
    obj = _load(path)
    with ingest.connect(
        url, key=_read_key(key_file), compress=compress, checksum=True, timeout=timeout
    ) as link:
        since = time.monotonic()
        link.send(obj)
        link.flush()
        seconds = time.monotonic() - since
        size = link.statistics().sent_bytes
    print(f"{_what(obj)}: {human(size)} sent to {url} in {seconds:.2f} s", file=sys.stderr)
    return 0


def _load(path: str) -> Any:
    """Read what is to be sent.

    Raises
    ------
    OSError : it cannot be read, or its ending says nothing that we know.
    """
    if path == "-":
        return np.load(io.BytesIO(sys.stdin.buffer.read()), allow_pickle=False)
    ending = Path(path).suffix.lower()
    if ending == ".npy":
        return np.load(path, mmap_mode="r", allow_pickle=False)
    if ending in (".parquet", ".feather", ".arrow", ".csv"):
        from .. import SDataFrame

        if ending == ".parquet":
            return SDataFrame.read_parquet(path)
        return SDataFrame.read_csv(path) if ending == ".csv" else SDataFrame.read_feather(path)
    raise OSError(f"{path}: wanted a .npy, .parquet, .feather, .arrow or .csv file, or - for .npy")


def listen(
    url: str,
    *,
    key_file: str | None,
    name: str | None,
    save: str | None,
    count: int | None,
    max_bytes: int | None,
    insecure: bool,
) -> int:
    """Print what arrives; keep it under a name or in a folder. Return the exit code."""
    folder = None if save is None else Path(save)
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
    key = _read_key(key_file)
    with ingest.listen(url, key=key, max_bytes=max_bytes, insecure=insecure) as link:
        print(f"listening at {link.url}", file=sys.stderr, flush=True)
        bar = _bar(link)
        try:
            _receive(link, name, folder, count, bar)
        finally:
            bar.close()
            told = link.statistics()
            print(
                f"{told.objects} objects, {human(told.bytes)}, {told.gb_per_s:.2f} GB/s",
                file=sys.stderr,
            )
    return 0


def _bar(link: Link) -> tqdm[Any]:
    """Return a bar that shows the bytes as they come, where somebody looks at it."""
    from tqdm import tqdm

    bar: tqdm[Any] = tqdm(unit="B", unit_scale=True, desc=link.url, disable=None, leave=False)
    link.on_progress(bar.update)
    return bar


def _receive(
    link: Link, name: str | None, folder: Path | None, count: int | None, bar: tqdm[Any]
) -> None:
    from .. import publish, withdraw

    kept = None
    for i, obj in enumerate(link):
        line = f"{obj.handle.name} {_what(obj)}"
        if folder is not None:
            line += f" -> {_save(obj, folder, i)}"
        if name is not None:
            if kept is not None:
                withdraw(name)  # who has attached to it keeps it
            publish(name, obj)
            kept = obj
            line += f' -> numpush.attach("{name}")'
        with bar.external_write_mode(file=sys.stdout):
            print(line, flush=True)
        del obj
        if count is not None and i + 1 >= count:
            break
    if kept is not None and count is not None:
        print("held under its name until Ctrl-C", file=sys.stderr, flush=True)
        while True:
            time.sleep(3600)


def _what(obj: Any) -> str:
    """Say what an object is."""
    shape = " x ".join(map(str, obj.shape)) or "scalar"
    if isinstance(obj, np.ndarray):
        return f"array {shape} {obj.dtype}"
    return f"{'frame' if obj.ndim == 2 else 'series'} {shape}"


def _save(obj: Any, folder: Path, i: int) -> Path:
    """Write an object to a file that appears when it is whole; return its path."""
    is_array = isinstance(obj, np.ndarray)
    path = folder / f"{i:06}{'.npy' if is_array else '.parquet'}"
    half = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        if is_array:
            with half.open("wb") as file:
                np.save(file, obj.view(np.ndarray), allow_pickle=False)
        else:
            frame = obj.to_pandas() if obj.ndim == 2 else obj.to_pandas().to_frame()
            frame.columns = frame.columns.map(str)
            frame.to_parquet(half)
        half.replace(path)
    except BaseException:
        half.unlink(missing_ok=True)
        raise
    return path
