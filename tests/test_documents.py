"""Every example of README and docs/ runs: run_document.py has the rule.

docs/moving.md is test_moving.py's: each of its blocks is a program of its own.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

import processes
import redis_servers
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
