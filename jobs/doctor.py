"""Check what a run would use, and say what to do: ``vsdmot doctor /data/cams /data/tracks``.

Exit codes: 0 no problem; 1 a problem; 2 a bad setting; 4 stopped by Ctrl-C.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from rich.text import Text

from jobs.cli import (
    EXIT_BAD_CONFIG,
    EXIT_DONE,
    EXIT_FAILED,
    EXIT_STOPPED,
    console,
    fail,
    load_config,
)
from pipeline.doctor.config import DoctorConfig

if TYPE_CHECKING:
    from pipeline.doctor.finding import Finding

_MARKS = {"ok": ("ok", "green"), "warning": ("warning", "yellow"), "problem": ("PROBLEM", "red")}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the job; returns the exit code."""
    config = load_config(DoctorConfig, argv)
    from pipeline.doctor.running import CHECKS, run_checks

    if unknown := [name for name in config.only if name not in CHECKS]:
        fail(
            f"doctor: only: no check {', '.join(unknown)}; there are {', '.join(CHECKS)}",
            EXIT_BAD_CONFIG,
        )
    checks = {name: CHECKS[name] for name in config.only or CHECKS}
    findings = []
    try:
        for finding in run_checks(config, checks):
            findings.append(finding)
            if not config.json:
                _print(finding)
    except KeyboardInterrupt:
        fail("stopped before all checks were made", EXIT_STOPPED)
    problems = sum(finding.state == "problem" for finding in findings)
    warnings = sum(finding.state == "warning" for finding in findings)
    if config.json:
        print(json.dumps([asdict(finding) for finding in findings], indent=2))
    else:
        console.print(f"{problems} problems, {warnings} warnings, {len(findings)} lines")
    return EXIT_FAILED if problems else EXIT_DONE


def _print(finding: Finding) -> None:
    mark, colour = _MARKS[finding.state]
    line = Text.assemble((f"{mark:<8}", colour), f"{finding.name:<17} ", finding.found)
    console.print(line, soft_wrap=True)
    if finding.remedy:
        console.print(Text(f"{'':<8}{'':<17} → {finding.remedy}"), soft_wrap=True)


if __name__ == "__main__":
    sys.exit(main())
