"""`sluice rollback`: restore an earlier champion."""

import argparse

from sluice.components.stores import open_releases, server_ready
from sluice.pipelines.compose import find_workspace
from sluice.serving.client import find_server


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--to", metavar="VERSION", help="earlier champion to restore (default: the previous one)")
    parser.add_argument("--reason", default="requested by hand", help="recorded in the ledger")


def run(arguments: argparse.Namespace) -> int:
    workspace = find_workspace()
    releases = open_releases(workspace)
    before = releases.state().champion
    target = arguments.to and arguments.to.removeprefix("v")
    after = releases.rollback(arguments.reason, version=before, to=target, ready=server_ready(workspace)).champion
    print(f"rolled back from v{before} to v{after}: {releases.newest(1)[0].reason}")
    server = find_server(workspace.state)
    if server is not None:
        server.wait_for_champion(str(after))
        print(f"the server at {server.url} answers with v{after}")
    return 0
