"""`sluice history`: every release decision, and whether the ledger's hash chain is intact."""

import argparse
import json
import time
from dataclasses import asdict

from sluice.components.stores import open_ledger, open_releases
from sluice.pipelines.compose import find_workspace
from sluice.pipelines.options import add_json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--verify", action="store_true", help="also compare the end of the chain with the one noted in the registry"
    )
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    workspace = find_workspace()
    ledger = open_ledger(workspace)
    entries, check = ledger.history(), open_releases(workspace).verify() if arguments.verify else ledger.verify()
    if arguments.json:
        print(json.dumps({"ok": check.ok, "entries": [asdict(entry) for entry in entries]}, indent=2))
        return 0 if check.ok else 1
    for entry in entries:
        moment = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(entry.time))
        forced = "forced: " if entry.details.get("forced") else ""
        print(f"{entry.sequence:>4}  {moment}  {entry.action:<10} v{entry.version or '-':<4} {forced}{entry.reason}")
    end = "" if arguments.verify else "; --verify compares its end with the registry"
    verdict = f"whole{end}" if check.ok else f"BROKEN at entry {check.broken_at}: {check.reason}"
    print(f"{len(entries)} entries; hash chain {verdict}")
    return 0 if check.ok else 1
