"""The files of numpush in /dev/shm, and which name belongs to which.

    numpush.seg.<name>              a segment; a name that nobody chose is 128 random bits in hex
    numpush.seg.channel:<name>      a message queue and who uses it, see channel.py
    numpush.node.<16 hex digits>    a process that uses segments, see node.py
    numpush.warm.<bytes>.<random>   freed memory kept for reuse, see warm.py

`NUMPUSH_NAMESPACE` in the environment replaces the first word: processes with different
namespaces never see each other's files (tests use it to run side by side).
"""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Iterator

__all__ = [
    "DIR",
    "channel_name",
    "check_name",
    "is_random",
    "listing",
    "node_file",
    "path",
    "queue_of",
    "random_name",
    "segment_file",
    "warm_file",
]

DIR = "/dev/shm"
NAMESPACE = os.environ.get("NUMPUSH_NAMESPACE", "numpush")
if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}", NAMESPACE):
    raise ImportError(
        f"NUMPUSH_NAMESPACE={NAMESPACE!r}: wanted up to 64 letters, digits, '_' or '-'"
    )
SEGMENT = f"{NAMESPACE}.seg."
NODE = f"{NAMESPACE}.node."
WARM = f"{NAMESPACE}.warm."
CHANNEL = "channel:"  # no user can give a segment such a name

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")


def check_name(name: str) -> str:
    """Return *name* if a user may give it to a segment, else raise ValueError."""
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ValueError(
            f"{name!r} cannot name a segment: wanted 1 to 128 letters, digits, '.', '_' or '-', "
            "the first a letter, digit or '_'"
        )
    return name


def channel_name(name: str) -> str:
    """Return the name of the segment that stands for the message queue *name*."""
    return CHANNEL + check_name(name)


def queue_of(name: str) -> str | None:
    """Return the POSIX message queue that goes with segment *name*, if one does."""
    if not name.startswith(CHANNEL):
        return None
    return f"/{NAMESPACE}.channel.{name.removeprefix(CHANNEL)}"


def random_name() -> str:
    """Return a name that nobody can guess: 128 random bits."""
    return secrets.token_hex(16)


def is_random(name: str) -> bool:
    """Whether *name* looks like one of `random_name`: such a name is never used twice."""
    return len(name) == 32 and not name.strip("0123456789abcdef")


def segment_file(name: str) -> str:
    return SEGMENT + name


def node_file(node: int) -> str:
    return f"{NODE}{node:016x}"


def warm_file(capacity: int) -> str:
    return f"{WARM}{capacity}.{secrets.token_hex(8)}"


def path(file: str) -> str:
    return f"{DIR}/{file}"


def listing(prefix: str) -> Iterator[str]:
    """Yield what follows *prefix* in the name of each file that has it."""
    n = len(prefix)
    for file in os.listdir(DIR):
        if file.startswith(prefix):
            yield file[n:]
