"""`sluice monitor`: compare live traffic with the reference once; may roll back."""

import argparse
import json

from sluice.components.artifact import read_metrics
from sluice.components.monitor import monitor
from sluice.pipelines.compose import find_workspace
from sluice.pipelines.options import add_json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    workspace = find_workspace()
    outcome = monitor(workspace)
    result = read_metrics(workspace, "monitor")
    if arguments.json:
        print(json.dumps(result, indent=2))
    else:
        print(f"{outcome}: {result['reason']}\nreport: {workspace.monitoring}")
    return 0 if outcome == "ok" else 1
