"""Is in wheel and sdist what is to be there? `contents.py WHEEL SDIST CHECKOUT`; exits with 1 if not."""

from __future__ import annotations

import fnmatch
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

#: What a wheel has besides modules.
IN_WHEEL = {
    "numpush/py.typed",
    "numpush/ffi/_numpush.abi3.so",
    "numpush/ffi/_numpush.pyi",
    "numpush-*.dist-info/licenses/LICENSE",
    "numpush-*.dist-info/METADATA",
    "numpush-*.dist-info/RECORD",
    "numpush-*.dist-info/WHEEL",
    "numpush-*.dist-info/entry_points.txt",
    "numpush-*.dist-info/top_level.txt",
    "numpush-*.dist-info/sboms/*",  # auditwheel's, of what it put in
}
#: Files of the repository that nobody needs to build, test or use it.
NOT_IN_SDIST = {".ci/*", ".gitignore", ".github/*"}


def fits(name: str, patterns: set[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def wrong_in_wheel(wheel: Path, root: Path) -> list[str]:
    with zipfile.ZipFile(wheel) as file:
        names = {name for name in file.namelist() if not name.endswith("/")}
    modules = {str(p.relative_to(root)) for p in (root / "numpush").rglob("*.py")}
    modules |= {
        f"numpush/{p.relative_to(root)}" for d in ("shm", "ffi") for p in (root / d).rglob("*.py")
    }
    wrong = [f"not in the wheel: {name}" for name in sorted(modules - names)]
    wrong += [
        f"not in the wheel: {p}"
        for p in IN_WHEEL
        if "sboms" not in p and not fnmatch.filter(names, p)
    ]
    wrong += [f"in the wheel: {n}" for n in sorted(names - modules) if not fits(n, IN_WHEEL)]
    python, abi, platform = wheel.stem.split("-")[2:]
    if (python, abi) != ("cp311", "abi3") or not platform.startswith("manylinux"):
        wrong.append(f"the wheel is for {python}-{abi}-{platform}")
    return wrong


def wrong_in_sdist(sdist: Path, root: Path) -> list[str]:
    with tarfile.open(sdist) as file:
        names = {"/".join(m.name.split("/")[1:]) for m in file.getmembers() if m.isfile()}
    listed = subprocess.run(
        ["git", "-C", root, "ls-files", "--cached", "--others", "--exclude-standard"],
        capture_output=True,
        text=True,
        check=True,
    )
    ours = {name for name in listed.stdout.splitlines() if (root / name).exists()}
    generated = {"PKG-INFO", "setup.cfg", "numpush.egg-info/*"}
    wrong = [f"not in the sdist: {n}" for n in sorted(ours - names) if not fits(n, NOT_IN_SDIST)]
    return wrong + [f"in the sdist: {n}" for n in sorted(names - ours) if not fits(n, generated)]


def main() -> int:
    wheel, sdist, root = map(Path, sys.argv[1:])
    wrong = wrong_in_wheel(wheel, root) + wrong_in_sdist(sdist, root)
    print("\n".join(wrong) or "wheel and sdist have what they are to have, and nothing else")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
