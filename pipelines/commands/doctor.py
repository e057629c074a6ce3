"""`sluice doctor`: checks this machine and says what to fix."""

import argparse
import json
from dataclasses import asdict

from sluice.components.workspace import Workspace
from sluice.pipelines.compose import compose
from sluice.pipelines.doctor import Health, examine
from sluice.pipelines.options import add_json

_MARKS = {"ok": "ok  ", "warn": "warn", "fail": "FAIL"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    workspace = Workspace.find_or_default()
    findings = examine(workspace, compose(workspace, []))
    if arguments.json:
        print(json.dumps([asdict(finding) for finding in findings], indent=2))
    else:
        for finding in findings:
            fix = f"; {finding.fix}" if finding.fix else ""
            print(f"{_MARKS[finding.health]}  {finding.name:<10} {finding.message}{fix}")
    return 1 if any(finding.health == Health.FAIL for finding in findings) else 0
