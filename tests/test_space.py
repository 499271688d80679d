"""What is said and done when there is no room: guarantee 5 of DESIGN.md, section 3.

The real thing, a small /dev/shm and a small control group, is in test_system.py.
"""

from __future__ import annotations

import os

import numpy as np
import pytest

import processes
from numpush import SArray, errors
from numpush.shm import naming, space, warm

N = 3333


@pytest.fixture
def little_room(monkeypatch):
    """A machine with 64 MiB, of which what is used by this namespace is not free."""

    def room(wanted=0):
        used = sum(os.stat(naming.path(f)).st_blocks * 512 for f in processes.files())
        return space.Room((64 << 20) - used, 64 << 20, naming.DIR)

    monkeypatch.setattr(space, "room", room)


class TestSegmentFull:
    def test_it_says_what_is_wanted_free_held_and_to_be_done(self, little_room):
        a = SArray(np.zeros(30 << 17), name="the-big-one")
        with pytest.raises(errors.SegmentFull) as caught:
            SArray(np.zeros(60 << 17))
        words = str(caught.value)
        assert "60.0 MiB of shared memory wanted" in words
        assert "34.0 MiB" in words
        assert "of 64.0 MiB free in /dev/shm" in words
        assert f"the-big-one  held by {os.getpid()}" in words
        assert "--shm-size" in words
        assert isinstance(caught.value, MemoryError)
        assert a.sum() == 0

    def test_nothing_is_left_and_smaller_ones_work(self, little_room):
        for _ in range(3):
            with pytest.raises(errors.SegmentFull):
                SArray.empty(1 << 40, "u1")
            assert processes.files() == set()
            assert SArray(np.ones(N)).sum() == N

    def test_the_five_largest_are_named(self, little_room):
        keep = [SArray(np.zeros((8 - i) << 16), name=f"n{i}") for i in range(8)]
        with pytest.raises(errors.SegmentFull, match="in 3 more") as caught:
            SArray(np.zeros(64 << 17))
        assert "n4" in str(caught.value)
        assert "n5" not in str(caught.value)
        del keep

    def test_warm_memory_goes_first(self, little_room):
        a = SArray(np.zeros(7 << 17))
        del a
        assert any(".warm." in f for f in processes.files())
        b = SArray(np.zeros(60 << 17))
        assert not any(".warm." in f for f in processes.files())
        del b

    def test_what_the_dead_left_goes_first(self, little_room):
        assert processes.run_forked(leave_much) == 0
        assert SArray(np.ones(50 << 17)).sum() == 50 << 17

    def test_sparse_arrays_reserve_nothing(self, little_room):
        a = SArray.empty(1 << 33, "u1", reserve=False)
        a[-1] = 1
        assert os.stat(naming.path(naming.segment_file(a.name))).st_blocks < 100

    def test_memory_that_is_not_all_there_is_not_kept_warm(self):
        a = SArray.empty(8 << 20, "u1", reserve=False)
        a[: 1 << 20] = 1
        del a
        assert processes.files() == set()
        b = SArray.empty(8 << 20, "u1")  # whose stores cannot fail, wherever it lies
        assert os.stat(naming.path(naming.segment_file(b.name))).st_blocks * 512 >= b.nbytes

    def test_the_memory_is_reserved(self):
        a = SArray.empty(1 << 21, "u1")
        assert os.stat(naming.path(naming.segment_file(a.name))).st_blocks * 512 >= 1 << 21

    def test_a_broken_promise_of_room_is_an_error_too(self, monkeypatch):
        """room() said yes, the reservation says no."""

        def reserve(*_):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("numpush.ffi.map.reserve", reserve)
        with pytest.raises(errors.SegmentFull):
            SArray(np.zeros(N))
        assert processes.files() == set()

    @pytest.mark.parametrize("where", ["collapse", "reserve"])
    def test_an_interrupt_while_reserving_leaves_nothing(self, monkeypatch, where):
        def interrupt(*_):
            raise KeyboardInterrupt

        monkeypatch.setattr(f"numpush.ffi.map.{where}", interrupt)
        with pytest.raises(KeyboardInterrupt):
            SArray(np.zeros(1 << 20))  # large enough for huge pages
        assert processes.files() == set()

    def test_an_interrupt_while_copying_leaves_nothing(self, monkeypatch):
        for n, where in ((N, "copy_all"), (1 << 18, "write_all")):

            def fail(*args, **kwargs):
                raise KeyboardInterrupt

            monkeypatch.setattr(f"numpush.blocks.{where}", fail)
            with pytest.raises(KeyboardInterrupt):
                SArray(np.zeros(n))
            assert not any(".seg." in f for f in processes.files())


def leave_much():
    leave_much.keep = SArray(np.zeros(50 << 17))


class TestWarmMemory:
    def test_it_is_bounded(self, monkeypatch):
        monkeypatch.setattr(warm, "_limit", 10 << 20)
        for _ in range(10):
            keep = [SArray(np.zeros(3 << 17)) for _ in range(5)]
            del keep
        sizes = [int(f.split(".")[2]) for f in processes.files() if ".warm." in f]
        assert 0 < sum(sizes) <= 10 << 20

    def test_it_holds_nothing_of_another_array(self):
        for _ in range(5):
            a = SArray.full(1 << 18, 7.0)
            del a
            assert not SArray.zeros(1 << 18).any()

    def test_it_goes_with_its_process(self):
        namespace = processes.new_namespace()
        code = (
            "import numpy as np\nfrom numpush import SArray\na = SArray(np.zeros(1 << 18)); del a"
        )
        assert processes.run_script(code, namespace=namespace).stderr == ""
        assert processes.files_of(namespace) == set()

    def test_the_limit_can_be_set(self):
        code = (
            "import os, numpy as np\nfrom numpush import SArray\na = SArray(np.zeros(1 << 18)); del a\n"
            "print(sum('.warm.' in f for f in os.listdir('/dev/shm') "
            "if f.startswith(os.environ['NUMPUSH_NAMESPACE'])))"
        )
        for limit, n in (("0", "0"), ("99999999", "1"), ("", "1")):
            assert processes.run_script(code, NUMPUSH_WARM_BYTES=limit).stdout.strip() == n
        assert "wanted a number" in processes.run_script(code, NUMPUSH_WARM_BYTES="1G").stderr


class TestControlGroups:
    """Against a made-up tree: what the kernel shows in /sys/fs/cgroup, version 1 and 2."""

    def tree(self, tmp_path, monkeypatch, cgroup, files):
        for name, text in files.items():
            file = tmp_path / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        (tmp_path / "self").write_text(cgroup)
        real_open = open

        def fake_open(path, *args, **kwargs):
            path = str(path)
            if path == "/proc/meminfo" and not (tmp_path / "meminfo").exists():
                raise FileNotFoundError(path)
            if path == "/proc/meminfo":
                path = str(tmp_path / "meminfo")
            elif path == "/proc/self/cgroup":
                path = str(tmp_path / "self")
            elif path.startswith("/sys/fs/cgroup"):
                path = str(tmp_path) + path.removeprefix("/sys/fs/cgroup")
            return real_open(path, *args, **kwargs)

        monkeypatch.setattr(space, "open", fake_open, raising=False)

    def test_version_2(self, tmp_path, monkeypatch):
        self.tree(
            tmp_path,
            monkeypatch,
            "0::/outer/inner\n",
            {
                "outer/inner/memory.max": "max\n",
                "outer/inner/memory.current": "5000\n",
                "outer/memory.max": "100000\n",
                "outer/memory.current": "40000\n",
                "outer/memory.stat": "anon 10000\nfile 30000\nshmem 20000\n",
            },
        )
        found = list(space.cgroup_rooms())
        assert found == [space.Room(70000, 100000, "/sys/fs/cgroup/outer")]
        assert space.room().limit == "/sys/fs/cgroup/outer"
        assert "docker run --memory" in space.remedy(space.room().limit)

    def test_version_1(self, tmp_path, monkeypatch):
        self.tree(
            tmp_path,
            monkeypatch,
            "9:cpu:/x\n4:memory:/job\n0::/\n",
            {
                "memory/job/memory.limit_in_bytes": "5000000\n",
                "memory/job/memory.usage_in_bytes": "6000000\n",
                "memory/memory.limit_in_bytes": "9223372036854771712\n",
                "memory/memory.usage_in_bytes": "1\n",
            },
        )
        found = list(space.cgroup_rooms())
        assert found == [space.Room(0, 5000000, "/sys/fs/cgroup/memory/job")]

    def test_the_memory_of_the_machine_counts_too(self, tmp_path, monkeypatch):
        text = "MemTotal: 2000 kB\nMemAvailable: 30 kB\nSwapTotal: 100 kB\nSwapFree: 40 kB\nX: 0\n"
        self.tree(tmp_path, monkeypatch, "", {"meminfo": text})
        assert space.room() == space.Room(70 << 10, 2100 << 10, "/proc/meminfo")
        assert "add swap" in space.remedy("/proc/meminfo")
        assert space.room(1000).limit == naming.DIR
        with pytest.raises(errors.SegmentFull, match=r"2.0 MiB of shared memory wanted, 70.0 KiB"):
            SArray.empty(2 << 20, "u1")

    def test_no_groups_at_all(self, tmp_path, monkeypatch):
        self.tree(tmp_path, monkeypatch, "1:cpu:/\n", {})
        assert list(space.cgroup_rooms()) == []
        assert space.room().limit == naming.DIR

    def test_sizes_are_written_as_people_do(self):
        sizes = [0, 1023, 1024, 1 << 20, (1 << 30) * 3 // 2, 1 << 50]
        words = ["0 B", "1023 B", "1.0 KiB", "1.0 MiB", "1.5 GiB", "1024.0 TiB"]
        assert [space.human(n) for n in sizes] == words
