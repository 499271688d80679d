"""The house: three floors, imports downwards only, and a package map that matches the tree."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
#: A folder, and the packages that its modules may import besides their own.
FLOORS = {"ffi": [], "shm": ["ffi"], "numpush": ["shm", "ffi"]}


def modules(folder):
    return [path for path in (ROOT / folder).rglob("*.py") if "__pycache__" not in path.parts]


def package_of(path):
    """Return the package a module lies in, as installed."""
    parts = list(path.relative_to(ROOT).parts[:-1])
    return parts if parts[0] == "numpush" else ["numpush", *parts]


def imports(path):
    """Yield the absolute name of every module that *path* imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                package = package_of(path)
                base = package[: len(package) - node.level + 1]
                yield ".".join([*base, node.module] if node.module else base)
                if not node.module:
                    yield from (".".join([*base, alias.name]) for alias in node.names)
            else:
                yield node.module or ""


@pytest.mark.parametrize("floor", FLOORS)
def test_imports_point_downwards_only(floor):
    wrong = []
    for path in modules(floor):
        for name in imports(path):
            parts = name.split(".")
            if parts[0] in ("ffi", "shm"):
                wrong.append(f"{path}: bare {name}")
            if parts[0] != "numpush":
                continue
            found = parts[1] if len(parts) > 1 and parts[1] in FLOORS else "numpush"
            # "from . import x" inside a floor names its own package first.
            allowed = [floor, *FLOORS[floor]] if floor != "numpush" else list(FLOORS)
            if found not in allowed and name != "numpush":
                wrong.append(f"{path}: {name}")
    assert wrong == []


def test_the_lower_floors_know_neither_numpy_nor_pandas():
    for floor in ("ffi", "shm"):
        for path in modules(floor):
            heads = {name.split(".")[0] for name in imports(path)}
            assert not heads & {"numpy", "pandas", "pyarrow", "numba", "msgpack"}, path


def test_every_package_is_in_the_package_map():
    setuptools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    found = {
        ".".join(package_of(path)): str(path.parent.relative_to(ROOT))
        for floor in FLOORS
        for path in modules(floor)
        if path.name == "__init__.py"
    }
    assert set(setuptools["packages"]) == set(found)
    for package, folder in found.items():
        mapped = setuptools["package-dir"].get(package, package.replace(".", "/"))
        assert mapped == folder


def test_every_folder_with_modules_is_a_package():
    for floor in FLOORS:
        for path in modules(floor):
            assert (path.parent / "__init__.py").exists(), path


def mapped():
    """Return what docs/map.md has lines for: modules, and folders as a whole."""
    found = set()
    for line in (ROOT / "docs" / "map.md").read_text().splitlines():
        folder = None
        for name in re.findall(r"`([\w/.*]+)`", line.split("|")[1]) if line[:3] == "| `" else ():
            path = ROOT / name if "/" in name else folder / name
            folder = folder or path.parent
            found |= set(path.parent.glob(path.name)) or {path}
    return found


def test_the_map_of_the_code_has_every_module_and_no_other():
    found = mapped()
    assert [path for path in found if not path.exists()] == []
    for floor in FLOORS:
        for path in modules(floor):
            unnamed = not found & {path, *path.parents}
            assert not unnamed or path.name in ("__init__.py", "__main__.py", "_build.py"), path


def run(code):
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True, text=True, timeout=60, check=False, cwd="/",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_no_module_is_imported_under_a_bare_name():
    code = (
        "import sys, numpush, pkgutil, importlib\n"
        "for m in pkgutil.walk_packages(numpush.__path__, 'numpush.'):\n"
        "    if not m.name.endswith(('_build', '__main__')): importlib.import_module(m.name)\n"
        "print(*[n for n in sys.modules if n.split('.')[0] in ('shm', 'ffi', 'layout')])"
    )
    assert run(code) == []


def test_importing_numpush_loads_nothing_heavy_and_touches_nothing():
    code = (
        "import os, sys, threading\nbefore = set(os.listdir('/dev/shm'))\nimport numpush\n"
        "heavy = {'numpy', 'pandas', 'pyarrow', 'numba', 'llvmlite'}\n"
        "heavy |= {'multiprocessing', 'joblib', 'posix_ipc'}\n"
        "print(*(heavy & set(sys.modules)), threading.active_count())"
    )
    assert run(code) == ["1"]


def test_an_array_does_not_load_pandas():
    code = (
        "import sys, numpy as np, numpush\nnumpush.SArray(np.zeros(3))\n"
        "print(*({'pandas', 'pyarrow', 'numba', 'llvmlite'} & set(sys.modules)))"
    )
    assert run(code) == []


def test_every_public_name_is_there():
    code = "import numpush\nfor n in numpush.__all__: getattr(numpush, n)\nprint('ok')"
    assert run(code) == ["ok"]


def test_the_c_headers_and_sources_are_twins():
    csrc = ROOT / "ffi" / "csrc"
    assert {p.stem for p in csrc.glob("*.c")} == {p.stem for p in csrc.glob("*.h")}
