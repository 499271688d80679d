"""`numpush top`: tables into pipes, and a terminal that is as it was at the end."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import select
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import processes
from commands import environment, holder, run

ESCAPE = "\x1b"


def test_top_shows_as_many_tables_as_wanted(namespace: str) -> None:
    with holder(namespace) as held:
        text = run("top", "--count", "2", "--interval", "0.1", namespace=namespace).stdout
        assert text.count("numpush top, ") == 2
        rows = re.findall(rf"^({held.big[:12]}|prices) ", text, re.M)
        assert rows == [held.big[:12], "prices"] * 2  # the largest first
        assert ESCAPE not in text


def test_top_sorts_and_a_pipe_gets_one_table(namespace: str) -> None:
    with holder(namespace) as held:
        big = held.big[:12]
        for args, first in (([], big), (["--sort", "name", "--once"], min(big, "prices"))):
            text = run("top", *args, namespace=namespace).stdout
            rows = re.findall(rf"^({big}|prices) ", text, re.M)
            assert len(rows) == 2
            assert rows[0] == first
            assert "2 segments: " in text
            assert " warm; /dev/shm: " in text


@contextlib.contextmanager
def top_in_a_terminal(namespace: str, *args: str) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """Run `numpush top` in a terminal that is to be as it was at the end; yield it and its screen."""
    controller, terminal = pty.openpty()
    before = termios.tcgetattr(terminal)
    with subprocess.Popen(
        [sys.executable, "-m", "numpush", "top", "--interval", "0.05", *args],
        env={**environment(namespace), "TERM": "xterm"},
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
    ) as top:
        try:
            yield top, controller
            assert top.wait(processes.LIMIT) == 0
            assert termios.tcgetattr(terminal) == before
        finally:
            top.kill()
            os.close(terminal)
            os.close(controller)


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM, "q"])
def test_top_ends_by_a_signal_or_q_and_gives_the_terminal_back(
    namespace: str, end: signal.Signals | str
) -> None:
    with holder(namespace), top_in_a_terminal(namespace) as (top, controller):
        screen = read_until(controller, lambda text: "prices" in text)
        if isinstance(end, str):
            os.write(controller, end.encode())
        else:
            top.send_signal(end)
        screen += read_until(controller, lambda text: f"{ESCAPE}[?1049l" in text)
        assert "Traceback" not in screen
        assert screen.count(f"{ESCAPE}[?1049h") == screen.count(f"{ESCAPE}[?1049l") == 1
        assert screen.count(f"{ESCAPE}[?25l") == screen.count(f"{ESCAPE}[?25h") == 1  # the cursor


def test_top_gives_the_terminal_back_while_it_is_stopped(namespace: str) -> None:
    with holder(namespace), top_in_a_terminal(namespace) as (top, controller):
        attributes = termios.tcgetattr(controller)
        read_until(controller, lambda text: "prices" in text)
        assert termios.tcgetattr(controller) != attributes
        top.send_signal(signal.SIGTSTP)
        read_until(controller, lambda text: f"{ESCAPE}[?1049l" in text)
        processes.eventually(lambda: state_of(top.pid) == "T")
        assert termios.tcgetattr(controller) == attributes
        top.send_signal(signal.SIGCONT)
        read_until(controller, lambda text: "prices" in text)
        os.write(controller, b"q")


def state_of(pid: int) -> str:
    """Return the letter that the kernel has for the state of a process."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def test_top_tells_who_holds_a_lock_and_for_how_long(namespace: str) -> None:
    more = "lock = prices.lock.lock()"
    with holder(namespace, more) as held, top_in_a_terminal(namespace) as (_, controller):
        read_until(controller, lambda text: re.search(rf"{held.pid}/{held.pid} +[12]s", text))
        os.write(controller, b"q")


def read_until(fd: int, is_enough: Callable[[str], object]) -> str:
    """Read a terminal until *is_enough* or its end."""
    text = ""
    deadline = time.monotonic() + processes.LIMIT
    while not is_enough(text):
        assert select.select([fd], [], [], max(0, deadline - time.monotonic()))[0], text
        try:
            text += os.read(fd, 65536).decode(errors="replace")
        except OSError:  # Linux: nobody has the other end any more
            break
    return text
