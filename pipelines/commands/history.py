"""`sluice history`: every release decision and who made it, a check of the ledger's hash chain, and its repair."""

import argparse
import json
import time
from dataclasses import asdict

from sluice.components.stores import open_releases
from sluice.pipelines.compose import find_workspace
from sluice.pipelines.options import add_json
from sluice.pipelines.terminal import one_line


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--verify", action="store_true", help="only verify the chain, list no entries")
    parser.add_argument(
        "--repair",
        type=int,
        metavar="N",
        help="of a broken chain, keep entries 1 to N as they are listed, set the rest aside in a file and go on",
    )
    parser.add_argument("--reason", default="", help="why; required with --repair, recorded in the ledger")
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    workspace = find_workspace()
    if arguments.repair is not None:
        release = open_releases(workspace).repair(arguments.repair, arguments.reason)
        print(f"kept entries 1 to {arguments.repair}; champion {f'v{release.champion}' if release.champion else '-'}")
        return 0
    releases = open_releases(workspace)
    entries, check = [] if arguments.verify else releases.history(), releases.verify()
    if arguments.json:
        listed = {} if arguments.verify else {"entries": [asdict(entry) for entry in entries]}
        found = {"ok": check.ok, "broken_at": check.broken_at, "message": check.message, **listed}
        print(json.dumps(found, indent=2, default=str))
        return 0 if check.ok else 1
    width = max((len(one_line(str(entry.actor))) for entry in entries), default=0)
    for entry in entries:
        try:
            moment = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(entry.time))
        except (TypeError, ValueError, OverflowError, OSError):
            # A forged row may hold anything.
            moment = "?" * 19
        marks = {"forced": "forced: ", "by_hand": "by hand: "}
        mark = "".join(text for name, text in marks.items() if entry.details.get(name))
        broken = "BROKEN  " if entry.sequence == check.broken_at else ""
        print(
            f"{entry.sequence:>4}  {moment}  {one_line(str(entry.actor)):<{width}}  {entry.action:<10} "
            f"v{entry.version or '-':<4} {broken}{mark}{one_line(str(entry.reason))}"
        )
    print(f"{check.entries} entries; hash chain {'whole' if check.ok else check.message}")
    return 0 if check.ok else 1
