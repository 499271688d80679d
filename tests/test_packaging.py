"""Extras: each that users want is in `all`, and whatever asks for one asks for one that exists."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
#: For those who work on numpush.
DEVELOPERS = {"test", "pandas-tests", "dask-tests", "dev", "docs", "bench"}
#: ImportErrors that no extra is the remedy for: the first words of each.
OTHERS = {
    "numpush needs Linux",
    "NUMPUSH_NAMESPACE=",
    "numba {} lacks",  # another version of it
    "{}: pip install pytensor",  # wants an older numba than the extras do
    "this needs {}: pip install {}",  # the extra, for numexpr
    "progress=True needs tqdm",  # always installed with numpush
}


def test_all_has_every_extra_that_users_want():
    (everything,) = EXTRAS["all"]
    found = re.fullmatch(r"numpush\[([a-z0-9,-]+)\]", everything)[1].split(",")
    assert found == sorted(EXTRAS.keys() - DEVELOPERS - {"all"})


def sources():
    return [
        path
        for folder in ("numpush", "shm", "ffi")
        for path in (ROOT / folder).rglob("*.py")
        if "__pycache__" not in path.parts
    ]


@pytest.mark.parametrize("folder", ["numpush", "shm", "ffi", "docs", "examples"])
def test_who_asks_for_an_extra_asks_for_one_that_exists(folder):
    for path in (ROOT / folder).rglob("*.*"):
        if path.suffix in (".py", ".md"):
            for extras in re.findall(r"numpush\[([\w,-]+)\]", path.read_text()):
                assert set(extras.split(",")) <= EXTRAS.keys(), f"{path}: {extras}"


def raised(tree):
    """Yield the text of each ImportError that is raised, with {} for what is filled in."""
    for node in ast.walk(tree):
        if not (isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call)):
            continue
        if isinstance(node.exc.func, ast.Name) and node.exc.func.id == "ImportError":
            (message,) = node.exc.args
            parts = message.values if isinstance(message, ast.JoinedStr) else [message]
            yield "".join(p.value if isinstance(p, ast.Constant) else "{}" for p in parts)


def test_every_import_error_names_an_extra():
    texts = [text for path in sources() for text in raised(ast.parse(path.read_text()))]
    assert len(texts) > len(OTHERS)
    without = {
        text for text in texts if not re.search(r"""pip install ['"]numpush\[[\w,-]+\]""", text)
    }
    for start in OTHERS:
        assert [text for text in without if text.startswith(start)], f"nobody says {start!r}"
    assert [text for text in without if not text.startswith(tuple(OTHERS))] == []
