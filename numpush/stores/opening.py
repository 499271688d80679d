"""`open`: from a URL to the store that it means."""

from __future__ import annotations

import os
from importlib import import_module
from typing import Any

from .store import Store

__all__ = ["open", "reopen"]

#: Scheme -> the module and the class of its store. What else a scheme may say comes after a '+'.
_STORES = {
    "file": ("file_store", "FileStore"),
    "arrow": ("arrow_store", "ArrowStore"),
    "parquet": ("parquet_store", "ParquetStore"),
    "hdf5": ("hdf5_store", "Hdf5Store"),
    "csv": ("csv_store", "CsvStore"),
    "redis": ("redis_store", "RedisStore"),
    "rediss": ("redis_store", "RedisStore"),
    "redis+cluster": ("redis_cluster", "RedisClusterStore"),
    "rediss+cluster": ("redis_cluster", "RedisClusterStore"),
    "blosc2": ("blosc2_store", "Blosc2Store"),
}


def open(url: str | os.PathLike[str], **options: Any) -> Store:
    """Open a store: objects by key, read straight into shared memory.

    Parameters
    ----------
    url : str or path
        ``file:///DIR`` (or just a path): a directory of any POSIX file system, MooseFS among them.
        ``hdf5:///FILE.h5``: one file, which h5py reads.
        ``arrow:///DIR``, ``parquet:///DIR``, ``csv:///DIR``: a directory of such files, and of .npy
        files for arrays; with ``+PROTOCOL``, as in ``parquet+s3://BUCKET/PREFIX``, any that fsspec
        reaches.
        ``redis://HOST:PORT/DB``, ``rediss://`` with TLS, ``redis+unix:///SOCKET``: a Redis server;
        ``redis+cluster://HOST:PORT``, ``rediss+cluster://``: a cluster, by any node of it.
        ``blosc2:///DIR``: a directory of compressed arrays and frames, which blosc2 itself opens.
    **options : as the kind of store has them; see its class

    Raises
    ------
    ValueError : the URL is none of those above, or an option is wrong.
    TypeError : there is no such option.
    ImportError : the store needs a library that is not installed; names the extra.
    StoreUnavailable : there is no such server or directory.

    Examples
    --------
    >>> import tempfile, numpy as np, numpush.stores
    >>> with numpush.stores.open(tempfile.mkdtemp()) as store:
    ...     store.put("a/b", np.arange(3))
    ...     store.keys(), store.get("a/b")
    (['a/b'], SArray([0, 1, 2]))
    """
    text = os.fspath(url)
    if not isinstance(text, str):
        raise TypeError(f"a URL is a str, such as 'file:///data'; {url!r:.60} found")
    scheme, separator, _ = text.partition("://")
    if not separator:
        scheme, text = "file", "file://" + os.path.abspath(text)
    found = _STORES.get(scheme) or _STORES.get(scheme.partition("+")[0])
    if found is None:
        raise ValueError(
            f"URL {scheme + '://..'!r}: wanted one of {', '.join(f'{each}://' for each in _STORES)}"
        )
    module, name = found
    store: Store = getattr(import_module(f".{module}", __package__), name)(text, **options)
    return store


def reopen(url: str, options: dict[str, Any]) -> Store:
    """Open a store again in the process that it was sent to."""
    return open(url, **options)
