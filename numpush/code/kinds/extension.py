"""Extension modules, Cython's say: the shared object itself, loaded from memory.

(1) It is for one Python and one platform, both of which the end of its file's name tells (``.abi3.so``
    is for any Python from its own on); one that says nothing is for the Python that sent it.
(2) Its descriptor stays open while the process lives: dlopen knows a library by its path, and a second
    one under the same ``/proc/self/fd/N`` would be the first again.
(3) It is not entered in sys.modules: whoever wants it found by `import` does that.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import platform
import sys
import sysconfig
import types
from importlib.machinery import EXTENSION_SUFFIXES, ExtensionFileLoader
from pathlib import Path
from typing import Any

from ..envelope import Payload
from ..errors import CodeError, CodeMismatch

__all__ = ["pack", "unpack"]

_loaded: dict[tuple[str, bytes], types.ModuleType] = {}  #: what came so, by name and hash


class _Loader(ExtensionFileLoader):
    """Loads a library that was received; knows what its file was called."""

    def __init__(self, name: str, fd: int, suffix: str) -> None:
        super().__init__(name, f"/proc/self/fd/{fd}")
        self.suffix = suffix


def pack(obj: Any, sig: Any, portable: bool) -> tuple[dict[str, Any], dict[str, bytes]]:
    if portable:
        raise CodeError("an extension module is for one Python and platform: it cannot be portable")
    suffix = None
    if isinstance(obj, types.ModuleType):
        spec = obj.__spec__
        if spec is None or not isinstance(spec.loader, ExtensionFileLoader):
            raise CodeError(f"{obj!r} is no extension module")
        name, path = spec.name, Path(spec.loader.path)
        suffix = getattr(spec.loader, "suffix", None)
    else:
        path = Path(obj)
        name = path.name.partition(".")[0]
    suffix = suffix or next((s for s in EXTENSION_SUFFIXES if path.name.endswith(s)), None)
    if suffix is None:
        raise CodeError(f"{path}: an extension module ends with one of {EXTENSION_SUFFIXES}")
    meta = {"name": name, "suffix": suffix, "machine": platform.machine()}
    return meta, {"library": path.read_bytes()}


def unpack(payload: Payload) -> types.ModuleType:
    suffix, machine = payload.get("suffix", str), payload.get("machine", str)
    made_by = payload.maker.get("python", [])
    if suffix not in EXTENSION_SUFFIXES or machine != platform.machine():
        raise CodeMismatch(
            f"an extension module {suffix} for {machine}; this Python takes "
            f"{sysconfig.get_config_var('EXT_SUFFIX')} for {platform.machine()}"
        )
    if suffix == ".so" and made_by[:2] != [*sys.version_info[:2]]:
        raise CodeMismatch(
            f"an extension module of Python {'.'.join(map(str, made_by))}, "
            f"this is {platform.python_version()}"
        )
    name, library = payload.get("name", str), payload.blob("library")
    key = name, hashlib.sha256(library).digest()
    if key not in _loaded:
        _loaded[key] = _load(name, library, suffix)
    return _loaded[key]


def _load(name: str, library: bytes, suffix: str) -> types.ModuleType:
    fd = os.memfd_create(name)
    with open(fd, "wb", closefd=False) as file:
        file.write(library)
    loader = _Loader(name, fd, suffix)
    spec = importlib.util.spec_from_loader(name, loader)
    assert spec is not None
    try:
        module = importlib.util.module_from_spec(spec)
        loader.exec_module(module)
    except ImportError as error:
        os.close(fd)  # dlopen has not kept it
        raise CodeError(f"extension module {name}: {error}") from error
    return module
