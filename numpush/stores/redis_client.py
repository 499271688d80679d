"""redis-py's client for a URL, with connections of ours; and URLs without what is secret in them."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from .redis_bulk import use_bulk_connections
from .redis_py import ExponentialBackoff, Redis, Retry

__all__ = ["connect", "hide_secrets"]

_SECRETS = re.compile("password|secret|token", re.IGNORECASE)
_FIXED = {"protocol": 2, "decode_responses": False}


def connect(url: str, shown: str, options: dict[str, Any]) -> Any:
    """Return a client of redis-py's that has reached the server.

    A lost connection is made again and the command repeated, for about 2 seconds, unless the options
    have another ``retry``.

    Raises
    ------
    ValueError : the URL is wrong, or an option.
    TypeError : there is no such option.
    redis.RedisError : there is no server, or it refuses us.
    """
    if url.startswith("redis+unix://"):
        address = url.removeprefix("redis+")
    elif url.startswith(("redis://", "rediss://")):
        address = url
    else:
        raise ValueError(f"URL {shown!r}: wanted one of redis://, rediss://, redis+unix://")
    for name, value in _FIXED.items():
        if options.get(name, value) != value:
            raise ValueError(f"{name} {options[name]!r}: only {value!r} works here; leave it out")
    retry = Retry(ExponentialBackoff(cap=1, base=0.05), 5)
    try:
        client = Redis.from_url(address, **{"retry": retry, **_FIXED, **options})
    except ValueError as error:
        if "://" in str(error) or shown == url:
            raise ValueError(f"URL {shown!r}: {error}") from None
        raise ValueError(f"URL {shown!r}: redis-py cannot read it") from None
    pool = client.connection_pool
    for name, value in _FIXED.items():
        if pool.connection_kwargs.get(name) != value:  # the URL's query had it
            raise ValueError(f"URL {shown!r}: only {name}={value!r} works here; leave it out")
    use_bulk_connections(pool)
    try:
        client.ping()
    except BaseException:
        pool.disconnect()
        raise
    return client


def hide_secrets(url: str) -> str:
    """Return a URL as it may be shown."""
    try:
        parts = urlsplit(url)
        _, at, host = parts.netloc.rpartition("@")
        parts.port  # noqa: B018  # reading it checks it
    except ValueError:
        return f"{url.partition('://')[0]}://..."
    user = parts.username or ""
    netloc = f"{user}:***@{host}" if at and parts.password is not None else parts.netloc
    query = urlencode(
        [
            (name, "***" if _SECRETS.search(name) else value)
            for name, value in parse_qsl(parts.query, keep_blank_values=True)
        ],
        safe="*/",
    )
    return f"{parts.scheme}://{netloc}{parts.path}" + (f"?{query}" if query else "")
