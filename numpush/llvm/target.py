"""This machine as LLVM sees it, and whether code that was made on one runs on another.

(1) The name of a CPU says little (virtual machines lie about it): what counts is its list of features.
(2) LLVM's names for them differ from one version to the next, the kernel's do not; either list settles it.
"""

from __future__ import annotations

import functools
import platform
from pathlib import Path
from typing import Any, NamedTuple

import llvmlite.binding as ll

__all__ = ["Target", "host", "machine"]

#: Listed by some versions of LLVM only; every x86-64 has the first two, and no compiler uses the third.
_IGNORED = frozenset({"x87", "64bit", "pku"})


class Target(NamedTuple):
    """A machine that code was made for."""

    triple: str
    features: frozenset[str]  #: as LLVM calls them
    flags: frozenset[str]  #: as /proc/cpuinfo does
    llvm: str  #: version of the LLVM that made it

    @property
    def architecture(self) -> str:
        return self.triple.partition("-")[0]

    def fits(self, other: Target) -> bool:
        """Whether object code made for this machine runs on *other*, whatever LLVM that has."""
        return self.triple == other.triple and (
            self.features - _IGNORED <= other.features or self.flags <= other.flags
        )


@functools.cache
def host() -> Target:
    """Return this machine."""
    _initialize()
    return Target(
        ll.get_process_triple(),
        frozenset(name for name, has in ll.get_host_cpu_features().items() if has),
        _cpu_flags(Path("/proc/cpuinfo")),
        ".".join(map(str, ll.llvm_version_info)),
    )


@functools.cache
def machine() -> Any:
    """Return what emits code for this CPU: position-independent, so that any linker takes it."""
    _initialize()
    return ll.Target.from_triple(ll.get_process_triple()).create_target_machine(
        cpu=ll.get_host_cpu_name(),
        features=ll.get_host_cpu_features().flatten(),
        opt=3,
        reloc="pic",
        codemodel="small",
    )


@functools.cache
def _initialize() -> None:
    if ll.llvm_version_info[0] < 20:  # later ones have done it, and refuse
        ll.initialize()
    ll.initialize_native_target()
    ll.initialize_native_asmprinter()


def _cpu_flags(cpuinfo: Path) -> frozenset[str]:
    """Return the features of the first CPU; where the kernel lists none, one that nobody else has."""
    with cpuinfo.open() as lines:  # which the kernel makes one CPU after the other
        for line in lines:
            name, _, value = line.partition(":")
            if name.strip() in ("flags", "Features"):
                return frozenset(value.split())
    return frozenset({f"unknown-{platform.node()}"})
