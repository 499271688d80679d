"""What receives: a thread that reads one connection, in any protocol, and puts down what has landed.

(1) The thread ends with the connection, for whatever reason, and tells its hub why.
(2) It takes an object only when its link has room for it: until then its peer has to wait.
(3) Small objects are handed to the hub together: when no more can be read without waiting.
"""

from __future__ import annotations

import io
import ssl
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from ..shm.errors import SegmentFull
from .errors import NEEDS_KEY, FrameError, IngestError
from .landing import Arena, Landing, check_size, wait_for_room
from .wire import SMALL, Incoming, Outgoing

if TYPE_CHECKING:
    from .hub import Hub

__all__ = ["Receiver", "without_frames"]

_TOGETHER = 256  #: small objects that are handed over together, at most
_LOOK_EVERY = 0.2  #: seconds between two looks at what else is to be done, while there is no room


class Source(Protocol):
    """What is read."""

    def shutdown(self) -> None:
        """End whatever waits in it."""

    def close(self) -> None:
        """Close its descriptors."""


class Receiver:
    """The other end of a connection, as far as it is received from.

    Attributes
    ----------
    name : str
        Where it is, for messages.
    error : Exception or None
        Why the connection ended, unless in good order.
    """

    def __init__(self, hub: Hub, stream: Source, name: str) -> None:
        self.name = name
        self.error: Exception | None = None
        self.is_ready = threading.Event()  #: hands were shaken, or it has ended
        self.is_welcome = False  #: hands were shaken
        self.ended = False
        self._is_over = threading.Event()
        self._hub = hub
        self._source = stream
        self._landing: Landing | None = None
        self._arena = Arena()
        #: to be handed over, each with its bytes; rule (3)
        self._landed: list[tuple[Any, int]] = []
        self._thread = threading.Thread(target=self._run, name=f"numpush {name}", daemon=True)

    def start(self) -> None:
        """Shake hands and read, in a thread."""
        self._thread.start()

    def _run(self) -> None:
        try:
            self._greet()
            self._hub.welcome(self)
            self.is_ready.set()
            self._read()
        except (IngestError, SegmentFull, ImportError, ssl.SSLError) as error:
            self._fail(error)
        except Exception as error:  # ours to mend, but nobody else's connection ends by it
            self._fail(IngestError(f"{type(error).__name__}: {error}"))
            self._hub.report(error)
        finally:
            self._end()

    def _greet(self) -> None:
        """Shake hands."""

    def _read(self) -> None:
        """Receive until the connection ends."""
        raise NotImplementedError

    def _take(
        self,
        incoming: Incoming,
        read: Callable[[], memoryview],
        receive: Callable[[Landing], None],
    ) -> Any:
        """Receive an object that is announced, and return it.

        A small array is what *read* gives; anything else *receive* puts into its segment.

        Raises
        ------
        FrameError : it is too large, or not what it says, or code and the link has no key.
        SegmentFull : there was no memory for it for too long.
        """
        hub = self._hub
        check_size(incoming.size, hub.max_bytes)
        if incoming.form == "code" and hub.key is None:
            raise FrameError(f"code is taken only over a link with a key: {NEEDS_KEY}")
        is_small = Arena.takes(incoming)
        if not is_small or len(self._landed) >= _TOGETHER or not hub.has_room(incoming.size):
            self._hand_over()  # what comes next may take a while
            while not hub.wait_until_wanted(incoming.size, _LOOK_EVERY):
                self._is_closed()
        if is_small:
            body = read()
            return wait_for_room(
                lambda: self._arena.land(incoming, body), hub.patience, self._is_closed
            )
        landing = wait_for_room(lambda: Landing(incoming), hub.patience, self._is_closed)
        self._landing = landing
        try:
            receive(landing)
            return landing.finish()
        finally:
            self._landing = None
            landing.abandon()

    def _put_down(self, obj: Any, size: int) -> None:
        """Have an object handed over, at once if it is large; rule (3)."""
        self._landed.append((obj, size))
        if size > SMALL:
            self._hand_over()

    def _hand_over(self) -> None:
        """Give what has landed to the hub; rule (3)."""
        if self._landed:
            self._hub.deliver(self._landed)
            self._landed = []

    def _is_closed(self) -> bool:
        """Whether the link is closed: asked now and then by what waits for room."""
        return self._hub.is_closing

    def _fail(self, error: Exception) -> None:
        self._set_error(error)
        if isinstance(error, FrameError | SegmentFull | ImportError):
            self._refuse(str(error).partition("\n")[0])

    def _set_error(self, error: Exception) -> None:
        """Say why the connection ends, if nobody has."""
        self.error = self.error or without_frames(error)

    def _refuse(self, reason: str) -> None:
        """Tell the peer why the connection ends."""

    def _end(self) -> None:
        Receiver._hand_over(self)  # nobody is to be told any more
        self.ended = True
        self._is_over.set()
        self._source.shutdown()
        self._close()
        self._arena.abandon()
        self._hub.part(self)
        self.is_ready.set()

    def _close(self) -> None:
        self._source.close()

    # -- any thread

    @property
    def n_unacknowledged(self) -> int:
        """How many objects were sent that the peer has not said it has."""
        return 0

    def send(self, outgoing: Outgoing, codec: str | None, until: float | None) -> None:
        """Send an object, where that is possible."""
        raise io.UnsupportedOperation(f"{self.name} is only received from")

    def flush(self, until: float | None) -> None:
        """Wait until the peer has all that was sent to it."""

    def say_bye(self) -> None:
        """Tell the peer that nothing more comes, if the protocol has a word for it."""

    def stop(self) -> None:
        """End the connection, and the thread."""
        self._source.shutdown()
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def forget(self) -> None:
        """In the child of a fork, which has copies of it all and no thread: close those."""
        self.ended = True
        self._source.close()
        if self._landing is not None:
            self._landing.abandon()
        self._arena.abandon()
        self._landed.clear()


def without_frames(error: Exception) -> Exception:
    """Return an error that is to be kept, so that it keeps no object of the functions it came from."""
    found: BaseException | None = error
    while found is not None:
        found.__traceback__ = None
        found = found.__cause__ or found.__context__
    return error
