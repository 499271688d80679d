"""What tasks and actors of Ray do under test. At module level: their workers import it by name."""

from __future__ import annotations

import os
import signal

import numpy as np
import pandas as pd

from numpush import SArray, SDataFrame, SSeries


def add_to(array, i, value=1.0):
    array[i] += value
    return type(array).__name__, os.getpid()


def total(obj):
    return float(np.asarray(obj).sum())


def kind_and_total(obj):
    return type(obj).__name__, total(obj)


def names(obj):
    """Return the names of the segments of what is received, each."""
    return [each.name for each in obj]


def set_column(frame, name, value):
    frame[name] = value
    return type(frame).__name__


def make(n, fill=1.0):
    return SArray.full(n, fill)


def make_all(n):
    frame = pd.DataFrame({"x": np.arange(n, dtype=float), "s": [f"row {i}" for i in range(n)]})
    return {"array": make(n), "frame": [SDataFrame(frame)], "series": SSeries(frame["x"])}


def put(array):
    import ray

    return [ray.put(array)]


def forward(array, function):
    """Send what was received on, from inside of a task."""
    import ray

    return ray.get(
        ray.remote(function).options(num_cpus=0, resources={"here": 0.1}).remote(array, 0)
    )


class Holder:
    """An actor with arrays of its own."""

    def __init__(self):
        self.array = None

    def make(self, n):
        self.array = make(n)
        return self.array

    def keep(self, array):
        self.array = array
        return getattr(array, "name", None)

    def echo(self, array):
        return array

    def total(self):
        return total(self.array)

    def add(self, i):
        self.array[i] += 1

    def forget_serializers(self):
        """Be a worker that nobody has called install() in."""
        import ray

        for cls in (SArray, SDataFrame, SSeries):
            ray.util.deregister_serializer(cls)

    def sums(self, n):
        yield from (make(10, float(i)) for i in range(n))

    def pid(self):
        return os.getpid()

    def end(self):
        import ray

        ray.actor.exit_actor()


class AsyncHolder:
    """An actor whose methods are coroutines."""

    async def forward(self, array, other):
        await other.keep.remote(array)
        await other.add.remote(0)
        return array


def waste(n):
    """Make a segment that nobody is told of, and be killed."""
    array = make(n)
    assert array.name
    os.kill(os.getpid(), signal.SIGKILL)
