"""Guarantees 1, 2, 6 and 7 of DESIGN.md, section 3: who keeps a segment, and how it is mapped.

3 (handles in flight) is in test_leases.py, 4 (fork) in test_fork.py, 5 (space) in test_space.py and
test_system.py, 8 (damage) in test_segment.py.
"""

from __future__ import annotations

import ctypes
import faulthandler
import gc
import multiprocessing
import os
import signal
import weakref
from pathlib import Path

import numpy as np
import pytest

import numpush
import processes
from numpush import SArray, errors
from numpush.shm import registry

N = 3333


def sum_of(a, out):
    out.put(int(a.sum()))


def make_and_send(out):
    out.put(SArray(np.arange(N)))


def attach_and_stay(name, ready, go):
    a = numpush.attach(name)
    ready.set()
    go.wait(processes.LIMIT)
    assert a[N - 1] == N - 1


class TestItLivesWhileAnyoneUsesIt:
    """1. It lives while anyone uses it and goes when nobody does. Silent."""

    def test_every_start_method_sees_the_same_bytes(self, ctx):
        a = SArray(np.arange(N))
        out = ctx.Queue()
        child = ctx.Process(target=sum_of, args=(a, out))
        child.start()
        assert out.get(timeout=processes.LIMIT) == N * (N - 1) // 2
        assert processes.join(child) == [0]

    def test_it_outlives_its_creator(self, ctx):
        out = ctx.Queue()
        child = ctx.Process(target=make_and_send, args=(out,))
        child.start()
        a = out.get(timeout=processes.LIMIT)
        assert processes.join(child) == [0]
        processes.collect_garbage()
        assert processes.files() == {f"{numpush.shm.naming.SEGMENT}{a.name}"}
        assert a.sum() == N * (N - 1) // 2

    def test_the_last_one_out_unlinks(self, ctx):
        a = SArray(np.arange(N), name="last-one-out")
        ready, go = ctx.Event(), ctx.Event()
        child = ctx.Process(target=attach_and_stay, args=("last-one-out", ready, go))
        child.start()
        assert ready.wait(processes.LIMIT)
        del a
        gc.collect()
        assert any("last-one-out" in f for f in processes.files())
        go.set()
        assert processes.join(child) == [0]
        assert not any("last-one-out" in f for f in processes.files())

    def test_it_goes_with_the_last_array_of_its_only_user(self):
        a = SArray(np.arange(N))
        part = a[5:9].T[::-1]
        del a
        assert len(processes.files()) == 1
        del part
        assert processes.files() == set()

    def test_a_name_can_be_used_again_when_its_segment_is_gone(self):
        for i in range(5):
            a = SArray(np.full(N, i), name="again")
            with pytest.raises(errors.SegmentExists, match="'again'"):
                SArray(np.arange(3), name="again")
            assert numpush.attach("again")[0] == i
            del a
            with pytest.raises(errors.SegmentNotFound, match="'again'"):
                numpush.attach("again")

    def test_a_taken_name_costs_no_warm_memory(self):
        first = SArray(np.zeros(3 << 17), name="taken")
        for _ in range(3):
            del_me = SArray(np.zeros(3 << 17))
            del del_me
            with pytest.raises(errors.SegmentExists, match="taken"):
                SArray(np.zeros(3 << 17), name="taken")
        for line in Path("/proc/self/maps").read_text().splitlines():
            start, stop = (int(end, 16) for end in line.split()[0].split("-"))
            is_gone = line.endswith("(deleted)") and numpush.shm.naming.NAMESPACE in line
            assert not (is_gone and stop - start > 1 << 20), line
        del first

    SILENT = [
        "a = SArray(np.arange(9)); b = a[1:]",
        "a = SArray(np.zeros(1 << 18)); del a; b = SArray(np.zeros(1 << 18))",
        "import multiprocessing as mp\nq = mp.Queue(); p = mp.Process(target=time.sleep, args=(.5,))"
        "\np.start(); q.put(SArray(np.arange(5))); time.sleep(.2)",
        "import multiprocessing as mp\nq = mp.SimpleQueue(); p = mp.Process(target=time.sleep, args=(.2,))"
        "\np.start(); a = SArray(np.arange(5)); q.put(a); del a",
        "lock = SArray(np.arange(5)).lock; lock.lock()",
        "a = SArray(np.arange(5)); g = a.lock_range(slice(0, 2)); g2 = a.rwlock",
        "a = SArray(np.arange(5)); a.close()",
        "sys.foo = SArray(np.arange(5))",
        "class C: pass\nc = C(); c.c = c; c.a = SArray(np.arange(5))",
        "a = SArray(np.arange(5)); import atexit; atexit.register(lambda: a.sum())",
        "import atexit; a = SArray(np.arange(5)); atexit.register(lambda: SArray(a))",
        "a = SArray(np.arange(5))\nimport threading\n"
        "threading.Thread(target=lambda: (time.sleep(.3), a.sum())).start()",
        "a = SArray(np.arange(5)); sys.exit(3)",
        "with mp.Pool(2) as pool: print(end=''); pool.map(np.sum, [SArray(np.arange(5))] * 20)",
        "pid = os.fork(); a = SArray(np.arange(5))\nif pid: os.waitpid(pid, 0)",
        "a = SArray(np.arange(5)); pid = os.fork()\nif pid: os.waitpid(pid, 0)",
        "numpush.publish('x', SArray(np.arange(5)))",
    ]

    @pytest.mark.parametrize("body", SILENT)
    def test_a_script_prints_nothing_and_leaves_nothing(self, body):
        namespace = processes.new_namespace()
        code = (
            "import os, sys, time, multiprocessing as mp\nimport numpy as np, numpush\n"
            f"from numpush import SArray\nif __name__ == '__main__':\n    exec({body!r})\n"
        )
        done = processes.run_script(code, namespace=namespace)
        assert (done.stdout, done.stderr) == ("", "")
        assert done.returncode == (3 if "exit(3)" in body else 0)
        assert processes.files_of(namespace) == set()

    def test_no_process_and_no_thread_is_started(self):
        code = (
            "import os, threading, numpy as np\nfrom numpush import SArray\na = SArray(np.ones(99))\n"
            "print(threading.active_count(), open(f'/proc/self/task/{os.getpid()}/children').read())"
        )
        assert processes.run_script(code).stdout.strip() == "1"


def use_everything(name, ready):
    a = numpush.attach(name)
    mine = SArray(np.arange(N))
    big = SArray(np.zeros(1 << 18))
    del big
    guards = [a.lock.lock(), a.lock_range(slice(0, 9))]
    a.version, mine.notify()
    numpush.publish(f"published-{os.getpid()}", mine)
    ready.set()
    while guards:
        signal.pause()


class TestKilledProcessesLeakNothing:
    """2. kill -9 of any or all processes leaks nothing for long."""

    def test_one_sweep_takes_away_what_a_killed_process_left(self, ctx):
        a = SArray(np.arange(N), name="shared")
        ready = ctx.Event()
        child = ctx.Process(target=use_everything, args=("shared", ready))
        child.start()
        assert ready.wait(processes.LIMIT)
        assert len(processes.files()) >= 4
        child.kill()
        assert processes.join(child) == [-9]
        processes.collect_garbage()
        assert processes.files() == {"shared".join([numpush.shm.naming.SEGMENT, ""])}
        with a.lock as guard:
            assert guard.owner_died
        with a.lock_range(slice(3, 5), timeout=5) as part:
            assert part.owner_died

    def test_the_next_process_to_start_sweeps_when_all_were_killed(self):
        namespace = processes.new_namespace()
        code = (
            "import os, signal, numpy as np\nfrom numpush import SArray\n"
            "a = [SArray(np.zeros(n)) for n in (1, 1000, 1 << 18)]; b = SArray(a[2]); del b\n"
            "for i in range(3):\n    if not os.fork(): c = SArray(np.zeros(7)); os.kill(os.getpid(), 9)\n"
            "for i in range(3): os.wait()\n"
            "os.kill(os.getpid(), 9)"
        )
        assert processes.run_script(code, namespace=namespace).returncode == -9
        assert len(processes.files_of(namespace)) > 4
        code = "import numpy as np\nfrom numpush import SArray\nSArray(np.zeros(1))"
        done = processes.run_script(code, namespace=namespace)
        assert (done.stdout, done.stderr) == ("", "")
        assert processes.files_of(namespace) == set()

    def test_what_the_living_use_survives_the_killing_of_its_creator(self, ctx):
        out = ctx.Queue()
        child = ctx.Process(target=make_and_wait, args=(out,))
        child.start()
        a = out.get(timeout=processes.LIMIT)
        child.kill()
        processes.join(child)
        processes.collect_garbage()
        assert a.sum() == N * (N - 1) // 2
        b = numpush.attach(a.handle)
        assert np.shares_memory(a, b)

    def test_a_zombie_counts_as_dead(self):
        pid = processes.fork(zombie)
        processes.eventually(lambda: " Z " in Path(f"/proc/{pid}/stat").read_text())
        processes.collect_garbage()
        assert processes.files() == set()
        assert processes.wait(pid) == 0

    def test_a_stopped_process_counts_as_alive(self):
        ctx = multiprocessing.get_context("fork")
        ready = ctx.Event()
        child = ctx.Process(target=use_mine, args=(ready,))
        child.start()
        assert ready.wait(processes.LIMIT)
        os.kill(child.pid, signal.SIGSTOP)
        before = processes.files()
        processes.collect_garbage()
        assert processes.files() == before
        child.kill()
        processes.join(child)

    def test_node_files_removed_by_hand_are_found_out_by_gc(self):
        pid = processes.fork(zombie)
        processes.wait(pid)
        for file in processes.files():
            if ".node." in file:
                os.unlink(processes.SHM / file)
        processes.collect_garbage()
        assert processes.files() == set()


def make_and_wait(out):
    a = SArray(np.arange(N))
    out.put(a)
    while True:
        signal.pause()


def use_mine(ready):
    a = SArray(np.arange(N))
    ready.set()
    while a[0] == 0:
        signal.pause()


def zombie():
    zombie.keep = SArray(np.arange(N))


class TestAViewKeepsItsMapping:
    """6. A view keeps its mapping; no sequence of calls can segfault."""

    def test_a_view_outlives_close_and_its_array(self):
        a = SArray(np.arange(N))
        view = np.asarray(a)[7:]
        memory = memoryview(a)
        a.close()
        del a
        gc.collect()
        numpush.gc()
        assert view[0] == 7
        del view
        assert memory[8] == 8
        memory.release()
        del memory
        assert processes.files() == set()

    def test_close_refuses_what_would_send_or_lock(self):
        a = SArray(np.arange(N))
        b = a[3:]
        a.close()
        for use in (
            lambda: b.lock,
            lambda: b.rwlock,
            lambda: b.lock_range(slice(None)),
            lambda: b.wait(0, timeout=0),
            lambda: multiprocessing.reduction.ForkingPickler.dumps(b),
        ):
            with pytest.raises(errors.HandleClosed, match=a.name):
                use()
        assert b[0] == 3
        assert a.sum() == N * (N - 1) // 2
        a.close()

    def test_close_under_a_held_lock_is_refused(self):
        a = SArray(np.arange(N))
        with a.lock, pytest.raises(errors.LockError, match="unlock before closing"):
            a.close()
        with a.lock_range(slice(2)), pytest.raises(errors.LockError, match="unlock before"):
            a.close()
        a.close()

    def test_attaching_again_opens_a_closed_one(self):
        a = SArray(np.arange(N), name="reopened")
        a.close()
        b = numpush.attach("reopened")
        assert np.shares_memory(a, b)
        with b.lock:
            b[0] = 5
        assert a[0] == 5

    def test_a_held_lock_pins_its_segment(self):
        def lock_a_temporary():
            return SArray(np.arange(N), name="pinned").lock.lock()

        guard = lock_a_temporary()
        gc.collect()
        assert any("pinned" in f for f in processes.files())
        guard.unlock()
        del guard
        gc.collect()
        assert processes.files() == set()

    def test_views_die_in_any_order(self):
        rng = np.random.default_rng(5)
        for _ in range(20):
            a = SArray(np.arange(N))
            views = [a, *(a[i:] for i in range(9)), np.asarray(a), a.T, a.view("u1"), memoryview(a)]
            views += [numpush.attach(a.handle) for _ in range(3)]
            ref = weakref.ref(a)
            del a
            for i in rng.permutation(len(views)):
                assert processes.files()
                views[i] = None
            assert ref() is None
            assert processes.files() == set()

    def test_reference_cycles_with_arrays_are_collected(self):
        class Node:
            pass

        for _ in range(50):
            node = Node()
            node.self, node.a = node, SArray(np.arange(N))
        del node
        gc.collect()
        assert processes.files() == set()

    def test_finalizers_may_use_arrays_wherever_the_collector_runs(self):
        assert processes.run_forked(collect_inside_the_registry) == 0


class Hook:
    def __init__(self, a):
        self.a, self.cycle = a, self

    def __del__(self):
        assert self.a.copy()[0] == 0
        np.sort(self.a)


def collect_inside_the_registry():
    gc.freeze()  # what pytest has is not looked at each time
    keep = SArray(np.arange(N))
    for n in range(1, 150):  # the collector runs after n more objects: everywhere, in the end
        gc.collect()
        gc.disable()
        Hook(keep)
        gc.set_threshold(n)
        gc.enable()
        made = SArray(np.arange(9))
        numpush.attach(made.handle)
        del made


def store_at(address):
    faulthandler.disable()
    ctypes.memset(address, 1, 1)


class TestThreeWaysToAttach:
    """7. rw, ro and cow, enforced by the kernel; the mode never depends on size."""

    @pytest.fixture(params=[1, N, 1 << 19])
    def a(self, request):
        return SArray(np.zeros(request.param, "i4"))

    def test_ro_cannot_be_stored_to(self, a):
        ro = numpush.attach(a.handle, "ro")
        assert (ro.mode, ro.flags.writeable, a.mode) == ("ro", False, "rw")
        with pytest.raises(ValueError, match="read-only"):
            ro[0] = 1
        a[0] = 7
        assert ro[0] == 7

    def test_ro_cannot_be_made_writeable(self, a):
        ro = numpush.attach(a.handle, "ro")
        for array in (ro, ro[:], np.asarray(ro), ro.view("u1"), ro.T):
            with pytest.raises(ValueError, match="cannot set WRITEABLE"):
                array.setflags(write=True)
            with pytest.raises(ValueError, match="cannot set WRITEABLE"):
                array.flags.writeable = True

    def test_the_kernel_stops_a_store_into_ro(self, a):
        ro = numpush.attach(a.handle, "ro")
        assert processes.run_forked(store_at, ro.ctypes.data) == -signal.SIGSEGV
        assert a[0] == 0

    def test_cow_changes_are_private(self, a):
        cow = numpush.attach(a.handle, "cow")
        cow[0] = 5
        assert (cow.mode, cow[0], a[0]) == ("cow", 5, 0)
        rw = numpush.attach(a.handle, "rw")
        assert np.shares_memory(rw, a)
        assert not np.shares_memory(cow, a)

    def test_cow_changes_are_gone_with_the_last_view(self, a):
        cow = numpush.attach(a.handle, "cow")
        cow[0] = 5
        del cow
        assert numpush.attach(a.handle, "cow")[0] == 0

    @pytest.mark.parametrize("mode", ["rw", "ro", "cow"])
    def test_a_received_handle_has_its_mode(self, ctx, start_method, mode):
        a = SArray(np.zeros(N, "i4"))
        view = numpush.attach(a.handle, mode)
        a[0] = 3
        out = ctx.Queue()
        child = ctx.Process(target=say_mode, args=(view, out))
        child.start()
        name, writeable, value = out.get(timeout=processes.LIMIT)
        assert processes.join(child) == [0]
        if mode == "cow" and start_method != "fork":  # private changes travel by value
            assert (name, writeable) == ("ndarray", True)
        else:
            assert (name, writeable) == (mode, mode != "ro")
        assert value == 3
        assert a[0] == (9 if mode == "rw" else 3)

    def test_modes_of_one_segment_live_side_by_side(self):
        a = SArray(np.zeros(N))
        views = {mode: numpush.attach(a.handle, mode) for mode in ("rw", "ro", "cow")}
        a[...] = 1
        assert {mode: int(v[-1]) for mode, v in views.items()} == dict.fromkeys(views, 1)
        name = a.name
        del a
        for mode in ("rw", "cow", "ro"):
            del views[mode]
        assert not any(name in f for f in processes.files())
        assert all(name != s.name for s in registry.segments.values() if s.node)

    def test_unknown_modes_are_refused(self, a):
        with pytest.raises(ValueError, match="'rw', 'ro' or 'cow'"):
            numpush.attach(a.handle, "w+")


def say_mode(a, out):
    mode = a.mode if isinstance(a, SArray) else "ndarray"
    value = int(a[0])
    if a.flags.writeable:
        a[0] = 9
    out.put((mode, a.flags.writeable, value))
