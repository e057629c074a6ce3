"""`sluice profile`: where a training step's time goes: a trace, and the largest operators."""

import argparse
import json
from dataclasses import asdict
from pathlib import Path

from sluice.components.workspace import Workspace
from sluice.pipelines.options import add_trial_options
from sluice.pipelines.train_request import open_tokens, read_trial


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--steps", type=int, default=5, metavar="N", help="steps profiled (default: 5)")
    add_trial_options(parser)


def run(arguments: argparse.Namespace) -> int:
    if arguments.steps < 1:
        raise ValueError(f"--steps {arguments.steps} must be at least 1")
    workspace, out = Workspace.find_or_default(), Path(arguments.out)
    request = read_trial(workspace, arguments.overrides)
    packed = open_tokens(workspace, request, out)
    from sluice.model.training.telemetry.profiling import TRACE, profile_steps

    found = profile_steps(request.pretrain, request.model, packed, out, steps=arguments.steps)
    if arguments.json:
        print(json.dumps({**asdict(found), "trace": str(out / TRACE)}))
        return 0
    print(f"{found.step_ms:.1f} ms a step of one worker, over {found.steps} steps")
    for name, phase_ms in found.phases_ms.items():
        print(f"  {name:<22} {phase_ms:>9.1f} ms {phase_ms / found.step_ms:>6.1%}")
    print("operator                                      calls   own ms  share")
    for each in found.operators:
        print(f"{each.name[:42]:<42} {each.calls:>8,} {each.self_ms:>8.1f} {each.share:>6.1%}")
    print(f"trace in {out / TRACE}: open it in a browser's tracing page, or in Perfetto")
    return 0
