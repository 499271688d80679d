"""Run the examples of a document: python run_document.py FILE, in an empty folder.

What is run, and how, is one rule for README and all of docs/:

(1) ```python blocks run one after the other, as if typed into one Python. One that begins with >>> is
    compared with what it prints (... is anything); of another only an exception is a failure.
(2) A block with ``if __name__ == "__main__":`` is a whole script, and runs in a process of its own.
(3) A block whose first line is a comment of nothing but a file's name is that file, for later blocks.
(4) Of ```console blocks, what begins with "$ python" or "$ numpush" is run, and compared with what it
    prints, if anything is shown; but for numbers, and how long rules are.
(5) redis://localhost is the server that DOCUMENT_REDIS names; without one, blocks with it do not run.
(6) ```python no-run: REASON does not run.
"""

from __future__ import annotations

import doctest
import os
import re
import subprocess
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
LIMIT = 60.0  #: seconds that a script or a command may take
REDIS = "redis://localhost"
SCRIPT = 'if __name__ == "__main__":\n'


class Block(NamedTuple):
    """A fenced block: its language and what follows that, its lines, and the first one's number."""

    language: str
    note: str
    code: str
    line: int


def blocks(text: str) -> Iterator[Block]:
    """Yield the fenced blocks of Markdown that name a language."""
    for found in re.finditer(r"^```(\w+) ?(.*)\n((?:.*\n)*?)```$", text, re.M):
        yield Block(*found.groups(), text.count("\n", 0, found.start()) + 2)


def run(file: Path) -> None:
    """Run all blocks of a document."""
    # Whatever pickles a function by its name looks for it here.
    main = sys.modules["__main__"] = types.ModuleType("__main__")
    server = os.environ.get("DOCUMENT_REDIS")
    for block in blocks(file.read_text()):
        if REDIS in block.code:
            if server is None:
                continue
            block = block._replace(code=block.code.replace(REDIS, server))
        if block.language == "console":
            run_console(file, block)
        elif block.language == "python" and not block.note.startswith("no-run"):
            run_python(file, block, main.__dict__)


def run_python(file: Path, block: Block, namespace: dict[str, object]) -> None:
    """Run a block, in *namespace* unless it is a file of its own."""
    name = re.match(r"# (\w+\.py)\n", block.code)
    if name:
        Path(name[1]).write_text(block.code)
    elif block.code.startswith(">>> "):
        parser = doctest.DocTestParser()
        test = parser.get_doctest(block.code, {}, file.name, str(file), block.line - 1)
        test.globs = namespace
        runner = doctest.DocTestRunner(optionflags=FLAGS)
        if runner.run(test, clear_globs=False).failed:
            sys.exit(f"{file.name}: see above")
    elif SCRIPT in block.code:
        script = Path(f"{file.stem}_line_{block.line}.py")
        script.write_text(block.code)
        subprocess.run([sys.executable, script], check=True, timeout=LIMIT)
    else:
        code = "\n" * (block.line - 1) + block.code  # so that a traceback shows the document's line
        exec(compile(code, file, "exec"), namespace)


def run_console(file: Path, block: Block) -> None:
    """Run the commands of a block that are Python's and ours."""
    for found in re.finditer(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", block.code, re.M):
        command, wanted = found.groups()
        if not command.startswith(("python ", "numpush ")):
            continue
        done = subprocess.run(
            command, shell=True, capture_output=True, text=True, timeout=LIMIT, check=False
        )
        found = done.stdout + done.stderr
        if done.returncode or (wanted and not is_alike(wanted, found)):
            sys.exit(
                f"{file.name}, line {block.line}: $ {command}\nexit code {done.returncode}; wanted:\n"
                f"{wanted}\nfound:\n{found}"
            )


def is_alike(wanted: str, found: str) -> bool:
    """Whether two outputs are the same, but for what differs from machine to machine."""
    wanted, found = (
        re.sub(r"\d+(\.\d+)?( [KMGT]?i?B)?", "0", re.sub("─+", "─", text))
        for text in (wanted, found)
    )
    return doctest.OutputChecker().check_output(wanted, found, FLAGS)


if __name__ == "__main__":
    os.environ["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    run(Path(sys.argv[1]))
