"""What is used of redis-py, or an ImportError that says how to get it. Names only."""

from __future__ import annotations

try:
    from redis import Redis, exceptions
    from redis.backoff import ExponentialBackoff
    from redis.cluster import RedisCluster
    from redis.connection import Connection, SSLConnection, UnixDomainSocketConnection
    from redis.retry import Retry
except ImportError as error:
    raise ImportError('redis:// needs redis-py: pip install "numpush[redis]"') from error

__all__ = [
    "Connection",
    "ExponentialBackoff",
    "Redis",
    "RedisCluster",
    "Retry",
    "SSLConnection",
    "UnixDomainSocketConnection",
    "exceptions",
]
