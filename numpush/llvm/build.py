"""LLVM IR or bitcode -> object code for this CPU.

(1) LLVM's reader aborts the process on some damaged bitcode: give it only what is known to be whole.
(2) It aborts, too, on intrinsics of instructions that the CPU lacks; `build` looks for them first.
(3) Code says in its attributes for which CPU it was made; `build` takes them off, so that it is made for
    this one.
"""

from __future__ import annotations

import re
from typing import Any

import llvmlite.binding as ll

from .errors import BadCode, WrongMachine
from .guard import guarded
from .target import Target, host, machine

__all__ = ["build", "emit", "optimise", "parse"]

_BITCODE = (b"BC\xc0\xde", b"\xde\xc0\x17\x0b")
#: Another attribute takes the place of these: an empty group of attributes is a syntax error.
_CPU = re.compile(r'"(?:target-cpu|target-features|tune-cpu)"="[^"]*"')
_INTRINSIC = re.compile(r"@llvm\.(x86|aarch64|arm)\.(\w+)")
#: First word of an intrinsic's name after the architecture -> LLVM's features that all of those need.
_FEATURES_OF: dict[str, dict[str, frozenset[str]]] = {
    "x86": {
        "sse": frozenset(),
        "sse2": frozenset(),
        "sse3": frozenset({"sse3"}),
        "ssse3": frozenset({"ssse3"}),
        "sse41": frozenset({"sse4.1"}),
        "sse42": frozenset({"sse4.2"}),
        "avx": frozenset({"avx"}),
        "avx2": frozenset({"avx2"}),
        "fma": frozenset({"fma"}),
        "bmi": frozenset({"bmi", "bmi2"}),
        "aesni": frozenset({"aes"}),
        "pclmulqdq": frozenset({"pclmul"}),
        "vcvtph2ps": frozenset({"f16c"}),
        "vcvtps2ph": frozenset({"f16c"}),
        "avx512": frozenset({"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}),
        "rdtsc": frozenset(),
        "atomic": frozenset(),  # made by LLVM, of atomicrmw, in code that it has emitted once
    },
    "aarch64": {"neon": frozenset(), "crc32": frozenset({"crc"})},
}


@guarded
def parse(source: bytes | str) -> Any:
    """Read IR text or bitcode into a module that is well formed.

    Raises
    ------
    BadCode : it is neither, or of an LLVM that this one does not read.
    """
    try:
        if isinstance(source, str):
            module = ll.parse_assembly(source)
        elif source[:4] in _BITCODE:
            module = ll.parse_bitcode(bytes(source))
        else:
            raise RuntimeError(f"bitcode begins with {_BITCODE[0]!r}, this with {source[:4]!r}")
        module.verify()
    except RuntimeError as error:
        raise BadCode(f"LLVM {host().llvm} cannot read this: {str(error).strip()}") from error
    return module


@guarded
def optimise(module: Any, level: int = 3, *, vectorise: bool = True) -> None:
    """Run LLVM's usual passes over *module*, for this CPU; what nobody outside may call may go."""
    module.triple = host().triple
    module.data_layout = str(machine().target_data)
    options = ll.create_pipeline_tuning_options(speed_level=level)
    options.loop_vectorization = options.slp_vectorization = vectorise
    options.loop_interleaving = options.loop_unrolling = vectorise
    builder = ll.create_pass_builder(machine(), options)
    builder.getModulePassManager().run(module, builder)


@guarded
def emit(module: Any) -> bytes:
    """Return object code of *module* as it is."""
    return bytes(machine().emit_object(module))


@guarded
def build(
    source: bytes | str,
    *,
    made_for: Target | None = None,
    level: int = 3,
    inline: bool = False,
) -> bytes:
    """Make object code for this CPU of IR text or bitcode, wherever that was made.

    Parameters
    ----------
    made_for : Target, optional
        The machine that the source was made on: what needs nothing that this one lacks is not looked at.
    inline : bool
        Let functions be inlined that say ``noinline``, as all do that numba made: loops around
        them vectorise then.

    Raises
    ------
    BadCode : as of `parse`.
    WrongMachine : made for another architecture, or has instructions in it that this CPU lacks.
    """
    module = parse(source)
    text = str(module)
    _check_architecture(module.triple)
    if made_for is None or not made_for.fits(host()):
        _check_intrinsics(text, host())
    text = _CPU.sub('"any-cpu"', text)
    if inline:
        text = re.sub(r"\bnoinline\b", "nounwind", text)
    module = parse(text)
    optimise(module, level)
    return emit(module)


def _check_architecture(triple: str) -> None:
    made, here = triple.partition("-")[0], host().architecture
    if made and made not in ("unknown", here):
        raise WrongMachine(f"made for {made} ({triple}), this is {here}")


def _check_intrinsics(text: str, here: Target) -> None:
    for architecture, family in set(_INTRINSIC.findall(text)):
        wanted = _FEATURES_OF.get(architecture, {}).get(family)
        name = f"llvm.{architecture}.{family}"
        if here.architecture.replace("_64", "") != architecture:
            raise WrongMachine(f"calls {name}, this is {here.architecture}")
        if wanted is None:
            raise WrongMachine(f"calls {name}, of which it is not known what CPU has it")
        if missing := wanted - here.features:
            raise WrongMachine(f"calls {name}, this CPU lacks {', '.join(sorted(missing))}")
