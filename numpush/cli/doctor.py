"""`numpush doctor`: is this machine fit for numpush, and what to type where it is not.

    ok    as it should be                warn  works, but slower, or something is to be expected
    note  an optional part is not here   fail  numpush cannot do its work

The last it says is what to type against each `warn` and `fail`, or that there is nothing to do. What is
asked is in checks/.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable

from ..shm import naming
from .checks import CHECKS, Finding
from .remedies import as_root

__all__ = ["CHECKS", "Finding", "run"]


def _run(check: Callable[[], Finding]) -> Finding:
    try:
        return check()
    except OSError as error:
        remedy = as_root(f"mount -o remount,rw,mode=1777 {naming.DIR}")
        return Finding("fail", f"{type(error).__name__}: {error}", remedy)


def run(*, as_json: bool) -> int:
    """Run all checks; 0 when none failed, else 1."""
    findings = {name: _run(check) for name, check in CHECKS.items()}
    code = int(any(finding.status == "fail" for finding in findings.values()))
    if as_json:
        checks = [{"check": name, **found._asdict()} for name, found in findings.items()]
        document = {"ok": not code, "time": time.time(), "checks": checks}
        print(json.dumps(document, indent=2))
    else:
        _print(findings, code)
    return code


_STYLES = {"ok": "green", "note": "cyan", "warn": "yellow", "fail": "bold red"}


def _print(findings: dict[str, Finding], code: int) -> None:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from .segments import make_console

    console = make_console()
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1, 0, 0))
    for title in ("", "check", "found"):
        table.add_column(title, overflow="fold", no_wrap=title != "found")
    for name, finding in findings.items():
        table.add_row(Text(finding.status, _STYLES[finding.status]), name, Text(finding.found))
    console.print(table)
    notes = {name: finding for name, finding in findings.items() if finding.status == "note"}
    todo = {name: found for name, found in findings.items() if found.status in ("warn", "fail")}
    because = " (numpush cannot work here until what failed is put right)" if code else ""
    for title, some in (("If you want it:", notes), (f"What to type{because}:", todo)):
        if any(finding.remedy for finding in some.values()):
            console.print(f"\n{title}")
        for name, finding in some.items():
            if finding.remedy:
                lines = [f"# {name} ({finding.status})", *finding.remedy.splitlines()]
                # As long as they are: they are to be copied.
                console.print(Text("\n".join(f"  {line}" for line in lines)), soft_wrap=True)
    if not todo:
        console.print("\nNothing to do.")
