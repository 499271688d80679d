"""Kernel: a function over rows, and what it was compiled to.

(1) Nothing is compiled, and numba is not imported, before the kernel is used or `compile` is called: a
    module with kernels in it is imported by workers too.
(2) It is compiled once for each kind of arguments that it is used with. Where a signature leaves the
    strides open (``f8[:]``), that includes whether arrays are contiguous, since loops over those that are
    vectorise; and whether they are read-only, since that is how writing to one is found.
"""

from __future__ import annotations

import functools
import inspect
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .arguments import ARRAY, Argument, describe, parse_signature
from .errors import KernelRefused, place_of

if TYPE_CHECKING:
    from .variant import Variant

__all__ = ["Kernel", "kernel"]

#: Options of numba.njit that contradict what a kernel is -> why.
_REFUSED_OPTIONS = {
    "parallel": "workers are what makes a kernel parallel, and its threads cannot be shipped",
    "forceobj": "a kernel runs without the interpreter",
    "cache": "a kernel is compiled once, and what was compiled is handed on",
}
_lock = threading.RLock()


def _renew_lock() -> None:
    global _lock
    _lock = threading.RLock()


os.register_at_fork(after_in_child=_renew_lock)  # a thread that is not here may hold it


def kernel(
    *signatures: Any, types: Mapping[str, Any] | None = None, **options: Any
) -> Callable[[Any], Kernel]:
    """Make a kernel of a function ``k(i0, i1, ...)`` that does the rows i0..i1.

    Parameters
    ----------
    signatures : str, tuple of dtypes or numba types, or list of those
        What the function takes after i0 and i1: ``"const f8[:], f8[:, ::1], i4"``. Which of several
        is used, the arguments decide. ``f8[:]`` is an array of any strides, ``f8[::1]`` a contiguous
        one; what is ``const`` is not written, and may be read-only. ``mutex`` is a shared object, or its
        ``lock``: the function gets the address for `mutex_lock`.
    types : dict, optional
        More names for dtypes in signatures: ``types={"tick": np.dtype([...])}``.
    options
        Those of numba.njit: fastmath, error_model, boundscheck and so on.

    Raises
    ------
    TypeError : a signature is none, or not for as many arguments as the function has.
    KernelRefused : it could not run in another process.

    Examples
    --------
    >>> import numpy as np, numpush
    >>> @numpush.kernel("f8[:], f8")
    ... def scale(i0, i1, x, c):
    ...     for i in range(i0, i1):
    ...         x[i] *= c
    >>> x = numpush.SArray(np.arange(4.0))
    >>> scale(1, 3, x, 10.0)
    >>> x.tolist()
    [0.0, 10.0, 20.0, 3.0]
    """
    if len(signatures) == 1 and (callable(signatures[0]) and not isinstance(signatures[0], type)):
        raise TypeError('a kernel needs a signature: @numpush.kernel("f8[:], f8")')
    return lambda function: _declare(function, signatures, types or {}, options)


class Kernel:
    """A function over rows that any process can run: see `kernel`, which makes it.

    Attributes
    ----------
    name : str
    signatures : tuple of str
        What it was declared to take.
    variants : tuple of Variant
        What it was compiled to so far.
    """

    def __init__(
        self,
        name: str,
        declared: Sequence[tuple[Argument, ...]],
        function: Any = None,
        options: Mapping[str, Any] | None = None,
        variants: Sequence[Variant] = (),
    ) -> None:
        if function is not None:
            functools.update_wrapper(self, function)
        self.name = name
        self._declared = tuple(declared)
        self._function = function  # None: this came from another process
        self._options = dict(options or {})
        self._compiled = {variant.arguments: variant for variant in variants}
        self._found: dict[tuple[Any, ...], Variant] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle to what it was compiled to so far, or if that is nothing, for each signature."""
        variants = self.variants or self.compile()
        return type(self), (self.name, self._declared, None, None, variants)

    @property
    def signatures(self) -> tuple[str, ...]:
        return tuple(", ".join(map(str, arguments)) for arguments in self._declared)

    @property
    def variants(self) -> tuple[Variant, ...]:
        return tuple(dict.fromkeys(self._compiled.values()))

    def __call__(self, i0: int, i1: int, *args: Any) -> None:
        """Run it over the rows i0..i1 in this thread, with the GIL let go.

        What it raises arrives as it was raised, with its file and line in a note.

        Raises
        ------
        TypeError : no signature fits *args*; the message names them.
        """
        self.variant(*args)(i0, i1, *args)

    def variant(self, *args: Any) -> Variant:
        """Return what it is compiled to for such arguments, compiling it the first time.

        Raises
        ------
        TypeError : no signature fits; the message names the arguments, and the signatures.
        KernelRefused : it cannot be compiled for them: it writes to one that is read-only, say.
        """
        kind = tuple(map(_kind, args))
        found = self._found.get(kind)
        if found is None:
            with _lock:
                declared = self._choose(args)
                wanted = tuple(a.specialise(value) for a, value in zip(declared, args))
                found = self._found[kind] = self._compile(wanted, declared)
        return found

    def compile(self) -> tuple[Variant, ...]:
        """Compile it now for each signature, for contiguous arrays where strides are left open.

        Raises
        ------
        KernelRefused : it cannot be compiled to code that another process can run.
        """
        with _lock:
            for declared in self._declared:
                wanted = tuple(
                    a._replace(layout="C") if a.kind == ARRAY and a.layout == "A" else a
                    for a in declared
                )
                self._compile(wanted, declared)
        return self.variants

    def _choose(self, args: tuple[Any, ...]) -> tuple[Argument, ...]:
        """Return the signature that fits best; of those that do as well, the first."""
        best: tuple[int, tuple[Argument, ...]] | None = None
        for arguments in self._declared:
            costs = [a.cost(value) for a, value in zip(arguments, args)]
            if len(arguments) != len(args) or None in costs:
                continue
            cost = sum(c for c in costs if c is not None)
            if best is None or cost < best[0]:
                best = cost, arguments
        if best is None:
            raise TypeError(self._no_match(args))
        return best[1]

    def _no_match(self, args: tuple[Any, ...]) -> str:
        names = [argument.name for argument in self._declared[0]]
        if len(args) != len(names):
            given = f"it takes {len(names)} arguments after i0 and i1, {len(args)} given"
        else:
            given = ", ".join(f"{name}: {describe(value)}" for name, value in zip(names, args))
        listed = "; ".join(f"({signature})" for signature in self.signatures)
        return f"kernel {self.name!r}: no signature fits ({given}); there is {listed}"

    def _compile(self, wanted: tuple[Argument, ...], declared: tuple[Argument, ...]) -> Variant:
        found = self._compiled.get(wanted)
        if found is None:
            found = next(
                (
                    variant
                    for arguments, variant in self._compiled.items()
                    if all(a.accepts(b) for a, b in zip(arguments, wanted))
                ),
                None,
            )
        if found is None:
            if self._function is None:
                has = "; ".join(f"({variant.signature})" for variant in self.variants)
                raise TypeError(
                    f"kernel {self.name!r} came compiled from another process, for {has}, and not for "
                    f"({', '.join(map(str, wanted))}): use it there before it is sent"
                )
            from .compiling import compile_variant

            found = compile_variant(self._function, wanted, declared, self._options)
        self._compiled[wanted] = found
        return found

    def __repr__(self) -> str:
        return f"<Kernel {self.name}: {'; '.join(f'({s})' for s in self.signatures)}>"


def _declare(
    function: Any,
    signatures: tuple[Any, ...],
    types: Mapping[str, Any],
    options: Mapping[str, Any],
) -> Kernel:
    if hasattr(function, "py_func"):  # numba's: its options, and ours
        options = {**function.targetoptions, **options}
        function = function.py_func
    names = _argument_names(function)
    options = _checked_options(function, options)
    listed = [s for each in signatures for s in (each if isinstance(each, list) else [each])]
    if not listed:
        raise TypeError(f"kernel {function.__name__!r} needs a signature: {place_of(function)}")
    try:
        declared = [parse_signature(signature, names, types) for signature in listed]
    except TypeError as error:
        raise TypeError(f"kernel {function.__name__!r} ({place_of(function)}): {error}") from error
    return Kernel(function.__name__, declared, function, options)


def _kind(value: Any) -> Any:
    """Return what `variant` needs to know of an argument."""
    if isinstance(value, np.ndarray):
        return value.dtype, value.ndim, value.flags.num
    return (value.dtype,) if isinstance(value, np.generic) else type(value)


def _checked_options(function: Any, options: Mapping[str, Any]) -> dict[str, Any]:
    for option, reason in _REFUSED_OPTIONS.items():
        if options.get(option):
            raise KernelRefused(
                f"kernel {function.__name__!r} with {option}=True: {reason} ({place_of(function)})"
            )
    if options.get("nopython") is False:
        raise KernelRefused(
            f"kernel {function.__name__!r} with nopython=False: {_REFUSED_OPTIONS['forceobj']} "
            f"({place_of(function)})"
        )
    own = ("parallel", "forceobj", "cache", "nopython", "nogil")
    return {name: value for name, value in options.items() if name not in own}


def _argument_names(function: Any) -> list[str]:
    """Return the names of what follows i0 and i1."""
    if not inspect.isfunction(function):
        raise TypeError(f"a kernel is made of a function, not of {describe(function)}")
    parameters = list(inspect.signature(function).parameters.values())
    for p in parameters:
        if p.kind not in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) or p.default is not p.empty:
            raise KernelRefused(
                f"kernel {function.__name__!r}: parameter '{p}': wanted plain ones, without defaults "
                f"({place_of(function)})"
            )
    if len(parameters) < 2:
        raise KernelRefused(
            f"kernel {function.__name__!r} has {len(parameters)} parameters: the first two are the "
            f"rows, i0 and i1 ({place_of(function)})"
        )
    return [p.name for p in parameters[2:]]
