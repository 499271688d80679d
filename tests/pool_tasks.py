"""What the workers of the pools under test do. At module level: loky sends it by name."""

from __future__ import annotations

import ctypes
import os
import signal
import time

import numpy as np

N = 33_333
SHARE = 1 << 16  #: bytes, so that N float64 go by shared memory


class Unloadable:
    """It can be pickled, and the pickle cannot be loaded."""

    def __reduce__(self):
        return int, ("unloadable",)


def square(x):
    return x * x


def add(a, b, *, c=0):
    return a + b + c


def pid_of(_=None):
    return os.getpid()


def sleep(seconds):
    time.sleep(seconds)
    return seconds


def die(how):
    if how == "exit":
        os._exit(3)
    if how == "segfault":
        import faulthandler

        faulthandler.disable()
        ctypes.string_at(0)
    os.kill(os.getpid(), getattr(signal, how))


def lies_in_shared_memory(obj):
    """Whether the first numbers of *obj* lie in a file in /dev/shm, by the kernel's account."""
    if not isinstance(obj, np.ndarray):
        obj = obj.iloc[:, 0].to_numpy() if obj.ndim == 2 else obj.to_numpy()
    address = obj.__array_interface__["data"][0]
    with open("/proc/self/maps") as maps:
        for line in maps:
            start, stop = (int(x, 16) for x in line.split()[0].split("-"))
            if start <= address < stop:
                return "/dev/shm/" in line
    return False


def look(obj):
    return type(obj).__name__, lies_in_shared_memory(obj)


_kept = None


def keep_it(a):
    global _kept
    _kept = a


def look_at_kept(_):
    return (*look(_kept), float(_kept.sum()))


def is_running(pid):
    try:
        with open(f"/proc/{pid}/stat") as f:
            return f.read().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
