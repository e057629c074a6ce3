"""`sluice history`: every release decision, and whether the ledger's hash chain is intact."""

import argparse
import json
import time
from dataclasses import asdict

from sluice.components.stores import open_ledger
from sluice.pipelines.compose import find_workspace
from sluice.pipelines.options import add_json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    ledger = open_ledger(find_workspace())
    entries, check = ledger.history(), ledger.verify()
    if arguments.json:
        print(json.dumps({"ok": check.ok, "entries": [asdict(entry) for entry in entries]}, indent=2))
        return 0 if check.ok else 1
    for entry in entries:
        moment = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(entry.time))
        forced = "forced: " if entry.details.get("forced") else ""
        print(f"{entry.sequence:>4}  {moment}  {entry.action:<10} v{entry.version or '-':<4} {forced}{entry.reason}")
    print(f"{len(entries)} entries; hash chain {'whole' if check.ok else f'BROKEN at entry {check.broken_at}'}")
    return 0 if check.ok else 1
