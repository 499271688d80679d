"""The command line: `numpush ls`, `gc` and `rm`, and what it says to wrong ones."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

import numpush
import processes
from commands import environment, holder, ls, run

ESCAPE = "\x1b"


# -- ls


def test_ls_of_nothing(namespace: str) -> None:
    assert run("ls", namespace=namespace).stdout.startswith("0 segments, 0 B; /dev/shm: ")
    assert ls(namespace) == {}


def test_ls_tells_what_a_segment_holds_and_who_uses_it(namespace: str) -> None:
    with holder(namespace) as held:
        found = ls(namespace)
        assert set(found) == {"prices", held.big}
        prices = found["prices"]
        assert prices["kind"] == "array"
        assert prices["dtype"] == "float64"
        assert prices["shape"] == [100, 3]
        assert prices["size"] == 2400
        assert prices["state"] == "live"
        assert 0 <= prices["age"] < processes.LIMIT
        assert abs(prices["created"] - time.time()) < processes.LIMIT
        assert prices["creator_pid"] == held.pid
        (user,) = prices["holders"]
        assert user["pid"] == held.pid
        assert user["alive"]
        assert user["attached"]
        assert prices["leases"] == user["leases"] == 0
        assert prices["lock"] is None
        assert prices["range_locks"] == []
        assert found[held.big]["dtype"] == "int32"

        text = run("ls", namespace=namespace).stdout
        assert re.search(rf"^prices +array float64 100 x 3 .* {held.pid} +{held.pid}", text, re.M)
        assert re.search(rf"^{held.big[:12]} +array int32 3333 ", text, re.M)
        assert held.big not in text
        assert held.big in run("ls", "--full", namespace=namespace).stdout
        assert "2 segments, " in text


def test_ls_tells_who_holds_locks(namespace: str) -> None:
    more = """
lock = prices.lock.lock()
write = prices.lock_range(slice(0, 10))
read = prices.lock_range(slice(50, 60), shared=True)
"""
    with holder(namespace, more) as held:
        prices = ls(namespace)["prices"]
        assert prices["lock"] == {"pid": held.pid, "tid": held.pid, "process": "python -c"}
        locks = sorted(prices["range_locks"], key=lambda entry: entry["start"])
        assert [(e["start"], e["stop"], e["shared"], e["state"], e["pid"]) for e in locks] == [
            (0, 240, False, "held", held.pid),
            (1200, 1440, True, "held", held.pid),
        ]
        text = run("ls", namespace=namespace).stdout
        assert "locked by" in text
        assert f"{held.pid}/{held.pid} w 0:240" in text
        assert f"{held.pid}/{held.pid} r 1200:1440" in text


def test_ls_marks_the_dead_and_counts_leases(namespace: str) -> None:
    more = """
from multiprocessing import SimpleQueue
queue = SimpleQueue()
queue.put(prices)
queue.put(prices)
"""
    with holder(namespace, more) as held:
        assert ls(namespace)["prices"]["leases"] == 2
        held.kill()
        prices = ls(namespace)["prices"]
        assert [(user["pid"], user["alive"]) for user in prices["holders"]] == [(held.pid, False)]
        assert f"{held.pid} (dead)" in run("ls", namespace=namespace).stdout
    run("rm", "prices", namespace=namespace)  # its leases would hold for the grace period


def test_ls_shows_names_and_what_is_kept_without_a_process(namespace: str) -> None:
    with holder(namespace, "numpush.publish('here', big, persist=True)") as held:
        found = ls(namespace)
        assert found["here"]["kind"] == "name"
        assert "of segment " + held.big in run("ls", "--full", namespace=namespace).stdout
    found = ls(namespace)
    assert set(found) == {"here", held.big}  # its process has left in good order
    assert found[held.big]["holders"][0]["pid"] == 0
    assert found[held.big]["holders"][0]["alive"]
    text = run("ls", namespace=namespace).stdout
    assert "kept" in text
    assert "dead" not in text
    run("rm", "here", held.big, namespace=namespace)


def test_a_table_fits_into_80_columns_and_a_pipe_gets_no_escape_codes(namespace: str) -> None:
    with holder(namespace, "lock = prices.lock.lock(); numpush.publish('here', big)"):
        for command in (["ls"], ["doctor"], ["top", "--count", "1"]):
            text = run(*command, namespace=namespace, COLUMNS="80").stdout
            lines = re.split("If you want it:|What to type", text)[0].splitlines()
            assert max(map(len, lines)) <= 80
            assert ESCAPE not in text
        lines = run("ls", namespace=namespace).stdout.splitlines()
        assert len(lines) == 6  # head, rule, three segments, total: nothing is folded


def test_ls_into_a_pipe_that_is_closed_is_quiet(namespace: str) -> None:
    command = f"'{sys.executable}' -m numpush ls | true"
    done = subprocess.run(
        ["bash", "-c", command], env=environment(namespace), capture_output=True, check=False
    )
    assert done.stderr == b""


# -- gc and rm


def test_gc_frees_what_killed_processes_left(namespace: str) -> None:
    with holder(namespace) as held:
        held.kill()
    assert set(ls(namespace)) == {"prices", held.big}
    swept = json.loads(run("gc", "--json", namespace=namespace).stdout)
    assert swept["segments"] == 2
    assert swept["processes"] == 1
    assert swept["bytes"] >= 2400 + 4 * 3333
    assert ls(namespace) == {}
    assert run("gc", namespace=namespace).stdout.startswith("freed 0 B: 0 segments")


def test_gc_takes_nothing_that_is_in_use(namespace: str) -> None:
    with holder(namespace) as held:
        assert json.loads(run("gc", "--json", namespace=namespace).stdout)["segments"] == 0
        assert held.evaluate("prices.sum()") == "44850.0"
        assert len(ls(namespace)) == 2


def test_rm_says_who_still_uses_it(namespace: str) -> None:
    with holder(namespace) as held:
        text = run("rm", "prices", namespace=namespace).stdout
        assert text.startswith("removed prices, ")
        assert f"still used by {held.pid}:" in text
        assert set(ls(namespace)) == {held.big}
        assert held.evaluate("prices.sum()") == "44850.0"  # its memory stays


def test_rm_takes_the_first_digits_of_a_random_name(namespace: str) -> None:
    with holder(namespace) as held:
        run("rm", held.big[:7], namespace=namespace, code=1)
        text = run("rm", held.big[:12], namespace=namespace).stdout
        assert f"removed {held.big}" in text
        run("rm", "price", namespace=namespace, code=1)  # a name that somebody chose is given whole


def test_rm_of_what_is_not_there_fails_and_the_others_go(namespace: str) -> None:
    with holder(namespace):
        done = run("rm", "nothing", "prices", namespace=namespace, code=1)
        assert "removed prices" in done.stdout
        assert done.stderr.startswith("numpush rm: segment 'nothing': there is none")
        assert "prices" not in ls(namespace)


# -- the command line itself


@pytest.mark.parametrize(
    "args",
    [
        [],
        ["what"],
        ["ls", "--what"],
        ["rm"],
        ["top", "--interval", "0"],
        ["top", "--interval", "x"],
        ["top", "--count", "0"],
        ["top", "--sort", "what"],
    ],
)
def test_a_wrong_command_line_exits_with_2(namespace: str, args: list[str]) -> None:
    done = run(*args, namespace=namespace, code=2)
    assert done.stdout == ""
    assert done.stderr.startswith("usage: numpush")


def test_version_and_help(namespace: str) -> None:
    assert run("--version", namespace=namespace).stdout == f"numpush {numpush.__version__}\n"
    text = run("--help", namespace=namespace).stdout
    assert all(name in text for name in ("ls", "top", "gc", "rm", "doctor"))


def test_a_wrong_namespace_is_an_error_in_one_line() -> None:
    done = run("ls", namespace="no/slash", code=1)
    assert done.stderr.startswith("numpush ls: NUMPUSH_NAMESPACE='no/slash'")


def test_the_script_that_pip_installs_is_the_same_command(namespace: str) -> None:
    script = Path(sys.executable).parent / "numpush"
    done = subprocess.run(
        [script, "--version"],
        env=environment(namespace),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == f"numpush {numpush.__version__}\n"
