"""Every example of README and docs/ runs: run_document.py has the rule.

docs/moving.md is test_moving.py's: each of its blocks is a program of its own.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import numpush
import processes
import redis_servers
from numpush.shm import naming, space
from run_document import REDIS, Block, blocks

ROOT = Path(__file__).parent.parent
DOCUMENTS = {file: file.read_text() for file in (ROOT / "README.md", *ROOT.glob("docs/*.md"))}


def is_run(block: Block) -> bool:
    return block.language in ("python", "console") and not block.note


@pytest.mark.parametrize(
    "document",
    [
        file
        for file, text in sorted(DOCUMENTS.items())
        if file.stem != "moving" and any(map(is_run, blocks(text)))
    ],
    ids=lambda file: file.stem,
)
def test_the_examples_run(document: Path, tmp_path: Path) -> None:
    (tmp_path / "tests").symlink_to(ROOT / "tests")  # for what is in tests/data
    namespace = processes.new_namespace()
    env = {"NUMPUSH_NAMESPACE": namespace, "COLUMNS": "120"}
    with contextlib.ExitStack() as stack:
        if REDIS in DOCUMENTS[document] and redis_servers.BINARY:
            server = stack.enter_context(redis_servers.running(tmp_path))
            env["DOCUMENT_REDIS"] = server.tcp
        done = subprocess.run(
            [sys.executable, ROOT / "tests" / "run_document.py", document],
            cwd=tmp_path,
            env={**os.environ, **env},
            capture_output=True,
            text=True,
            timeout=2 * processes.LIMIT,
            check=False,
        )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert processes.files_of(namespace) == set()


def test_what_is_not_run_has_a_reason() -> None:
    notes = {block.note for text in DOCUMENTS.values() for block in blocks(text) if block.note}
    assert all(note.startswith("no-run: ") for note in notes), notes


def test_every_public_name_is_in_the_reference() -> None:
    pages = "\n".join(file.read_text() for file in ROOT.glob("docs/api/*.rst"))
    documented = set(re.findall(r"^\.\. (?:auto\w+|data):: (?:\w+\.)*(\w+)$", pages, re.M))
    listed = set(re.findall(r"^\.\. (?:automodule|module):: ([\w.]+)$", pages, re.M))
    for name in ("numpush", "numpush.ingest", "numpush.kernels", "numpush.code", "numpush.stores"):
        public = set(importlib.import_module(name).__all__)
        modules = {each for each in public if f"{name}.{each}" in {*listed, "numpush.shmem"}}
        assert public - modules - documented - {"errors"} == set()
    assert set(numpush.errors.__all__) - documented == set()


def test_the_message_of_a_full_container_is_ours() -> None:
    assert space.remedy(naming.DIR) in DOCUMENTS[ROOT / "docs" / "containers.md"]


@pytest.mark.skipif(shutil.which("gcc") is None, reason="there is no gcc")
def test_the_header_is_as_documented(tmp_path: Path) -> None:
    text = DOCUMENTS[ROOT / "docs" / "segments.md"]
    fields = re.findall(r"^\| (\d+) \| (\d*) \| `(\w+)` \|", text, re.M)
    assert len(fields) > 25
    checks = [
        f'_Static_assert(offsetof(npush_seg_t, {name}) == {offset}, "{name}");'
        + (f'_Static_assert(sizeof(SEG->{name}) == {size}, "{name}: size");' if size else "")
        for offset, size, name in fields
    ]
    source = tmp_path / "check.c"
    source.write_text(
        '#include "npush_seg.h"\n#define SEG ((npush_seg_t *)0)\n' + "\n".join(checks)
    )
    command = ["gcc", "-std=c11", "-D_GNU_SOURCE", "-fsyntax-only", "-I", ROOT / "ffi/csrc", source]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
