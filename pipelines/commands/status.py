"""`sluice status`: the state of the last run and of what is served."""

import argparse
import json

from sluice.pipelines.compose import find_workspace
from sluice.pipelines.options import add_json
from sluice.pipelines.status import status
from sluice.pipelines.summary import print_steps
from sluice.pipelines.terminal import one_line


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    found = status(find_workspace())
    if arguments.json:
        print(json.dumps(found))
        return 0
    print_steps(found["steps"], found["metrics"])
    print(f"run {found['run'] or '-'}   {found['state']}{': ' + found['message'] if found['message'] else ''}")
    champion, challenger = _version(found["champion"]), _version(found["challenger"])
    if found["challenger"]:
        challenger += f" at {found['challenger_weight']} %{', paused' if found['paused'] else ''}"
    print(f"verdict {found['verdict'] or '-'}   champion {champion}   challenger {challenger}")
    if found["champion_forced"]:
        print(f"champion {champion} {one_line(found['champion_forced'])}")
    if found["challenger_forced"]:
        print(f"challenger {_version(found['challenger'])} forced: {one_line(found['challenger_forced'])}")
    print(f"ledger {'whole' if found['ledger_ok'] else found['ledger']}")
    return 0


def _version(version: str | None) -> str:
    return f"v{version}" if version else "-"
