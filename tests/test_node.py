"""Nodes: proof that a process lives."""

from __future__ import annotations

import fcntl
import os
import stat
import sys
import time

import numpy as np
import pytest

import numpush
import processes
from numpush import SArray
from numpush.shm import life, naming, node

_sweep = sys.modules["numpush.shm.sweep"]


@pytest.fixture
def made():
    made = node.make()
    yield made
    if made.fd >= 0:
        made.close(unlink=True)


def path_of(id):
    return naming.path(naming.node_file(id))


def test_a_node_lives_while_its_descriptor_is_open(made):
    assert node.is_alive(made.id)
    made.close(unlink=False)
    assert not node.is_alive(made.id)
    processes.collect_garbage()
    assert not os.path.exists(path_of(made.id))


def test_a_node_that_leaves_no_trace_is_dead(made):
    made.close(unlink=True)
    assert not os.path.exists(path_of(made.id))
    assert not node.is_alive(made.id)


def test_it_says_who_it_is(made):
    assert node.info(made.id).pid == 0
    made.sign()
    assert node.info(made.id) == node.NodeInfo(made.id, os.getpid(), True)


def test_nobody_else_can_read_it(made):
    assert stat.S_IMODE(os.stat(path_of(made.id)).st_mode) == 0o600
    assert os.get_inheritable(made.fd) is False


def test_the_time_of_death_is_noted_once(made):
    made.close(unlink=False)
    first = os.stat(path_of(made.id)).st_mtime
    for _ in range(3):
        time.sleep(0.02)
        fd = node.open_dead(made.id)
        node.mark_dead(fd)
        assert node.seconds_dead(fd) >= 0.02
        os.close(fd)
    assert os.stat(path_of(made.id)).st_mtime == first


def test_only_one_cleans_up_after_it(made):
    assert node.open_dead(made.id) is None  # it lives
    made.close(unlink=False)
    fd = node.open_dead(made.id)
    assert node.open_dead(made.id) is None
    os.close(fd)
    fd = node.open_dead(made.id)
    os.close(fd)


def test_a_look_is_good_for_a_while(made, monkeypatch):
    assert node.is_alive(made.id, max_age=60)
    fcntl.flock(made.fd, fcntl.LOCK_UN)
    assert node.is_alive(made.id, max_age=60)
    assert not node.is_alive(made.id)
    assert not node.is_alive(made.id, max_age=60)  # once dead, dead for ever


def test_a_kept_node_is_no_process():
    kept = node.kept("name")
    assert node.is_kept(kept)
    assert node.is_alive(kept)
    assert kept == node.kept("name") != node.kept("other")
    assert not node.is_kept(life.node().id)


def test_numbers_are_never_used_twice():
    SArray(np.zeros(1))
    made = [node.make() for _ in range(50)]
    assert len({m.id for m in made}) == 50
    for m in made:
        m.close(unlink=True)


def test_a_process_makes_no_node_before_it_needs_one():
    namespace = processes.new_namespace()
    code = (
        "import os, numpush\nprint(len([f for f in os.listdir('/dev/shm') if f.startswith('{}')]))"
    )
    assert processes.run_script(code.format(namespace), namespace=namespace).stdout == "0\n"


def test_a_bad_namespace_is_refused_at_import():
    for bad in ("a/b", "a b", "", "-x", "x" * 65):
        done = processes.run_script(
            "import os\nos.environ['NUMPUSH_NAMESPACE'] = os.environ['BAD']\nimport numpush.shm",
            BAD=bad,
        )
        assert "ImportError: NUMPUSH_NAMESPACE" in done.stderr, bad


def test_two_namespaces_do_not_see_each_other():
    a = SArray(np.zeros(9), name="mine")
    done = processes.run_script("import numpush\nprint(numpush.segments())\nnumpush.attach('mine')")
    assert done.stdout == "no segments\n"
    assert "SegmentNotFound" in done.stderr
    assert numpush.attach("mine").sum() == a.sum()
