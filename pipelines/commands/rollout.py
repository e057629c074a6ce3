"""`sluice rollout abort`: drop the challenger; the champion serves alone."""

import argparse

from sluice.components.stores import open_releases
from sluice.pipelines.compose import find_workspace


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", choices=["abort"], help="drop the challenger, whoever began its rollout")
    parser.add_argument("--reason", default="aborted by hand", help="recorded in the ledger")


def run(arguments: argparse.Namespace) -> int:
    releases = open_releases(find_workspace())
    challenger = releases.state().challenger
    champion = releases.drop(arguments.reason, version=challenger).champion
    print(f"dropped v{challenger}: {arguments.reason}; {f'v{champion} serves' if champion else 'nothing serves'}")
    return 0
