"""Expressions of numexpr, and functions of PyTensor, over the rows of shared arrays, chunk by chunk.

Each chunk is computed by one thread of one process, straight to its rows of the result, so no temporary
is as large as the data. Workers know an expression after the first call: numexpr and PyTensor keep what
they have compiled.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..sarray import SArray
from ..shm import registry

if TYPE_CHECKING:
    from ..team import Team

__all__ = ["numexpr", "pytensor"]

Array = NDArray[Any]

_CHUNK_BYTES = 4 << 20  #: of the result, at most in one chunk: PyTensor's temporary for it


def numexpr(
    expr: str, *, out: Array, team: Team | None = None, chunk: int | None = None, **arrays: Any
) -> Array:
    """Compute an expression for each row of *arrays*, into *out*, and return that.

    Parameters
    ----------
    expr : str
        What ``numexpr.evaluate`` takes: ``"2*x + sqrt(y)"``. It must give a value per row: no ``sum(..)``.
    out : array
        For a team, an SArray or any view of one. Its dtype must hold the result (``casting="safe"``).
    team : Team, optional
        Whose workers compute, each with one thread of numexpr. Without one it is this process, with
        as many threads as numexpr is set to.
    chunk : int, optional
        Rows of *out* in one task of a worker.
    arrays
        The expression's names: arrays and columns with as many rows as *out*, and what broadcasts to a
        row, such as numbers. Shared ones are read where they lie, plain ones shared for the call. *out*
        may be among them; an array that overlaps it otherwise may not.

    Raises
    ------
    ImportError : numexpr is not installed.
    ValueError : *expr* names what is not there, does not fit *out*, or gives no value per row.
    TypeError : the dtype of *out* cannot hold the result, or it is not shared; an array is of objects.
    """
    ne = _load("numexpr")
    operands = {name: _array(name, value) for name, value in arrays.items()}
    names = [name for name, value in operands.items() if _has_rows(name, value, out)]
    _check_overlap(out, operands)
    _try_row(ne, expr, operands, names, out)
    if team is None:
        return ne.evaluate(expr, operands, {}, out=out) if len(out) else out
    rows = {name: operands.pop(name) for name in names}
    _share_out(team, _evaluate, out, chunk, expr, rows, operands)
    return out


def pytensor(
    function: Any, *arrays: Any, out: Array, team: Team | None = None, chunk: int | None = None
) -> Array:
    """Compute a compiled PyTensor function of one output for each row of *arrays*, into *out*.

    A process that meets it for the first time compiles it, in a tenth of a second or in some
    seconds: ``base_compiledir`` in PYTENSOR_FLAGS says where what was compiled is kept for all.

    Parameters
    ----------
    function : what ``pytensor.function`` returns
        Its inputs are *arrays*, in order; each must give as many rows as it gets.
    arrays, out, team, chunk
        As of `numexpr`: arrays with as many rows as *out* are given in parts, others whole.

    Raises
    ------
    ValueError : it does not give the rows of *out*, or an array overlaps *out*.
    TypeError : *out* is not shared.
    """
    operands = {f"array {i}": _array(f"array {i}", value) for i, value in enumerate(arrays)}
    names = {name for name, value in operands.items() if _has_rows(name, value, out)}
    _check_overlap(out, operands)
    inputs = [(name in names, value) for name, value in operands.items()]
    if team is None:
        for rows in _parts(len(out), _rows_of(out, chunk, 1)):
            _call(rows, out, function, inputs)
        return out
    _share_out(team, _call, out, chunk, function, inputs)
    return out


# -- in a worker


def _evaluate(
    rows: tuple[int, int], out: Array, expr: str, arrays: dict[str, Array], others: dict[str, Any]
) -> None:
    ne = _load("numexpr")
    if ne.nthreads != 1:
        ne.set_num_threads(1)
    part = slice(*rows)
    given = {name: array[part] for name, array in arrays.items()}
    ne.evaluate(expr, given | others, {}, out=out[part])


def _call(rows: tuple[int, int], out: Array, function: Any, inputs: list[tuple[bool, Any]]) -> None:
    part = slice(*rows)
    result = function(*(value[part] if is_cut else value for is_cut, value in inputs))
    if isinstance(result, list) or result.shape != out[part].shape:
        what = f"{len(result)} results" if isinstance(result, list) else f"shape {result.shape}"
        raise ValueError(f"the function gives {what} for rows of shape {out[part].shape}")
    out[part] = result


# -- what is asked for


def _array(name: str, value: Any) -> Any:
    """Return an array, or that of a column; as an SArray where it lies in shared memory."""
    array = np.asarray(value.to_numpy() if hasattr(value, "to_numpy") else value)
    if array.dtype.hasobject:
        raise TypeError(f"{name} has dtype {array.dtype}: numbers wanted")
    return array.view(SArray) if _is_shared(array) else array


def _is_shared(array: Array) -> bool:
    return registry.locate(array.__array_interface__["data"][0]) is not None


def _has_rows(name: str, value: Any, out: Array) -> bool:
    """Whether *value* has a part for each row of *out*; else it goes with all of them."""
    if out.ndim == 0:
        raise ValueError("out has no rows: an array of one or more dimensions wanted")
    if value.ndim < out.ndim or value.shape[0] == 1 != len(out):
        return False
    if value.ndim > out.ndim or len(value) != len(out):
        raise ValueError(
            f"{name} has shape {value.shape}, out {out.shape}: as many rows wanted, or what "
            "broadcasts to them"
        )
    return True


def _check_overlap(out: Array, operands: dict[str, Any]) -> None:
    place = out.__array_interface__["data"], out.shape, out.strides
    for name, array in operands.items():
        is_out = (array.__array_interface__["data"], array.shape, array.strides) == place
        if not is_out and np.may_share_memory(out, array) and np.shares_memory(out, array):
            raise ValueError(
                f"{name} overlaps out without being the same: rows would be read that are written "
                "already; give a copy of it"
            )


def _try_row(ne: Any, expr: str, operands: dict[str, Any], names: list[str], out: Array) -> None:
    """Compute the first row apart, so that what is wrong is found before anything is written."""
    first = {name: array[:1] if name in names else array for name, array in operands.items()}
    if not len(out):
        first = {
            name: np.ones((1, *a.shape[1:]), a.dtype) if name in names else a
            for name, a in first.items()
        }
    try:
        row = ne.evaluate(expr, first, {})
    except KeyError as error:
        raise ValueError(
            f"{expr!r} names {error.args[0]!r}, which is not given: there are {', '.join(operands) or 'none'}"
        ) from None
    wanted = (1, *out.shape[1:])
    if np.broadcast_shapes(row.shape, wanted) != wanted or row.ndim != out.ndim:
        raise ValueError(f"{expr!r} gives shape {row.shape} for a row, {wanted} wanted")
    if not np.can_cast(row.dtype, out.dtype, "safe"):
        raise TypeError(f"{expr!r} gives {row.dtype}, which out of dtype {out.dtype} cannot hold")


def _share_out(team: Team, function: Any, out: Array, chunk: int | None, *args: Any) -> None:
    if not _is_shared(out):
        raise TypeError(
            "out is a plain array, and what workers write to a copy would be lost: "
            "numpush.share(out) makes a shared one"
        )
    parts = _parts(len(out), _rows_of(out, chunk, team.workers))
    team.map(function, parts, out.view(SArray), *args, chunk=1)


def _rows_of(out: Array, chunk: int | None, workers: int) -> int:
    if chunk is not None:
        if chunk < 1:
            raise ValueError(f"chunk {chunk}: at least 1 wanted")
        return chunk
    row = max(1, out.nbytes // max(1, len(out)))
    return max(1, min(len(out) // (4 * workers), _CHUNK_BYTES // row))


def _parts(n: int, rows: int) -> list[tuple[int, int]]:
    return [(start, min(n, start + rows)) for start in range(0, n, rows)]


def _load(name: str) -> Any:
    from importlib import import_module

    try:
        return import_module(name)
    except ImportError as error:
        what = '"numpush[code]"' if name == "numexpr" else name
        raise ImportError(f"this needs {name}: pip install {what}") from error
