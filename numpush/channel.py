"""A channel: a POSIX message queue that carries handles between unrelated processes of one user.

The queue lives as long as any process has the channel open: a segment without data stands for it,
and who unlinks that, unlinks the queue (shm/segment.py). A message is a handle as msgpack, with a
lease of the sender; nothing is ever unpickled.
"""

from __future__ import annotations

import time
from typing import Any

import posix_ipc

from .attaching import attach_handle, handle_of
from .handle import Handle
from .layout import pack
from .shm import leases, naming, process
from .shm.errors import ChannelEmpty, ChannelFull, HandleClosed, SegmentExists, SegmentNotFound

__all__ = ["Channel"]

_MESSAGE_SIZE = 2048  #: bytes; handles have 100 to 300, those of structured dtypes more


class Channel:
    """Send shared arrays and frames to whoever opens the same name, first come, first served.

    Parameters
    ----------
    name : str
        1 to 128 letters, digits, '.', '_' or '-'.
    max_messages : int
        How many may wait, for who creates it. More than 10 need root or a higher
        /proc/sys/fs/mqueue/msg_max.

    Raises
    ------
    OSError, ValueError : the system allows no such queue.

    Examples
    --------
    >>> import numpy as np
    >>> from numpush import Channel, SArray
    >>> with Channel("doctest-numbers") as channel:
    ...     channel.put(SArray(np.arange(3)))
    ...     channel.get(timeout=1)
    SArray([0, 1, 2])
    """

    def __init__(self, name: str, max_messages: int = 10) -> None:
        self.name = name
        self._token: Any = _open(naming.channel_name(name), max_messages)
        queue = naming.queue_of(naming.channel_name(name))
        self._queue = posix_ipc.MessageQueue(
            queue, posix_ipc.O_CREAT, 0o600, max_messages, _MESSAGE_SIZE
        )

    def put(self, obj: Any, timeout: float | None = None) -> None:
        """Send an SArray, an SDataFrame, a view or a partition: its handle, that is.

        The lease keeps it alive until it is received, and for 60 s after this process has ended.

        Raises
        ------
        ChannelFull : no room within *timeout* seconds (0: do not wait; None: wait for ever).
        TypeError : *obj* is not in shared memory.
        ValueError : its handle is too long for a message (a structured dtype with many fields).
        """
        self._check_open()
        handle, segment = handle_of(obj)
        if handle.mode == "cow":
            raise ValueError("a copy-on-write view is private to this process; send the original")
        sender = leases.lease(segment, to_child=False)
        try:
            message = handle.to_bytes(sender)
            if len(message) > self._queue.max_message_size:
                raise ValueError(
                    f"a handle of {len(message)} bytes, at most {self._queue.max_message_size} "
                    "fit: publish the array and send its name, or send a view with fewer fields"
                )
            self._wait(lambda left: self._queue.send(message, timeout=left), timeout)
        except BaseException as error:
            process.attach(segment.name, handle.mode, identity=segment.identity, sender=sender)
            if isinstance(error, posix_ipc.BusyError):
                raise ChannelFull(
                    f"channel {self.name!r}: {self._queue.max_messages} messages wait, and nobody "
                    f"took one within {timeout} s"
                ) from None
            raise

    def get(self, timeout: float | None = None) -> Any:
        """Return the next object.

        Raises
        ------
        ChannelEmpty : nothing came within *timeout* seconds (0: do not wait; None: for ever).
        SegmentNotFound : what it named is gone: its sender ended more than 60 s ago.
        """
        self._check_open()
        try:
            message, _ = self._wait(lambda left: self._queue.receive(timeout=left), timeout)
        except posix_ipc.BusyError:
            raise ChannelEmpty(f"channel {self.name!r}: nothing came within {timeout} s") from None
        handle, sender = Handle.from_bytes(message)
        return attach_handle(handle, sender)

    def __len__(self) -> int:
        """How many messages wait."""
        self._check_open()
        return int(self._queue.current_messages)

    def close(self) -> None:
        """Close it; the last process to do so takes the queue away, with what waits in it."""
        if self._token is not None:
            self._queue.close()
            self._token = None

    def _check_open(self) -> None:
        if self._token is None:
            raise HandleClosed(f"channel {self.name!r} was closed by this process", self.name)

    @staticmethod
    def _wait(call: Any, timeout: float | None) -> Any:
        """Call with the time that is left; a signal whose handler returns does not end the wait."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            try:
                return call(left)
            except posix_ipc.SignalError:
                continue

    def __enter__(self) -> Channel:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "closed" if self._token is None else f"{len(self)} waiting"
        return f"<Channel {self.name!r}, {state}>"


def _open(name: str, max_messages: int) -> Any:
    """Attach to the channel's segment, or make it; return its token."""
    while True:
        try:
            return process.attach(name, "rw")[1]
        except SegmentNotFound:
            pass
        try:
            segment, token = process.create(pack({"channel": max_messages}), 0, name=name)
        except SegmentExists:  # somebody makes it now, or takes it away
            time.sleep(0.001)
            continue
        segment.commit()
        return token
