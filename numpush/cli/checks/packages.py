"""Checks of Python, what numpush needs of its packages, and its extras."""

from __future__ import annotations

import platform
import re
from importlib import metadata

from .finding import Finding

__all__ = ["check_extras", "check_start_method", "check_versions"]


def check_start_method() -> Finding:
    """How multiprocessing starts processes here; numpush works with all three."""
    import multiprocessing

    method = multiprocessing.get_start_method(allow_none=True)
    if method is None:  # nobody has chosen: the default, without choosing it
        method = multiprocessing.get_all_start_methods()[0]
    return Finding("ok", f"{method}; each works")


def check_versions() -> Finding:
    """Python and what numpush needs, against what its metadata asks for."""
    found = [f"Python {platform.python_version()}"]
    remedies = []
    for line in metadata.requires("numpush") or []:
        match = re.match(r"([\w.-]+)\s*>=\s*([\d.]+)\s*(;.*extra.*)?$", line)
        if match is None:
            continue
        name, wanted, is_extra = match.groups()
        version = _version(name)
        if is_extra:
            continue
        found.append(f"{name} {version or 'missing'}")
        if version is None or _numbers(version) < _numbers(wanted):
            remedies.append(f"pip install '{name}>={wanted}'")
    return Finding("fail" if remedies else "ok", ", ".join(found), " && ".join(remedies))


def check_extras() -> Finding:
    """The extras of `numpush[all]`: what each needs, and which version of it is here."""
    found, missing, old = [], [], []
    for extra, packages in _extras().items():
        texts = []
        for name, wanted in packages.items():
            version = _version(name)
            texts.append(f"{name} {version or '-'}")
            if version is None and extra not in missing:
                missing.append(extra)
            elif version is not None and _numbers(version) < _numbers(wanted):
                texts[-1] += f" (older than {wanted})"
                old.append(extra)
        found.append(f"{extra}: {', '.join(texts)}")
    if not found:
        return Finding("note", "numpush was installed without its metadata", "pip install numpush")
    if old:
        return Finding("warn", "; ".join(found), f'pip install -U "numpush[{",".join(old)}]"')
    if missing:
        return Finding("note", "; ".join(found), f'pip install "numpush[{",".join(missing)}]"')
    return Finding("ok", "; ".join(found))


def _extras() -> dict[str, dict[str, str]]:
    """Return what each extra of `all` needs: package -> oldest version."""
    wanted: list[str] = []
    needs: dict[str, dict[str, str]] = {}
    for line in metadata.requires("numpush") or []:
        if "platform_machine" in line and f'"{platform.machine()}"' not in line:
            continue  # no wheels of it for this machine
        match = re.match(r"([\w.-]+)(?:\[([\w,-]+)\])?(?:>=([\d.]+))?.*extra == .([\w-]+)", line)
        if match and match[4] == "all":
            wanted += (match[2] or "").split(",")
        elif match:
            needs.setdefault(match[4], {})[match[1]] = match[3] or "0"
    return {extra: needs[extra] for extra in sorted(wanted) if extra in needs}


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _numbers(version: str) -> list[int]:
    return [int(n) for n in re.findall(r"\d+", version)[:3]]
