"""`sluice gc`: remove old caches, runs and versions that nothing needs."""

import argparse
import json
from contextlib import nullcontext
from itertools import groupby

from sluice.components.params import load_block
from sluice.core.files import remove
from sluice.data.card.numbers import size
from sluice.monitoring.config import MonitorConfig
from sluice.pipelines.compose import find_workspace
from sluice.pipelines.disk_usage import find_garbage
from sluice.pipelines.garbage import DEFAULT_LIMITS, GcLimits, count_reasons, freed_bytes
from sluice.pipelines.options import add_json
from sluice.pipelines.runner import is_going, only_run


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--dry-run", action="store_true", help="show what would be removed and what stays, and why")
    parser.add_argument(
        "--older-than",
        type=_number,
        default=DEFAULT_LIMITS.max_age_days,
        metavar="DAYS",
        help=f"remove what is older and nothing needs (default: {DEFAULT_LIMITS.max_age_days:g})",
    )
    parser.add_argument(
        "--max-size",
        type=_number,
        default=DEFAULT_LIMITS.max_bytes / 1e9,
        metavar="GB",
        help=f"of the rest, remove the oldest beyond this (default: {DEFAULT_LIMITS.max_bytes / 1e9:g})",
    )
    parser.add_argument(
        "--rollback-targets",
        type=_count,
        default=DEFAULT_LIMITS.rollback_targets,
        metavar="N",
        help=f"keep the last N former champions (default: {DEFAULT_LIMITS.rollback_targets}); earlier ones go by age "
        "and size, and no rollback reaches them then",
    )
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    workspace = find_workspace()
    limits = GcLimits(arguments.older_than, arguments.max_size * 1e9, arguments.rollback_targets)
    # While a run is going, everything may be in use.
    with nullcontext() if arguments.dry_run else only_run(workspace):
        decisions = find_garbage(workspace, load_block(workspace, MonitorConfig), limits)
        chosen = [path for decision in decisions if decision.remove for path in decision.item.paths]
        for path in () if arguments.dry_run else chosen:
            remove(path)
            if path.exists():
                raise ValueError(f"{path} cannot be removed: make it writable for this user, and run `sluice gc` again")
    if arguments.json:
        listed = [
            {
                "kind": decision.item.kind,
                "paths": [str(path.relative_to(workspace.root)) for path in decision.item.paths],
                "bytes": decision.item.size_bytes,
                "remove": decision.remove,
                "reason": decision.reason,
            }
            for decision in decisions
        ]
        print(json.dumps(listed, indent=2))
    else:
        # A line for each kind of what goes, and of what stays.
        for remove_them, verb in ((True, "free"), (False, "keep")):
            those = [decision for decision in decisions if decision.remove == remove_them]
            those.sort(key=lambda decision: decision.item.kind)
            for kind, group in groupby(those, key=lambda decision: decision.item.kind):
                found = list(group)
                held = size(sum(decision.item.size_bytes for decision in found))
                print(f"{verb}  {kind:<18} {held:>9}   {count_reasons(found)}")
        freed = "would free" if arguments.dry_run else "freed"
        print(f"{freed} {size(freed_bytes(decisions))} of {size(sum(each.item.size_bytes for each in decisions))}")
        if arguments.dry_run and is_going(workspace):
            print("a run is going: `sluice gc` removes nothing before it has ended")
    return 0


def _count(text: str) -> int:
    if (value := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"{text} must be at least 1: without any, there is no way back")
    return value


def _number(text: str) -> float:
    value = float(text)
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} must be a number from 0")
    return value
