"""A listening socket, and the thread that takes what comes."""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
import ssl as _ssl
import threading
import time

from . import sockets
from .errors import LinkClosed
from .hub import Hub
from .url import Address

__all__ = ["Acceptor"]


class Acceptor:
    """A listening socket, and the thread that takes what comes."""

    def __init__(
        self, sock: socket.socket, address: Address, hub: Hub, ssl: _ssl.SSLContext | None, io: str
    ) -> None:
        self._sock = sock
        self._address = address
        self._hub = hub
        self._ssl = ssl
        self._io = io
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._thread = threading.Thread(target=self._run, name=f"numpush {address}", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        poll = select.poll()
        poll.register(self._sock, select.POLLIN)
        poll.register(self._wake, select.POLLIN)
        while not self._hub.is_closing:
            if any(fd == self._wake for fd, _ in poll.poll()):
                return
            try:
                sock, who = self._sock.accept()
            except OSError as error:
                if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                    time.sleep(0.1)  # until some connection ends; those that wait, wait
                continue
            with contextlib.suppress(OSError, LinkClosed):  # it left again, or we do
                name = sockets.name_of(self._address, who)
                stream = sockets.open_stream(sock, self._io, self._ssl, None, self._hub.patience)
                self._hub.meet(stream, name, is_listening=True)

    def close(self) -> None:
        """End the thread, and free the address."""
        os.eventfd_write(self._wake, 1)
        self._thread.join()
        self.forget()
        sockets.unbind(self._address)

    def forget(self) -> None:
        """In the child of a fork: close the copies."""
        self._sock.close()
        os.close(self._wake)
