"""`sluice promote`: release the last run's candidate or a registered version as a run does, or by --force."""

import argparse
import sys

from sluice.components.artifact import read_metrics
from sluice.components.ray_head import prepare_own_ray
from sluice.components.register import register
from sluice.components.register_model import propose_version
from sluice.components.rollout import rollout
from sluice.components.stores import who
from sluice.core.files import lock_holder
from sluice.pipelines.compose import find_workspace
from sluice.pipelines.runner import only_run


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "version",
        nargs="?",
        metavar="VERSION",
        help="registered version, such as 3 or v3 (default: the last run's candidate)",
    )
    parser.add_argument(
        "--force", action="store_true", help="ignore a verdict that does not promote; recorded in the ledger"
    )
    parser.add_argument("--reason", default="", help="why; required with --force")


def run(arguments: argparse.Namespace) -> int:
    workspace = find_workspace()
    if arguments.force and not arguments.reason.strip():
        raise ValueError("--force needs --reason: say why, it goes into the ledger")
    forced = arguments.reason.strip() if arguments.force else None
    # Without a live server, the rollout starts one.
    prepare_own_ray()
    with only_run(workspace):
        # That of a pipeline in a cluster, which holds no lock of a run.
        if (holder := lock_holder(workspace.rollout_lock)) is not None:
            raise ValueError(
                f"the rollout of {holder} is going: wait for it, or drop its challenger by `sluice rollout abort`"
            )
        if arguments.version is not None:
            version = arguments.version.removeprefix("v")
            propose_version(workspace, version, forced, who())
        elif not (version := register(workspace, forced_reason=forced, actor=who())):
            refusal = read_metrics(workspace, "register")["reason"]
            way_out = "; past the gate only with --force --reason .." if refusal.startswith("verdict ") else ""
            print(f"not promoted: {refusal}{way_out}", file=sys.stderr)
            return 1
        outcome = rollout(workspace, version)
        print(f"v{version}: {outcome}: {read_metrics(workspace, 'rollout')['reason']}")
        return 0 if outcome == "promoted" else 1
