"""`sluice suite sample`: draw prompts of real traffic into a suite."""

import argparse
import json
from dataclasses import asdict
from datetime import date
from pathlib import Path

from sluice.pipelines.options import add_json, with_debug

DEFAULT_SUITE = Path("suites") / "traffic.yaml"
"""Below conf/ of the workspace."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    text = "draw prompts of live traffic into a suite, masked, each once; for people or a judge to rate"
    action = actions.add_parser("sample", help=text, description=text, parents=[with_debug()])
    action.add_argument("--traffic", required=True, metavar="DIR", help="a folder of traffic records: .sluice/traffic")
    action.add_argument("--out", metavar="FILE", help=f"the suite's YAML file (default: conf/{DEFAULT_SUITE})")
    action.add_argument("--samples", type=int, default=100, metavar="N", help="most prompts (default: 100)")
    action.add_argument("--seed", type=int, default=1234, metavar="N", help="another seed draws others (default: 1234)")
    add_json(action)


def run(arguments: argparse.Namespace) -> int:
    from sluice.components.workspace import Workspace
    from sluice.monitoring.traffic_suite import sample_traffic

    if arguments.samples < 1:
        raise ValueError(f"--samples {arguments.samples}: draw at least one")
    if not Path(arguments.traffic).is_dir():
        raise ValueError(
            f"--traffic {arguments.traffic} is no folder: a server's traffic lies in .sluice/traffic of its workspace"
        )
    out = Path(arguments.out) if arguments.out else Workspace.find().conf / DEFAULT_SUITE
    drawn = sample_traffic(
        Path(arguments.traffic), out, most=arguments.samples, seed=arguments.seed, today=date.today()
    )
    if arguments.json:
        print(json.dumps({**asdict(drawn), "suite": str(out)}))
        return 0
    print(f"{drawn.samples} of {drawn.distinct} distinct prompts, from {drawn.records} records, in {out}")
    for name in drawn.unreadable:
        print(f"{name} could not be read, and is left out")
    return 0
