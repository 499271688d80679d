"""redis+cluster://: the same objects on the nodes of a Redis cluster.

All names of an object have one hash tag, so it lies on one node as on a single server: what is done with an
object is done by a `RedisStore` of its node. Which node that is, redis-py's RedisCluster knows.

(1) A node that has a slot no more, or is gone, is a StoreUnavailable of its store. Then the cluster is
    asked anew where things are, and it is tried again, a few times.
(2) Events are on one node, so not in the transaction of a put: one whose writer dies in between is lost.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar
from urllib.parse import urlsplit

from .errors import StoreUnavailable
from .redis_client import hide_secrets
from .redis_py import RedisCluster, exceptions
from .redis_store import RedisStore
from .store import Stat, Store

__all__ = ["RedisClusterStore"]

_TRIES = 4
_PAUSE = 0.25  #: seconds, before the second try; doubled before each further one
_ERRORS = (exceptions.RedisError, exceptions.RedisClusterException, OSError)
T = TypeVar("T")


class RedisClusterStore(Store):
    """``redis+cluster://HOST:PORT``, any node of it; ``rediss+cluster://`` with TLS.

    Parameters
    ----------
    url : str
    namespace, chunk, orphans, checksum, spare, **options : as for `.RedisStore`
    """

    def __init__(self, url: str, **options: Any) -> None:
        super().__init__(hide_secrets(url), **options)
        self._address = url
        self._scheme, _, rest = url.replace("+cluster", "", 1).partition("://")
        self._login = urlsplit(f"//{rest}").netloc.rpartition("@")[0]
        own = {"namespace", "chunk", "orphans", "checksum", "spare"}
        theirs = {name: value for name, value in options.items() if name not in own}
        try:
            make: Any = RedisCluster.from_url
            self._cluster = make(f"{self._scheme}://{rest}", protocol=2, **theirs)
        except _ERRORS as error:
            raise StoreUnavailable(f"{self.url}: {error}") from error
        self._lock = threading.Lock()
        self._stores: dict[str, RedisStore] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        from .opening import reopen

        return reopen, (self._address, self._options)

    # -- which node

    def _open(self, node: Any) -> RedisStore:
        """Return the store of a node."""
        with self._lock:
            store = self._stores.get(node.name)
            if store is None:
                at = f"{self._login}@" if self._login else ""
                host = f"[{node.host}]" if ":" in node.host else node.host
                store = RedisStore(f"{self._scheme}://{at}{host}:{node.port}", **self._options)
                store.url, store.announces = self.url, False
                self._stores[node.name] = store
            return store

    def _owner(self, name: Callable[[RedisStore], bytes | str]) -> RedisStore:
        """Return the store of the node that a name lies on, as far as is known."""
        try:
            some = self._open(self._cluster.get_primaries()[0])
            return self._open(self._cluster.get_node_from_key(name(some)))
        except (IndexError, *_ERRORS) as error:
            raise StoreUnavailable(f"{self.url}: {error}") from error

    def _ask(self, name: Callable[[RedisStore], bytes | str], call: Callable[[RedisStore], T]) -> T:
        """Call with the store of the node that a name lies on; rule (1)."""
        for i in range(_TRIES):
            try:
                return call(self._owner(name))
            except StoreUnavailable:
                if i + 1 == _TRIES:
                    raise
                time.sleep(_PAUSE * 2**i)
                self._look_again()
        raise AssertionError("unreachable")

    def _look_again(self) -> None:
        """Ask the cluster where things are; where nobody answers, what was known stays."""
        try:
            self._cluster.nodes_manager.initialize()
        except _ERRORS:
            return

    def _at(self, key: str, call: Callable[[RedisStore], T]) -> T:
        return self._ask(lambda some: some.names.head(key), call)

    def _announce(self, key: str, what: str) -> None:
        self._ask(lambda some: some.names.events, lambda store: store.announce(key, what))

    # -- Store

    def _put(
        self, key: str, obj: Any, tell: Callable[[int], None], ttl: float | None = None
    ) -> None:
        self._at(key, lambda store: store._put(key, obj, tell, ttl))
        self._announce(key, "put")

    def _get(
        self,
        key: str,
        into: Any,
        columns: list[Any] | None,
        rows: slice | None,
        name: str | None,
        tell: Callable[[int], None],
    ) -> Any:
        return self._at(key, lambda store: store._get(key, into, columns, rows, name, tell))

    def _keys(self, prefix: str) -> list[str]:
        found: set[str] = set()
        for node in self._cluster.get_primaries():
            found.update(self._open(node)._keys(prefix))
        return [*found]

    def _delete(self, key: str) -> None:
        self._at(key, lambda store: store._delete(key))
        self._announce(key, "delete")

    def _stat(self, key: str) -> Stat:
        return self._at(key, lambda store: store._stat(key))

    def _has(self, key: str) -> bool:
        return self._at(key, lambda store: store._has(key))

    def watch(self, prefix: str = "", timeout: float | None = None) -> Iterator[str]:
        """Give the key of each object that is put or deleted from now on: see `RedisStore.watch`."""
        self._check_open()
        return self._ask(lambda some: some.names.events, lambda store: store.watch(prefix, timeout))

    def _close(self) -> None:
        for store in self._stores.values():
            store.close()
        self._cluster.close()
