"""`sluice doctor`: checks this machine and says what to fix."""

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from sluice.components.workspace import Workspace
from sluice.pipelines.compose import compose
from sluice.pipelines.doctor import Finding, Health, examine, examine_machine
from sluice.pipelines.options import add_json, add_overrides

_MARKS = {"ok": "ok  ", "warn": "warn", "fail": "FAIL"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_json(parser)
    add_overrides(parser, "settings of the run to check for, as in `sluice run` (profile=tiny, data.sources=path)")


def run(arguments: argparse.Namespace) -> int:
    findings = _examine(arguments.overrides)
    if arguments.json:
        print(json.dumps([asdict(finding) for finding in findings], indent=2))
    else:
        for finding in findings:
            fix = f"; {finding.fix}" if finding.fix else ""
            print(f"{_MARKS[finding.health]}  {finding.name:<10} {finding.message}{fix}")
    return 1 if any(finding.health == Health.FAIL for finding in findings) else 0


def _examine(overrides: Sequence[str]) -> list[Finding]:
    """All findings; where workspace or settings are at fault, that one and those of the machine."""
    try:
        workspace = Workspace.find_or_default()
    except ValueError as fault:
        return [Finding("workspace", Health.FAIL, str(fault)), *examine_machine(Path.cwd())]
    try:
        params = compose(workspace, overrides)
    except ValueError as fault:
        return [Finding("settings", Health.FAIL, str(fault)), *examine_machine(Path.cwd())]
    return examine(workspace, params)
