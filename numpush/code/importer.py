"""`import example` finds example.bc, where it is switched on.

It looks where Python looks (sys.path, and a package's own folder), after Python: a module or package of
that name comes first. Beside example.bc, an example.cdef may have its C declarations. Bitcode that is
found is run, as a .py file would be; LLVM ends the process on some that is damaged.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_file_location
from pathlib import Path
from types import ModuleType

from .modules import Module, compile_module

__all__ = ["install_importer", "uninstall_importer"]


class _Finder(MetaPathFinder):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        for folder in sys.path if path is None else path:
            file = Path(folder or ".", f"{fullname.rpartition('.')[2]}.bc")
            if file.is_file():
                return spec_from_file_location(fullname, file, loader=_Loader(file))
        return None


class _Loader(Loader):
    def __init__(self, file: Path) -> None:
        self._file = file

    def create_module(self, spec: ModuleSpec) -> Module:
        return Module(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        assert isinstance(module, Module)
        cdef = self._file.with_suffix(".cdef")
        module.__fill__(
            compile_module(
                self._file.read_bytes(),
                cdef.read_text() if cdef.is_file() else None,
                module.__name__,
            )
        )


_finder = _Finder()


def install_importer() -> None:
    """Have ``import`` find LLVM bitcode, after everything else."""
    if _finder not in sys.meta_path:
        sys.meta_path.append(_finder)


def uninstall_importer() -> None:
    """Take that back; what was imported stays."""
    if _finder in sys.meta_path:
        sys.meta_path.remove(_finder)
