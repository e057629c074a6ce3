"""`sluice incident add`: turn an incident into an item of a suite."""

import argparse
import json
from datetime import date
from pathlib import Path

from sluice.pipelines.options import add_json, with_debug

DEFAULT_SUITE = Path("suites") / "incidents.yaml"
"""Below conf/ of the workspace."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    text = "append an incident to a suite, with personal data masked; the suite is made if it is not there"
    action = actions.add_parser("add", help=text, description=text, parents=[with_debug()])
    action.add_argument("--prompt", required=True, metavar="TEXT", help="what the model was asked")
    wanted = action.add_mutually_exclusive_group(required=True)
    wanted.add_argument("--expected", metavar="TEXT", help="words that a right answer has")
    wanted.add_argument("--forbidden", metavar="TEXT", help="words that no answer may have")
    action.add_argument("--reason", required=True, metavar="TEXT", help="why the answer was wrong")
    action.add_argument("--severity", choices=["low", "medium", "high"], default="medium", help="default: medium")
    action.add_argument("--suite", metavar="FILE", help=f"the suite's YAML file (default: conf/{DEFAULT_SUITE})")
    add_json(action)


def run(arguments: argparse.Namespace) -> int:
    from sluice.components.workspace import Workspace
    from sluice.model.evaluation.incidents import Incident, add_incident
    from sluice.model.evaluation.suites.suite import load_suite

    try:
        path = Path(arguments.suite) if arguments.suite else Workspace.find().conf / DEFAULT_SUITE
    except ValueError as error:
        raise ValueError(f"{error}; or name the suite by --suite FILE, which needs no workspace") from None
    incident = Incident(arguments.prompt, arguments.reason, arguments.expected, arguments.forbidden, arguments.severity)
    name = add_incident(path, incident, date.today())
    suite = load_suite(path)
    if arguments.json:
        print(json.dumps({"id": name, "suite": str(path), "incidents": len(suite.samples)}))
        return 0
    print(f"{name} added to {path}, which has {len(suite.samples)} incidents")
    print(
        f"a policy that lists `{suite.settings.name}: {{kind: golden, floor: 1}}` below `suites` holds what repeats one"
    )
    return 0
