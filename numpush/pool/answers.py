"""What a worker answers to a task, as bytes: the results, or the exception with its traceback.

An exception is pickled apart, so that where it cannot be, or not be unpickled (a class whose
__init__ wants more than the message), the traceback still arrives: as a RemoteError.
"""

from __future__ import annotations

import pickle
import traceback
from typing import Any, NamedTuple

from . import payload
from .failures import RemoteError, RemoteTraceback

__all__ = ["Answer", "failure", "read", "success"]


_OURS = "numpush.pool", "numpush.team"


class Answer(NamedTuple):
    """Results of all items of a task, or the exception of the one at *offset*."""

    results: list[Any] | None
    error: BaseException | None = None
    offset: int = 0


def success(results: list[Any], share_from: int, prefix: str) -> bytes:
    """Pickle results; if they cannot be, the error that says which, and why."""
    try:
        return payload.dumps_result((True, results), share_from, prefix)
    except Exception as error:
        found = (i for i, result in enumerate(results) if not payload.can_pickle(result))
        offset = next(found, 0)
        cls = type(results[offset])
        refusal = pickle.PicklingError(
            f"the result, a {cls.__module__}.{cls.__qualname__}, cannot be pickled: {error}"
        )
        refusal.__cause__ = error
        return failure(refusal, offset)


def failure(error: BaseException, offset: int) -> bytes:
    """Pickle an exception with its traceback."""
    cls = type(error)
    # From the second frame on: the first is the worker's own.
    text = "".join(traceback.format_exception(cls, error, _skip(error.__traceback__)))
    try:
        pickled: bytes | None = payload.dumps_result(error, 1 << 62, "")
    except Exception:
        pickled = None
    name = f"{cls.__module__}.{cls.__qualname__}"
    return pickle.dumps((False, (offset, pickled, name, text)))


def _skip(tb: Any) -> Any:
    while tb is not None and tb.tb_frame.f_globals.get("__package__") in _OURS:
        tb = tb.tb_next
    return tb


def read(data: bytes) -> Answer:
    """Read an answer. Raises whatever unpickling the results does."""
    ok, content = payload.loads(data)
    if ok:
        return Answer(content)
    offset, pickled, name, text = content
    error: BaseException | None = None
    if pickled is not None:
        try:
            error = payload.loads(pickled)
        except Exception:
            error = None
    if not isinstance(error, BaseException):
        error = RemoteError(f"{name} in a worker, which cannot be pickled:\n\n{text}", name)
        return Answer(None, error, offset)
    error.__cause__ = RemoteTraceback(text)
    return Answer(None, error, offset)
