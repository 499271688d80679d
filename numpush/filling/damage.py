"""What pyarrow says of a damaged file, as one kind of error that names the file; and its name."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any

from ..layout.arrow_types import load_pyarrow
from ..shm.errors import NumpushError
from .columns import ClaimFailed

__all__ = ["find_name", "naming_damage"]


def find_name(path: Any) -> tuple[Any, str]:
    """Return a path or file object as pyarrow takes it, and what to call it in errors."""
    if isinstance(path, os.PathLike):
        path = os.fspath(path)
    return path, path if isinstance(path, str) else getattr(path, "name", None) or repr(path)


@contextlib.contextmanager
def naming_damage(what: str, wanted: str) -> Iterator[None]:
    """Raise ValueError for what pyarrow finds wrong with a file; errors of the system stay.

    pyarrow raises ArrowInvalid (a ValueError), OSError without a number, and others, as it comes.
    """
    try:
        yield
    except (ClaimFailed, NumpushError):
        raise
    except MemoryError:
        raise
    except OSError as error:
        if error.errno is not None or type(error) is not OSError:
            raise
        raise ValueError(_say(what, wanted, error)) from error
    except ValueError as error:
        if what in str(error):
            raise
        raise ValueError(_say(what, wanted, error)) from error
    except load_pyarrow().ArrowException as error:
        if isinstance(error, TypeError | KeyError | NotImplementedError):
            raise
        raise ValueError(_say(what, wanted, error)) from error


def _say(what: str, wanted: str, error: Exception) -> str:
    return f"{what}: cannot be read as {wanted}, it may be damaged: {str(error).strip() or error!r}"
