"""`sluice rollout ..`: begin a rollout, watch it, and steer it; `replay` computes its recorded decisions again."""

import argparse
import json
import sys
import time
from collections.abc import Mapping
from typing import Any

from sluice.components.stores import open_releases, who
from sluice.pipelines.compose import find_workspace
from sluice.pipelines.options import add_json, with_debug
from sluice.serving.client import find_server


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")

    def add(name: str, text: str, reason: str = "") -> argparse.ArgumentParser:
        action = actions.add_parser(name, help=text, description=text, parents=[with_debug()])
        if reason:
            action.add_argument("--reason", default=reason, help="recorded in the ledger")
        return action

    start = add("start", "roll out a registered version step by step; goes on where a killed rollout of it was")
    start.add_argument("version", metavar="VERSION", help="such as 3 or v3")
    add_json(add("status", "show the step, the evidence and what is missing"))
    add("pause", "give the challenger no more traffic; it is still judged, and may be dropped", "paused by hand")
    add("resume", "let a paused rollout go on; differences shown so far are accepted", "resumed by hand")
    promote = add("promote", "make the challenger the champion now, marked for ever as promoted by hand")
    promote.add_argument("--reason", required=True, help="why; recorded in the ledger")
    add("abort", "drop the challenger, whoever began its rollout; the champion serves alone", "aborted by hand")
    add_json(add("replay", "compute every recorded decision again; exit status 1 if one differs"))


def run(arguments: argparse.Namespace) -> int:
    actions = {"start": _start, "status": _status, "replay": _replay}
    return actions.get(arguments.action, _steer)(arguments)


def _start(arguments: argparse.Namespace) -> int:
    from sluice.components.artifact import read_metrics
    from sluice.components.ray_head import prepare_own_ray
    from sluice.components.register_model import propose_version
    from sluice.components.rollout import rollout
    from sluice.pipelines.runner import only_run

    workspace, version = find_workspace(), arguments.version.removeprefix("v")
    prepare_own_ray()
    with only_run(workspace):
        propose_version(workspace, version, None, who())
        outcome = rollout(workspace, version)
    print(f"v{version}: {outcome}: {read_metrics(workspace, 'rollout')['reason']}")
    return 0 if outcome == "promoted" else 1


def _steer(arguments: argparse.Namespace) -> int:
    workspace = find_workspace()
    releases = open_releases(workspace)
    challenger = releases.state().challenger
    match arguments.action:
        case "pause":
            releases.pause(arguments.reason, version=challenger)
            print(f"paused the rollout of v{challenger}: {arguments.reason}")
        case "resume":
            releases.resume(arguments.reason, version=challenger)
            print(f"resumed the rollout of v{challenger}: {arguments.reason}")
        case "promote":
            releases.promote(arguments.reason, version=challenger, by_hand=True)
            print(f"promoted v{challenger} by hand: {arguments.reason}")
            if (server := find_server(workspace.state)) is not None:
                server.wait_for_champion(str(challenger))
                print(f"the server at {server.url} answers with v{challenger}")
        case "abort":
            champion = releases.drop(arguments.reason, version=challenger).champion
            serves = f"v{champion} serves" if champion else "nothing serves"
            print(f"dropped v{challenger}: {arguments.reason}; {serves}")
    return 0


def _status(arguments: argparse.Namespace) -> int:
    from sluice.components.params import load_block
    from sluice.serving.config import RegisterConfig
    from sluice.serving.lease import LeaseTable, has_ended_here

    workspace = find_workspace()
    state = open_releases(workspace).state()
    model = load_block(workspace, RegisterConfig).model_name
    lease = LeaseTable(workspace.database_url).read(model)
    if lease is not None and (lease.version != state.challenger or has_ended_here(lease)):
        # Its process ended before it could give the lease back.
        lease = None
    progress = dict(lease.progress) if lease else {}
    found = {
        "champion": state.champion,
        "challenger": state.challenger,
        "weight": state.challenger_weight,
        "paused": state.paused,
        "controller": lease.holder if lease else None,
        "progress": progress,
    }
    if arguments.json:
        print(json.dumps(found))
        return 0
    if state.challenger is None:
        print(f"no rollout: {f'v{state.champion} serves alone' if state.champion else 'nothing serves'}")
        return 0
    paused = ", paused" if state.paused else ""
    print(f"v{state.challenger} against v{state.champion or '-'}: {state.challenger_weight} % of the traffic{paused}")
    if lease is None:
        ways_out = f"`sluice rollout start {state.challenger}` goes on, `sluice rollout abort` ends it"
        print(f"no controller measures it: {ways_out}")
        return 0
    print(f"measured by {lease.holder}")
    for line in progress_lines(progress):
        print(line)
    return 0


def progress_lines(progress: Mapping[str, Any]) -> list[str]:
    """Return the newest decision of a rollout as lines: step, reason, and the checks with their evidence."""
    if not progress:
        return ["no decision yet: waiting for the challenger's first answer"]
    steps = [f"{'shadow' if step['shadow'] else str(step['weight']) + ' %'}" for step in progress["steps"]]
    steps[progress["step"]] = f"[{steps[progress['step']]}]"
    lines = [f"steps {' '.join(steps)}   {progress['replays']} replayed prompts, {progress['live']} live requests"]
    lines.append(progress["reason"])
    rows = [("check", "outcome", "value", "bound", "n", "e advance", "e drop", "threshold")]
    rows += [
        (
            check["metric"],
            check["outcome"],
            _short(check["value"]),
            _short(check["bound"]),
            str(check["n"]),
            _short(check["e_advance"]),
            _short(check["e_drop"]),
            _short(check["threshold"]),
        )
        for check in progress["checks"]
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return lines + ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]


def _short(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"


def _replay(arguments: argparse.Namespace) -> int:
    from sluice.serving.decision_record import code_version, difference

    entries = open_releases(find_workspace()).history()
    found, differing, by_other_code = [], 0, 0
    for entry in entries:
        record = entry.details.get("decision")
        if record is None:
            continue
        try:
            differs = difference(record)
        except (KeyError, TypeError, ValueError) as error:
            differs = f"cannot be computed: {error}"
        # Another rule may well decide otherwise; the same one never does.
        is_ours = record.get("code") == code_version()
        differing += bool(differs) and is_ours
        by_other_code += bool(differs) and not is_ours
        found.append(
            {
                "entry": entry.sequence,
                "version": entry.version,
                "action": record["action"],
                "code": record.get("code"),
                "difference": differs,
            }
        )
        if differs and not arguments.json:
            moment = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(entry.time))
            code = "" if is_ours else f", decided by code {record.get('code')}"
            print(f"entry {entry.sequence} of {moment}, v{entry.version}{code}: {differs}", file=sys.stderr)
    if arguments.json:
        print(json.dumps({"decisions": found, "differing": differing, "differing_by_other_code": by_other_code}))
    else:
        others = f"; {by_other_code} of another version of the code differ" if by_other_code else ""
        print(f"{len(found)} decisions computed again, {differing} differ{others}")
    return 1 if differing else 0
